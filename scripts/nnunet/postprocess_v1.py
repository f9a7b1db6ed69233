"""Runs nnU-Net 1.7.1's postprocessing: called by workflow.py --v1 with a Python that has it.

    postprocess_v1.py determine BASE REFERENCES CLASS...     BASE/validation_raw holds the predictions
    postprocess_v1.py apply IN OUT JSON
"""
import sys
from pathlib import Path

from nnunet.evaluation.evaluator import aggregate_scores
from nnunet.postprocessing.connected_components import (
    apply_postprocessing_to_folder,
    determine_postprocessing,
    load_postprocessing,
)


def main():
    if sys.argv[1] == "apply":
        classes, sizes = load_postprocessing(sys.argv[4])
        apply_postprocessing_to_folder(sys.argv[2], sys.argv[3], classes, sizes, num_processes=2)
        return
    base, references, classes = sys.argv[2], sys.argv[3], [int(c) for c in sys.argv[4:]]
    raw = Path(base) / "validation_raw"
    pairs = [(str(p), str(Path(references) / p.name)) for p in sorted(raw.glob("*.nii.gz"))]
    aggregate_scores(pairs, labels=classes, json_output_file=str(raw / "summary.json"), num_threads=2)
    determine_postprocessing(base, references, processes=2)


if __name__ == "__main__":
    main()
