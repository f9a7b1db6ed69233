#!/usr/bin/env python3
"""`stunet predict` beside nnU-Net 2's own predictor: the same image, weights and plans, file to file.

    scripts/predict_peer.py --image CT.nii.gz [--size S] [--rounds 1] [--threads 2] [--mirror] [--margins]

Needs a Python with nnunetv2. The network of both has seeded weights and 105 classes; nnU-Net runs our
plain-PyTorch statement of it in its `nnUNetPredictor`, with its preprocessing and export in processes
of their own, as ever. Ours predicts twice: as nnU-Net does, whose accumulators are in half precision, and
with accumulators in single precision. The commands take turns; time is the clock's and the processor's, all child
processes included; peak memory is the largest sum over a command's processes (`Pss`, read up to ten
times a second). The labelmaps are compared voxel by voxel; with --margins nnU-Net also stores its probabilities
(which takes it time), and what it thought of the two labels is told where they differ. With --out,
everything is written as JSON.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(HERE)
NUM_CLASSES = 105
PATCH = [128, 128, 128]
# So small that half-precision sums of random logits do not overflow.
HEAD_GAIN = 0.5

sys.path.insert(0, os.path.join(ROOT, "benches", "peers"))


def dataset():
    labels = {"background": 0, **{f"structure_{i}": i for i in range(1, NUM_CLASSES)}}
    return {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}


def plans():
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": PATCH, "median_image_size_in_voxels": [240.0, 228.0, 228.0], "spacing": [1.5] * 3,
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], "batch_dice": False,
        "resampling_fn_data": function, "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": function, "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": function, "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {"network_class_name": "STUNet", "_kw_requires_import": [], "arch_kwargs": {
            "n_stages": 6, "kernel_sizes": [[3, 3, 3]] * 6, "strides": [[1, 1, 1], *[[2, 2, 2]] * 4, [1, 1, 2]]}},
    }
    intensities = {"max": 3382.0, "mean": 33.5, "median": 40.0, "min": -1207.0, "percentile_00_5": -950.0,
                   "percentile_99_5": 900.0, "std": 310.25}
    return {
        "dataset_name": "Dataset101_Seeded", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": [1.5] * 3, "original_median_shape_after_transp": [240, 228, 228],
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner", "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {"0": intensities},
    }


def seeded(size):
    import stunet_torch
    import torch
    with torch.no_grad():
        return stunet_torch.seed_parameters(stunet_torch.network(size), 33, HEAD_GAIN)


def save(folder, size):
    """A results folder as nnU-Net 2 leaves it."""
    import torch
    os.makedirs(os.path.join(folder, "fold_0"))
    for name, value in (("dataset.json", dataset()), ("plans.json", plans())):
        with open(os.path.join(folder, name), "w") as f:
            json.dump(value, f)
    torch.save({"network_weights": seeded(size).state_dict(), "trainer_name": "STUNetTrainer",
                "init_args": {"configuration": "3d_fullres", "fold": 0},
                "inference_allowed_mirroring_axes": (0, 1, 2)},
               os.path.join(folder, "fold_0", "checkpoint_final.pth"))


def peer(args):
    """nnU-Net's own prediction, in this process and those it starts."""
    os.environ.setdefault("nnUNet_raw", args.folder)
    os.environ.setdefault("nnUNet_preprocessed", args.folder)
    os.environ.setdefault("nnUNet_results", args.folder)
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    torch.set_num_threads(args.threads)
    predictor = nnUNetPredictor(tile_step_size=0.5, use_gaussian=True, use_mirroring=args.mirror,
                                perform_everything_on_device=False, device=torch.device("cpu"),
                                verbose=False, allow_tqdm=False)
    manager = PlansManager(plans())
    network = seeded(args.size)
    predictor.manual_initialization(network, manager, manager.get_configuration("3d_fullres"),
                                    [network.state_dict()], dataset(), "STUNetTrainer", (0, 1, 2))
    predictor.predict_from_files([[args.image]], [args.labels], save_probabilities=args.margins, overwrite=True,
                                 num_processes_preprocessing=1, num_processes_segmentation_export=1)


def family(process):
    """A process and all below it."""
    try:
        with open(f"/proc/{process}/task/{process}/children") as f:
            children = [int(word) for word in f.read().split()]
    except OSError:
        return []
    return [process, *(p for child in children for p in family(child))]


