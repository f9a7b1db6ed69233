"""Small synthetic datasets in nnU-Net 2's raw layout, one for each kind of thing that can go wrong.

Blobs of several labels in a noisy body; sizes, spacings, origins and directions differ from case to
case. Arrays are z y x, as SimpleITK has them.
"""
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

TRAINING, TESTING = 5, 2


def turned(about_z, about_x):
    """A rotation by two angles in degrees, as SimpleITK's direction."""
    z, x = np.deg2rad([about_z, about_x])
    first = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    return tuple((first @ second).ravel())


LPS = (1, 0, 0, 0, 1, 0, 0, 0, 1)
RAS = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
CORONAL = (1, 0, 0, 0, 0, 1, 0, -1, 0)
SAGITTAL = (0, 0, 1, 1, 0, 0, 0, 1, 0)
OBLIQUE = turned(12, 0)
TWICE_OBLIQUE = turned(-9, 17)

# Shapes are ranges of z, y, x; a spacing is taken in turn, and so is a direction. `brief`: without
# training by nnU-Net, as only the reading differs from the kind before; `plain`: nnU-Net's own network.
ISOTROPIC = dict(shapes=[(38, 46)] * 3, spacings=[(1, 1, 1), (1.2, 1, 1), (1, 1.1, 1.1)])
KINDS = {
    # Thick slices: anisotropic resampling, and pooling that leaves an axis out.
    "OneCT": dict(id=601, channels=["CT"], labels=dict(background=0, liver=1, spleen=2, tumour=3), kind="CT",
                  shapes=[(20, 26), (52, 60), (52, 60)], spacings=[(3, 0.8, 0.8), (4, 0.9, 0.9), (2.5, 0.75, 0.75)],
                  directions=[LPS, RAS, OBLIQUE]),
    # Zeros around the body: cropping, and normalisation within the mask.
    "TwoMR": dict(id=602, channels=["T1", "FLAIR"], labels=dict(background=0, a=1, b=2), kind="MR",
                  directions=[LPS, OBLIQUE, RAS], **ISOTROPIC),
    "Regions": dict(id=603, channels=["T1", "T2"], order=[1, 2, 3], kind="MR", directions=[RAS, LPS],
                    labels=dict(background=0, whole=[1, 2, 3], core=[2, 3], enhancing=3), **ISOTROPIC),
    "Ignore": dict(id=604, channels=["CT"], labels=dict(background=0, a=1, b=2, ignore=3), ignore=3, kind="CT",
                   directions=[RAS], **ISOTROPIC),
    "ThickIgnore": dict(id=611, channels=["CT"], labels=dict(background=0, liver=1, tumour=2, ignore=3), ignore=3, kind="CT",
                        shapes=[(18, 24), (48, 56), (48, 56)], spacings=[(4, 0.9, 0.9), (3.5, 1, 1)], brief=True,
                        directions=[LPS, OBLIQUE]),
    # Thick slices along the file's first axis: the plans turn the axes. No direction is the usual one.
    "Axes": dict(id=605, channels=["CT"], labels=dict(background=0, a=1, b=2), kind="CT",
                 shapes=[(50, 58), (50, 58), (20, 26)], spacings=[(0.8, 0.8, 3), (0.9, 0.85, 3.5)],
                 directions=[CORONAL, SAGITTAL, TWICE_OBLIQUE]),
    # nnU-Net's other readers of NIfTI files; two of them turn every image first.
    "Reorient": dict(id=606, channels=["CT"], labels=dict(background=0, a=1, b=2), kind="CT",
                     directions=[LPS, CORONAL, SAGITTAL, TWICE_OBLIQUE], reader="NibabelIOWithReorient", **ISOTROPIC),
    "ReorientITK": dict(id=607, channels=["CT"], labels=dict(background=0, a=1, b=2), kind="CT", brief=True,
                        directions=[RAS, CORONAL, SAGITTAL, TWICE_OBLIQUE], reader="SimpleITKIOWithReorient", **ISOTROPIC),
    "Nibabel": dict(id=608, channels=["CT"], labels=dict(background=0, a=1, b=2), kind="CT", brief=True,
                    directions=[LPS, CORONAL, SAGITTAL, TWICE_OBLIQUE], reader="NibabelIO", **ISOTROPIC),
    # nnU-Net's own network instead of STU-Net: cubic kernels, and kernels that are flat along the slices.
    "PlainCubes": dict(id=609, channels=["CT"], labels=dict(background=0, a=1, b=2), kind="CT", plain=True,
                       directions=[LPS, OBLIQUE], **ISOTROPIC),
    "PlainSlices": dict(id=610, channels=["T1", "FLAIR"], labels=dict(background=0, a=1, b=2), kind="MR", plain=True,
                        shapes=[(14, 18), (60, 68), (60, 68)], spacings=[(4, 0.8, 0.8), (4.5, 0.9, 0.9)],
                        directions=[RAS, TWICE_OBLIQUE]),
}


