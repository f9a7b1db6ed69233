"""Reads a grid of NIfTI headers with SimpleITK, as nnU-Net does, and records what it makes of them.

    python3 scripts/nifti_peer.py crates/stunet-data/src/nifti/tests/itk_headers.json

The test `headers_as_itk` of crates/stunet-data builds the same files and holds its reader against
the record. Needs numpy and SimpleITK.
"""

import json
import math
import struct
import sys
import tempfile
from pathlib import Path

import numpy
import SimpleITK

# Fields of a version 1 header: offset and struct code.
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "intent_code": (68, "h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "slope": (112, "f"),
    "inter": (116, "f"),
    "units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow_x": (280, "4f"),
    "srow_y": (296, "4f"),
    "srow_z": (312, "4f"),
    "magic": (344, "4s"),
    "extension": (348, "4B"),
}
BASE = {
    "sizeof_hdr": 348,
    "dim": (3, 2, 3, 4, 1, 1, 1, 1),
    "datatype": 2,
    "bitpix": 8,
    "pixdim": (1, 2, 3, 4, 1, 1, 1, 1),
    "vox_offset": 352,
    "slope": 1,
    "units": 2,
    "sform_code": 1,
    "qoffset": (10, 20, 30),
    "srow_x": (2, 0, 0, 10),
    "srow_y": (0, 3, 0, 20),
    "srow_z": (0, 0, 4, 30),
    "magic": b"n+1\0",
}
NAN, INF = math.nan, math.inf


def header(fields):
    out = bytearray(352)
    for name, value in {**BASE, **fields}.items():
        at, code = FIELDS[name]
        values = value if isinstance(value, tuple) else (value,)
        out[at : at + struct.calcsize("<" + code)] = struct.pack("<" + code, *values)
    return bytes(out)


