"""Records batchgeneratorsv2's deterministic transforms for the golden test `augment`.

    python3 scripts/record_augment_v2.py GOLDEN_DATA/G_augment [OUTPUT_FOLDER]

Takes image and labels of `augment_v1.npz` and writes `augment_v2.npz` and `augment_v2.json` in the
same form. Needs numpy, torch, batchgeneratorsv2. The test reads them where they are.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform

SPATIAL = {
    "rot_xyz_s1.2": {"angles": [0.3, -0.2, 0.45], "scale": 1.2},
    "rot_x_only": {"angles": [0.4, 0, 0], "scale": None},
    "rot_z_only": {"angles": [0, 0, 0.5235987755982988], "scale": None},
    "scale0.7": {"angles": None, "scale": 0.7},
    "scale1.4_far_outside": {"angles": None, "scale": 1.4, "patch": [24, 40, 44]},
    "no_turn": {"angles": [0, 0, 0], "scale": None, "patch": [19, 33, 35]},
    "flat": {"angles": [2.3, 0, 0], "scale": 1.1, "patch": [24, 32, 36], "slice_by_slice": True},
}


def spatial(image, labels, case):
    angles, scale, flat = case["angles"], case["scale"], case.get("slice_by_slice", False)
    patch = case["patch"][1:] if flat else case["patch"]
    transform = SpatialTransform(
        patch, patch_center_dist_from_border=0, random_crop=False,
        p_rotation=float(angles is not None),
        rotation=lambda image, dim: angles[0] if flat else angles[dim],
        p_scaling=float(scale is not None), scaling=lambda image, dim: scale,
        p_synchronize_scaling_across_axes=1, border_mode_seg="constant", padding_value_seg=-1,
    )
    data = {"image": torch.from_numpy(image.copy()), "segmentation": torch.from_numpy(labels[None])}
    steps = [transform]
    if flat:
        steps = [Convert3DTo2DTransform(), transform, Convert2DTo3DTransform()]
    for step in steps:
        data = step(**data)
    return data["image"].numpy(), data["segmentation"].numpy()


def main():
    source = Path(sys.argv[1])
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else source
    recorded = numpy.load(source / "augment_v1.npz")
    image, labels = recorded["img"], recorded["seg"][0].astype(numpy.int16)
    arrays = {"img": image, "seg": recorded["seg"]}

    def run(name, transform):
        arrays[name] = transform(image=torch.from_numpy(image.copy()))["image"].numpy()

    for exponent in [0.7, 1.2, 1.5]:
        for inverted in [0, 1]:
            run(f"gamma_{exponent}_inv{inverted}", GammaTransform(exponent, inverted, True, 1, 1))
    for factor in [0.75, 1.25]:
        run(f"brightness_{factor}", MultiplicativeBrightnessTransform(factor, True, 1))
        run(f"contrast_{factor}", ContrastTransform(factor, True, True, 1))
    for sigma in [(0.5, 0.5, 0.5), (0.55, 0.77, 0.92), (0.8, 0.66, 1.0)]:
        transform = GaussianBlurTransform(lambda shape, dim: sigma[dim - 1], p_per_channel=1)
        run("blur_" + "_".join(map(str, sigma)), transform)
    for scale in [0.5, 0.63, 0.9]:
        run(f"lowres_{scale}", SimulateLowResolutionTransform(scale, True, True, None, None, 1))
    for name, case in SPATIAL.items():
        case.setdefault("patch", [20, 32, 36])
        case["order_seg"] = 1
        data, seg = spatial(image, labels, case)
        arrays[f"spatial_{name}/data"], arrays[f"spatial_{name}/seg"] = data, seg[0]
    numpy.savez_compressed(output / "augment_v2.npz", **arrays)
    (output / "augment_v2.json").write_text(json.dumps(SPATIAL, indent=1))


if __name__ == "__main__":
    main()
