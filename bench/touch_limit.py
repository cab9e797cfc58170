"""How near a step comes to the touch limit: a compiled loop that only adds the gradient to the arrays which the rule writes.

    python bench/touch_limit.py [--rules SGD,Adam] [--dims 16,64] [--threads 1,2] [--dtype float64] [--order random]

Same rows, same arrays, same threads, measured in turns in one process. The limit is the best of several prefetch distances.
Batches rotate so that no cache holds what the last one touched. "share" is the limit's time over the step's; GB/s counts what a
step has to move: the gradient read once, table and state of every touched row read and written once.
"""

import argparse
import statistics
import time

import numpy as np

import sparseopt as so
from sparseopt import kernels

BATCHES = 8
DISTANCES = (4, 8, 16)


def nanoseconds_a_row(step, n_rows):
    begin = time.perf_counter()
    for batch in range(BATCHES):
        step(batch)
    return (time.perf_counter() - begin) / BATCHES / n_rows * 1e9


def measure(rule, dim, threads, options):
    """Medians of (step, limit) in ns a row, and the bytes that a row moves."""
    rng = np.random.default_rng(0)
    dtype = np.dtype(options.dtype)
    table = so.normal((options.table, dim), dtype, scale=0.01, seed=0)
    opt = getattr(so, rule)(table, lr=1e-3, nonfinite=options.nonfinite, num_threads=threads)
    state = opt.state[0]
    arrays = [table, *(array for array in state.values() if array.ndim == 2)]
    numbers = [array for name, array in state.items() if array.ndim == 1 and name != "step"]
    rows = [rng.choice(options.table, options.rows, replace=False) for _ in range(BATCHES)]
    if options.order == "rising":
        rows = [np.sort(r) for r in rows]
    values = [rng.standard_normal((options.rows, dim), dtype=dtype) for _ in range(BATCHES)]
    batches = [so.RowGradient(*pair) for pair in zip(rows, values, strict=True)]
    steps = {"step": lambda i: opt.step(batches[i])}
    touch = kernels._module.touch
    for ahead in DISTANCES:
        steps[ahead] = lambda i, ahead=ahead: touch(rows[i], values[i], arrays, numbers, state.get("step"), ahead, threads)
    times = {name: [] for name in steps}
    for repeat in range(options.repeats + 1):
        for name, step in steps.items():
            taken = nanoseconds_a_row(step, options.rows)
            if repeat:
                times[name].append(taken)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    moved = (2 * len(arrays) + 1) * dim * dtype.itemsize + 2 * (len(numbers) * dtype.itemsize + 4 * ("step" in state))
    return medians["step"], min(medians[ahead] for ahead in DISTANCES), moved


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", default="SGD,Adagrad,RowwiseAdagrad,RMSprop,Adam,AdamW,Adamax,Ftrl,Lion")
    parser.add_argument("--dims", default="64")
    parser.add_argument("--threads", default=",".join(map(str, range(1, so.get_num_threads() + 1))))
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--order", default="rising", choices=["rising", "random"])
    parser.add_argument("--nonfinite", default="allow", choices=["allow", "raise"])
    parser.add_argument("--table", type=int, default=2_000_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.rows:,} {options.order} rows of {options.table:,}, {options.dtype}, nonfinite={options.nonfinite!r}, "
          f"{kernels.isa}")
    print(f"{'rule':<15} {'dim':>4} {'threads':>7} {'step ns/row':>11} {'limit ns/row':>12} {'share':>6} {'GB/s':>5}")
    for rule in options.rules.split(","):
        for dim in map(int, options.dims.split(",")):
            for threads in map(int, options.threads.split(",")):
                step, limit, moved = measure(rule, dim, threads, options)
                share = limit / step
                print(f"{rule:<15} {dim:>4} {threads:>7} {step:>11.1f} {limit:>12.1f} {share:>6.2f} {moved / step:>5.1f}",
                      flush=True)


if __name__ == "__main__":
    main()
