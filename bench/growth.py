"""Grow a table row by row while it trains, beside the same steps on a table that has all rows from the start.

    python bench/growth.py [--rows FIRST LAST] [--touched N ...] [--dim N] [--optimizer NAME] [--missed skip|replay]
                           [--init zeros|normal]

Before each step, one row is added. A step touches random rows of those that are there. Three optimizers take turns in
one process. `full` has all rows from the start. `reserved` grows on memory of so.reserve, `copied` from an array of
so.zeros. Times are of the processor, and those of a step hold the resize before it.

Last, memory: a table with room for 48 million rows of 64 numbers, Adam's state, and 100,000 rows touched.
"""

import argparse
import mmap
import time
from pathlib import Path

import numpy as np

import sparseopt as so

CHUNK = 1000            # steps after which the next optimizer has its turn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs=2, type=int, default=(1000, 1_000_000), metavar=("FIRST", "LAST"))
    parser.add_argument("--touched", nargs="+", type=int, default=[1, 100, 1000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--optimizer", default="Adam")
    parser.add_argument("--missed", choices=["skip", "replay"], default="skip")
    parser.add_argument("--init", choices=["zeros", "normal"], default="normal")
    options = parser.parse_args()
    first, last = options.rows
    init = so.init.Normal(0.01, seed=0) if options.init == "normal" else None
    print(f"{options.optimizer}, missed {options.missed}, dim {options.dim}, init {options.init}: from {first:,} to "
          f"{last:,} rows, one row a step")
    print("touched      full  reserved    copied   (µs a step)   reserved / full   copied / full")
    for touched in options.touched:
        seconds = grow(first, last, touched, init, options)
        times = [1e6 * one / (last - first) for one in seconds]
        print(f"{touched:7,d}" + "".join(f"{one:10.1f}" for one in times)
              + f"{times[1] / times[0]:30.2f}{times[2] / times[0]:16.2f}", flush=True)
    memory()


def grow(first, last, touched, init, options):
    """Return the seconds of the processor that three optimizers take: with all rows, and growing in two ways."""
    shape, seconds = (last, options.dim), [0.0] * 3
    tables = [so.reserve(shape, n_rows=last, init=init or so.init.Constant()),
              so.reserve(shape, n_rows=first, init=init), so.zeros((first, options.dim))]
    if init is not None:
        tables[2][...] = init(range(first), options.dim)
    optimizers = [getattr(so, options.optimizer)({"table": table}, lr=1e-3, missed=options.missed, num_threads=1)
                  for table in tables]
    rng, values = np.random.default_rng(0), np.full((touched, options.dim), 1e-3, np.float32)
    for start in range(first, last, CHUNK):
        sizes = range(start + 1, min(start + CHUNK, last) + 1)
        rows = [(rng.random(touched) * n_rows).astype(np.int64) for n_rows in sizes]
        turn = start // CHUNK % 3
        for each in (turn, (turn + 1) % 3, (turn + 2) % 3):
            opt, begin = optimizers[each], time.process_time()
            if each == 0:
                for numbers in rows:
                    opt.step({"table": so.RowGradient(numbers, values)})
            else:
                own = init if each == 2 else None           # memory of so.reserve knows its init
                for n_rows, numbers in zip(sizes, rows, strict=True):
                    opt.resize("table", n_rows, own)
                    opt.step({"table": so.RowGradient(numbers, values)})
            seconds[each] += time.process_time() - begin
    if options.missed == "skip":
        for opt in optimizers[1:]:
            for array, other in zip((opt.params["table"], *opt.state["table"].values()),
                                    (optimizers[0].params["table"], *optimizers[0].state["table"].values()),
                                    strict=True):
                if not np.array_equal(array, other):
                    raise RuntimeError("a grown run has other bits than the run with all rows")
    return seconds


def memory():
    if not Path("/proc/self/statm").exists():
        return
    before = resident()
    opt = so.Adam({"table": so.reserve((48_000_000, 64))}, lr=1e-3)
    for n_rows in range(1000, 100_001, 1000):
        table = opt.resize("table", n_rows)
        opt.step({"table": so.RowGradient(np.arange(n_rows - 1000, n_rows), np.ones((1000, 64), np.float32))})
    state = sum(array.base.nbytes for array in opt.state["table"].values())
    print(f"room for 48,000,000 rows of 64 and Adam's state: {(table.base.nbytes + state) / 1e9:.0f} GB of addresses; "
          f"{resident() - before:.0f} MB of memory after {len(table):,} rows, whose numbers are "
          f"{(table.nbytes + sum(array.nbytes for array in opt.state['table'].values())) / 1e6:.0f} MB")


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / 1e6


if __name__ == "__main__":
    main()
