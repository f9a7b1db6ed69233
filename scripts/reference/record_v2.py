"""What nnU-Net 2.2 and 2.8.1 do, recorded: preprocessing, windows, export, loss."""
import contextlib
import io

import numpy as np
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

import cases
import network
import seeded
from files import Folder

CONFIGURATION = "3d_fullres"


def plans_of(spacing, patch, transpose, schemes, masks, pools):
    """Plans as nnU-Net 2.2 writes them, which 2.8.1 reads too."""
    resampling = lambda is_seg, order: {
        "is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
    resample = "resample_data_or_seg_to_shape"
    names = {"mean": "mean", "sd": "std", "percentile_00_5": "percentile_00_5",
             "percentile_99_5": "percentile_99_5"}
    intensities = {channel: {names[key]: value for key, value in values.items()}
                   for channel, values in cases.INTENSITIES.items()}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2, "patch_size": patch, "median_image_size_in_voxels": [64.0, 64.0, 64.0],
        "spacing": spacing, "normalization_schemes": schemes, "use_mask_for_norm": masks,
        "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 32,
        "n_conv_per_stage_encoder": [2] * 6, "n_conv_per_stage_decoder": [2] * 5,
        "num_pool_per_axis": [sum(p[axis] == 2 for p in pools) for axis in range(3)],
        "pool_op_kernel_sizes": [[1, 1, 1]] + pools, "conv_kernel_sizes": [[3, 3, 3]] * 6,
        "unet_max_num_features": 320,
        "resampling_fn_data": resample, "resampling_fn_data_kwargs": resampling(False, 3),
        "resampling_fn_seg": resample, "resampling_fn_seg_kwargs": resampling(True, 1),
        "resampling_fn_probabilities": resample,
        "resampling_fn_probabilities_kwargs": resampling(False, 1), "batch_dice": False}
    return {
        "dataset_name": "Dataset901_Torso", "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": [64, 64, 64], "image_reader_writer": "SimpleITKIO",
        "transpose_forward": transpose,
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": intensities}


def dataset_of(channels, classes):
    labels = {"background": 0}
    labels.update({"organ_%d" % label: label for label in range(1, classes)})
    return {"channel_names": {str(c): "nonCT" for c in range(channels)}, "labels": labels,
            "numTraining": 1, "file_ending": ".nii.gz"}


def preprocessed(plans, dataset, images, seg):
    """What the network sees, its labels, and the properties of the case."""
    manager = PlansManager(plans)
    reader = manager.image_reader_writer_class()
    data, properties = reader.read_images(images)
    labels = reader.read_seg(seg)[0] if seg else None
    found = DefaultPreprocessor(verbose=False).run_case_npy(
        data, labels, properties, manager, manager.get_configuration(CONFIGURATION), dataset)
    return found[0], found[1], properties  # 2.2 returns two, 2.8.1 three


def record_preprocessing(root, version):
    folder, described = Folder(root, "D_preproc"), {}
    for name, case in cases.PREPROCESSING.items():
        schemes = [cases.SCHEMES_OF_V2[scheme] for scheme in case["norm"]]
        plans = plans_of(case["target_spacing_transposed"], [32, 32, 32], case["transpose_forward"],
                         schemes, case["use_mask"], cases.EXPORT_POOLS)
        images = [folder("volumes/" + image) for image in case["images"]]
        data, labels, properties = preprocessed(
            plans, dataset_of(len(images), 6), images, case["seg"] and folder("volumes/" + case["seg"]))
        folder.arrays("v2_%s_%s.npz" % (version, name), {
            "final": data, "final_seg": labels.astype(np.int16),
            "bbox": properties["bbox_used_for_cropping"]})
        described[name] = dict(norm=schemes, shape=data.shape)
    folder.json("v2_%s_cases.json" % version, described)


class Predictor(nnUNetPredictor):
    """nnU-Net's predictor with a network of ours."""

    def __init__(self, net, plans, dataset, mirrored):
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(device=torch.device("cpu"), use_mirroring=mirrored, allow_tqdm=False)
        manager = PlansManager(plans)
        self.manual_initialization(
            net, manager, manager.get_configuration(CONFIGURATION), [net.state_dict()], dataset,
            "STUNetTrainer", (0, 1, 2))

    def logits(self, image):
        return self.predict_logits_from_preprocessed_data(torch.from_numpy(image))


def record_windows(root, version):
    folder, case, maps = Folder(root, "E_sliding"), cases.WINDOW, {}
    factor = {"2.2": 1000, "2.8": 10}[version]
    for size in cases.IMPORTANCE_SIZES:
        for word, dtype in [("f16", torch.float16), ("f32", torch.float32)]:
            found = compute_gaussian(tuple(size), 1.0 / 8, factor, dtype, torch.device("cpu"))
            maps["gauss_%s_%s" % (word, "x".join(map(str, size)))] = found.numpy()
    folder.arrays("gaussian_v2_%s.npz" % version, maps)

    net = network.StuNet(1, case["num_classes"], case["dims"], [1] * 6, case["pools"])
    sha = network.seed(net, case["seed"], case["seg_gain"])
    image = np.float32(1.7) * seeded.uniform(case["seed"] + 1, 0, case["shape"])
    plans = plans_of([1.5] * 3, case["patch"], [0, 1, 2], ["ZScoreNormalization"], [False], case["pools"])
    dataset, arrays = dataset_of(1, case["num_classes"]), {}
    for mirrored in [False, True]:
        logits = Predictor(net, plans, dataset, mirrored).logits(image)
        assert logits.dtype == torch.float16
        arrays["logits_f16_mirror%d" % mirrored] = logits.numpy()
    folder.arrays("predict_v2_%s.npz" % version, arrays)
    folder.json("predict_v2_%s.json" % version, dict(
        seed=case["seed"], seg_gain=case["seg_gain"], weights_sha256=sha, value_scaling_factor=factor))


def record_export(root, version):
    folder, case, tag = Folder(root, "F_export"), cases.EXPORT, "v2_%s_torso" % version
    seed, gain = cases.EXPORT_SEEDS[{"2.2": "2.2", "2.8": "2.8.1"}[version]]
    plans = plans_of([1.5] * 3, cases.EXPORT_PATCH, [0, 1, 2], ["ZScoreNormalization"], [False],
                     cases.EXPORT_POOLS)
    dataset = dataset_of(1, case["num_classes"])
    folder.json("v2_plans.json", plans)
    folder.json("v2_dataset.json", dataset)
    image, _, properties = preprocessed(plans, dataset, [folder(case["image"])], None)
    net = network.StuNet(1, case["num_classes"], case["dims"], [1] * 6, cases.EXPORT_POOLS)
    sha = network.seed(net, seed, gain)
    logits = Predictor(net, plans, dataset, False).logits(image)

    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    export_prediction_from_logits(
        logits, properties, configuration, manager, dataset, folder(tag), save_probabilities=False)
    resampled = np.asarray(configuration.resampling_fn_probabilities(
        logits, properties["shape_after_cropping_and_before_resampling"], configuration.spacing,
        properties["spacing"])).astype(np.float32)
    top = np.sort(resampled, axis=0)
    folder.arrays(tag + "_margin.npz", {
        "logit_margin_le_1e2": np.packbits(top[-1] - top[-2] <= 1e-2), "shape": resampled.shape[1:]})
    logits = logits.float().numpy()
    labels = logits.argmax(0)
    places = np.random.RandomState(7).choice(labels.size, cases.NUM_SAMPLES, replace=False)
    folder.arrays(tag + "_net.npz", {
        "sample_idx": places, "logits_at_idx": logits.reshape(len(logits), -1)[:, places],
        "preproc_at_idx": image.ravel()[places]})
    folder.json(tag + ".json", dict(
        case, tag=tag, code="nnunetv2 " + version, seed=seed, seg_gain=gain, tta=False,
        weights_sha256=sha, pre_shape=image.shape, class_counts=np.bincount(labels.ravel())))


def dice_and_ce(batch_dice, ignore=None):
    return DC_and_CE_loss(
        {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}, {}, weight_ce=1,
        weight_dice=1, ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)


def record_losses(root, version):
    folder, described, arrays = Folder(root, "B_loss"), {}, {}
    blobs = seeded.label_blobs(101, cases.LOSS_SHAPE, cases.LOSS_CLASSES + 1)[:, None]
    shape = [cases.LOSS_SHAPE[0], cases.LOSS_CLASSES] + cases.LOSS_SHAPE[1:]
    plain = np.where(blobs == cases.LOSS_CLASSES, 0, blobs)
    table = [("v2_batch_dice", True, None, plain), ("v2_sample_dice", False, None, plain),
             ("v2_ignored_label", True, cases.LOSS_CLASSES, blobs)]
    for name, batch_dice, ignore, labels in table:
        logits = np.float32(2) * seeded.uniform(100, 0, shape)
        x, loss = torch.from_numpy(logits).requires_grad_(), dice_and_ce(batch_dice, ignore)
        value = loss(x, torch.from_numpy(labels.astype(np.float32)))
        value.backward()
        described[name] = dict(loss=value.item(), batch_dice=batch_dice, ignore_label=ignore)
        arrays.update({name + "/logits": logits, name + "/target": labels.astype(np.uint8),
                       name + "/grad": x.grad.numpy()})
    folder.json("loss_v2_%s.json" % version, described)
    folder.arrays("loss_v2_%s.npz" % version, arrays)


def record(root, version):
    for part in [record_preprocessing, record_windows, record_export, record_losses]:
        print(part.__name__, flush=True)
        part(root, version)
