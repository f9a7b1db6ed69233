"""Holds what nnU-Net and stunet wrote against each other. Each function returns (whether it is right, figures).

Bounds are those of the golden tests (tests/golden): none is wider here.
"""
import json
import math
import struct
from pathlib import Path

import blosc2
import nibabel as nib
import numpy as np
import SimpleITK as sitk

# Largest relative difference of two numbers in JSON: the last digit of the decimal spelling.
RELATIVE = 1e-12
# Of a preprocessed voxel, in standard deviations: the largest, and the root of the mean square.
PEAK, RMSE = 2e-4, 1e-5
# A label may differ where nnU-Net's own logits of the two were so close, and on so many voxels at most.
MARGIN, SHARE = 1e-2, 0.005


def differences(expected, found, path=""):
    """Everything in which two JSON values differ; NaN is equal to NaN."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in {**expected, **found}:
            where = f"{path}.{key}".lstrip(".")
            if key not in found:
                yield f"{where}: missing"
            elif key not in expected:
                yield f"{where}: too many"
            else:
                yield from differences(expected[key], found[key], where)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (a, b) in enumerate(zip(expected, found)):
            yield from differences(a, b, f"{path}[{i}]")
    elif is_number(expected) and is_number(found):
        close = math.isclose(expected, found, rel_tol=RELATIVE)
        if not close and not (math.isnan(expected) and math.isnan(found)):
            yield f"{path}: expected {expected}, found {found}"
    elif expected != found:
        yield f"{path}: expected {expected}, found {found}"


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def fields(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 1 if inner is None else sum(fields(v) for v in inner)


def equal_json(expected, found, at_least=1):
    """Two JSON files, or values, in every field; `at_least`: so many there must be."""
    expected, found = (json.loads(Path(v).read_text()) if isinstance(v, (str, Path)) else v for v in (expected, found))
    wrong, count = list(differences(expected, found)), fields(expected)
    if wrong:
        return False, f"{len(wrong)} of {count} fields differ, the first: {wrong[0]}"
    return count >= at_least, f"{count} fields equal"


def stored(path):
    """Image and labels of one case of our store."""
    content = Path(path).read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header, values = json.loads(content[8:8 + length]), content[8 + length:]
    kinds = {"F32": np.float32, "I16": np.int16}

    def array(name):
        about = header[name]
        begin, end = about["data_offsets"]
        return np.frombuffer(values[begin:end], kinds[about["dtype"]]).reshape(about["shape"])

    return array("image"), array("labels")


def preprocessed(theirs, ours):
    """nnU-Net's folder of .b2nd files against our store: every voxel of every case."""
    names = sorted(p.name[:-5] for p in Path(theirs).glob("*.b2nd") if not p.name.endswith("_seg.b2nd"))
    found = sorted(p.stem for p in Path(ours).glob("*.safetensors"))
    if names != found or not names:
        return False, f"cases: expected {names}, found {found}"
    peak, square, count, labels, voxels = 0.0, 0.0, 0, 0, 0
    for name in names:
        data, seg = (blosc2.open(str(Path(theirs) / f"{name}{end}.b2nd"), mode="r")[:] for end in ("", "_seg"))
        image, segmentation = stored(Path(ours) / f"{name}.safetensors")
        if data.shape != image.shape or seg.shape[1:] != segmentation.shape:
            return False, f"{name}: shape: expected {data.shape}, found {image.shape}"
        difference = np.abs(data.astype(np.float64) - image)
        peak, square = max(peak, difference.max()), square + (difference ** 2).sum()
        count, voxels = count + difference.size, voxels + segmentation.size
        labels += int((seg[0].astype(np.int32) != segmentation).sum())
    rmse = math.sqrt(square / count)
    text = f"{len(names)} cases, {count} values: largest difference {peak:.1e}, rms {rmse:.1e}; {labels} of {voxels} labels differ"
    return peak <= PEAK and rmse <= RMSE and labels == 0, text


def margins(probabilities, regions):
    """How far nnU-Net's logits were from another label, per voxel."""
    p = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    if regions:
        return np.abs(np.log(p / (1 - p))).min(0)
    best = np.partition(p, -2, axis=0)[-2:]
    return np.log(best[1] / best[0])


def in_file_order(path, image, turned):
    """nnU-Net's probabilities on the grid of the file: a reader that turns leaves them in its own order, RAS."""
    values = np.load(path)["probabilities"]
    if not turned:
        return values
    file = nib.orientations.io_orientation(nib.load(image).affine)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), file)
    return np.stack([nib.orientations.apply_orientation(v.T, back).T for v in values])


