"""The steps of scripts/nnunet-folders-check: stunet beside nnU-Net 2.8.1 in nnU-Net's own folders, in one table.

Started by scripts/nnunet-folders-check with a Python that has nnU-Net. nnU-Net's functions run in this process;
`docs/nnunet-folders-check.md` has the last figures.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATASET, CONFIG, TRAINER = "Dataset501_Phantoms", "3d_fullres", "STUNetTrainer_custom"
RUN = f"{TRAINER}__nnUNetPlans__{CONFIG}"
ITERATIONS = 4

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--stunet", default=str(HERE.parent.parent / "target/release/stunet"))
parser.add_argument("--checksums", default=str(HERE.parent.parent / "target/release/examples/array_checksums"),
                    help="cargo build --release -p stunet-data --example array_checksums")
parser.add_argument("--work", type=Path, help="keeps all files here")
parser.add_argument("--out", type=Path, help="writes the table to this page")
parser.add_argument("--only", default="", help="only the steps whose name has this")
args = parser.parse_args()
# nnU-Net starts processes that import this file again: they find the folder here.
WORK = Path(os.environ.setdefault("STUNET_FOLDERS_WORK", str(args.work or tempfile.mkdtemp()))).resolve()
RAW, PREPROCESSED, RESULTS = (WORK / f"nnUNet_{name}" for name in ("raw", "preprocessed", "results"))
for folder in (RAW, PREPROCESSED, RESULTS):
    folder.mkdir(parents=True, exist_ok=True)
# Before nnU-Net is imported, which reads them once.
os.environ.update(nnUNet_raw=str(RAW), nnUNet_preprocessed=str(PREPROCESSED), nnUNet_results=str(RESULTS),
                  nnUNet_extTrainer=str(HERE / "trainer"), nnUNet_compile="f", nnUNet_n_proc_DA="0",
                  nnUNet_def_n_proc="1", OMP_NUM_THREADS="1", STU_ITERS=str(ITERATIONS), STU_VAL_ITERS="1",
                  STU_VALIDATE="0")

import blosc2
import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.postprocessing.remove_connected_components import (
    apply_postprocessing_to_folder, remove_all_but_largest_component_from_segmentation)
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from nnunetv2.run.run_training import get_trainer_from_args, run_training
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

torch.set_num_threads(1)
rows, failed = [], 0


def stunet(*words, **more):
    process = subprocess.run([args.stunet, *map(str, words)], text=True, capture_output=True, **more)
    with open(WORK / "log.txt", "a") as log:
        log.write(f"$ stunet {' '.join(map(str, words))}\n{process.stdout}{process.stderr}\n")
    if process.returncode:
        raise RuntimeError(f"stunet {words[0]}: {process.stderr.strip()}")
    return process.stdout


def step(name):
    def run(work):
        global failed
        if args.only not in name:
            return
        begin = time.monotonic()
        try:
            right, text = work()
        except Exception as error:
            (WORK / "log.txt").open("a").write(traceback.format_exc())
            right, text = False, f"{type(error).__name__}: {error}"
        failed += not right
        rows.append(f"| {name} | {text.replace(str(WORK), 'WORK').replace('|', '/')[:500]} | {'same' if right else 'FAIL'} |")
        print(rows[-1], f"({time.monotonic() - begin:.0f} s)", flush=True)
    return run


def prepare():
    """A dataset of phantoms, planned by stunet and preprocessed by nnU-Net."""
    if not (RAW / DATASET).exists():
        stunet("phantom", RAW / DATASET, "--cases", 5, "--spacing", "6mm", "--structures", "liver,spleen", "-q")
    folder = PREPROCESSED / DATASET
    if not (folder / "nnUNetPlans.json").exists():
        stunet("plan", RAW / DATASET, "-o", folder, "-q")
    cases = folder / f"nnUNetPlans_{CONFIG}"
    if not cases.exists():
        preprocess(folder / "nnUNetPlans.json", cases)
    return folder, cases


def preprocess(plans_file, out):
    """As DefaultPreprocessor.run, without processes."""
    plans = PlansManager(json.loads(Path(plans_file).read_text()))
    dataset = json.loads((RAW / DATASET / "dataset.json").read_text())
    configuration, work = plans.get_configuration(CONFIG), DefaultPreprocessor(False)
    out.mkdir(parents=True)
    for image in sorted((RAW / DATASET / "imagesTr").glob("*_0000.nii.gz")):
        name = image.name[:-len("_0000.nii.gz")]
        label = RAW / DATASET / "labelsTr" / f"{name}.nii.gz"
        work.run_case_save(str(out / name), [str(image)], str(label), plans, configuration, dataset)


def checksums(files):
    text = subprocess.run([args.checksums, *map(str, files)], text=True, capture_output=True, check=True).stdout
    return {line.split(" [")[0]: line.split()[-1] for line in text.splitlines()}


def crc(values):
    return f"{zlib.crc32(np.ascontiguousarray(values).tobytes()):08x}"


def main():
    """All steps, in order."""
    folder, cases = prepare()

    @step("preprocessed cases of nnU-Net (.b2nd): values")
    def _():
        files = sorted(cases.glob("*.b2nd"))
        found = checksums(files)
        arrays = {str(f): blosc2.open(str(f), mode="r")[:] for f in files}
        wrong = [f for f, values in arrays.items() if crc(values) != found[f]]
        return not wrong and len(files) == 10, f"{len(files)} files, {sum(a.size for a in arrays.values())} values, {len(wrong)} files differ"

    @step("the same unpacked (.npy)")
    def _():
        home = WORK / "npy"
        home.mkdir(exist_ok=True)
        for file in cases.glob("*.b2nd"):
            np.save(home / f"{file.stem}.npy", blosc2.open(str(file), mode="r")[:])
        files = sorted(home.glob("*.npy"))
        found = checksums(files)
        wrong = [f for f in files if crc(np.load(f)) != found[str(f)]]
        return not wrong, f"{len(files)} files, {len(wrong)} differ"

    TINY = ["--width", "8,16,32,64,128,128", "--depth", "1", "--iterations", ITERATIONS, "--val-iterations", 1,
            "--device", "cpu", "--no-validation"]

    @step("stunet train from nnU-Net's cases")
    def _():
        out = stunet("train", folder, CONFIG, 0, *TINY, "--epochs", 2, "-o", WORK / "ours")
        return "nnU-Net preprocessed (Blosc2)" in out, "two epochs from the .b2nd files"

    def state(path):
        """Weights, momentum, and what nnU-Net's optimiser would have of it, by name."""
        checkpoint = torch.load(path, map_location="cpu", weights_only=False)
        trainer = get_trainer_from_args(DATASET, CONFIG, 0, TRAINER, device=torch.device("cpu"))
        trainer.initialize()
        trainer.load_checkpoint(str(path))
        names = {id(p): n for n, p in trainer.network.named_parameters()}
        momentum = {}
        for group in trainer.optimizer.param_groups:
            for p in group["params"]:
                buffer = trainer.optimizer.state.get(p, {}).get("momentum_buffer")
                momentum[names[id(p)]] = None if buffer is None else buffer.clone()
        weights = {n: p.detach().clone() for n, p in trainer.network.named_parameters()}
        return checkpoint, weights, momentum

    def same(a, b):
        zero = lambda v: v is None or not v.any()
        return sum(not (zero(a[n]) and zero(b[n])) and not (a[n] is not None and b[n] is not None and torch.equal(a[n], b[n])) for n in a)

    def logged(checkpoint, key):
        return np.array([np.nan if v is None else v for v in checkpoint["logging"][key]], float)

    FOLD = RESULTS / DATASET / RUN / "fold_0"

    def nnunet_trains(epochs, go_on):
        os.environ["STU_EPOCHS"] = str(epochs)
        run_training(DATASET, CONFIG, 0, TRAINER, continue_training=go_on, device=torch.device("cpu"))

    @step("nnU-Net's run through stunet: weights, momentum, history")
    def _():
        if not FOLD.exists():
            nnunet_trains(2, False)
        final = FOLD / "checkpoint_final.pth"
        out = stunet("train", folder, CONFIG, 0, *TINY[4:], "--epochs", 2, "--continue")
        stunet("export", FOLD, WORK / "through.pth")
        (a, weights, momentum), (b, weights2, momentum2) = state(final), state(WORK / "through.pth")
        logs = max(np.nanmax(np.abs(logged(a, k) - logged(b, k))) for k in ("train_losses", "val_losses", "lrs", "ema_fg_dice"))
        text = f"{len(weights)} weights, {same(weights, weights2)} differ; {sum(v is not None for v in momentum.values())} buffers of momentum, {same(momentum, momentum2)} differ; history differs by {logs:.0e}; epoch {b['current_epoch']}"
        return not same(weights, weights2) and not same(momentum, momentum2) and logs == 0 and b["current_epoch"] == a["current_epoch"] and "complete" in out, text

    @step("nnU-Net began, stunet goes on: learning rates")
    def _():
        second = WORK / "going_on" / DATASET / RUN
        shutil.rmtree(second, ignore_errors=True)
        shutil.copytree(FOLD.parent, second)
        for file in (second / "fold_0").glob("*.safetensors"):
            file.unlink()
        shutil.rmtree(second / "fold_0" / "model", ignore_errors=True)
        (second / "fold_0" / "debug.json").unlink(missing_ok=True)
        out = stunet("train", folder, CONFIG, 0, *TINY[4:], "--epochs", 4, "--continue", "-o", WORK / "going_on")
        stunet("export", second / "fold_0", WORK / "went_on.pth")
        checkpoint, _, _ = state(WORK / "went_on.pth")
        expected = [0.01 * (1 - e / 4) ** 0.9 for e in (2, 3)]
        found = checkpoint["logging"]["lrs"][2:]
        return "after 2 epochs" in out and found == expected, f"epochs 3 and 4 of 4 at {found}, nnU-Net's poly schedule gives {expected}"

    @step("stunet began, nnU-Net goes on (`--c`)")
    def _():
        home = WORK / "ours" / DATASET / RUN / "fold_0"
        exported = WORK / "exported.pth"
        stunet("export", home, exported)
        before, weights, momentum = state(exported)
        kept = WORK / "nnunets_own"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(FOLD, kept)
        FOLD.mkdir()
        shutil.copy(exported, FOLD / "checkpoint_latest.pth")
        nnunet_trains(3, True)
        after, moved, _ = state(FOLD / "checkpoint_final.pth")
        lr = after["logging"]["lrs"]
        expected = 0.01 * (1 - 2 / 3) ** 0.9
        text = f"epochs {before['current_epoch']} to {after['current_epoch']}, learning rate {lr[-1]} (poly gives {expected}), {same(weights, moved)} weights moved, momentum of {sum(v is not None for v in momentum.values())} tensors taken over"
        return after["current_epoch"] == 3 and lr[-1] == expected and same(weights, moved) > len(weights) // 2, text

    @step("... and stunet again, from the file that is further")
    def _():
        shutil.copytree(WORK / "ours" / DATASET / RUN / "fold_0", FOLD, dirs_exist_ok=True)
        # That of the run as it was; it is written anew.
        shutil.rmtree(FOLD / "model")
        for file in ("checkpoint_best.safetensors",):
            (FOLD / file).unlink(missing_ok=True)
        theirs, weights, momentum = state(FOLD / "checkpoint_final.pth")
        out = stunet("train", folder, CONFIG, 0, "--continue", "--device", "cpu", "--no-validation")
        stunet("export", FOLD, WORK / "again.pth")
        found, weights2, momentum2 = state(WORK / "again.pth")
        text = f"epoch {found['current_epoch']} of {theirs['current_epoch']}; {same(weights, weights2)} weights, {same(momentum, momentum2)} buffers differ"
        return found["current_epoch"] == 3 and not same(weights, weights2) and not same(momentum, momentum2), text

    def labels_of(home):
        return {p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in sorted(Path(home).glob("*.nii.gz"))}

    def differ(a, b):
        a, b = labels_of(a), labels_of(b)
        assert a and a.keys() == b.keys(), f"{list(a)} and {list(b)}"
        return f"{len(a)} labelmaps, {sum(int((a[n] != b[n]).sum()) for n in a)} of {sum(v.size for v in a.values())} voxels differ"

    IMAGES, MODEL = RAW / DATASET / "imagesTr", WORK / "ours" / DATASET / RUN

    @step("stunet predict a folder: nnU-Net's files beside")
    def _():
        for seed, steps in (("a", 0.5), ("b", 0.75)):
            stunet("predict", "-i", IMAGES, "-o", WORK / f"predicted_{seed}", "-m", MODEL, "--device", "cpu", "--disable-tta",
                   "--step-size", steps, "--save-probabilities", "npz", "-q", "--overwrite")
        names = sorted(p.name for p in (WORK / "predicted_a").glob("*.json"))
        return names == ["dataset.json", "plans.json", "predict_from_raw_data_args.json"], ", ".join(names)

    @step("nnUNetv2_ensemble of two such folders, beside stunet ensemble")
    def _():
        two = [str(WORK / "predicted_a"), str(WORK / "predicted_b")]
        ensemble_folders(two, str(WORK / "theirs_ensembled"), num_processes=1)
        stunet("ensemble", "-i", *two, "-o", WORK / "ours_ensembled", "-q")
        text = differ(WORK / "theirs_ensembled", WORK / "ours_ensembled")
        return ", 0 of" in text, text

    @step("nnUNetv2_apply_postprocessing to such a folder, beside stunet postprocess apply")
    def _():
        home = WORK / "predicted_a"
        fns, kwargs = [remove_all_but_largest_component_from_segmentation], [{"labels_or_regions": [1]}]
        apply_postprocessing_to_folder(str(home), str(WORK / "theirs_post"), fns, kwargs, str(home / "plans.json"),
                                       str(home / "dataset.json"), num_processes=1)
        from batchgenerators.utilities.file_and_folder_operations import save_pickle
        save_pickle((fns, kwargs), str(WORK / "post.pkl"))
        stunet("postprocess", "apply", "-i", home, "-o", WORK / "ours_post", "-s", WORK / "post.pkl", "-q")
        text = differ(WORK / "theirs_post", WORK / "ours_post")
        return ", 0 of" in text, text

    @step("nnUNetv2_evaluate_folder with the files of such a folder")
    def _():
        home = WORK / "predicted_a"
        compute_metrics_on_folder2(str(RAW / DATASET / "labelsTr"), str(home), str(home / "dataset.json"),
                                   str(home / "plans.json"), str(WORK / "theirs.json"), num_processes=1)
        stunet("evaluate", RAW / DATASET / "labelsTr", home, "-o", WORK / "ours.json", "-q")
        a, b = (json.loads(p.read_text()) for p in (WORK / "theirs.json", WORK / "ours.json"))
        return a["foreground_mean"]["Dice"] == b["foreground_mean"]["Dice"], f"foreground Dice {a['foreground_mean']['Dice']} and {b['foreground_mean']['Dice']}"

    def with_torch(force):
        """The dataset's plans with PyTorch's resampling, at another spacing."""
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        name = f"torch_{force}"
        plans["plans_name"] = name
        configuration = plans["configurations"][CONFIG]
        configuration["data_identifier"] = f"{name}_{CONFIG}"
        configuration["spacing"] = [20.0, 4.9, 5.3] if force is None else [4.3, 5.1, 7.3]
        for what in ("data", "seg", "probabilities"):
            configuration[f"resampling_fn_{what}"] = "resample_torch_fornnunet"
            configuration[f"resampling_fn_{what}_kwargs"] = {"is_seg": what == "seg", "force_separate_z": force,
                                                             "memefficient_seg_resampling": False}
        (folder / f"{name}.json").write_text(json.dumps(plans, indent=1))
        return name

    def stored(path):
        import struct
        content = Path(path).read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        header, values = json.loads(content[8:8 + length]), content[8 + length:]
        kinds = {"F32": np.float32, "I16": np.int16}
        return [np.frombuffer(values[slice(*header[k]["data_offsets"])], kinds[header[k]["dtype"]]).reshape(header[k]["shape"])
                for k in ("image", "labels")]

    for force in (False, None):
        @step(f"plans with resample_torch_fornnunet, force_separate_z {force}: preprocessed cases")
        def _():
            name = with_torch(force)
            out = folder / f"{name}_{CONFIG}"
            if not out.exists():
                preprocess(folder / f"{name}.json", out)
            stunet("preprocess", RAW / DATASET, CONFIG, "--plans", name, "-o", folder, "-q")
            peak = square = count = labels = 0
            for file in sorted(out.glob("*.pkl")):
                image, seg = stored(folder / f"{name}_{CONFIG}_stunet" / f"{file.stem}.safetensors")
                data, theirs = (blosc2.open(str(out / f"{file.stem}{end}.b2nd"), mode="r")[:] for end in ("", "_seg"))
                difference = np.abs(data.astype(float) - image)
                peak, square, count = max(peak, difference.max()), square + (difference ** 2).sum(), count + difference.size
                labels += int((theirs[0] != seg).sum())
            rmse = (square / count) ** 0.5
            return peak <= 2e-4 and rmse <= 1e-5 and labels <= count * 1e-4, f"{count} values: largest difference {peak:.1e}, rms {rmse:.1e}; {labels} labels differ"

    @step("a model with resample_torch_fornnunet: labels of both")
    def _():
        # The network of before, taken over by a run with the plans of here.
        home = WORK / "torch_results" / DATASET / f"{TRAINER}_ft__torch_False__{CONFIG}"
        if not home.exists():
            stunet("train", folder, CONFIG, 0, *TINY[:4], *TINY[6:], "--iterations", 1, "--epochs", 1, "--lr", 1e-9,
                   "--pretrained", WORK / "exported.pth", "--keep-heads", "--plans", "torch_False", "-o", WORK / "torch_results")
        final = home / "fold_0" / "checkpoint_final.pth"
        stunet("export", home / "fold_0", final)
        checkpoint = torch.load(final, weights_only=False)
        torch.save({**checkpoint, "trainer_name": TRAINER}, final)
        stunet("predict", "-i", IMAGES, "-o", WORK / "torch_ours", "-m", home / "fold_0" / "checkpoint_final.pth", "--device", "cpu",
               "--disable-tta", "-q", "--overwrite")
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(home), (0,), "checkpoint_final.pth")
        (WORK / "torch_theirs").mkdir(exist_ok=True)
        predictor.predict_from_files_sequential(str(IMAGES), str(WORK / "torch_theirs"), False, True, None)
        a, b = (labels_of(WORK / name) for name in ("torch_theirs", "torch_ours"))
        wrong, count = sum(int((a[n] != b[n]).sum()) for n in a), sum(v.size for v in a.values())
        found = sorted(set(np.concatenate([np.unique(v) for v in a.values()]).tolist()))
        return wrong <= count * 1e-4 and len(found) > 1, f"{wrong} of {count} voxels differ; labels {found}"

    @step("nnU-Net 1's softmax (recomputed with its formula), ensembled")
    def _():
        import pickle
        from collections import OrderedDict
        rng, members = np.random.default_rng(3), [WORK / "v1_a", WORK / "v1_b"]
        for home in members:
            home.mkdir(exist_ok=True)
            softmax = rng.uniform(size=(3, 12, 14, 9)).astype(np.float16)
            np.savez_compressed(home / "case.npz", softmax=softmax)
            properties = OrderedDict(crop_bbox=[[1, 13], [0, 14], [2, 11]], original_size_of_raw_data=np.array([15, 15, 12]),
                                     size_after_cropping=(12, 14, 9), itk_spacing=(0.9, 1.1, 2.0), itk_origin=(1.0, 2.0, 3.0),
                                     itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
            (home / "case.pkl").write_bytes(pickle.dumps(properties))
        stunet("ensemble", "-i", *members, "-o", WORK / "v1_ours", "-q")
        # ensemble_predictions.merge_files and save_segmentation_nifti_from_softmax of nnU-Net 1.7.1.
        mean = np.mean(np.vstack([np.load(home / "case.npz")["softmax"][None] for home in members]), 0)
        whole = np.zeros((15, 15, 12), np.uint8)
        whole[1:13, 0:14, 2:11] = mean.argmax(0)
        image = sitk.ReadImage(str(WORK / "v1_ours" / "case.nii.gz"))
        wrong = int((sitk.GetArrayFromImage(image) != whole).sum())
        spacing = np.round(image.GetSpacing(), 6).tolist()
        return wrong == 0 and spacing == [0.9, 1.1, 2.0], f"{wrong} of {whole.size} voxels differ, spacing {spacing}"

    if args.out:
        version = __import__("importlib.metadata").metadata.version("nnunetv2")
        text = [f"# Beside nnU-Net in its own folders\n", f"Written by `scripts/nnunet-folders-check` on {time.strftime('%Y-%m-%d')} with nnU-Net {version}: five phantoms, the real functions of nnU-Net on one side and the binary on the other.\n",
                "| Step | Found | |", "|---|---|---|", *rows]
        args.out.write_text("\n".join(text) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
