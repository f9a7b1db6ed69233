"""Compares two recordings: every file, every array, every number.

    python compare.py OLD NEW

Numbers may differ by what another processor or another build of PyTorch rounds differently: those of
networks by a ten-thousandth of the largest in their array, labels and masks in one of a thousand
places. Everything else is equal. Prints what differs, and fails beyond these bounds.
"""
import gzip
import json
import os
import sys

import numpy as np


def files(root):
    found = []
    for folder, _, names in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(name for name in found if name != "SHA256SUMS")


def compare_arrays(what, old, new):
    if old.shape != new.shape or old.dtype != new.dtype:
        return ["%s: %s %s became %s %s" % (what, old.dtype, old.shape, new.dtype, new.shape)]
    if np.array_equal(old, new):
        return []
    if old.dtype.kind == "f":
        old, new = old.astype(np.float64), new.astype(np.float64)
        error = np.abs(old - new).max() / max(np.abs(old).max(), 1e-30)
        print("%s: differs by %.1e of its largest value" % (what, error))
        # The gradient of a bias before a norm is rounding noise around 0.
        return [what] if error > 1e-4 and np.abs(old).max() > 1e-5 else []
    share = np.mean(old != new)
    print("%s: %.4f %% differ" % (what, 100 * share))
    return [what] if share > 1e-3 else []


def compare_json(what, old, new):
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return [wrong for key in old for wrong in compare_json("%s/%s" % (what, key), old[key], new[key])]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new))
        return [wrong for i, (a, b) in pairs for wrong in compare_json("%s/%d" % (what, i), a, b)]
    if isinstance(old, float) and isinstance(new, float):
        close = abs(old - new) <= 1e-2 * max(abs(old), abs(new))
        return [] if close else ["%s: %r became %r" % (what, old, new)]
    return [] if old == new else ["%s: %r became %r" % (what, old, new)]


def compare_file(name, old, new):
    if name.endswith(".npz"):
        a, b = np.load(old), np.load(new)
        if sorted(a.files) != sorted(b.files):
            return ["%s: other arrays" % name]
        return [w for key in a.files for w in compare_arrays("%s/%s" % (name, key), a[key], b[key])]
    if name.endswith(".json"):
        with open(old) as a, open(new) as b:
            return compare_json(name, json.load(a), json.load(b))
    read = lambda path: np.frombuffer(gzip.open(path).read(), dtype=np.uint8)
    return compare_arrays(name, read(old), read(new))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    old, new = sys.argv[1:]
    if files(old) != files(new):
        sys.exit("other files: %s" % sorted(set(files(old)) ^ set(files(new))))
    same = 0
    wrong = []
    for name in files(old):
        paths = [os.path.join(root, name) for root in (old, new)]
        a, b = (open(path, "rb").read() for path in paths)
        if a == b:
            same += 1
        else:
            wrong += compare_file(name, *paths)
    print("%d files, %d of them equal byte by byte" % (len(files(old)), same))
    if wrong:
        sys.exit("beyond the bounds:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
