"""Recommenders on MovieLens beside other libraries: NDCG@10 of liked films, and the error of predicted ratings.

    python bench/recommenders.py FILE [--seeds N] [--losses LOSS,...] [--optimizers NAME,...] [--validate]

FILE is ratings.csv of ml-latest-small (grouplens.org/datasets/movielens). A user likes a film from a rating of
4 on. The last fifth of the films that each user likes is held out. With --validate, the last fifth of the remaining
films is held out instead: the settings were chosen on that part. Seconds are those of training alone.
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ratings", metavar="FILE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--losses", default="softmax,bpr,warp")
    parser.add_argument("--optimizers", default="Adagrad,RMSprop,Adam")
    parser.add_argument("--validate", action="store_true")
    options = parser.parse_args()
    ratings = datasets.read_ratings(options.ratings)
    films(ratings, options)
    errors(ratings, options.seeds)


def films(ratings, options):
    liked = ratings.where(ratings.values >= 4)
    fit, held_out = evaluation.train_test_split_by_time(liked.users, liked.times)
    if options.validate:
        first, last = evaluation.train_test_split_by_time(liked.users[fit], liked.times[fit])
        fit, held_out = fit[first], fit[last]
    train, test = liked.matrix(fit), liked.matrix(held_out)
    train.data[:] = 1
    print(f"{train.shape[0]:,} users, {train.shape[1]:,} films, {train.nnz:,} pairs to train on and "
          f"{test.nnz:,} held out{' (validation)' if options.validate else ''}; "
          f"{os.cpu_count()} cores, {so.get_num_threads()} threads")
    print(f"{'':38}  {'NDCG@10':>15}  {'seconds':>7}")
    counts = np.asarray(train.sum(axis=0), dtype=np.float64)
    show("what is popular", [(ranked(np.tile(counts, (train.shape[0], 1)), train, test), 0.0)])
    for loss in options.losses.split(","):
        for optimizer in options.optimizers.split(","):
            for missed in ("skip", "replay"):
                show(f"{loss}, {optimizer}, {missed}",
                     [ours(train, test, seed, loss=loss, optimizer=optimizer, missed=missed)
                      for seed in range(options.seeds)])
    if "softmax" in options.losses:
        for settings in ({"negatives": 1024}, {"negatives": "batch"}, {"dim": 128}, {"lr": 0.2, "epochs": 12}):
            said = ", ".join(f"{name} {value}" for name, value in settings.items())
            show(f"softmax, {said}", [ours(train, test, seed, **settings) for seed in range(options.seeds)])
    for name, train_one in peers().items():
        try:
            show(name, [train_one(train, test, seed) for seed in range(options.seeds)])
        except ImportError as error:
            print(f"{name:38}  left out: {error}")


def errors(ratings, seeds):
    print(f"\n{len(ratings):,} ratings, a fifth held out at random, another for each seed")
    print(f"{'':38}  {'RMSE':>15}  {'seconds':>7}")
    for name, train_one in {"MatrixFactorization": rated, "MatrixFactorization, replay": rated_by_replay,
                            "scikit-surprise SVD, 100 factors": surprise_svd}.items():
        try:
            found = []
            for seed in range(seeds):
                order = np.random.default_rng(seed).permutation(len(ratings))
                found.append(train_one(ratings, order[len(order) // 5:], order[:len(order) // 5], seed))
            show(name, found)
        except ImportError as error:
            print(f"{name:38}  left out: {error}")


def show(name, found):
    scores, seconds = np.array(found).T
    spread = f" ± {scores.std(ddof=1):.4f}" if len(scores) > 1 else ""
    print(f"{name:38}  {f'{scores.mean():.4f}{spread}':>15}  {np.median(seconds):7.2f}", flush=True)


def timed(train):
    begin = time.perf_counter()
    model = train()
    return model, time.perf_counter() - begin


def ours(train, test, seed, **settings):
    model, seconds = timed(lambda: ImplicitFactorization(random_state=seed, **settings).fit(train))
    return evaluation.evaluate(model, train, test)["ndcg"], seconds


def ranked(scores, train, test):
    """NDCG@10 of dense scores, by the one metric that all are measured with."""
    scores[np.repeat(np.arange(train.shape[0]), np.diff(train.indptr)), train.indices] = -np.inf
    best = np.argpartition(-scores, 10, axis=1)[:, :10]
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable"), 1)
    return evaluation.ranking_metrics(best, test)["ndcg"]


def peers():
    return {"implicit ALS, 32 factors": implicit_model("als", "AlternatingLeastSquares", factors=32),
            "implicit BPR, 32 factors": implicit_model("bpr", "BayesianPersonalizedRanking", factors=32),
            "LightFM BPR, 32 factors": lightfm("bpr"), "LightFM WARP, 32 factors": lightfm("warp")}


def implicit_model(module, cls, **settings):
    def train_one(train, test, seed):
        import importlib

        with warnings.catch_warnings():             # implicit warns of several threads of BLAS
            warnings.simplefilter("ignore")
            model = getattr(importlib.import_module(f"implicit.{module}"), cls)(random_state=seed, **settings)
        _, seconds = timed(lambda: model.fit(sp.csr_matrix(train), show_progress=False))
        users, items = (np.asarray(factors, dtype=np.float64) for factors in (model.user_factors, model.item_factors))
        return ranked(users @ items.T, train, test), seconds
    return train_one


def lightfm(loss):
    def train_one(train, test, seed):
        with warnings.catch_warnings():             # LightFM warns where it was built without OpenMP
            warnings.simplefilter("ignore")
            from lightfm import LightFM
        model = LightFM(32, loss=loss, random_state=seed)
        _, seconds = timed(lambda: model.fit(sp.coo_matrix(train), epochs=30, num_threads=2))
        (user_bias, users), (item_bias, items) = model.get_user_representations(), model.get_item_representations()
        return ranked((users @ items.T + user_bias[:, None] + item_bias).astype(np.float64), train, test), seconds
    return train_one


def rated(ratings, fit, held_out, seed, **settings):
    train, test = ratings.matrix(fit), ratings.matrix(held_out)
    model, seconds = timed(lambda: MatrixFactorization(random_state=seed, **settings).fit(train))
    return -model.score(test), seconds


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
    return float(np.sqrt(np.mean(np.square(error)))), seconds


if __name__ == "__main__":
    main()
