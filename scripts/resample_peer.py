"""Times scikit-image on the task of `cargo bench -p stunet-data --bench resample`.

Needs numpy, scipy and scikit-image. Prints the median of wall and CPU seconds.
"""

import resource
import sys
import time

import numpy
import scipy
import skimage
from skimage.transform import resize

FROM, TO = (300, 512, 512), (200, 273, 273)


def cpu_secs():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    z, y, x = numpy.ogrid[: FROM[0], : FROM[1], : FROM[2]]
    volume = ((x * 7 + y * 13 + z * 29) % 2001 - 1000).astype(numpy.float32)
    print(f"numpy {numpy.__version__}, scipy {scipy.__version__}, scikit-image {skimage.__version__}")
    for name, order in [("cubic", 3), ("linear", 1)]:
        wall, cpu = [], []
        for _ in range(runs):
            start, cpu_start = time.perf_counter(), cpu_secs()
            out = resize(volume.astype(float), TO, order, mode="edge", anti_aliasing=False)
            out = out.astype(numpy.float32)
            wall.append(time.perf_counter() - start)
            cpu.append(cpu_secs() - cpu_start)
        print(
            f"{name} {list(FROM)} -> {list(TO)}: median wall {numpy.median(wall):.3f} s, "
            f"CPU {numpy.median(cpu):.2f} s of {runs} runs; checksum {float(out.sum(dtype=float)):.3f}"
        )


if __name__ == "__main__":
    main()
