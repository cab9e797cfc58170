"""Recommenders beside other libraries: NDCG@10 of what users turn to next, and the error of predicted ratings.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python bench/recommenders.py [FILE] [--data PAIRS] [--seeds N]
        [--losses LOSS,...] [--optimizers NAME,...] [--missed skip,replay] [--validate]

FILE is ratings.csv of ml-latest-small (grouplens.org/datasets/movielens). A user likes a film from a rating of
4 on. The last fifth of the films that each user likes is held out. With --validate, the last fifth of the remaining
films is held out instead: the settings were chosen on that part.
PAIRS is a table with the columns user, item and part: train, valid or test. Its test part is held out, or with
--validate its valid part, and then its test part is not used.
Seconds are those of training alone: of the processor, over all threads, and of the clock.
Other libraries take part where they are installed: pip install implicit lightfm scikit-surprise.
"""

import argparse
import os
import time
import warnings

import numpy as np
import scipy.sparse as sp

import sparseopt as so
from sparseopt import datasets, evaluation
from sparseopt.models import ImplicitFactorization, MatrixFactorization

# For each data set, settings of other methods that were the best with --validate.
TUNED = {"films": {"als": {"factors": 64, "regularization": 40.0, "alpha": 10.0}, "ease": 200.0},
         "pairs": {"als": {"factors": 128, "regularization": 40.0, "alpha": 5.0}, "ease": 200.0}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ratings", metavar="FILE", nargs="?")
    parser.add_argument("--data", metavar="PAIRS")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--losses", default="softmax,square,bpr,warp")
    parser.add_argument("--optimizers", default="Adagrad,RMSprop,Adam")
    parser.add_argument("--missed", default="skip,replay")
    parser.add_argument("--validate", action="store_true")
    options = parser.parse_args()
    if options.data:
        compare("pairs", *pairs(options.data, options.validate), options)
    if options.ratings:
        ratings = datasets.read_ratings(options.ratings)
        compare("films", *films(ratings, options.validate), options)
        errors(ratings, options.seeds)


def films(ratings, validate):
    """Return the pairs of users and films to train on, and those held out."""
    liked = ratings.where(ratings.values >= 4)
    fit, held_out = evaluation.train_test_split_by_time(liked.users, liked.times)
    if validate:
        first, last = evaluation.train_test_split_by_time(liked.users[fit], liked.times[fit])
        fit, held_out = fit[first], fit[last]
    train, test = liked.matrix(fit), liked.matrix(held_out)
    train.data[:] = 1
    return train, test


def pairs(path, validate):
    """Return the pairs of a table to train on, and those held out."""
    user, item, part = np.loadtxt(path, dtype=str, delimiter=",", skiprows=1, unpack=True)
    user, item = user.astype(np.int64), item.astype(np.int64)
    X = {name: sp.csr_array((np.ones((part == name).sum(), np.float32), (user[part == name], item[part == name])),
                            shape=(user.max() + 1, item.max() + 1)) for name in ("train", "valid", "test")}
    return (X["train"], X["valid"]) if validate else (sp.csr_array(X["train"] + X["valid"]), X["test"])


def compare(data, train, test, options):
    print(f"{train.shape[0]:,} users, {train.shape[1]:,} items, {train.nnz:,} pairs to train on and "
          f"{test.nnz:,} held out{' (validation)' if options.validate else ''}; "
          f"{os.cpu_count()} cores, {so.get_num_threads()} threads")
    print(f"{'':42}  {'NDCG@10':>15}  {'processor s':>11}  {'clock s':>7}")
    counts = np.asarray(train.sum(axis=0), dtype=np.float64)
    show("what is popular", [(ranked(np.tile(counts, (train.shape[0], 1)), train, test), 0.0, 0.0)])
    for loss in options.losses.split(","):
        for optimizer in options.optimizers.split(","):
            for missed in options.missed.split(","):
                show(f"{loss}, {optimizer}, {missed}",
                     [ours(train, test, seed, loss=loss, optimizer=optimizer, missed=missed)
                      for seed in range(options.seeds)])
    if "softmax" in options.losses:
        for settings in ({"negatives": 1024}, {"negatives": "batch"}, {"dim": 128}):
            said = ", ".join(f"{name} {value}" for name, value in settings.items())
            show(f"softmax, {said}", [ours(train, test, seed, **settings) for seed in range(options.seeds)])
    for name, train_one in peers(data).items():
        try:
            show(name, [train_one(train, test, seed) for seed in range(options.seeds)])
        except ImportError as error:
            print(f"{name:42}  left out: {error}")


def errors(ratings, seeds):
    print(f"\n{len(ratings):,} ratings, a fifth held out at random, another for each seed")
    print(f"{'':42}  {'RMSE':>15}  {'processor s':>11}  {'clock s':>7}")
    for name, train_one in {"MatrixFactorization": rated, "MatrixFactorization, replay": rated_by_replay,
                            "scikit-surprise SVD, 100 factors": surprise_svd}.items():
        try:
            found = []
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(ratings))
                found.append(train_one(ratings, order[len(order) // 5:], order[:len(order) // 5], seed))
            show(name, found)
        except ImportError as error:
            print(f"{name:42}  left out: {error}")


def show(name, found):
    scores, *seconds = np.array(found).T
    spread = f" ± {scores.std(ddof=1):.4f}" if len(scores) > 1 else ""
    processor, clock = np.median(seconds, axis=1)
    print(f"{name:42}  {f'{scores.mean():.4f}{spread}':>15}  {processor:11.2f}  {clock:7.2f}", flush=True)


def timed(train):
    processor, clock = time.process_time(), time.perf_counter()
    model = train()
    return model, (time.process_time() - processor, time.perf_counter() - clock)


def ours(train, test, seed, **settings):
    model, seconds = timed(lambda: ImplicitFactorization(random_state=seed, **settings).fit(train))
    return evaluation.evaluate(model, train, test)["ndcg"], *seconds


def ranked(scores, train, test):
    """NDCG@10 of dense scores, by the one metric that all are measured with."""
    scores[np.repeat(np.arange(train.shape[0]), np.diff(train.indptr)), train.indices] = -np.inf
    best = np.argpartition(-scores, 10, axis=1)[:, :10]
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable"), 1)
    return evaluation.ranking_metrics(best, test)["ndcg"]


def peers(data):
    tuned = TUNED[data]
    said = ", ".join(f"{value:g} {name}" if name == "factors" else f"{name} {value:g}"
                     for name, value in tuned["als"].items())
    return {"implicit ALS": implicit_model("als", "AlternatingLeastSquares"),
            "implicit ALS, 32 factors": implicit_model("als", "AlternatingLeastSquares", factors=32),
            f"ALS, {said}": implicit_model("als", "AlternatingLeastSquares", **tuned["als"]),
            "implicit BPR": implicit_model("bpr", "BayesianPersonalizedRanking"),
            f"EASE, decay {tuned['ease']:g}": ease(tuned["ease"]),
            "LightFM BPR, 32 factors": lightfm("bpr"), "LightFM WARP, 32 factors": lightfm("warp")}


def ease(decay):
    """EASE: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data". It has no seed."""
    def solve(X):
        inverse = np.linalg.inv((X.T @ X).toarray() + decay * np.eye(X.shape[1], dtype=np.float32))
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0)
        return weights

    def train_one(train, test, seed):
        X = sp.csr_array(train, dtype=np.float32)
        weights, seconds = timed(lambda: solve(X))
        return ranked((X @ weights).astype(np.float64), train, test), *seconds
    return train_one


def implicit_model(module, cls, **settings):
    def train_one(train, test, seed):
        import importlib

        with warnings.catch_warnings():             # implicit warns of several threads of BLAS
            warnings.simplefilter("ignore")
            model = getattr(importlib.import_module(f"implicit.{module}"), cls)(
                random_state=seed, num_threads=so.get_num_threads(), **settings)
        _, seconds = timed(lambda: model.fit(sp.csr_matrix(train), show_progress=False))
        users, items = (np.asarray(factors, dtype=np.float64) for factors in (model.user_factors, model.item_factors))
        return ranked(users @ items.T, train, test), *seconds
    return train_one


def lightfm(loss):
    def train_one(train, test, seed):
        with warnings.catch_warnings():             # LightFM warns where it was built without OpenMP
            warnings.simplefilter("ignore")
            from lightfm import LightFM
        model = LightFM(32, loss=loss, random_state=seed)
        row, column = (numbers.astype(np.int32) for numbers in sp.coo_array(train).coords)      # LightFM's only width
        X = sp.coo_matrix((train.data, (row, column)), shape=train.shape)
        _, seconds = timed(lambda: model.fit(X, epochs=30, num_threads=so.get_num_threads()))
        (user_bias, users), (item_bias, items) = model.get_user_representations(), model.get_item_representations()
        return ranked((users @ items.T + user_bias[:, None] + item_bias).astype(np.float64), train, test), *seconds
    return train_one


def rated(ratings, fit, held_out, seed, **settings):
    train, test = ratings.matrix(fit), ratings.matrix(held_out)
    model, seconds = timed(lambda: MatrixFactorization(random_state=seed, **settings).fit(train))
    return -model.score(test), *seconds


def rated_by_replay(ratings, fit, held_out, seed):
    return rated(ratings, fit, held_out, seed, missed="replay")


def surprise_svd(ratings, fit, held_out, seed):
    from surprise import SVD, Trainset

    numbers, by_user, by_item = ({}, {}), {}, {}
    for user, item, value in zip(ratings.users[fit], ratings.items[fit], ratings.values[fit], strict=True):
        u, i = numbers[0].setdefault(user, len(numbers[0])), numbers[1].setdefault(item, len(numbers[1]))
        by_user.setdefault(u, []).append((i, value))
        by_item.setdefault(i, []).append((u, value))
    train = Trainset(by_user, by_item, len(by_user), len(by_item), len(fit), (0.5, 5), *numbers)
    model, seconds = timed(lambda: SVD(random_state=seed).fit(train))
    error = [model.predict(ratings.users[at], ratings.items[at], clip=False).est - ratings.values[at]
             for at in held_out]
    return float(np.sqrt(np.mean(np.square(error)))), *seconds


if __name__ == "__main__":
    main()
