"""What nnU-Net does after training, beside stunet: see scripts/nnunet-workflow-check.

Two synthetic datasets (two channels with regions; anisotropic with an ignore label), three models each, five
folds. A model's predictions are its reference, blurred and disturbed, with false parts here and there, so that
postprocessing has something to decide; they are stored as nnU-Net stores them: labelmap, .npz, .pkl.
nnU-Net's own functions run on one copy of the results, the binary on another.

With --trained the predictions are those of `stunet train --npz`: two small networks, five short folds each, on
two datasets of datasets.py.
"""
import argparse
import contextlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import datasets

ROOT = Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("STUNET", str(ROOT / "target/release/stunet"))
BOUND = 1e-9
FOLDS, CASES = 5, 10
PLANS = "nnUNetPlans"
# Trainer and configuration of each model.
MODELS = [("nnUNetTrainer", name) for name in ("2d", "3d_fullres", "3d_lowres")]
TRAINED = [("STUNetTrainer_custom", "3d_fullres"), ("STUNetTrainer_small_ft", "3d_fullres")]
# Two channels with regions; anisotropic with an ignore label.
TRAINED_ON = ["Regions", "ThickIgnore"]
DATASETS = {
    "Dataset801_Regions": {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        "regions_class_order": [1, 2, 3],
        "spacing": (1.0, 1.0, 1.5),
    },
    "Dataset802_Ignore": {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "kidney": 3, "ignore": 4},
        "spacing": (0.7, 0.8, 5.0),
    },
}


def name_of(model):
    """Its folder in the results."""
    trainer, configuration = model
    return f"{trainer}__{PLANS}__{configuration}"


def said(model):
    """What tells it from the other models."""
    trainer, configuration = model
    return configuration if len({other for other, _ in MODELS}) == 1 else trainer


def ellipsoid(rng, shape, centre, radii):
    """Inside of a body whose surface is a little uneven."""
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    apart = sum(((a - c - rng.uniform(-1, 1)) / r) ** 2 for a, c, r in zip(axes, centre, radii))
    return np.sqrt(apart) + 0.2 * ndimage.gaussian_filter(rng.standard_normal(shape), 2) * 6


def reference(rng, regions):
    """A labelmap `[z, y, x]`: nested parts; or a liver with two tumours, two kidneys, and slices that are not
    annotated."""
    shape = (14, 36, 40)
    if regions:
        body = ellipsoid(rng, shape, (7, 18, 20), (5, 12, 12))
        return np.digitize(-body, [-1.0, -0.7, -0.4]).astype(np.uint8)
    labels = np.zeros(shape, np.uint8)
    labels[ellipsoid(rng, shape, (7, 14, 14), (5, 11, 10)) < 1] = 1
    for centre in [(6, 10, 10), (8, 18, 17)]:
        labels[(ellipsoid(rng, shape, centre, (2, 3, 3)) < 1) & (labels == 1)] = 2
    for centre in [(7, 7, 33), (7, 28, 33)]:
        labels[ellipsoid(rng, shape, centre, (4, 4, 3)) < 1] = 3
    labels[: rng.integers(0, 3)] = 4
    return labels


def probabilities(rng, labels, outputs, noise):
    """`[C, z, y, x]` of a model that is as good as `noise` is small, and false parts far away."""
    logits = []
    for output in outputs:
        mask = np.isin(labels, output).astype(float)
        for _ in range(rng.integers(0, 3)):
            z, y, x = (int(rng.integers(0, n - 3)) for n in mask.shape)
            mask[z : z + 2, y : y + 3, x : x + 3] = 2.5
        blurred = ndimage.gaussian_filter(mask, (0.5, 1, 1))
        logits.append(8 * (blurred - 0.5) + noise * ndimage.gaussian_filter(rng.standard_normal(mask.shape), 1) * 6)
    logits = np.stack(logits)
    return logits


