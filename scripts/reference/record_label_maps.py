#!/usr/bin/env python3
"""What STU-Net's own direct_inference.py makes of labels: crates/stunet-data/src/mapping/tests/recorded.json.

    PYTHON scripts/reference/record_label_maps.py STU-NET/direct_inference

Its function `map_all_data` runs on a prediction that holds every label from 0 to 104 and a reference that
holds 0 to 255, for each of the 14 datasets; recorded is what each label becomes, or the error it ends in.
Needs nibabel, numpy, tqdm and batchgenerators; nnU-Net 1 is not needed, as nothing is predicted.
"""
import contextlib
import io
import json
import sys
import tempfile
import types
from pathlib import Path

import nibabel
import numpy as np

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "crates/stunet-data/src/mapping/tests/recorded.json"


def stand_in(name, **attributes):
    """An empty module: the script imports what predicts, and does not call it here."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def write(path, values):
    nibabel.save(nibabel.Nifti1Image(np.array(values, np.uint8).reshape(-1, 1, 1), np.eye(4)), path)


def read(path):
    return [int(v) for v in nibabel.load(path).get_fdata().ravel()]


def main():
    sys.path.insert(0, sys.argv[1])
    for name in ["nnunet", "nnunet.inference", "nnunet.evaluation"]:
        stand_in(name)
    stand_in("nnunet.inference.predict", predict_cases=None)
    stand_in("nnunet.evaluation.evaluator", aggregate_scores=None)
    import direct_inference
    from label_sys import label_mapping, label_sys_dict, totalseg_cls2idx

    recorded = {}
    for dataset, label_sys in label_sys_dict.items():
        info = {"label_sys": label_sys, "label_mapping": label_mapping, "totalseg_cls2idx": totalseg_cls2idx}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            prediction, reference = f"{folder}/prediction.nii", f"{folder}/reference.nii"
            write(prediction, range(105))
            write(reference, range(256))
            try:
                pairs, labels = direct_inference.map_all_data([(prediction, reference)], f"{folder}/out", info)
            except KeyError as error:
                recorded[dataset] = {"error": f"KeyError: {error}"}
                continue
            mapped = [read(path) for path in pairs[0]]
        becomes = [{str(v): to for v, to in enumerate(values) if to} for values in mapped]
        recorded[dataset] = {"labels": labels, "prediction": becomes[0], "reference": becomes[1]}
    TARGET.write_text(json.dumps(recorded, indent=1) + "\n")
    print(f"{len(recorded)} datasets: {TARGET}")


if __name__ == "__main__":
    main()
