"""Measure how fast click logs are read, beside the training on them.

    python bench/click_reading.py [--rows N]

The log has the layout of Criteo's: tabs, no header, the label first, 13 columns of counts with gaps, and 26 columns of
hexadecimal texts with Zipf-distributed values. Each line is the best of three passes over the file.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sparseopt.datasets import ClickReader
from sparseopt.models import LogisticRegression


def write(path, n, seed=0):
    rng = np.random.default_rng(seed)
    columns = [rng.integers(2, size=n).astype(str)]
    for i in range(13):
        counts = rng.lognormal(i % 5, 1.5, n).astype(int).astype(str)
        columns.append(np.where(rng.random(n) < 0.2, "", counts))
    for i in range(26):
        values = rng.zipf(1.3, n) % (10 ** (1 + i % 6))
        columns.append(np.array([f"{7919 * value + i & 0xffffffff:08x}" for value in values.tolist()]))
    Path(path).write_text("".join("\t".join(row) + "\n" for row in zip(*columns, strict=True)))


def seconds(passes, times=3):
    best = float("inf")
    for _ in range(times):
        begin = time.perf_counter()
        passes()
        best = min(best, time.perf_counter() - begin)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    how = dict(numbers=["1-13"], numbers_as="log")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        write(path, options.rows)

        def read():
            return [(X, y) for X, y in ClickReader(**how).read(path, training=True)]

        def train():
            model = LogisticRegression(shuffle=False)
            for X, y in chunks:
                model.partial_fit(X, y, classes=[False, True])

        chunks = read()
        print(f"{options.rows:,} rows of 40 columns, {path.stat().st_size / options.rows:.0f} bytes a row")
        print(f"{'':28s}{'rows/s':>10s}")
        print(f"{'read with pyarrow':28s}{options.rows / seconds(read):10,.0f}", flush=True)
        sys.modules["pyarrow"] = None           # makes `import pyarrow` fail
        print(f"{'read without pyarrow':28s}{options.rows / seconds(read):10,.0f}", flush=True)
        print(f"{'train logistic regression':28s}{options.rows / seconds(train):10,.0f}")


if __name__ == "__main__":
    main()