def make(home, seed):
    """Writes nnU-Net's three folders."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from batchgenerators.utilities.file_and_folder_operations import save_pickle

    for name, about in DATASETS.items():
        rng = np.random.default_rng(seed)
        regions = "regions_class_order" in about
        dataset = {key: value for key, value in about.items() if key != "spacing"}
        dataset |= {"numTraining": CASES, "file_ending": ".nii.gz"}
        plans = {
            "dataset_name": name,
            "plans_name": PLANS,
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {name: {"architecture": {}} for _, name in MODELS},
        }
        manager = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
        outputs = manager.foreground_regions if regions else [(label,) for label in manager.all_labels]
        raw, prepared = home / "nnUNet_raw" / name, home / "nnUNet_preprocessed" / name
        for folder in [raw / "labelsTr", prepared / "gt_segmentations"]:
            folder.mkdir(parents=True)
        write_json(prepared / f"{PLANS}.json", plans)
        truth = [reference(rng, regions) for _ in range(CASES)]
        for index, labels in enumerate(truth):
            image = sitk.GetImageFromArray(labels)
            image.SetSpacing(about["spacing"])
            image.SetOrigin((12.5, -7.25, 130.75))
            path = raw / "labelsTr" / f"case_{index:02}.nii.gz"
            sitk.WriteImage(image, str(path))
            shutil.copy(path, prepared / "gt_segmentations" / path.name)
        for model, noise in zip(MODELS, [1.4, 1.0, 1.05]):
            results = home / "nnUNet_results" / name / name_of(model)
            results.mkdir(parents=True)
            write_json(results / "plans.json", plans)
            write_json(results / "dataset.json", dataset)
            for index, labels in enumerate(truth):
                folder = results / f"fold_{index % FOLDS}" / "validation"
                folder.mkdir(parents=True, exist_ok=True)
                case = folder / f"case_{index:02}"
                _, properties = SimpleITKIO().read_seg(str(raw / "labelsTr" / f"{case.name}.nii.gz"))
                logits = probabilities(rng, np.where(labels == 4, 0, labels), outputs, noise)
                stored = manager.apply_inference_nonlin(logits.astype(np.float32)).numpy()
                np.savez_compressed(f"{case}.npz", probabilities=stored)
                save_pickle(properties, f"{case}.pkl")
                predicted = manager.convert_probabilities_to_segmentation(stored)
                SimpleITKIO().write_seg(predicted, f"{case}.nii.gz", properties)


def train(home):
    """Writes nnU-Net's three folders by training; returns the names of the datasets."""
    names = []
    for kind in TRAINED_ON:
        name = datasets.make(home / "nnUNet_raw", kind).name
        names.append(name)
        for command in ("plan", "preprocess"):
            stunet(command, name, "--quiet")
        for trainer, configuration in TRAINED:
            wide = trainer == TRAINED[0][0]
            size = ["--width", "8,8,16,16,16,16" if wide else "4,4,8,8,8,8", "--epochs", 8 if wide else 4]
            named = [] if wide else ["--trainer", trainer]
            short = ["--iterations", 24, "--val-iterations", 2, "--batch-size", 2, "--lr", 0.02, "--quiet", "--npz"]
            for fold in range(FOLDS):
                print(f"{name}: {trainer}, fold {fold}", flush=True)
                stunet("train", name, configuration, fold, *named, *size, *short)
    return names


def write_json(path, value):
    path.write_text(json.dumps(value, indent=4))