def ball(shape, spacing, centre, radius):
    grid = np.ogrid[tuple(slice(0, s) for s in shape)]
    return sum(((a * s - c) / r) ** 2 for a, s, c, r in zip(grid, spacing, centre, radius)) <= 1


def anatomy(rng, shape, spacing, most):
    """Labels, and the body they lie in."""
    size = np.array(shape) * np.array(spacing)
    body = ball(shape, spacing, size / 2, size * 0.45)
    labels = np.zeros(shape, np.uint8)
    for label in range(1, most + 1):
        for _ in range(2):
            centre, radius = size * rng.uniform(0.3, 0.7, 3), size * rng.uniform(0.1, 0.2, 3)
            labels[ball(shape, spacing, centre, radius) & body] = label
    return labels, body


def channel(rng, labels, body, number, most, kind):
    image = np.where(body, 0.0, -1.0)
    for label in range(1, most + 1):
        image[labels == label] = 0.3 + 0.4 * ((label + number) % (most + 1))
    image = gaussian_filter(image, 0.6) + 0.12 * rng.standard_normal(labels.shape)
    if kind == "CT":
        return np.round(np.clip(image * 350 + 20, -1024, 1500)).astype(np.int16)
    return np.clip(np.where(body, (image + 1.2) * 300, 0), 0, None).astype(np.float32)


def scribbled(rng, labels, ignore):
    """Labels in some slices only, the rest to be ignored."""
    kept = rng.uniform(size=labels.shape[0]) < 0.5
    kept[labels.shape[0] // 2] = True
    labels[~kept] = ignore
    return labels


def write(array, path, spacing, origin, direction):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    image.SetOrigin([float(o) for o in origin])
    image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)


def name_of(kind):
    return f"Dataset{KINDS[kind]['id']:03d}_{kind}"


def make(raw, kind):
    """Writes the dataset of that kind below `raw`; returns its folder."""
    about = KINDS[kind]
    rng = np.random.default_rng(about["id"])
    folder = Path(raw) / name_of(kind)
    values = [v for k, v in about["labels"].items() if k != "ignore"]
    most = max(max(v) if isinstance(v, list) else v for v in values)
    for i in range(TRAINING + TESTING):
        part = "Tr" if i < TRAINING else "Ts"
        shape = tuple(int(rng.integers(low, high + 1)) for low, high in about["shapes"])
        spacing = about["spacings"][i % len(about["spacings"])]
        direction = about["directions"][i % len(about["directions"])]
        origin = rng.uniform(-100, 100, 3).round(2)
        labels, body = anatomy(rng, shape, spacing, most)
        for number, _ in enumerate(about["channels"]):
            image = channel(rng, labels, body, number, most, about["kind"])
            write(image, folder / f"images{part}" / f"case_{i:03d}_{number:04d}.nii.gz", spacing, origin, direction)
        if "ignore" in about and part == "Tr":
            labels = scribbled(rng, labels, about["ignore"])
        write(labels, folder / f"labels{part}" / f"case_{i:03d}.nii.gz", spacing, origin, direction)
    content = dict(channel_names={str(i): c for i, c in enumerate(about["channels"])}, labels=about["labels"],
                   numTraining=TRAINING, file_ending=".nii.gz")
    if "order" in about:
        content["regions_class_order"] = about["order"]
    if "reader" in about:
        content["overwrite_image_reader_writer"] = about["reader"]
    (folder / "dataset.json").write_text(json.dumps(content, indent=1))
    return folder
