#!/usr/bin/env python3
"""Records preprocessed cases as nnU-Net 2.8.1 writes them: the data of the tests that read them.

    PYTHON_WITH_NNUNETV2_2.8.1 scripts/reference/preprocessed.py [OUT]     (default: tests/data/preprocessed)

`arrays`: one array (below) in every form that nnU-Net has written or that Blosc2 makes of special values.
`v2`: two cases from `DefaultPreprocessor` and `nnUNetDatasetBlosc2.save_case`, with regions and an ignore label;
`npz`: the first by `nnUNetDatasetNumpy.save_case`; `v1`: the same in nnU-Net 1.7.1's layout.
`expected.json`: shapes, checksums of the values, and what was drawn of every class.
"""
import json
import pickle
import shutil
import sys
import zlib
from collections import OrderedDict
from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import (comp_blosc2_params, nnUNetDatasetBlosc2,
                                                          nnUNetDatasetNumpy)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

SHAPE, CHUNKS, BLOCKS = (2, 5, 12, 19), (1, 4, 10, 19), (1, 2, 4, 8)
LABELS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3, "ignore": 4}
DATASET = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": LABELS, "regions_class_order": [1, 2, 3],
           "numTraining": 2, "file_ending": ".nii.gz"}
PLANS = {
    "dataset_name": "Dataset001_Recorded", "plans_name": "nnUNetPlans", "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2], "image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {str(c): {k: 1.0 for k in (
        "mean", "std", "percentile_00_5", "percentile_99_5")} for c in range(2)},
    "configurations": {"3d_fullres": {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [8, 16, 16], "spacing": [2.0, 1.0, 1.0], "batch_dice": False,
        "normalization_schemes": ["ZScoreNormalization"] * 2, "use_mask_for_norm": [True, True],
        **{f"resampling_fn_{what}": "resample_data_or_seg_to_shape" for what in ("data", "seg", "probabilities")},
        **{f"resampling_fn_{what}_kwargs": {"is_seg": what == "seg", "order": 3 if what == "data" else 1, "order_z": 0,
                                            "force_separate_z": None} for what in ("data", "seg", "probabilities")},
        "architecture": {"network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                         "arch_kwargs": {"n_stages": 3, "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]},
                         "_kw_requires_import": []}}}}


def array(kind=np.float32):
    """Multiples of a quarter in each voxel, zeros in the first planes of the first channel."""
    c, z, y, x = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    values = ((7 * c + 5 * z + 3 * y + x) % 11 - 5) * 0.25
    values[0, :3] = 0
    return (values * 4 if np.issubdtype(kind, np.integer) else values).astype(kind)


def noise():
    """What cannot be packed."""
    state, values = 12345, np.empty(int(np.prod(SHAPE)), np.uint32)
    for i in range(values.size):
        state = (state * 1664525 + 1013904223) % 2 ** 32
        values[i] = state >> 9
    return (values / np.float32(2 ** 23)).astype(np.float32).reshape(SHAPE)


def arrays(out):
    out.mkdir(parents=True)
    C, F, S = blosc2.Codec, blosc2.Filter, blosc2.SplitMode

    def put(name, values, codec=C.LZ4HC, filters=(F.SHUFFLE,), chunks=CHUNKS, **more):
        cparams = dict(codec=codec, filters=list(filters), nthreads=1, **{"clevel": 5, **more})
        blosc2.asarray(values, urlpath=str(out / f"{name}.b2nd"), mode="w", chunks=chunks, blocks=BLOCKS,
                       cparams=cparams)

    put("lz4hc", array(), filters=[F.NOFILTER])
    put("lz4hc_shuffled", array())
    put("zstd_shuffled", array(), C.ZSTD, clevel=8)
    put("split", array(), C.LZ4, splitmode=S.ALWAYS_SPLIT)
    put("zlib", array(), C.ZLIB)
    put("blosclz", array(), C.BLOSCLZ)
    # So many chunks that their list is packed, by BloscLZ.
    put("many", array(), chunks=BLOCKS)
    put("int16", array(np.int16))
    put("int8", array(np.int8), filters=[F.NOFILTER])
    put("noise", noise())
    put("copied", noise(), clevel=0)
    put("full", np.full(SHAPE, 2.5, np.float32))
    put("bits", array(), C.LZ4, [F.BITSHUFFLE])
    make = dict(dtype=np.float32, mode="w", chunks=CHUNKS, blocks=BLOCKS)
    blosc2.zeros(SHAPE, urlpath=str(out / "zeros.b2nd"), **make)
    blosc2.nans(SHAPE, urlpath=str(out / "nans.b2nd"), **make)
    # As nnU-Net's `save_seg` does, with the defaults of Blosc2.
    blosc2.asarray(array(np.int16), urlpath=str(out / "defaults.b2nd"), mode="w")
    for name, kind in (("single", np.float32), ("half", np.float16), ("short", np.int16)):
        np.save(out / f"{name}.npy", array(kind))