def stunet(*words):
    done = subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"stunet {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def labels_of(folder):
    """Voxels and grid of every labelmap."""
    found = {}
    for path in sorted(Path(folder).glob("*.nii.gz")):
        image = sitk.ReadImage(str(path))
        found[path.name] = (sitk.GetArrayFromImage(image), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return found


class Table:
    """Rows of what was compared, and whether all of them agree."""

    def __init__(self):
        self.rows, self.good = [], True

    def add(self, dataset, what, found, good):
        self.rows.append((dataset, what, found, good))
        self.good &= good
        print(f"{'ok   ' if good else 'WRONG'} {dataset}: {what}: {found}", flush=True)

    def labels(self, dataset, what, one, other):
        one, other = labels_of(one), labels_of(other)
        voxels = sum(int((one[name][0] != other[name][0]).sum()) for name in one if name in other)
        total = sum(labels.size for labels, *_ in one.values())
        grids = all(np.allclose(one[n][i], other[n][i], atol=1e-6) for n in one if n in other for i in (1, 2, 3))
        good = bool(one) and one.keys() == other.keys() and voxels == 0 and grids
        self.add(dataset, what, f"{len(one)} labelmaps, {voxels} of {total} voxels differ", good)

    def numbers(self, dataset, what, one, other):
        differences = list(compare(one, other, ""))
        words = [text for text in differences if isinstance(text, str)]
        largest = max((d for d in differences if not isinstance(d, str)), default=0.0)
        found = f"{len(differences)} numbers, largest difference {largest:.1e}" + ("; " + words[0] if words else "")
        self.add(dataset, what, found, not words and bool(differences) and largest <= BOUND)


def compare(one, other, at):
    """Differences of numbers, and a text for everything else that differs; paths are left out."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            yield f"{at}: keys {sorted(one)} and {sorted(other)}"
        for key in one.keys() & other.keys():
            if not key.endswith("_file"):
                yield from compare(one[key], other[key], f"{at}/{key}")
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{at}: {len(one)} and {len(other)} entries"
        for index, pair in enumerate(zip(one, other)):
            yield from compare(*pair, f"{at}/{index}")
    elif isinstance(one, (int, float)) and isinstance(other, (int, float)):
        both = math.isnan(one) and math.isnan(other)
        yield 0.0 if both else abs(one - other) if not math.isnan(one - other) else f"{at}: {one} and {other}"
    elif one != other:
        yield f"{at}: {one} and {other}"


def read(path):
    return json.loads(Path(path).read_text())


def find_best(table, name, theirs, ours):
    """Accumulated folds, ensembles, the choice, and its postprocessing."""
    from nnunetv2.evaluation.find_best_configuration import (
        dumb_trainer_config_plans_to_trained_models_dict,
        find_best_configuration,
    )

    trainers, configurations = (list(dict.fromkeys(words)) for words in zip(*MODELS))
    models = dumb_trainer_config_plans_to_trained_models_dict(trainers, configurations, [PLANS])
    with contextlib.redirect_stdout(io.StringIO()):
        find_best_configuration(name, models, folds=tuple(range(FOLDS)), num_processes=2)
    mine, their = ours / "nnUNet_results" / name, theirs / "nnUNet_results" / name
    print(stunet("find-best", mine, "-tr", *trainers, "-c", *configurations, "-p", PLANS))
    folds = "_".join(map(str, range(FOLDS)))
    for model in MODELS:
        folder = f"{name_of(model)}/crossval_results_folds_{folds}"
        table.labels(name, f"accumulate, {said(model)}", their / folder, mine / folder)
        table.numbers(name, f"accumulate, {said(model)}: summary.json", read(their / folder / "summary.json"), read(mine / folder / "summary.json"))
    for folder in sorted((their / "ensembles").iterdir()):
        what = "ensemble " + " + ".join(said(part.split("__")[::2]) for part in folder.name.split("___")[1:3])
        other = mine / "ensembles" / folder.name
        table.labels(name, what, folder, other)
        table.numbers(name, f"{what}: summary.json", read(folder / "summary.json"), read(other / "summary.json"))
    one, other = read(their / "inference_information.json"), read(mine / "inference_information.json")
    table.numbers(name, "find-best: all_results", one["all_results"], other["all_results"])
    keys = ["result_on_crossval_pre_pp", "result_on_crossval_post_pp"]
    best = [{key: run["best_model_or_ensemble"][key] for key in keys} for run in (one, other)]
    table.numbers(name, "find-best: score of the best", *best)
    chosen = [run["best_model_or_ensemble"]["selected_model_or_models"] for run in (one, other)]
    names = " + ".join(said((model["trainer"], model["configuration"])) for model in chosen[1])
    table.add(name, "find-best: the choice", names, chosen[0] == chosen[1])
    source = Path(one["best_model_or_ensemble"]["postprocessing_file"]).parent
    return source, mine / source.relative_to(their)


def postprocessing(table, name, what, source, mine):
    """What both decided and made of it, and each one's file read by the other."""
    from batchgenerators.utilities.file_and_folder_operations import load_pickle
    from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder

    one, other = read(source / "postprocessing.json"), read(mine / "postprocessing.json")
    steps = one["postprocessing_kwargs"]
    same = [run["postprocessing_kwargs"] for run in (one, other)]
    table.add(name, f"{what}: decisions", json.dumps([s["labels_or_regions"] for s in steps]), same[0] == same[1])
    table.numbers(name, f"{what}: postprocessing.json", one, other)
    table.labels(name, f"{what}: postprocessed labels", source / "postprocessed", mine / "postprocessed")
    table.numbers(name, f"{what}: postprocessed/summary.json", read(source / "postprocessed/summary.json"), read(mine / "postprocessed/summary.json"))
    out = mine.parent / "applied"
    for label, file in [("nnU-Net's .pkl", source / "postprocessing.pkl"), ("our .json", mine / "postprocessing.json")]:
        shutil.rmtree(out, ignore_errors=True)
        stunet("postprocess", "apply", "-i", mine, "-o", out, "-pp_pkl_file", file)
        table.labels(name, f"{what}: stunet applies {label}", source / "postprocessed", out)
    functions, arguments = load_pickle(str(mine / "postprocessing.pkl"))
    shutil.rmtree(out)
    apply_postprocessing_to_folder(str(mine), str(out), functions, arguments, num_processes=2)
    table.labels(name, f"{what}: nnU-Net applies our .pkl", source / "postprocessed", out)
    shutil.rmtree(out)


def every_model(table, name, theirs, ours):
    """Postprocessing of each model by itself, whichever won."""
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    reference = theirs / "nnUNet_raw" / name / "labelsTr"
    for model in MODELS:
        part = Path("nnUNet_results") / name / name_of(model) / ("crossval_results_folds_" + "_".join(map(str, range(FOLDS))))
        with contextlib.redirect_stdout(io.StringIO()):
            determine_postprocessing(str(theirs / part), str(reference), None, None, 2)
        stunet("postprocess", "determine", "-i", ours / part, "-ref", reference, "-np", 2)
        postprocessing(table, name, f"postprocess {said(model)}", theirs / part, ours / part)


def folders(table, name, home):
    """`ensemble` of prediction folders, with the mean stored; each one's mean ensembled by the other."""
    from nnunetv2.ensembling.ensemble import ensemble_folders

    results = home / "nnUNet_results" / name
    inputs = []
    for model in MODELS:
        folder = home / "predicted" / name / said(model)
        folder.mkdir(parents=True)
        source = results / name_of(model)
        for file in [*source.glob("fold_*/validation/case_*"), source / "plans.json", source / "dataset.json"]:
            shutil.copy(file, folder / file.name)
        inputs.append(str(folder))
    theirs, mine = home / "predicted" / name / "nnunet", home / "predicted" / name / "stunet"
    ensemble_folders(inputs, str(theirs), save_merged_probabilities=True, num_processes=2)
    stunet("ensemble", "-i", *inputs, "-o", mine, "--save_npz", "-np", 2)
    table.labels(name, f"ensemble of {len(MODELS)} folders", theirs, mine)
    differ = [float(np.abs(np.load(f)["probabilities"] - np.load(mine / f.name)["probabilities"]).max()) for f in theirs.glob("*.npz")]
    table.add(name, "ensemble: stored means", f"{len(differ)} files, largest difference {max(differ):.1e}", max(differ) == 0)
    for folder in (theirs, mine):
        shutil.copy(Path(inputs[0]) / "plans.json", folder / "plans.json")
    again = home / "predicted" / name / "again"
    ensemble_folders([inputs[0], str(mine)], str(again / "nnunet"), num_processes=2)
    # Without labelmaps the grid is that of the .pkl.
    for file in Path(inputs[0]).glob("*.nii.gz"):
        file.unlink()
    stunet("ensemble", "-i", inputs[0], theirs, "-o", again / "stunet")
    table.labels(name, "each one's mean ensembled by the other, grid from the .pkl", again / "nnunet", again / "stunet")


def version_1(table, python, home):
    """nnU-Net 1.7.1's rule and file, on the labels that have no regions and are annotated everywhere."""
    name = "Dataset802_Ignore"
    script = Path(__file__).parent / "postprocess_v1.py"
    for model in MODELS:
        base, mine, applied = (home / "v1" / said(model) / part for part in ("base", "mine", "applied"))
        raw, truth = base / "validation_raw", home / "v1" / said(model) / "references"
        for folder in (raw, mine, truth):
            folder.mkdir(parents=True)
        results = home / "nnUNet_results" / name / name_of(model)
        for file in results.glob("fold_*/validation/*.nii.gz"):
            shutil.copy(file, raw / file.name)
            shutil.copy(file, mine / file.name)
            image = sitk.ReadImage(str(home / "nnUNet_raw" / name / "labelsTr" / file.name))
            kept = sitk.Mask(image, sitk.Cast(image != 4, image.GetPixelID()))
            sitk.WriteImage(kept, str(truth / file.name))
        dataset = read(results / "dataset.json")
        del dataset["labels"]["ignore"]
        write_json(mine / "dataset.json", dataset)
        subprocess.run([python, script, "determine", base, truth, "1", "2", "3"], check=True, capture_output=True)
        stunet("postprocess", "determine", "-i", mine, "-ref", truth, "--layout", "v1")
        one, other = read(base / "postprocessing.json"), read(mine / "postprocessing.json")
        what = f"nnU-Net 1, postprocess {said(model)}"
        for run in (one, other):
            run.pop("validation_raw"), run.pop("validation_final")
        table.numbers(name, f"{what}: postprocessing.json", one, other)
        table.add(name, f"{what}: decisions", json.dumps(one["for_which_classes"]), one["for_which_classes"] == other["for_which_classes"])
        table.labels(name, f"{what}: postprocessed labels", base / "validation_final", mine / "postprocessed")
        stunet("postprocess", "apply", "-i", raw, "-o", applied, "-s", base / "postprocessing.json")
        table.labels(name, f"{what}: stunet applies its .json", base / "validation_final", applied)
        shutil.rmtree(applied)
        subprocess.run([python, script, "apply", raw, applied, mine / "postprocessing.json"], check=True, capture_output=True)
        table.labels(name, f"{what}: nnU-Net applies our .json", base / "validation_final", applied)
        # Sizes, as nnU-Net's "advanced" postprocessing stores them.
        sized = {"for_which_classes": [[1, 2, 3], 1], "min_valid_object_sizes": "{(1, 2, 3): 60.5, 1: 900.0}"}
        write_json(home / "v1" / said(model) / "sized.json", sized)
        both = [home / "v1" / said(model) / f"sized_{part}" for part in ("nnunet", "stunet")]
        subprocess.run([python, script, "apply", raw, both[0], home / "v1" / said(model) / "sized.json"], check=True, capture_output=True)
        stunet("postprocess", "apply", "-i", raw, "-o", both[1], "-s", home / "v1" / said(model) / "sized.json")
        table.labels(name, f"{what}: sizes", *both)


def report(table, args, secs):
    told = (
        f"Two synthetic datasets of {CASES} cases, three models of five folds each; the same predictions"
        if not args.trained
        else f"Two synthetic datasets of {datasets.TRAINING} cases, on each of which `stunet train --npz` trained two small "
        "networks in five short folds; the same validation predictions"
    )
    lines = [
        "# nnU-Net's steps after training, both ways" + (", on trained folds" if args.trained else ""),
        "",
        f"Written by `scripts/nnunet-workflow-check{' --trained' if args.trained else ''}` on {time.strftime('%Y-%m-%d')} "
        f"with nnU-Net 2.8.1{'' if args.trained else ' (and 1.7.1, where it says so)'}, in {secs:.0f} s. {told}, with nnU-Net's "
        "own functions on one side and the binary on the other. Numbers agree to 1e-9, labels voxel by voxel.",
        "",
        "| Dataset | Step | Found | |",
        "|---|---|---|---|",
    ]
    lines += [f"| {dataset} | {what} | {found} | {'same' if good else '**differs**'} |" for dataset, what, found, good in table.rows]
    return "\n".join(lines) + "\n"


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--report", type=Path)
    words.add_argument("--work", type=Path)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--trained", action="store_true", help="with predictions of networks that stunet trains")
    words.add_argument("--v1", help="a Python with nnU-Net 1.7.1, for its postprocessing")
    args = words.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="nnunet-workflow-"))
    theirs, ours = work / "nnunet", work / "stunet"
    for name in ["raw", "preprocessed", "results"]:
        os.environ[f"nnUNet_{name}"] = str(theirs / f"nnUNet_{name}")
    # Threads do the same as the processes that nnU-Net starts, without loading PyTorch in each of them.
    import multiprocessing

    multiprocessing.get_context = lambda kind: types.SimpleNamespace(Pool=ThreadPool)
    start = time.perf_counter()
    names = list(DATASETS)
    if args.trained:
        MODELS[:] = TRAINED
        names = train(theirs)
    else:
        make(theirs, args.seed)
    shutil.copytree(theirs, ours)
    table = Table()
    for name in names:
        source, mine = find_best(table, name, theirs, ours)
        postprocessing(table, name, "postprocess of the best", source, mine)
        every_model(table, name, theirs, ours)
        folders(table, name, ours)
    if args.v1 and not args.trained:
        version_1(table, args.v1, theirs)
    text = report(table, args, time.perf_counter() - start)
    if args.report:
        args.report.write_text(text)
    if not args.work:
        shutil.rmtree(work)
    sys.exit(not table.good)


if __name__ == "__main__":
    main()
