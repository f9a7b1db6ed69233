"""Seeded numbers, weights, labels and volumes: the same bits with every version of Python and NumPy.

The Rust side is crates/stunet-testing/src/prng.rs. Weights need no files: both sides make them from a
seed and compare a hash.
"""
import gzip
import hashlib
import struct
import zlib

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
MASK = 0xFFFFFFFFFFFFFFFF


def bits(seed, tensor, count):
    """The 64-bit stream of one tensor: splitmix64 over a counter."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        z += np.uint64((seed * GOLDEN + tensor * 0xBF58476D1CE4E5B9) & MASK)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed, tensor, shape):
    """Values in [-1, 1), exact in f32."""
    values = (bits(seed, tensor, int(np.prod(shape))) >> np.uint64(40)).astype(np.float32)
    return (np.float32(2) * (values * np.float32(2.0**-24)) - np.float32(1)).reshape(shape)


def integers(seed, tensor, shape, high):
    """Integers in [0, high)."""
    values = (bits(seed, tensor, int(np.prod(shape))) >> np.uint64(33)) % np.uint64(high)
    return values.astype(np.int64).reshape(shape)


def weights(shapes, seed, head_gain=1.0):
    """Seeded parameters by key; `shapes` lists key and shape in the order of the state dict."""
    made = {}
    for tensor, (key, shape) in enumerate(shapes):
        values, is_weight = uniform(seed, tensor, shape), key.endswith("weight")
        is_head = key.startswith("seg_outputs")
        if "norm" in key:
            made[key] = np.float32(1) + np.float32(0.5) * values if is_weight else np.float32(0.3) * values
        elif is_weight:
            bound = np.float32(np.sqrt(6.0 / ((1 + 1e-4) * int(np.prod(shape[1:])))))
            made[key] = (np.float32(head_gain) * bound if is_head else bound) * values
        else:
            made[key] = np.float32(0.5 if is_head else 0.1) * values
    return made


def digest(parameters):
    """SHA-256 over every key and its values."""
    sha = hashlib.sha256()
    for key, values in parameters.items():
        sha.update(key.encode())
        sha.update(np.ascontiguousarray(values, dtype="<f4").tobytes())
    return sha.hexdigest()


def sample(values, most):
    """Every n-th value, so that at most `most` are left."""
    values = np.asarray(values).ravel()
    return values[:: max(1, -(-values.size // most))]


def grid(shape):
    return np.meshgrid(*[np.arange(n, dtype=np.int64) for n in shape], indexing="ij")


def label_blobs(seed, shape, num_classes):
    """Labels [N, Z, Y, X] of overlapping balls."""
    labels = np.zeros(shape, dtype=np.int64)
    z, y, x = grid(shape[1:])
    for n in range(shape[0]):
        for ball in integers(seed, n, (12, 7), 1 << 20):
            c = [int(ball[i] % shape[1 + i]) for i in range(3)]
            radius = 2 + int(ball[3] % max(3, min(shape[1:]) // 3))
            inside = (z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 <= radius * radius
            labels[n][inside] = int(ball[4] % num_classes)
    return labels


def ellipsoid(shape, centre, radii):
    """Voxels within an ellipsoid; centre and radii in thousandths of the axes. Integers only."""
    total = np.zeros(shape, dtype=np.int64)
    for axis, position in enumerate(grid(shape)):
        distance = 1000 * (2 * position + 1) - 2 * centre[axis] * shape[axis]
        total += (distance * 1000 // (2 * radii[axis] * shape[axis])) ** 2
    return total <= 1000 * 1000


ORGANS = [  # centre, radii, intensity
    ((500, 480, 300), (330, 220, 150), -750),
    ((480, 500, 700), (310, 230, 150), -800),
    ((420, 420, 480), (180, 200, 160), 60),
    ((620, 720, 500), (420, 90, 90), 450),
    ((350, 330, 620), (110, 120, 90), 130),
]


def torso(seed, shape, outside=-1000):
    """A body with lungs, heart, spine and another organ: whole numbers, and labels 1 to 5."""
    image = np.full(shape, outside, dtype=np.int64)
    labels = np.zeros(shape, dtype=np.int64)
    body = ellipsoid(shape, (500, 500, 500), (640, 430, 440))
    image[body] = 20
    for label, (centre, radii, intensity) in enumerate(ORGANS, start=1):
        organ = ellipsoid(shape, centre, radii) & body
        image[organ], labels[organ] = intensity, label
    noise = integers(seed, 0, (3,) + tuple(shape), 25).sum(0) - 36
    image[body] += noise[body]
    if outside == 0:  # as in magnetic resonance: positive inside, and the rest exactly 0
        image[body] = np.maximum(image[body] + 1000, 1)
    return image.astype(np.int16), labels.astype(np.int16)


def write_nifti(path, voxels_zyx, spacing_zyx, origin=(-20.5, 31.25, -402.0)):
    """A NIfTI-1 file of int16 whose axes run along L, P, S. The header is written field by field."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *voxels_zyx.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    sx, sy, sz = spacing_zyx[::-1]
    struct.pack_into("<8f", header, 76, 1, sx, sy, sz, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[123] = 2  # mm
    struct.pack_into("<2h", header, 252, 0, 1)
    rows = [(-sx, 0, 0, origin[0]), (0, -sy, 0, origin[1]), (0, 0, sz, origin[2])]
    for i, row in enumerate(rows):
        struct.pack_into("<4f", header, 280 + 16 * i, *row)
    header[344:348] = b"n+1\0"
    content = bytes(header) + np.ascontiguousarray(voxels_zyx, dtype="<i2").tobytes()
    with open(path, "wb") as file:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=9, mtime=0) as packed:
            packed.write(content)
    assert zlib.crc32(gzip.open(path).read()) == zlib.crc32(content)