def volume(seed, shape):
    rng = np.random.default_rng(seed)
    data = rng.normal(100, 20, (2, *shape)).astype(np.float32)
    seg = np.zeros((1, *shape), np.int16)
    for label in (1, 2, 3):
        seg[0, 2 + label:7, 3 + 2 * label:14, 4 + label:13] = label
    seg[0, :2, :6] = 4
    data[:, :, :2] = 0
    data[:, :, :, -3:] = 0
    return data, seg


def crc(values):
    return f"{zlib.crc32(np.ascontiguousarray(values).tobytes()):08x}"


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "tests/data/preprocessed")
    shutil.rmtree(out, ignore_errors=True)
    arrays(out / "arrays")
    plans, expected = PlansManager(PLANS), {}
    configuration = plans.get_configuration("3d_fullres")
    for folder in ("v2", "npz", "v1"):
        (out / folder).mkdir()
    for seed, name in enumerate(("a", "b")):
        data, seg = volume(seed, (7, 15 + seed, 13))
        properties = {"spacing": [2.0, 1.1, 0.9], "sitk_stuff": {
            "spacing": (0.9, 1.1, 2.0), "origin": (1.0, -2.0, 3.5), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}}
        data, seg, properties = DefaultPreprocessor(False).run_case_npy(data, seg, properties, plans, configuration,
                                                                        DATASET)
        seg = seg.astype(np.int16)
        (blocks, chunks), (blocks_seg, chunks_seg) = (
            comp_blosc2_params(v.shape, (8, 16, 16), v.itemsize) for v in (data, seg))
        nnUNetDatasetBlosc2.save_case(data, seg, properties, str(out / "v2" / name), chunks=chunks, blocks=blocks,
                                      chunks_seg=chunks_seg, blocks_seg=blocks_seg)
        drawn = {"_".join(map(str, key)) if isinstance(key, tuple) else str(key):
                 [len(v), crc(np.asarray(v)[:, 1:].astype(np.uint32)) if len(v) else ""]
                 for key, v in properties["class_locations"].items()}
        expected[name] = {"shape": list(data.shape), "image": crc(data), "labels": crc(seg), "drawn": drawn}
        if name == "a":
            nnUNetDatasetNumpy.save_case(data, seg, properties, str(out / "npz" / name))
            # nnU-Net 1: labels behind the channels, voxels of single labels as [z, y, x].
            everything = np.vstack((data, seg)).astype(np.float32)
            np.savez_compressed(out / "v1" / "a.npz", data=everything)
            locations = {label: np.argwhere(seg[0] == label) for label in (1, 2, 3)}
            about = OrderedDict(classes=np.array([0.0, 1, 2, 3]), itk_spacing=(0.9, 1.1, 2.0),
                                original_size_of_raw_data=np.array([7, 15, 13]), class_locations=locations)
            (out / "v1" / "a.pkl").write_bytes(pickle.dumps(about))
    (out / "expected.json").write_text(json.dumps(expected, indent=1))
    (out / "plans.json").write_text(json.dumps(PLANS, indent=1))
    (out / "dataset.json").write_text(json.dumps(DATASET, indent=1))


if __name__ == "__main__":
    main()
