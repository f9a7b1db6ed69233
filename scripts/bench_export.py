#!/usr/bin/env python3
"""nnU-Net v2's own preprocessing and export, nibabel and SimpleITK, beside ours on the same cores.

    scripts/bench_export.py [--classes 105] [--slices 75] [--threads 2] [--work FOLDER] [--skip-stunet]

Needs a Python with nnunetv2, nibabel and SimpleITK. Each of its tasks runs in a process of its own,
whose processor time and peak memory (`ru_maxrss`) are the system's. Preprocessing and files are of 300
slices. The reference's export holds all classes at both resolutions, 20 GB for 105 classes and 300
slices; by default both export 75 slices (`cargo bench --bench export -- CLASSES SLICES`). One JSON
line per task.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

FROM, TO = (200, 273, 273), (300, 512, 512)
SPACING_IN, SPACING_NET = (1.0, 0.8, 0.8), (1.5, 1.5, 1.5)


def ct():
    import numpy as np
    z, y, x = np.ogrid[:TO[0], :TO[1], :TO[2]]
    return ((x * 7 + y * 13 + z * 29) % 2001 - 1000).astype(np.int16)


def preprocess(_):
    """Crop, z-score and order-3 resampling, as DefaultPreprocessor.run_case_npy does them."""
    import numpy as np
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    data = ct()[None].astype(np.float32)

    def work():
        cropped, _, _ = crop_to_nonzero(data, None)
        normalised = ZScoreNormalization(use_mask_for_norm=False, intensityproperties={}).run(
            cropped.astype(np.float32)[0], None)[None]
        return resample_data_or_seg_to_shape(normalised, FROM, SPACING_IN, SPACING_NET, is_seg=False,
                                             order=3, order_z=0, force_separate_z=None)
    return work, {}


def export(args):
    """What nnU-Net does with the logits of a volume: resampling, the largest class, the place in the image."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, args.work)
    import numpy as np
    import predict_peer
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    to, fro = (args.slices, *TO[1:]), (args.slices * 2 // 3, *FROM[1:])
    manager = PlansManager(predict_peer.plans())
    labels = manager.get_label_manager({
        **predict_peer.dataset(), "labels": {"background": 0, **{f"s{i}": i for i in range(1, args.classes)}}})
    properties = {"spacing": SPACING_IN, "shape_after_cropping_and_before_resampling": to,
                  "shape_before_cropping": to, "bbox_used_for_cropping": [[0, n] for n in to]}
    generator = np.random.default_rng(0)
    logits = np.empty((args.classes, *fro), np.float16)
    for one in logits:
        one[:] = generator.standard_normal(fro, np.float32)

    def work():
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, manager, manager.get_configuration("3d_fullres"), labels, properties,
            num_threads_torch=args.threads)
    return work, {"classes": args.classes, "slices": args.slices}


def volume_bytes(args, size):
    import numpy as np
    return int(np.prod(TO)) * size


def read_nibabel(args):
    import nibabel
    import numpy as np
    return (lambda: np.asanyarray(nibabel.load(args.ct).dataobj)), {"bytes": volume_bytes(args, 2)}


def read_sitk(args):
    import SimpleITK
    return (lambda: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(args.ct))), {"bytes": volume_bytes(args, 2)}


def labels():
    import numpy as np
    return np.clip(ct() // 64, 0, 40).astype(np.uint8)


def write_nibabel(args):
    import nibabel
    import numpy as np
    image = nibabel.Nifti1Image(labels().T, np.eye(4))
    out = os.path.join(args.work, "labels_nibabel.nii.gz")
    return (lambda: nibabel.save(image, out)), {"bytes": volume_bytes(args, 1), "out": out}


def write_sitk(args):
    import SimpleITK
    image = SimpleITK.GetImageFromArray(labels())
    out = os.path.join(args.work, "labels_sitk.nii.gz")
    return (lambda: SimpleITK.WriteImage(image, out, True)), {"bytes": volume_bytes(args, 1), "out": out}


TASKS = {"preprocess": preprocess, "export": export, "read nibabel": read_nibabel,
         "read SimpleITK": read_sitk, "write nibabel": write_nibabel, "write SimpleITK": write_sitk}


def one(args):
    work, more = TASKS[args.task](args)
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    line = {"program": "peer", "task": args.task, "wall_secs": round(wall, 2), "cpu_secs": round(cpu, 2),
            "peak_bytes": after.ru_maxrss * 1024, "held_before_bytes": before.ru_maxrss * 1024}
    if "bytes" in more:
        line["mb_per_sec"] = round(more["bytes"] / 1e6 / wall)
        line["mb_per_cpu_sec"] = round(more["bytes"] / 1e6 / cpu)
    if "out" in more:
        line["file_bytes"] = os.path.getsize(more["out"])
    line.update({key: more[key] for key in ("classes", "slices") if key in more})
    print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=105)
    parser.add_argument("--slices", type=int, default=75, help="of the export")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--only", nargs="*", choices=TASKS)
    parser.add_argument("--skip-stunet", action="store_true")
    args = parser.parse_args()
    args.ct = os.path.join(args.work, "ct.nii.gz") if args.work else None
    if args.task:
        return one(args)
    with tempfile.TemporaryDirectory() as folder:
        args.work = args.work or folder
        args.ct = os.path.join(args.work, "ct.nii.gz")
        if not os.path.exists(args.ct):
            import nibabel
            import numpy as np
            # Smooth anatomy is what CTs are: noise of a few units on large shapes.
            z, y, x = np.ogrid[:TO[0], :TO[1], :TO[2]]
            body = (x - 256) ** 2 / 200 ** 2 + (y - 256) ** 2 / 140 ** 2 < 1 + 0.1 * np.sin(z / 40)
            noise = np.random.default_rng(1).normal(0, 12, TO)
            volume = np.where(body, 40 + noise, -1000 + noise / 3).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(volume.T, np.diag([0.8, 0.8, 1.0, 1.0])), args.ct)
        environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
        for task in args.only or TASKS:
            subprocess.run([sys.executable, __file__, "--task", task, "--work", args.work, "--classes",
                            str(args.classes), "--slices", str(args.slices), "--threads", str(args.threads)],
                           check=True, env=environment)
        if not args.skip_stunet:
            root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
            ours = ["preprocess", args.work], ["export", str(args.classes), str(args.slices)]
            for name, *words in ours:
                subprocess.run(["cargo", "bench", "-q", "--locked", "--bench", name, "--", *words],
                               check=True, cwd=root)


if __name__ == "__main__":
    main()