def labelmaps(theirs, ours, regions, turned):
    """Two folders of labelmaps; `theirs` holds nnU-Net's probabilities too."""
    names = sorted(p.name for p in Path(theirs).glob("*.nii.gz"))
    found = sorted(p.name for p in Path(ours).glob("*.nii.gz"))
    if names != found or not names:
        return False, f"outputs: expected {names}, found {found}"
    count = voxels = beyond = 0
    worst, labels = 0.0, set()
    for name in names:
        a, b = (sitk.ReadImage(str(Path(folder) / name)) for folder in (theirs, ours))
        for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            if not np.allclose(getattr(a, what)(), getattr(b, what)(), rtol=0, atol=1e-5):
                return False, f"{name}: {what[3:].lower()}: expected {getattr(a, what)()}, found {getattr(b, what)()}"
        a, b = sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b)
        labels.update(np.unique(a).tolist())
        differ = a != b
        count, voxels = count + int(differ.sum()), voxels + differ.size
        if differ.any():
            values = in_file_order(Path(theirs) / name.replace(".nii.gz", ".npz"), Path(theirs) / name, turned)
            close = margins(values, regions)[differ]
            worst, beyond = max(worst, close.max()), beyond + int((close > MARGIN).sum())
    text = f"{count} of {voxels} voxels differ ({100 * (1 - count / voxels):.4f} % equal)" + (f", {beyond} beyond doubt (largest margin {worst:.1e})" if count else "")
    if len(labels) < 2:
        return False, f"{text}; but nnU-Net found only {sorted(labels)}, which shows nothing"
    return beyond == 0 and count <= SHARE * voxels, f"{text}; {len(labels)} labels"


def same_labels(theirs, ours):
    """Two folders of labelmaps that are equal in every voxel."""
    names = sorted(p.name for p in Path(theirs).glob("*.nii.gz"))
    found = sorted(p.name for p in Path(ours).glob("*.nii.gz"))
    if names != found or not names:
        return False, f"outputs: expected {names}, found {found}"
    count = voxels = 0
    for name in names:
        a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(Path(folder) / name))) for folder in (theirs, ours))
        if a.shape != b.shape:
            return False, f"{name}: expected {a.shape}, found {b.shape}"
        count, voxels = count + int((a != b).sum()), voxels + a.size
    return count == 0, f"{count} of {voxels} voxels differ"


def probabilities(theirs, ours, turned):
    """Class probabilities, written by both as nnU-Net's .npz; ours are on the grid of the file, whatever the reader."""
    names = sorted(p.name for p in Path(theirs).glob("*.npz"))
    if not names or names != sorted(p.name for p in Path(ours).glob("*.npz")):
        return False, "the same .npz files were expected in both folders"
    worst = 0.0
    for name in names:
        a = in_file_order(Path(theirs) / name, Path(theirs) / name.replace(".npz", ".nii.gz"), turned).astype(np.float64)
        b = np.load(Path(ours) / name)["probabilities"].astype(np.float64)
        if a.shape != b.shape:
            return False, f"{name}: shape: expected {a.shape}, found {b.shape}"
        worst = max(worst, np.abs(a - b).max())
    return worst <= MARGIN, f"probabilities differ by {worst:.1e}"


def continued(exported, checkpoint, epochs):
    """nnU-Net's checkpoint after `--c` from ours: one history, momentum for every weight."""
    import torch
    before, after = (torch.load(f, map_location="cpu", weights_only=False) for f in (exported, checkpoint))
    lengths = {k: len(v) for k, v in after["logging"].items()}
    if after["current_epoch"] != epochs or set(lengths.values()) != {epochs}:
        return False, f"expected {epochs} epochs, found {after['current_epoch']} and histories of {lengths}"
    kept = before["current_epoch"]
    for key, values in before["logging"].items():
        if list(differences(plain(values), plain(after["logging"][key][:kept]))):
            return False, f"history {key} of the first {kept} epochs changed"
    if not math.isfinite(after["_best_ema"]):
        return False, f"_best_ema: expected a number, found {after['_best_ema']!r}"
    states = [len(c["optimizer_state"]["state"]) for c in (before, after)]
    moved = sum(bool((after["network_weights"][k] != v).any()) for k, v in before["network_weights"].items())
    if states[0] < states[1] or moved < len(before["network_weights"]) // 2:
        return False, f"momentum of {states[0]} and then {states[1]} tensors; {moved} of {len(before['network_weights'])} weights moved"
    return True, f"epochs {kept} to {epochs}, momentum of {states[0]} tensors taken over, {moved} weights moved on"


def plain(values):
    return json.loads(json.dumps(values, default=lambda v: v.tolist()))