def rotation(a, b, c):
    (sa, ca), (sb, cb), (sc, cc) = ((math.sin(v), math.cos(v)) for v in (a, b, c))
    return numpy.array(
        [
            [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
            [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
            [-sb, cb * sc, cb * cc],
        ]
    )


def quaternion_of(axes):
    """b, c, d of a rotation whose a is above 0."""
    a = math.sqrt(1 + axes[0, 0] + axes[1, 1] + axes[2, 2]) / 2
    b, c, d = axes[2, 1] - axes[1, 2], axes[0, 2] - axes[2, 0], axes[1, 0] - axes[0, 1]
    return tuple(float(v / (4 * a)) for v in (b, c, d))


def sform(matrix, offset=(10, 20, 30)):
    rows = [tuple(float(v) for v in row) + (float(o),) for row, o in zip(matrix, offset)]
    return {"srow_x": rows[0], "srow_y": rows[1], "srow_z": rows[2]}


def cases():
    """Name and fields of every case."""

    def dims(*sizes, rank=None):
        sizes = list(sizes)
        return (len(sizes) if rank is None else rank, *sizes, *[1] * (7 - len(sizes)))

    plain = [1, 2, 3, 4, 1, 1, 1, 1]
    yield "plain", {}
    for name, dim in {
        "1-D": dims(6),
        "1-D with trailing ones": dims(6, 1, 1),
        "2-D": dims(4, 6),
        "2-D, third length 5": (2, 4, 6, 5, 1, 1, 1, 1),
        "2-D, third length 0": (2, 4, 6, 0, 0, 0, 0, 0),
        "2-D row": dims(6, 1),
        "2-D column": dims(1, 6),
        "3-D of one slice": dims(4, 6, 1),
        "3-D of one row": dims(6, 1, 1),
        "3-D, first length 1": dims(1, 4, 6),
        "3-D, second length 1": dims(4, 1, 6),
        "one voxel": dims(1, 1, 1),
        "4-D, one at the end": dims(2, 3, 4, 1),
        "5-D, ones at the end": dims(2, 3, 4, 1, 1),
        "6-D, ones at the end": dims(2, 3, 4, 1, 1, 1),
        "7-D, ones at the end": dims(2, 3, 4, 1, 1, 1, 1),
        "4-D": dims(2, 3, 2, 2),
        "4-D, one slice": dims(4, 3, 1, 2),
        "5-D on the fifth axis": dims(2, 3, 2, 1, 2),
        "5-D on the fourth axis": dims(2, 3, 2, 2, 1),
        "5-D on both": dims(2, 3, 1, 2, 2),
        "6-D": dims(2, 3, 2, 1, 1, 2),
        "7-D": dims(2, 3, 2, 1, 1, 1, 2),
        "rank 0": dims(2, 3, 4, rank=0),
        "rank 8": dims(2, 3, 4, rank=8),
        "rank -3": dims(2, 3, 4, rank=-3),
        "first length 0": dims(0, 3, 4),
        "second length 0": dims(2, 0, 4),
        "third length 0": dims(2, 3, 0),
        "length -2": dims(-2, 3, 4),
        "trailing lengths 0": (3, 2, 3, 4, 0, 0, 0, 0),
        "trailing length 0 within the rank": (4, 2, 3, 4, 0, 0, 0, 0),
    }.items():
        yield f"dim: {name}", {"dim": dim}
    for name, dim in {"2-D": dims(4, 6), "1-D": dims(6)}.items():
        for codes in [(0, 0), (1, 0), (0, 2)]:
            yield f"dim: {name}, codes {codes}", {
                "dim": dim, "qform_code": codes[0], "sform_code": codes[1],
            }
        yield f"dim: {name}, third pixdim 0", {"dim": dim, "pixdim": (1, 2, 3, 0, 0, 0, 0, 0)}
    turned = rotation(0.3, 0, 0) * [2, 3, 4]
    oblique = rotation(0.3, -0.5, 0.7) * [2, 3, 4]
    swapped = numpy.array([[0, 0, 4], [2, 0, 0], [0, 3, 0]], float)
    for name, matrix in {"turned": turned, "oblique": oblique, "swapped axes": swapped}.items():
        yield f"dim: 2-D, {name}", {"dim": dims(4, 6), **sform(matrix)}
        yield f"dim: 4-D, {name}", {"dim": dims(2, 3, 2, 2), **sform(matrix)}
    sagittal = numpy.array([[0, 0, 4], [2, 0, 0], [0, 3, 0]], float)
    yield "dim: 2-D in a sagittal plane", {"dim": dims(4, 6), **sform(sagittal)}
    flat = sform(numpy.diag([2.0, 3, 0]))
    yield "dim: 2-D, third axis of the sform 0", {"dim": dims(4, 6), **flat}
    both = {"dim": dims(4, 6), "qform_code": 1, **flat}
    yield "dim: 2-D, third axis of the sform 0 beside a qform", both
    iso = rotation(0.3, -0.5, 0.7) * [2, 2, 2]
    for codes in [(1, 2), (2, 2), (3, 4)]:
        for name, matrix in {
            "as the qform": iso, "a little turned": rotation(0.301, -0.5, 0.7) * [2, 2, 2],
            "moved": iso,
        }.items():
            offset = (10.01, 20, 30) if name == "moved" else (10, 20, 30)
            yield f"equal spacings, sform {name}, codes {codes}", {
                "pixdim": (1, 2, 2, 2, 1, 1, 1, 1), "qform_code": codes[0],
                "sform_code": codes[1], "quatern": quaternion_of(rotation(0.3, -0.5, 0.7)),
                **sform(matrix, offset),
            }
    for intent in [1002, 1004, 1005, 1006, 1007, 2003]:
        for name, dim in {
            "3-D": dims(2, 3, 4), "4-D": dims(2, 3, 2, 2), "5-D": dims(2, 3, 2, 1, 2),
        }.items():
            yield f"intent {intent}, {name}", {"intent_code": intent, "dim": dim}

    for axis in (1, 2, 3):
        for codes in [(0, 0), (1, 0), (0, 1), (1, 2)]:
            pixdim = list(plain)
            pixdim[axis] *= -1
            yield f"pixdim[{axis}] negative, codes {codes}", {
                "pixdim": tuple(pixdim), "qform_code": codes[0], "sform_code": codes[1],
            }
        for value in [0, NAN, INF, 1e12]:
            pixdim = list(plain)
            pixdim[axis] = value
            for codes in [(1, 0), (0, 1)]:
                yield f"pixdim[{axis}] {value}, codes {codes}", {
                    "pixdim": tuple(pixdim), "qform_code": codes[0], "sform_code": codes[1],
                }
    yield "pixdim other than the sform", {"pixdim": (1, 1, 1, 1, 1, 1, 1, 1)}
    for pixdim4 in (0, NAN, -1):
        yield f"pixdim[4] {pixdim4}", {"pixdim": (1, 2, 3, 4, pixdim4, 1, 1, 1)}
        yield f"pixdim[4] {pixdim4}, 4-D", {
            "dim": dims(2, 3, 2, 2), "pixdim": (1, 2, 3, 4, pixdim4, 1, 1, 1),
        }
    for qfac in [-1, 0, 1, 0.5, -0.3, NAN, INF, -INF]:
        for codes in [(1, 0), (0, 1)] if qfac in (-1, 0) else [(1, 0)]:
            yield f"qfac {qfac}, codes {codes}", {
                "pixdim": (qfac, 2, 3, 4, 1, 1, 1, 1),
                "qform_code": codes[0], "sform_code": codes[1], "quatern": (0.1, 0.2, 0.3),
            }
    for units in [0, 1, 2, 3, 4, 7, 8, 10, 11, 17, 66, 255]:
        for codes in [(0, 1), (1, 0), (0, 0)] if units in (1, 3) else [(0, 1)]:
            yield f"units {units}, codes {codes}", {
                "units": units, "qform_code": codes[0], "sform_code": codes[1],
            }
    for slope in [0, 1, 2, -1, 0.5, NAN, INF, 1e-30, 1e-12, 1.0000001]:
        for inter in [0, 5, 0.25, NAN, INF, 1e-12] if slope in (0, 1, 2) else [0, 5]:
            yield f"slope {slope}, intercept {inter}", {"slope": slope, "inter": inter}
    for datatype, bits in [
        (0, 8), (1, 1), (2, 8), (4, 16), (8, 32), (16, 32), (32, 64), (64, 64), (128, 24),
        (256, 8), (512, 16), (768, 32), (1024, 64), (1280, 64), (1536, 128), (1792, 128),
        (2304, 32), (3, 8), (255, 8),
    ]:
        yield f"datatype {datatype}", {"datatype": datatype, "bitpix": bits}
    yield "bitpix 16 beside bytes", {"bitpix": 16}
    yield "bitpix 0", {"bitpix": 0}
    for offset in [0, 1, 100, 347, 348, 349, 352, 352.5, 353, 360, 367.9, 368, 600, 1e9, -1, -352,
                   NAN, INF]:
        yield f"vox_offset {offset}", {"vox_offset": offset}
    yield "an extension", {"extension": (1, 0, 0, 0), "vox_offset": 368}
    yield "an extension of no length", {"extension": (1, 0, 0, 0), "vox_offset": 352}
    for magic in [b"n+1\0", b"ni1\0", b"n+1 ", b"n+2\0", b"n+3\0", b"n+9\0", b"\0\0\0\0", b"N+1\0",
                  b"n+0\0"]:
        yield f"magic {magic.hex()}", {"magic": magic}
    for size in [0, 348, 349, 540]:
        yield f"sizeof_hdr {size}", {"sizeof_hdr": size}

    close = rotation(0.3, -0.5, 0.7)
    far = rotation(-0.9, 0.2, 0.1)
    quaternion = quaternion_of(close)
    mirrored = close * [1, 1, -1]
    sheared = {
        amount: close * [2, 3, 4] + numpy.array([[0, amount * 3, 0], [0, 0, 0], [0, 0, 0]])
        for amount in (1e-5, 5e-5, 2e-4, 0.05, 0.5)
    }
    matrices = {
        "oblique": close * [2, 3, 4],
        "nearly the same turn": rotation(0.30002, -0.5, 0.7) * [2, 3, 4],
        "a little other turn": rotation(0.301, -0.5, 0.7) * [2, 3, 4],
        "another turn": far * [2, 3, 4],
        "nearly the same lengths": close * [2.00002, 3, 4],
        "a little other lengths": close * [2.001, 3, 4],
        "mirrored": mirrored * [2, 3, 4],
        "other lengths": close * [2.5, 3, 4],
        "left-handed axes": numpy.diag([-2.0, 3, 4]),
        "zero": numpy.zeros((3, 3)),
        "NaN": numpy.full((3, 3), NAN),
        "singular": numpy.array([[2.0, 2, 0], [0, 0, 0], [0, 0, 4]]),
        "one axis zero": numpy.diag([2.0, 0, 4]),
        **{f"sheared by {amount}": matrix for amount, matrix in sheared.items()},
    }
    codes = [(0, 2), (1, 1), (1, 2), (4, 4), (1, -1)]
    quats = {"own quaternion": quaternion, "quaternion 0": (0.0, 0.0, 0.0)}
    for name, matrix in matrices.items():
        for quat_name, quat in quats.items():
            for q, s in codes:
                if quat_name == "quaternion 0" and (q, s) != (1, 2):
                    continue
                yield f"sform {name}, {quat_name}, codes {(q, s)}", {
                    "qform_code": q, "sform_code": s, "quatern": quat, **sform(matrix),
                }
    for quat in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.6, 0.8, 0), (0.8, 0.8, 0), (2, 0, 0),
                 (0.5, 0.5, 0.5), (0.99999, 0, 0), (1e-5, 0, 0), (NAN, 0, 0), (0.7, 0.7, 0.2)]:
        yield f"quaternion {quat}", {"qform_code": 1, "sform_code": 0, "quatern": quat}
    for offset in [(NAN, 0, 0), (INF, 0, 0), (1e30, 0, 0)]:
        yield f"qoffset {offset}", {"qform_code": 1, "sform_code": 0, "qoffset": offset}
        yield f"sform offset {offset}", sform(numpy.diag([2.0, 3, 4]), offset)


