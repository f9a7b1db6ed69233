#!/usr/bin/env python3
"""Records how nnU-Net 2.8.1 resamples with PyTorch: tests/data/resample_torch.json.

    PYTHON_WITH_NNUNETV2_2.8.1 scripts/reference/resample_torch.py [OUT.json]

Random labelmaps of random shapes, each with the result of `resample_torch_fornnunet(is_seg=True)`, with and without
a separate axis; labels are letters, `a` for -1. Of one image the mean, the extremes and ten voxels.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet


def letters(labels):
    return "".join(chr(ord("a") + 1 + int(v)) for v in labels.ravel())


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "tests/data/resample_torch.json")
    torch.set_num_threads(1)
    rng, cases = np.random.default_rng(7), []
    for index in range(40):
        old, new = ([int(n) for n in rng.integers(2, 12, 3)] for _ in range(2))
        if index % 4 == 0:
            # Whole factors, where ties are the rule.
            new = [n * int(f) for n, f in zip(old, rng.integers(1, 3, 3))]
        blocks = rng.integers(-1, 4, [n // 2 + 1 for n in old])
        labels = np.kron(blocks, np.ones((2, 2, 2), int))[tuple(slice(0, n) for n in old)].astype(np.int16)
        noisy = rng.uniform(size=labels.shape) < 0.3
        labels[noisy] = rng.integers(-1, 4, int(noisy.sum()))
        apart = int(rng.integers(0, 3)) if index % 3 == 0 else None
        spacing = [5.0 if axis == apart else 1.0 for axis in range(3)]
        resized = resample_torch_fornnunet(labels[None], new, spacing, spacing, is_seg=True, num_threads=1,
                                           force_separate_z=apart is not None)[0]
        cases.append({"from": old, "to": new, "apart": apart, "labels": letters(labels), "resized": letters(resized)})
    out.write_text(json.dumps(cases, indent=0))


if __name__ == "__main__":
    main()