def resident(process):
    try:
        with open(f"/proc/{process}/smaps_rollup") as f:
            return next(int(line.split()[1]) << 10 for line in f if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def timed(command, environment):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peak, ended = [0], threading.Event()

    # The kernel adds up gigabytes page by page for one reading: at most a fiftieth of the time goes there.
    def watch():
        pause = 0.1
        while not ended.wait(pause):
            begin = time.thread_time()
            peak[0] = max(peak[0], sum(map(resident, family(process.pid))))
            pause = max(0.1, 50 * (time.thread_time() - begin))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    ended.set()
    watcher.join()
    if status:
        sys.exit(f"predict_peer: {' '.join(command)}: status {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_secs": time.perf_counter() - start, "cpu_secs": cpu, "peak_bytes": peak[0]}


def compare(ours, theirs, margins):
    import numpy as np
    import SimpleITK
    a, b = (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)) for path in (ours, theirs))
    different = a != b
    found = {"voxels": int(a.size), "differ": int(different.sum()), "labels": int(len(np.unique(b)))}
    if margins:
        # The logarithm of a ratio of probabilities is a difference of logits.
        logs = np.log(np.load(theirs.replace(".nii.gz", ".npz"))["probabilities"].astype(np.float32))
        at = np.nonzero(different)
        found["logit_differences"] = sorted((logs[b[at], *at] - logs[a[at], *at]).tolist())
        first, second = np.partition(logs[(slice(None), *(slice(None, None, 4),) * 3)], -2, axis=0)[[-1, -2]]
        found["median_margin"] = float(np.median(first - second))
    return found


# Ours, and the options of each.
VARIANTS = {
    "stunet": [],
    "stunet, f32 accumulators": ["--accumulation", "f32"],
    "stunet, int8": ["--precision", "int8"],
    "stunet, int8, f32 accumulators": ["--precision", "int8", "--accumulation", "f32"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--size", default="S")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mirror", action="store_true", help="mirrored windows as well: eight times the work")
    parser.add_argument("--margins", action="store_true", help="how close labels that differ were")
    parser.add_argument("--stunet", default=os.path.join(
        os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "stunet"))
    parser.add_argument("--out", help="JSON file")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--labels", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args)
    threads = str(args.threads)
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "STUNetTrainer__nnUNetPlans__3d_fullres")
        save(model, args.size)
        theirs = os.path.join(folder, "theirs.nii.gz")
        mirror = [] if args.mirror else ["--disable-tta"]
        ours = {name: os.path.join(folder, f"{index}.nii.gz") for index, name in enumerate(VARIANTS)}

        def predict(name):
            return [args.stunet, "predict", "-i", args.image, "-o", ours[name], "-m", model, "--device", "cpu",
                    "--overwrite", "--quiet", "--reference", "v2.8", *mirror, *VARIANTS[name]]

        commands = {
            **{name: predict(name) for name in VARIANTS},
            "nnU-Net": [sys.executable, os.path.realpath(__file__), "--peer", "--image", args.image, "--size",
                        args.size, "--threads", threads, "--folder", folder, "--labels",
                        theirs.removesuffix(".nii.gz"), *(["--mirror"] if args.mirror else []),
                        *(["--margins"] if args.margins else [])],
        }
        runs = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
                runs[name].append(timed(command, environment))
        compared = {name: compare(ours[name], theirs, args.margins and not options)
                    for name, options in VARIANTS.items()}
    best = {name: min(rows, key=lambda row: row["wall_secs"]) for name, rows in runs.items()}
    print(f"STU-Net {args.size}, {os.path.basename(args.image)}, {args.threads} threads, load "
          f"{os.getloadavg()[0]:.1f}; best of {args.rounds}:\n")
    print("| | Wall | CPU | Peak memory |\n|---|---:|---:|---:|")
    for name, row in best.items():
        print(f"| {name} | {row['wall_secs']:.1f} s | {row['cpu_secs']:.1f} s | {row['peak_bytes'] / 1e9:.2f} GB |")
    for name in VARIANTS:
        ratios = [best["nnU-Net"][key] / best[name][key] for key in ("wall_secs", "cpu_secs", "peak_bytes")]
        print(f"| nnU-Net / {name} | " + " | ".join(f"{ratio:.1f} ×" for ratio in ratios) + " |")
    print()
    for name, found in compared.items():
        print(f"{name}: {found['differ']} of {found['voxels']} voxels differ; {found['labels']} labels.")
    plain = compared["stunet"]
    if args.margins and plain["differ"]:
        print(f"There, the reference's logits of the two labels are {plain['logit_differences'][-1]:.1e} apart at "
              f"most; its best and second label are {plain['median_margin']:.1e} apart in the median of all voxels.")
    if args.out:
        with open(args.out, "w") as f:
            json.dump({"size": args.size, "runs": runs, "compared": compared}, f, indent=1)


if __name__ == "__main__":
    main()
