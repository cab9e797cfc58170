"""Page faults and time of a training loop of a user's own: two tables, their products, and two gradients a step.

    python bench/own_loop.py [--rows N] [--batch N] [--dim D] [--steps N] [--rounds N]

Each way to write the loop takes its turn in each round; a time is the least of all rounds. The batch's rows are random.
"""

import argparse
import contextlib
import resource
import time

import numpy as np

import sparseopt as so
from sparseopt import embedding


class Loop:
    """A loop that trains two tables so that the products of random pairs of rows become 1."""

    def __init__(self, options):
        self.tables = {name: so.normal((options.rows, options.dim), scale=0.1, seed=seed)
                       for seed, name in enumerate("pq")}
        self.opt = so.Adagrad(self.tables, lr=0.01)
        rng = np.random.default_rng(0)
        self.pairs = [rng.integers(options.rows, size=(2, options.batch)) for _ in range(32)]

    def step(self, number):
        i, j = self.pairs[number % len(self.pairs)]
        p, q = embedding.gather(self.tables["p"], i), embedding.gather(self.tables["q"], j)
        error = (np.einsum("bd,bd->b", p, q) - 1)[:, None]
        self.opt.step({"p": so.RowGradient(i, error * q), "q": so.RowGradient(j, error * p)})


def measured(loop, context, steps):
    """The page faults and the CPU milliseconds of a step, once the loop has its memory."""
    with context:
        for number in range(10):
            loop.step(number)
        faults, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
        for number in range(steps):
            loop.step(number)
        return (np.array([resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults,
                          1000 * (time.process_time() - seconds)]) / steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 200_000), ("batch", 4096), ("dim", 64), ("steps", 200), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    so.set_num_threads(1)
    loop = Loop(options)
    ways = {"as NumPy allocates": contextlib.nullcontext, "in a so.Workspace": so.Workspace}
    found = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, context in ways.items():
            found[way].append(measured(loop, context(), options.steps))
    print(f"{options.rows:,} rows × {options.dim}, batches of {options.batch:,}")
    print(f"{'':20}{'faults a step':>15}{'CPU ms a step':>15}")
    for way, figures in found.items():
        faults, milliseconds = np.min(figures, axis=0)
        print(f"{way:20}{faults:15.2f}{milliseconds:15.2f}")


if __name__ == "__main__":
    main()
