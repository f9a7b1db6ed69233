#!/usr/bin/env python3
"""Records what nnU-Net 2.8.1 does with a tiny plain U-Net: the data of tests/plain_unet.rs.

    PYTHON_WITH_NNUNETV2_2.8.1 scripts/reference/plain_unet.py [OUT]     (default: tests/data/plain_unet)

Two networks: `cubes` (every kernel 3 × 3 × 3, every stride 2) with plans as nnU-Net 2.4 and later write
them, and `slices` (1 × 3 × 3 kernels, strides that leave an axis out) with the flat plans of nnU-Net 2.2.
Weights are drawn from a seed, a body with blobs is the image. Of each: a results folder as
`nnUNetv2_predict` reads it, an image, logits of one window, and labelmaps with and without mirroring.
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy.ndimage import gaussian_filter
from torch import nn

LABELS = {"background": 0, "a": 1, "b": 2, "c": 3}
CASES = {
    "cubes": dict(seed=11, patch=[16, 16, 16], spacing=[1.0, 1.0, 1.0], features=[4, 8, 8], shape=(22, 25, 23),
                  kernels=[[3, 3, 3]] * 3, strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]], convs=[2, 2, 2], up=[2, 2],
                  voxel=[1.1, 0.9, 1.0], flat=False, names=["CT"]),
    "slices": dict(seed=12, patch=[8, 24, 24], spacing=[3.0, 1.0, 1.0], features=[4, 8, 8, 8], shape=(11, 31, 33),
                   kernels=[[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3]],
                   strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 2, 2]], convs=[1, 1, 2, 1], up=[1, 1, 2],
                   voxel=[3.5, 0.9, 0.95], flat=True, names=["T1", "T2"]),
}


def network(case):
    """The seeded network. The heads are large, so that labels vary from voxel to voxel."""
    torch.manual_seed(case["seed"])
    net = PlainConvUNet(
        input_channels=len(case["names"]), n_stages=len(case["features"]), features_per_stage=case["features"],
        conv_op=nn.Conv3d, kernel_sizes=case["kernels"], strides=case["strides"], n_conv_per_stage=case["convs"],
        num_classes=len(LABELS), n_conv_per_stage_decoder=case["up"], conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
        deep_supervision=True)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if name.endswith("bias") or ".norm." in name:
                value += 0.2 * torch.randn_like(value)
            if "seg_layers" in name:
                value *= 4
        # No class wins everywhere.
        heads = net(torch.randn((1, len(case["names"]), *case["patch"])))
        for head, logits in zip(reversed(net.decoder.seg_layers), heads):
            head.bias -= logits.mean((0, 2, 3, 4))
    return net


def plans(case):
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": case["patch"], "median_image_size_in_voxels": [float(n) for n in case["shape"]],
        "spacing": case["spacing"], "normalization_schemes": ["ZScoreNormalization"] * len(case["names"]),
        "use_mask_for_norm": [False] * len(case["names"]), "batch_dice": True,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    }
    if case["flat"]:
        configuration |= {
            "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": case["features"][0],
            "unet_max_num_features": max(case["features"]), "n_conv_per_stage_encoder": case["convs"],
            "n_conv_per_stage_decoder": case["up"], "pool_op_kernel_sizes": case["strides"],
            "conv_kernel_sizes": case["kernels"],
            "num_pool_per_axis": [sum(s[axis] > 1 for s in case["strides"]) for axis in range(3)]}
    else:
        configuration["architecture"] = {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": len(case["features"]), "features_per_stage": case["features"],
                "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": case["kernels"],
                "strides": case["strides"], "n_conv_per_stage": case["convs"], "n_conv_per_stage_decoder": case["up"],
                "conv_bias": True, "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}},
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]}
    return {
        "dataset_name": "Dataset001_Tiny", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "original_median_spacing_after_transp": case["spacing"], "experiment_planner_used": "ExperimentPlanner",
        "original_median_shape_after_transp": list(case["shape"]), "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {str(i): {} for i, _ in enumerate(case["names"])}}


def results(folder, case, net):
    (folder / "fold_0").mkdir(parents=True)
    dataset = {"channel_names": {str(i): "T1" for i, _ in enumerate(case["names"])}, "labels": LABELS,
               "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "plans.json").write_text(json.dumps(plans(case), indent=1))
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1))
    torch.save({
        "network_weights": net.state_dict(), "optimizer_state": None, "grad_scaler_state": None, "logging": {},
        "_best_ema": None, "current_epoch": 5, "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres", "fold": 0, "plans": plans(case), "dataset_json": dataset},
        "inference_allowed_mirroring_axes": (0, 1, 2)}, folder / "fold_0" / "checkpoint_final.pth")


def image(folder, case):
    """Noise of one voxel's width would compress to nothing: blobs, in whole numbers."""
    rng = np.random.default_rng(case["seed"])
    folder.mkdir()
    for channel, _ in enumerate(case["names"]):
        values = 6 * gaussian_filter(rng.standard_normal(case["shape"]), 1.2) + 0.2 * rng.standard_normal(case["shape"])
        values = np.round(40 * values).astype(np.int16)
        values[:, :2] = values[:1] = 0
        data = sitk.GetImageFromArray(values)
        data.SetSpacing(case["voxel"][::-1])
        data.SetOrigin((-7.5, 12.0, 3.25))
        data.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        sitk.WriteImage(data, str(folder / f"case_{channel:04d}.nii.gz"), True)


def logits(case, net):
    """One window through the network: input and logits of every head, finest first."""
    rng = np.random.default_rng(case["seed"] + 100)
    x = np.round(8 * rng.standard_normal((1, len(case["names"]), *case["patch"]))).astype(np.float32) / 8
    with torch.inference_mode():
        heads = net.eval()(torch.from_numpy(x))
    # Every fourth plane.
    return {"input": x} | {f"logits_{i}": head[:, :, ::4].numpy() for i, head in enumerate(heads)}


def predicted(folder, case, mirror):
    predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=mirror,
                                perform_everything_on_device=False, device=torch.device("cpu"), verbose=False)
    predictor.initialize_from_trained_model_folder(str(folder / "model"), (0,), "checkpoint_final.pth")
    files = [[str(path) for path in sorted((folder / "images").glob("*.nii.gz"))]]
    name = "mirrored" if mirror else "plain"
    predictor.predict_from_files_sequential(files, [str(folder / name)], save_probabilities=False)


def main():
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent.parent / "tests" / "data" / "plain_unet"
    shutil.rmtree(out, ignore_errors=True)
    for name, case in CASES.items():
        folder, net = out / name, network(case)
        results(folder / "model", case, net)
        image(folder / "images", case)
        np.savez_compressed(folder / "logits.npz", **logits(case, net))
        for mirror in (False, True):
            predicted(folder, case, mirror)
        for extra in ("dataset.json", "plans.json", "predict_from_raw_data_args.json"):
            (folder / extra).unlink(missing_ok=True)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mirrored.nii.gz")))
        print(name, {int(v): int((labels == v).sum()) for v in np.unique(labels)},
              sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()), "bytes")


if __name__ == "__main__":
    main()
