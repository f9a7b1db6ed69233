"""What is recorded: one table for all versions of the reference, and the volumes they read."""
import numpy as np

import seeded
from files import Folder

# Networks, held against the reference in logits and gradients.
PUBLISHED_POOLS = [[2, 2, 2]] * 4 + [[1, 1, 2]]
FLAT_POOLS = [[1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1]]
NETWORKS = {
    "depth1_1ch": dict(
        input_channels=1, num_classes=3, dims=[2, 4, 6, 8, 10, 12], depth=[1] * 6,
        pool_op_kernel_sizes=PUBLISHED_POOLS, input_shape=[1, 1, 32, 32, 32],
        seed_weights=201, seed_input=202, seed_label=203, seed_linear=204, input_scale=1.7),
    "depth2_2ch_flat": dict(
        input_channels=2, num_classes=4, dims=[3, 4, 5, 6, 7, 8], depth=[2, 1, 2, 1, 1, 2],
        pool_op_kernel_sizes=FLAT_POOLS, input_shape=[2, 2, 8, 16, 32],
        seed_weights=211, seed_input=212, seed_label=213, seed_linear=214, input_scale=1.7),
}

# Twenty updates.
TRAJECTORY = dict(
    dims=[2, 3, 4, 5, 6, 8], depth=[1] * 6, batch_shape=[2, 1, 16, 16, 32], num_classes=4,
    pools=[[2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1]], seed_weights=221)

# Losses: logits are twice the seeded values.
LOSS_SHAPE, LOSS_CLASSES = [2, 6, 10, 8], 5
DEEP_LOSS = dict(shape=[1, 8, 16, 32], classes=4, pools=FLAT_POOLS, seed=231, seed_label=232, scale=2.0)

# Preprocessing. Spacings as read from a file are single precision. `raw`: recorded before normalisation
# too; for large values the last place of f32 is coarser than the tests' bound.
INTENSITIES = {
    "0": dict(mean=33.5, sd=310.25, percentile_00_5=-950.0, percentile_99_5=900.0),
    "1": dict(mean=1030.0, sd=150.0, percentile_00_5=0.0, percentile_99_5=1500.0),
}
PREPROCESSING = {
    "ct_zscore": dict(
        images=["ct_0000.nii.gz"], seg="ct_seg.nii.gz", norm=["nonCT"], use_mask=[False],
        target_spacing_transposed=[1.5, 1.5, 1.5], transpose_forward=[0, 1, 2]),
    "ct_flat_separate_z": dict(
        images=["flat_0000.nii.gz"], seg="flat_seg.nii.gz", norm=["CT"], use_mask=[False], raw=True,
        target_spacing_transposed=[3.0, 1.75, 1.75], transpose_forward=[0, 1, 2]),
    "ct_transposed": dict(
        images=["ct_0000.nii.gz"], seg="ct_seg.nii.gz", norm=["nonCT"], use_mask=[False],
        target_spacing_transposed=[2.5, 3.5, 3.0], transpose_forward=[2, 0, 1]),
    "mr_masked": dict(
        images=["mr_0000.nii.gz", "mr_0001.nii.gz"], seg=None, norm=["nonCT", "CT"],
        use_mask=[True, True], target_spacing_transposed=[2.0, 2.0, 2.0], transpose_forward=[0, 1, 2]),
}
SCHEMES_OF_V2 = {"nonCT": "ZScoreNormalization", "CT": "CTNormalization"}

# Sliding window: a network of windows smaller than the volume.
WINDOW = dict(
    dims=[2, 4, 6, 8, 10, 12], num_classes=3, seed=241, seg_gain=1.0, patch=[16, 16, 32],
    pools=[[2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1]], shape=[1, 19, 17, 38])
IMPORTANCE_SIZES = [[15, 21, 16], [16, 16, 32]]

# From file to labelmap.
EXPORT = dict(dims=[2, 4, 6, 8, 10, 12], num_classes=6, image="torso_0000.nii.gz")
EXPORT_SEEDS = {"1.7.1": (251, 4.0), "2.2": (259, 0.5), "2.8.1": (259, 0.5)}
EXPORT_PATCH = [32, 48, 64]
EXPORT_POOLS = [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]]
NUM_SAMPLES = 600


def volumes(root):
    """Writes the volumes that preprocessing and export read."""
    folder = Folder(root, "D_preproc/volumes")
    ct, labels = seeded.torso(261, (11, 17, 19))
    for name, voxels in [("ct_0000", ct), ("ct_seg", labels)]:
        seeded.write_nifti(folder(name + ".nii.gz"), voxels, (3.0, 3.0, 3.0))
    flat, labels = seeded.torso(262, (7, 23, 27))
    for name, voxels in [("flat_0000", flat), ("flat_seg", labels)]:
        seeded.write_nifti(folder(name + ".nii.gz"), voxels, (6.0, 1.25, 1.25))
    for channel in range(2):
        # Zero around a smaller body: cropped, and masked by what is not zero.
        mr = np.zeros((13, 21, 22), dtype=np.int16)
        mr[2:, 3:19, 1:20] = seeded.torso(263 + channel, (11, 16, 19), outside=0)[0]
        seeded.write_nifti(folder("mr_000%d.nii.gz" % channel), mr, (2.5, 2.25, 2.75))
    torso, _ = seeded.torso(265, (20, 34, 80))
    seeded.write_nifti(Folder(root, "F_export")(EXPORT["image"]), torso, (3.0, 2.5, 2.75))
