"""Records what the installed version of nnU-Net does: golden data that may be given away.

    python record.py FOLDER

Run it once with each of the three environments (README.md beside this file): each adds its own part.
"""
import hashlib
import os
import sys
from importlib.metadata import PackageNotFoundError, version

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_sums(root):
    """The hash of every file, as sha256sum lists them."""
    lines = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if name != "SHA256SUMS":
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
                lines.append((os.path.relpath(path, root).replace(os.sep, "/"), digest))
    with open(os.path.join(root, "SHA256SUMS"), "w") as file:
        file.writelines("%s  %s\n" % (digest, name) for name, digest in sorted(lines))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    root = sys.argv[1]
    # One thread: sums are then made in the same order on every machine with the same processor.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["nnUNet_def_n_proc"] = "1"
    import torch

    import cases
    torch.set_num_threads(1)
    first, second = installed("nnunet"), installed("nnunetv2")
    cases.volumes(root)
    if first == "1.7.1":
        import record_v1
        record_v1.record(root)
    elif second in ("2.2", "2.8.1"):
        import record_v2
        record_v2.record(root, "2.2" if second == "2.2" else "2.8")
    else:
        sys.exit("expected nnunet 1.7.1 or nnunetv2 2.2 or 2.8.1, found nnunet %s and nnunetv2 %s: "
                 "install one of the requirements files" % (first, second))
    write_sums(root)


if __name__ == "__main__":
    main()
