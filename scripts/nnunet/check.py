"""The steps of scripts/nnunet-check: nnU-Net 2.8.1 and stunet on the same data, both ways, in one table.

Started by scripts/nnunet-check with a Python that has nnU-Net; `scripts/nnunet-check --help` says what
it needs. docs/nnunet-check.md has the last figures.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import compare
import datasets

WANTED = "2.8.1"
CONFIG = "3d_fullres"
TRAINER = "STUNetTrainer_custom"
RUN = f"{TRAINER}__nnUNetPlans__{CONFIG}"
# Its own network, in a training of few steps, and as many as find something.
PLAIN_TRAINER, PLAIN_ITERATIONS = "nnUNetTrainer_short", 15
EPOCHS, ITERATIONS = 2, 24
# The trainer's width; enough updates that something is found, as background alone would show nothing.
TINY = ["--width", "8,16,32,64,128,128", "--depth", "1", "--iterations", 4 * ITERATIONS, "--val-iterations", "2",
        "--device", "cpu", "-q"]


class Wrong(Exception):
    """A step that ended otherwise than it should; what it said last."""


class Check:
    def __init__(self, args):
        self.args, self.work = args, args.work
        self.failed, self.rows = 0, []
        self.theirs, self.ours, self.shared, self.exported = (
            self.work / name for name in ("theirs", "ours", "shared", "exported"))
        for folder in (self.theirs, self.ours, self.shared, self.exported):
            for part in ("nnUNet_preprocessed", "nnUNet_results"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        self.raw = self.work / "nnUNet_raw"

    def put(self, step, dataset, right, text):
        self.failed += not right
        self.rows.append(f"| {step} | {dataset} | {'equal' if right else 'FAIL'} | {text} |".replace("\n", " "))
        print(self.rows[-1], flush=True)

    def step(self, name, dataset, work):
        """Runs one step and puts its row; returns whether it was right."""
        try:
            right, text = work()
        except Wrong as wrong:
            right, text = False, str(wrong)
        except (OSError, LookupError, ValueError) as error:
            right, text = False, f"{type(error).__name__}: {error}"
        self.put(name, dataset, right, text.replace(str(self.work), "WORK").replace("|", "/")[:400])
        return right

    def run(self, command, home=None, **variables):
        """A command with nnU-Net's folders below `home`; its output, or Wrong."""
        home = home or self.theirs
        environment = {k: v for k, v in os.environ.items() if not k.lower().startswith(("nnunet", "slurm_"))}
        environment.update(
            nnUNet_raw=str(self.raw), nnUNet_preprocessed=str(home / "nnUNet_preprocessed"),
            nnUNet_results=str(home / "nnUNet_results"), nnUNet_extTrainer=str(HERE / "trainer"),
            nnUNet_def_n_proc="2", nnUNet_n_proc_DA="2", nnUNet_compile="f", OMP_NUM_THREADS=str(self.args.threads),
            CUDA_VISIBLE_DEVICES="", PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            STU_EPOCHS=str(EPOCHS), STU_ITERS=str(3 * ITERATIONS), STU_VAL_ITERS="2", PYTHONDONTWRITEBYTECODE="1")
        environment.update(variables)
        command = [str(word) for word in command]
        begin = time.monotonic()
        process = subprocess.Popen(command, env=environment, text=True, errors="replace", stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            text, late = process.communicate(timeout=self.args.limit)[0], False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text, late = process.communicate()[0], True
        with open(self.work / "log.txt", "a") as log:
            log.write(f"$ {' '.join(command)}\n{text}[status {process.returncode}, {time.monotonic() - begin:.1f} s]\n\n")
        if late:
            raise Wrong(f"{command[0]}: still running after {self.args.limit:.0f} s")
        if process.returncode:
            raise Wrong(f"{Path(command[0]).name} {command[1]}: status {process.returncode}: {said(text)}")
        return text

    def stunet(self, *words):
        return self.run([self.args.stunet, *words])


def said(text):
    """The line that tells what went wrong: the last one, of a Python error the one with its name."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    return (errors or lines or ["(nothing printed)"])[-1]


def store_of(prepared):
    """Our store below a dataset's folder, whatever it is called."""
    found = sorted(prepared.glob("*/store.json"))
    if len(found) != 1:
        raise Wrong(f"expected one store below {prepared}, found {len(found)}")
    return found[0].parent


def plan(check, kinds):
    """nnU-Net plans and preprocesses all datasets in one call, and stunet one after the other."""
    ids = [datasets.KINDS[kind]["id"] for kind in kinds]
    check.run(["nnUNetv2_plan_and_preprocess", "-d", *ids, "-c", CONFIG, "-npfp", "2", "-np", "2", "--no_pbar",
               "--verify_dataset_integrity"])
    for kind in kinds:
        name = datasets.name_of(kind)
        theirs, ours = (home / "nnUNet_preprocessed" / name for home in (check.theirs, check.ours))
        # What stunet gets to see later, as nnU-Net left it.
        shutil.copytree(theirs, check.shared / "nnUNet_preprocessed" / name)
        yield kind, name, theirs, ours


def planned_alike(check, kind, name, theirs, ours):
    def fingerprint():
        check.stunet("plan", check.raw / name, "-o", ours, "-q")
        return compare.equal_json(theirs / "dataset_fingerprint.json", ours / "dataset_fingerprint.json", 20)

    def plans():
        found = json.loads((ours / "nnUNetPlans.json").read_text())
        # The one entry of our own: how the axes of the training images run. nnU-Net reads past it.
        if not found.pop("stunet_orientation", None):
            return False, "expected the orientation of the training images, found none"
        right, text = compare.equal_json(theirs / "nnUNetPlans.json", found, 100)
        return right, f"{text}, beside stunet_orientation"

    def splits():
        from nnunetv2.utilities.crossval_split import generate_crossval_split
        names = [f"case_{i:03d}" for i in range(datasets.TRAINING)]
        expected = generate_crossval_split(names, seed=12345, n_splits=5)
        return compare.equal_json(compare.plain(expected), ours / "splits_final.json", 25)

    def cases():
        check.stunet("preprocess", check.raw / name, "-o", ours, "-q")
        return compare.preprocessed(theirs / f"nnUNetPlans_{CONFIG}", store_of(ours))

    check.step("fingerprint", kind, fingerprint)
    check.step("plans", kind, plans)
    check.step("splits", kind, splits)
    return check.step("preprocessed cases", kind, cases)


def trained_by_nnunet(check, kind, name):
    """nnU-Net trains in its own folder, after stunet has put its store there."""
    home = check.shared

    def train():
        check.stunet("preprocess", check.raw / name, "-o", home / "nnUNet_preprocessed" / name, "-q")
        train_with_nnunet(check, name, home)
        return True, f"{EPOCHS} epochs, final validation too"

    if check.step("nnU-Net trains beside our store", kind, train):
        return home
    # The other steps are shown all the same, from a folder in which stunet has never been.
    train_with_nnunet(check, name, check.theirs)
    return check.theirs


def train_with_nnunet(check, name, home):
    check.run(["nnUNetv2_train", name, CONFIG, "0", "-tr", TRAINER, "-device", "cpu"], home, nnUNet_n_proc_DA="0")
    fold = home / "nnUNet_results" / name / RUN / "fold_0"
    if not (fold / "checkpoint_final.pth").exists() or not (fold / "validation" / "summary.json").exists():
        raise Wrong(f"nnU-Net ended without a checkpoint or a validation: {fold}")


def predicted_alike(check, kind, name, home, fold):
    """Both predict with the same results folder; nnU-Net's probabilities say where labels may differ."""
    images, folder = check.raw / name / "imagesTs", home / "predicted" / name
    theirs, ours = folder / "theirs", folder / "ours"
    # Without processes for reading and writing: each would load PyTorch for two small cases.
    check.run(["nnUNetv2_predict", "-d", name, "-c", CONFIG, "-tr", TRAINER, "-f", fold, "-i", images, "-o", theirs,
               "-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities", "--disable_progress_bar"], home)
    check.stunet("predict", "-i", images, "-o", ours, "-m", home / "nnUNet_results" / name / RUN, "-f", fold,
                 "--device", "cpu", "-q", "--save-probabilities", "npz")
    regions = "order" in datasets.KINDS[kind]
    turned = "WithReorient" in datasets.KINDS[kind].get("reader", "")
    right, text = compare.labelmaps(theirs, ours, regions, turned)
    close, more = compare.probabilities(theirs, ours, turned)
    return right and close, f"{text}; {more}"


def evaluated_alike(check, name, predicted):
    reference = check.raw / name / "labelsTs"
    about = ["-djfile", check.raw / name / "dataset.json", "-pfile",
             check.theirs / "nnUNet_preprocessed" / name / "nnUNetPlans.json"]
    theirs, ours = predicted / "summary_theirs.json", predicted / "summary_ours.json"
    check.run(["nnUNetv2_evaluate_folder", reference, predicted, *about, "-o", theirs, "-np", "1"])
    check.stunet("evaluate", reference, predicted, "--dataset-json", about[1], "--plans", about[3], "-o", ours, "-q")
    return compare.equal_json(theirs, ours, 20)


def exported_fold(check, name, ours):
    """Trains with stunet; nnU-Net installs the zip file that stunet makes of fold 1."""
    check.stunet("train", ours, CONFIG, "1", "--epochs", EPOCHS, "--no-validation", *TINY)
    run = check.ours / "nnUNet_results" / name / RUN
    archive = check.exported / f"{name}.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    check.stunet("export", run, archive, "--folds", "1")
    (check.exported / "nnUNet_results").mkdir(exist_ok=True)
    check.run(["nnUNetv2_install_pretrained_model_from_zip", archive], check.exported)


def installed_from_nnunet(check, name, home):
    """stunet installs the zip file that nnU-Net makes; it predicts what nnU-Net's own folder does."""
    archive, installed = home / f"{name}.zip", check.ours / "installed"
    check.run(["nnUNetv2_export_model_to_zip", "-d", name, "-o", archive, "-c", CONFIG, "-tr", TRAINER, "-f", "0"], home)
    check.stunet("install", archive, "-o", installed)
    images, labels = check.raw / name / "imagesTs", check.ours / "from_zip" / name
    check.stunet("predict", "-i", images, "-o", labels, "-m", installed / name / RUN, "-f", "0", "--device", "cpu", "-q")
    return compare.same_labels(home / "predicted" / name / "ours", labels)


def ensembled_by_both(check, name, home):
    """nnU-Net averages the probabilities that stunet stored with two models."""
    members = [at / "predicted" / name / "ours" for at in (check.exported, home)]
    for member in members:
        # As nnU-Net leaves them beside its own predictions.
        for file in ("plans.json", "dataset.json"):
            if not (member / file).exists():
                shutil.copy(home / "nnUNet_results" / name / RUN / file, member)
    theirs, ours = home / "ensembled" / "theirs", home / "ensembled" / "ours"
    check.run(["nnUNetv2_ensemble", "-i", *members, "-o", theirs, "-np", "1"], home)
    check.stunet("ensemble", "-i", *members, "-o", ours, "-q")
    return compare.same_labels(theirs, ours)


def continued_by_nnunet(check, name):
    checkpoint = check.exported / "nnUNet_results" / name / RUN / "fold_1" / "checkpoint_final.pth"
    before = checkpoint.with_name("exported.pth")
    shutil.copy(checkpoint, before)
    # The cases of nnU-Net: it goes on from the weights alone.
    shutil.copytree(check.theirs / "nnUNet_preprocessed" / name, check.exported / "nnUNet_preprocessed" / name)
    check.run(["nnUNetv2_train", name, CONFIG, "1", "-tr", TRAINER, "--c", "-device", "cpu"], check.exported,
              STU_EPOCHS=str(EPOCHS + 1), STU_VALIDATE="0", nnUNet_n_proc_DA="0")
    return compare.continued(before, checkpoint, EPOCHS + 1)


def fine_tuned(check, name, ours, home):
    check.stunet("train", ours, CONFIG, "2", "--epochs", "1", "--no-validation", *TINY,
                 "--pretrained", home / "nnUNet_results" / name / RUN / "fold_0" / "checkpoint_final.pth")
    return True, "1 epoch from nnU-Net's weights"


def plain_trained(check, name):
    check.run(["nnUNetv2_train", name, CONFIG, "0", "-tr", PLAIN_TRAINER, "-device", "cpu"], check.shared,
              nnUNet_n_proc_DA="0", STU_VALIDATE="0", STU_ITERS=str(PLAIN_ITERATIONS))
    return True, f"{EPOCHS} epochs of {PLAIN_ITERATIONS} steps"


def plain_alike(check, kind, name, mirrored):
    """Both predict with nnU-Net's own network."""
    home, images = check.shared, check.raw / name / "imagesTs"
    folder = home / "predicted" / name / ("mirrored" if mirrored else "plain")
    theirs, ours = folder / "theirs", folder / "ours"
    model = home / "nnUNet_results" / name / f"{PLAIN_TRAINER}__nnUNetPlans__{CONFIG}"
    tta = [] if mirrored else ["--disable_tta"]
    check.run(["nnUNetv2_predict", "-d", name, "-c", CONFIG, "-tr", PLAIN_TRAINER, "-f", "0", "-i", images, "-o", theirs,
               "-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities", "--disable_progress_bar", *tta], home)
    check.stunet("predict", "-i", images, "-o", ours, "-m", model, "-f", "0", "--device", "cpu", "-q",
                 "--save-probabilities", "npz", *(["--disable-tta"] if not mirrored else []))
    right, text = compare.labelmaps(theirs, ours, "order" in datasets.KINDS[kind], False)
    close, more = compare.probabilities(theirs, ours, False)
    return right and close, f"{text}; {more}"


def plain_network(check, kind, name):
    if check.step("nnU-Net trains its PlainConvUNet", kind, lambda: plain_trained(check, name)):
        for mirrored in (True, False):
            what = "with" if mirrored else "without"
            check.step(f"PlainConvUNet, predicted by both {what} mirroring", kind,
                       lambda: plain_alike(check, kind, name, mirrored))


def both_ways(check, kind, name, ours):
    if datasets.KINDS[kind].get("plain"):
        return plain_network(check, kind, name)
    homes = {}

    def from_stunet():
        exported_fold(check, name, ours)
        return predicted_alike(check, kind, name, check.exported, "1")

    def from_nnunet():
        homes["theirs"] = trained_by_nnunet(check, kind, name)
        return predicted_alike(check, kind, name, homes["theirs"], "0")

    check.step("our exported weights, predicted by both", kind, from_stunet)
    if datasets.KINDS[kind].get("brief"):
        return
    check.step("nnU-Net's weights, predicted by both", kind, from_nnunet)
    check.step("evaluation", kind, lambda: evaluated_alike(check, name, check.exported / "predicted" / name / "theirs"))
    check.step("nnU-Net's zip, installed by stunet", kind, lambda: installed_from_nnunet(check, name, homes["theirs"]))
    check.step("our probabilities, ensembled by both", kind, lambda: ensembled_by_both(check, name, homes["theirs"]))
    check.step("nnU-Net goes on from our export (--c)", kind, lambda: continued_by_nnunet(check, name))
    check.step("stunet fine-tunes nnU-Net's weights", kind, lambda: fine_tuned(check, name, ours, homes["theirs"]))


def arguments():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser = argparse.ArgumentParser(prog="scripts/nnunet-check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="DATASET", help=f"default: all of {' '.join(datasets.KINDS)}")
    parser.add_argument("--stunet", type=Path, default=target / "release" / "stunet")
    parser.add_argument("--work", type=Path, help="scratch folder that is kept, and must not exist; default: one that is removed")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of one command")
    parser.add_argument("--out", type=Path, help="also write the table here")
    args = parser.parse_args()
    unknown = [kind for kind in args.kinds if kind not in datasets.KINDS]
    if unknown:
        parser.error(f"expected names of {' '.join(datasets.KINDS)}, found {' '.join(unknown)}")
    if not args.stunet.exists():
        sys.exit(f"nnunet-check: build the binary with cargo build --release --bin stunet, or name it with --stunet: {args.stunet}")
    if version("nnunetv2") != WANTED:
        sys.exit(f"nnunet-check: expected nnU-Net {WANTED}, found {version('nnunetv2')}: {sys.executable}")
    if args.work and args.work.exists():
        sys.exit(f"nnunet-check: --work: expected a folder that does not exist yet, found something: {args.work}")
    args.stunet, args.kinds = args.stunet.resolve(), args.kinds or list(datasets.KINDS)
    return args


def main():
    args = arguments()
    keep, begin = args.work, time.monotonic()
    args.work = Path(tempfile.mkdtemp(prefix="nnunet-check-")) if keep is None else args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    check = Check(args)
    print("| step | dataset | verdict | figures |\n|---|---|---|---|", flush=True)
    try:
        for kind in args.kinds:
            datasets.make(check.raw, kind)
        try:
            for kind, name, theirs, ours in plan(check, args.kinds):
                if planned_alike(check, kind, name, theirs, ours):
                    both_ways(check, kind, name, ours)
        except Wrong as wrong:
            check.put("nnU-Net plans and preprocesses", "all", False, str(wrong))
    finally:
        if keep is None:
            shutil.rmtree(args.work, ignore_errors=True)
    told = subprocess.run([args.stunet, "--version"], capture_output=True, text=True).stdout.strip()
    summary = (f"{told}, nnU-Net {WANTED}, torch {version('torch')}: {len(check.rows) - check.failed} equal, "
               f"{check.failed} failed, {time.monotonic() - begin:.0f} s on {os.cpu_count()} processors.")
    print(f"\n{summary}")
    if args.out:
        args.out.write_text("\n".join(["| step | dataset | verdict | figures |", "|---|---|---|---|", *check.rows, "", summary]) + "\n")
    sys.exit(1 if check.failed or not check.rows else 0)


if __name__ == "__main__":
    main()
