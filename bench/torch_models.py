"""Neural collaborative filtering with Adam in five ways: hit rates over seeds, seconds an epoch, and large tables.

    python bench/torch_models.py [--data MOVIELENS] [--seeds N] [--epochs N] [--lr LR]
        [--optimizers dense,sparse,...] [--float64] [--rows N] [--steps N]

MOVIELENS is a folder with ratings.csv; without it the ratings are generated. The model, the protocol and the names of
the optimizers are those of examples/neural_collaborative_filtering.py. All have the same draws for the same seed. ± is
the standard deviation over seeds. `less dense` is the mean difference from dense Adam with the same seed, and its
standard error. Rounding in float32 drives two runs of this model apart, which --float64 shows. Times are those of an
epoch on one thread, the least of all. The last table has the time of a step with tables of ROWS rows each, as hashed
ids need.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import neural_collaborative_filtering as ncf


def trained(ratings, name, seed, epochs, lr):
    """The hit rate after each epoch, the last one of all items, CPU and wall seconds of the quickest epoch, weights."""
    rates, cpu, wall = [], [], []
    begin = time.process_time()
    for model, seconds in ncf.train(ratings, name, epochs, lr=lr, seed=seed):
        cpu.append(time.process_time() - begin)
        wall.append(seconds)
        rates.append(ncf.hit_rate(model, ratings))
        begin = time.process_time()
    of_all = ncf.hit_rate_of_all(model.eval(), ratings)
    weights = torch.cat([one.detach().flatten() for one in model.parameters()])
    return rates, of_all, min(cpu), min(wall), weights


def hit_rates(ratings, options):
    found = {name: [] for name in options.optimizers}
    for seed in range(options.seeds):
        for name in options.optimizers:
            *result, weights = trained(ratings, name, seed, options.epochs, options.lr)
            if name == options.optimizers[0]:
                first = weights
            found[name].append((*result, (weights - first).abs().max().item()))
            print(f"  seed {seed}, {name}: " + " ".join(f"{rate:.3f}" for rate in result[0]), file=sys.stderr,
                  flush=True)
    dense = options.optimizers[0]
    print(f"{len(ratings.user):,} ratings of {ratings.users:,} users and {ratings.items:,} items, {options.epochs} "
          f"epochs, lr {options.lr}, {torch.get_default_dtype()}, seeds 0 to {options.seeds - 1}")
    print(f"{'':>8}  {'last epoch':>15}  {'less ' + dense:>16}  {'best epoch':>15}  {'of all items':>15}  {'CPU s':>6}"
          f"  {'wall s':>6}  {'weights off ' + dense:>18}")
    for name, results in found.items():
        rates = np.array([rates for rates, *_ in results])
        less = rates[:, -1] - np.array([rates[-1] for rates, *_ in found[dense]])
        error = less.std(ddof=1) / np.sqrt(len(less)) if len(less) > 1 else np.nan
        of_all = [result[1] for result in results]
        print(f"{name:>8}  {spread(rates[:, -1]):>15}  {f'{less.mean():+.4f} ± {error:.4f}':>16}  "
              f"{spread(rates.max(1)):>15}  {spread(of_all):>15}  {min(result[2] for result in results):6.2f}  "
              f"{min(result[3] for result in results):6.2f}  {max(result[4] for result in results):18.1e}")
    print("hit rate by epoch, mean of the seeds")
    for name, results in found.items():
        print(f"{name:>8}  " + " ".join(f"{rate:.3f}" for rate in np.mean([rates for rates, *_ in results], axis=0)))


def spread(values):
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1) if len(values) > 1 else np.nan:.4f}"


def large_tables(ratings, options):
    """The time of a step on tables of many rows: ids are spread over all rows."""
    users, items = (options.rows // n for n in (ratings.users, ratings.items))
    user, item, label = ratings.epoch(np.random.default_rng(0))
    batches = list(itertools.islice(zip(*(a.split(2048) for a in (user * users, item * items, label)), strict=True),
                                    2 * options.steps))
    print(f"a step of 2,048 pairs, tables of {options.rows:,} rows each, the mean of {options.steps} steps")
    print(f"{'':>8}  {'CPU ms':>8}  {'wall ms':>8}")
    for name in options.optimizers:
        torch.manual_seed(0)
        model = ncf.NeuMF(options.rows, options.rows, sparse=name != "dense")
        optimizers = ncf.optimizers_of(name, model, options.lr)
        ncf.epoch(model, optimizers, batches[:options.steps])        # the first steps fill the state
        cpu, wall = time.process_time(), time.perf_counter()
        ncf.epoch(model, optimizers, batches[options.steps:])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"{name:>8}  {cpu / options.steps * 1e3:8.1f}  {wall / options.steps * 1e3:8.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="MOVIELENS")
    parser.add_argument("--seeds", type=int, default=5, help="0 prints the table of large tables alone (default: 5)")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--optimizers", type=lambda text: text.split(","), default=list(ncf.OPTIMIZERS))
    parser.add_argument("--float64", action="store_true", help="weights of float64")
    parser.add_argument("--rows", type=int, default=1_000_000, help="0 prints no table of large tables")
    parser.add_argument("--steps", type=int, default=10, help="steps on large tables (default: 10)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64 if options.float64 else torch.float32)
    ratings = ncf.Ratings(*(ncf.read(options.data) if options.data else ncf.generate()))
    if options.seeds:
        hit_rates(ratings, options)
    if options.rows:
        large_tables(ratings, options)


if __name__ == "__main__":
    main()
