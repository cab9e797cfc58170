"""A step on 100,000 random rows of a 1 M x 64 float32 table: sparseopt's Adam beside torch.optim.SparseAdam.

    python bench/against_torch.py [--rows 100000] [--table 1000000] [--dim 64]

Both get the same coalesced gradients (unique rows, rising), in turns in one process, with the same number of threads; batches
rotate so that no cache holds what the last one touched. Figures are medians over the steps.
"""

import argparse
import statistics
import time

import numpy as np
import torch

import sparseopt as so


def seconds(step, batches):
    begin = time.perf_counter()
    for batch in batches:
        step(batch)
    return (time.perf_counter() - begin) / len(batches)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--table", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    shape = options.table, options.dim
    ours, theirs = [], []
    for _ in range(options.batches):
        rows = np.sort(rng.choice(options.table, options.rows, replace=False))
        values = rng.standard_normal((options.rows, options.dim), dtype=np.float32)
        ours.append(so.RowGradient(rows, values))
        theirs.append(torch.sparse_coo_tensor(torch.from_numpy(rows[None]), torch.from_numpy(values), shape, is_coalesced=True,
                                              check_invariants=True))
    table = so.normal(shape, scale=0.01, seed=0)
    parameter = torch.nn.Parameter(torch.from_numpy(table.copy()))
    sparse_adam = torch.optim.SparseAdam([parameter])

    def torch_step(gradient):
        parameter.grad = gradient
        sparse_adam.step()

    print(f"{options.rows:,} of {options.table:,} rows of {options.dim} float32; sparseopt {so.__version__}, "
          f"torch {torch.__version__}")
    print(f"{'threads':>7}  {'check':>6}  {'torch ns/row':>12}  {'ours ns/row':>11}  {'ratio':>5}")
    for threads in range(1, so.get_num_threads() + 1):
        torch.set_num_threads(threads)
        for nonfinite in ("raise", "allow"):
            opt = so.Adam(table, num_threads=threads, nonfinite=nonfinite)
            for step, batches in ((opt.step, ours), (torch_step, theirs)):
                seconds(step, batches)
            pairs = [(seconds(torch_step, theirs), seconds(opt.step, ours)) for _ in range(options.repeats)]
            torch_time, our_time = (statistics.median(column) / options.rows * 1e9 for column in zip(*pairs, strict=True))
            print(f"{threads:>7}  {nonfinite:>6}  {torch_time:>12.0f}  {our_time:>11.0f}  {torch_time / our_time:>5.1f}")


if __name__ == "__main__":
    main()
