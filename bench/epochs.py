"""Where an epoch of each model spends its time: in sparseopt's compiled modules, BLAS, NumPy and scipy, or Python.

    python bench/epochs.py [--models NAME,...] [--seconds S] [--threads N]

Data are generated, and larger than the caches. `perf` of Linux samples the process while a model trains (package
linux-perf of Debian, linux-tools of Ubuntu). Its samples are grouped by the file that the code is in. The first epoch
is left out, and so are the checks of X and the counting of words. Page faults are those of a batch, the median.
"""

import argparse
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import sparseopt as so
from sparseopt import _kernels, datasets, models

EPOCHS = 1000               # more than fit into the seconds; a callback ends the training


def clicks(dim=0):
    X, y, _ = next(datasets.ClickLog(dim=dim).rows(200_000, chunk=200_000, seed=1))
    return X, y


def pairs():
    """Pairs of users and items, with some structure: users prefer items of their own kind."""
    rng = np.random.default_rng(0)
    users = rng.integers(20_000, size=1_000_000)
    items = (rng.zipf(1.2, len(users)) * 7 + users % 7) % 10_000
    X = sp.csr_array((np.ones(len(users), np.float32), (users, items)))
    X.sum_duplicates()
    return X


def text():
    """Sentences of words whose counts follow Zipf's law."""
    rng = np.random.default_rng(0)
    numbers = (rng.zipf(1.1, (40_000, 20)) % 30_000).astype(str)
    return numbers.tolist()


MODELS = {
    "logistic": (lambda: models.LogisticRegression(epochs=EPOCHS, early_stopping=False), clicks),
    "factorization machine": (lambda: models.FactorizationMachineClassifier(epochs=EPOCHS, early_stopping=False),
                              clicks),
    "softmax": (lambda: models.ImplicitFactorization("softmax", epochs=EPOCHS), pairs),
    "square": (lambda: models.ImplicitFactorization("square", epochs=EPOCHS), pairs),
    "bpr": (lambda: models.ImplicitFactorization("bpr", epochs=EPOCHS), pairs),
    "warp": (lambda: models.ImplicitFactorization("warp", epochs=EPOCHS), pairs),
    "matrix factorization": (lambda: models.MatrixFactorization(epochs=EPOCHS), pairs),
    "skip-gram": (lambda: models.SkipGram(epochs=EPOCHS), text),
    "CBOW": (lambda: models.CBOW(epochs=EPOCHS), text),
    "GloVe": (lambda: models.GloVe(epochs=EPOCHS), text),
}
KERNELS = {path.name for path in Path(_kernels.__file__).parent.iterdir()}
COLUMNS = "sparseopt", "BLAS", "NumPy, scipy", "Python", "system"


def group_of(name):
    """The column for the code in a file of this name."""
    if name in KERNELS:
        return "sparseopt"
    if "blas" in name or "mkl" in name:
        return "BLAS"
    if ".cpython-" in name or ".abi3." in name:
        return "NumPy, scipy"
    return "Python" if "python" in name else "system"


class Sampled:
    """A callback that samples the process from the second epoch on, for some seconds, and then ends the training."""

    def __init__(self, seconds, folder):
        self.seconds, self.path, self.perf = seconds, os.path.join(folder, "perf.data"), None
        self.faults, self.times = [], []

    def __call__(self, progress):
        if progress.epoch == 0:
            return False
        if self.perf is None:
            self.perf = subprocess.Popen(["perf", "record", "-q", "-F", "999", "-p", str(os.getpid()), "-o", self.path],
                                         stderr=subprocess.DEVNULL)
            time.sleep(0.5)                     # perf gives no sign that it has begun
            self.begin = time.process_time()
        self.faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        self.times.append((progress.epoch, progress.done, time.process_time()))
        if time.process_time() - self.begin < self.seconds:
            return False
        self.perf.send_signal(signal.SIGINT)
        self.perf.wait()
        return True

    def shares(self):
        """The share of the samples in each group of files."""
        report = subprocess.run(["perf", "report", "-i", self.path, "--sort", "dso", "--stdio", "-q", "-t", ";"],
                                capture_output=True, text=True, check=True).stdout
        found = dict.fromkeys(COLUMNS, 0.0)
        for line in report.splitlines():
            if ";" in line:
                percent, name = line.split(";", 1)
                found[group_of(name.strip())] += float(percent.strip().rstrip("%"))
        return found

    def samples_a_second(self):
        """Samples of the data (words, pairs, rows) that an epoch takes in a second of CPU time."""
        done = seconds = 0
        for (epoch, before, begin), (same, after, end) in zip(self.times, self.times[1:], strict=False):
            if same == epoch:
                done, seconds = done + after - before, seconds + end - begin
        return done / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS), type=lambda text: text.split(","))
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    so.set_num_threads(options.threads)
    print(f"{options.threads} thread{'s' if options.threads > 1 else ''}; shares in percent")
    print(f"{'':22}{'samples/s':>12}" + "".join(f"{group:>14}" for group in COLUMNS) + f"{'faults':>8}")
    for name in options.models:
        make, data = MODELS[name]
        data = data()
        with tempfile.TemporaryDirectory() as folder:
            sampled = Sampled(options.seconds, folder)
            make().fit(*(data if isinstance(data, tuple) else (data,)), callback=sampled)
            shares = "".join(f"{share:14.1f}" for share in sampled.shares().values())
        faults = np.median(np.diff(sampled.faults))
        print(f"{name:22}{sampled.samples_a_second():12,.0f}{shares}{faults:8.0f}", flush=True)


if __name__ == "__main__":
    main()
