"""Times batchgenerators (nnU-Net 1's recipe) and batchgeneratorsv2 (nnU-Net 2.8's) on the task of
`cargo bench --bench augment`, runs that too, and prints both and their ratio.

    python3 scripts/augment_peer.py [--patches 60] [--bench PATH_OF_A_BUILT_BENCHMARK]

Needs numpy, scipy, scikit-image, torch, batchgenerators, batchgeneratorsv2. Everything runs on one
thread: what is compared is CPU seconds per patch.
"""

import argparse
import os

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ[name] = "1"

import re
import subprocess
import time
from importlib.metadata import version

import numpy
import torch

SHAPE = (240, 230, 250)
PATCH, CROP = (128,) * 3, (205,) * 3
SCALES = [(1, 1, 1), (0.5,) * 3, (0.25,) * 3, (0.125,) * 3, (0.0625,) * 3]
THIRTY_DEGREES = (-numpy.pi / 6, numpy.pi / 6)


def torso():
    z, y, x = numpy.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    noise = (z * 29 + y * 13 + x * 7) % 101 / 101 - 0.5
    image = numpy.sin(z / 17) + numpy.cos(y / 23) + numpy.sin(x / 11) + noise
    labels = (z // 40 * 35 + y // 40 * 6 + x // 40) % 25
    return image.astype(numpy.float32)[None], labels.astype(numpy.int16)


def locations(labels):
    choose = numpy.random.RandomState(1234)
    voxels = {label: numpy.argwhere(labels == label) for label in numpy.unique(labels) if label > 0}
    return {label: v[choose.choice(len(v), 10000)] for label, v in voxels.items()}


def draw_crop(image, labels, voxels, forced):
    """The reference's loader: anywhere, or around a voxel of a class; padded."""
    margin = numpy.subtract(CROP, PATCH)
    low, high = -((margin + 1) // 2), SHAPE + margin // 2 + margin % 2 - CROP
    if forced:
        of_class = voxels[numpy.random.choice(list(voxels))]
        corner = of_class[numpy.random.choice(len(of_class))] - numpy.array(CROP) // 2
        corner = numpy.maximum(corner, low)
    else:
        corner = numpy.array([numpy.random.randint(a, b + 1) for a, b in zip(low, high)])
    inside = tuple(slice(max(0, c), min(n, c + m)) for c, n, m in zip(corner, SHAPE, CROP))
    pad = [(max(0, -c), max(0, c + m - n)) for c, n, m in zip(corner, SHAPE, CROP)]
    return (
        numpy.pad(image[(slice(None), *inside)], [(0, 0), *pad]),
        numpy.pad(labels[inside], pad, constant_values=-1),
    )


def pipeline_v1():
    from batchgenerators.transforms.abstract_transforms import Compose
    from batchgenerators.transforms.color_transforms import (
        BrightnessMultiplicativeTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import (
        GaussianBlurTransform,
        GaussianNoiseTransform,
    )
    from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform
    from batchgenerators.transforms.utility_transforms import RemoveLabelTransform

    rotations = {f"angle_{axis}": THIRTY_DEGREES for axis in "xyz"}
    transforms = Compose([
        SpatialTransform(
            PATCH, patch_center_dist_from_border=None, do_elastic_deform=False, scale=(0.7, 1.4),
            border_mode_data="constant", border_cval_data=0, order_data=3,
            border_mode_seg="constant", border_cval_seg=-1, order_seg=1, random_crop=False,
            p_scale_per_sample=0.2, p_rot_per_sample=0.2, **rotations,
        ),
        GaussianNoiseTransform(p_per_sample=0.1),
        GaussianBlurTransform(
            (0.5, 1.0), different_sigma_per_channel=True, p_per_sample=0.2, p_per_channel=0.5
        ),
        BrightnessMultiplicativeTransform(multiplier_range=(0.75, 1.25), p_per_sample=0.15),
        ContrastAugmentationTransform(p_per_sample=0.15),
        SimulateLowResolutionTransform(
            zoom_range=(0.5, 1), per_channel=True, p_per_channel=0.5, order_downsample=0,
            order_upsample=3, p_per_sample=0.25,
        ),
        GammaTransform((0.7, 1.5), True, True, retain_stats=True, p_per_sample=0.1),
        GammaTransform((0.7, 1.5), False, True, retain_stats=True, p_per_sample=0.3),
        MirrorTransform((0, 1, 2)),
        RemoveLabelTransform(-1, 0),
    ])

    def run(image, labels):
        batch = {"data": image[None], "seg": labels[None, None].astype(numpy.float32)}
        batch = transforms(**batch)
        seg = batch["seg"][0, 0]
        targets = [seg]
        for scale in SCALES[1:]:
            step = round(1 / scale[0])
            targets.append(seg[step // 2 :: step, step // 2 :: step, step // 2 :: step].copy())
        return batch["data"], targets

    return run


def pipeline_v2():
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
        DownsampleSegForDSTransform,
    )
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

    alone = {"synchronize_channels": False}
    gamma = {"gamma": BGContrast((0.7, 1.5)), "p_per_channel": 1, "p_retain_stats": 1, **alone}
    transforms = ComposeTransforms([
        SpatialTransform(
            PATCH, patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0,
            p_rotation=0.2, rotation=THIRTY_DEGREES, p_scaling=0.2, scaling=(0.7, 1.4),
            p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
            border_mode_seg="constant", padding_value_seg=-1,
        ),
        RandomTransform(
            GaussianNoiseTransform((0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1
        ),
        RandomTransform(
            GaussianBlurTransform(
                (0.5, 1.0), synchronize_axes=False, p_per_channel=0.5, benchmark=True, **alone
            ),
            0.2,
        ),
        RandomTransform(
            MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), p_per_channel=1, **alone),
            0.15,
        ),
        RandomTransform(
            ContrastTransform(
                BGContrast((0.75, 1.25)), preserve_range=True, p_per_channel=1, **alone
            ),
            0.15,
        ),
        RandomTransform(
            SimulateLowResolutionTransform(
                (0.5, 1), synchronize_axes=True, ignore_axes=None, p_per_channel=0.5, **alone
            ),
            0.25,
        ),
        RandomTransform(GammaTransform(p_invert_image=1, **gamma), 0.1),
        RandomTransform(GammaTransform(p_invert_image=0, **gamma), 0.3),
        MirrorTransform((0, 1, 2)),
        RemoveLabelTansform(-1, 0),
        DownsampleSegForDSTransform(SCALES),
    ])

    def run(image, labels):
        with torch.no_grad():
            found = transforms(
                image=torch.from_numpy(image), segmentation=torch.from_numpy(labels[None])
            )
        return found["image"], found["segmentation"]

    return run


def time_peer(run, patches):
    image, labels = torso()
    voxels = locations(labels)
    numpy.random.seed(0)
    torch.manual_seed(0)
    for i in range(2):
        run(*draw_crop(image, labels, voxels, forced=i == 1))
    start, cpu = time.perf_counter(), time.process_time()
    for i in range(patches):
        run(*draw_crop(image, labels, voxels, forced=i % 2 == 1))
    return (time.process_time() - cpu) / patches, (time.perf_counter() - start) / patches


def ours(bench, patches):
    command = [bench] if bench else ["cargo", "bench", "--locked", "--bench", "augment", "--"]
    # Patches differ much in cost: the more of them, the steadier the mean.
    command.append(str(8 * patches))
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(text)
    found = re.findall(r"stunet (v\d) patch .*?mean CPU ([\d.]+) s", text)
    return {recipe: float(seconds) for recipe, seconds in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=60)
    parser.add_argument("--bench")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"load average {os.getloadavg()}, one thread each")
    own = ours(arguments.bench, arguments.patches)
    peers = [
        ("v1", "batchgenerators", pipeline_v1()),
        ("v2", "batchgeneratorsv2", pipeline_v2()),
    ]
    for recipe, package, run in peers:
        cpu, wall = time_peer(run, arguments.patches)
        print(
            f"{recipe}: {package} {version(package)} mean CPU {cpu:.4f} s, mean wall {wall:.4f} s; "
            f"stunet mean CPU {own[recipe]:.4f} s: {cpu / own[recipe]:.1f} times as many patches "
            f"per second and core ({1 / own[recipe]:.1f} against {1 / cpu:.2f})"
        )
    print(f"load average {os.getloadavg()}")


if __name__ == "__main__":
    main()