def read(path):
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        print(path.name, str(error).splitlines()[-1], file=sys.stderr)
        return {"refused": True}
    array = SimpleITK.GetArrayFromImage(image)
    values = array.astype(numpy.float64).ravel()
    # NaN becomes null; seven digits are what a file holds.
    numbers = lambda list: [float(f"{v:.8g}") if math.isfinite(v) else None for v in list]
    return {
        "size": [*image.GetSize()],
        "components": image.GetNumberOfComponentsPerPixel(),
        "spacing": numbers(image.GetSpacing()),
        "origin": numbers(image.GetOrigin()),
        "direction": numbers(image.GetDirection()),
        "voxels": numbers((values[0], values[1 % len(values)], values[-1])),
    }


def main():
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    payload = bytes(range(256)) * 2
    records, usual = [], None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.nii"
        base = header({})
        for name, fields in cases():
            own = header(fields)
            edits = [[at, own[at]] for at in range(352) if own[at] != base[at]]
            path.write_bytes(own + payload)
            runs = []
            for at, value in edits:
                if runs and runs[-1][0] + len(runs[-1][1]) // 2 == at:
                    runs[-1][1] += f"{value:02x}"
                else:
                    runs.append([at, f"{value:02x}"])
            found = read(path)
            usual = usual or found
            # Only what differs from the first case, which is the plain header.
            found = {key: value for key, value in found.items() if value != usual.get(key)}
            records.append({"name": name, "edits": runs, "itk": found if records else usual})
    version = str(SimpleITK.Version()).splitlines()[0]
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    text = f'{{"itk": {json.dumps(version)}, "base": "{base.hex()}", "cases": [\n{lines}\n]}}\n'
    Path(sys.argv[1]).write_text(text)
    refused = sum("refused" in record["itk"] for record in records)
    print(f"{version}: {len(records)} headers, {refused} of them refused")


if __name__ == "__main__":
    main()
