"""Recommendations for people who were not trained on, beside the same people trained on: NDCG@10 on MovieLens.

    python bench/folding.py FILE [--seeds N] [--share X]

FILE has ratings, such as ratings.csv of ml-latest-small (grouplens.org/datasets/movielens). A user likes a film from a
rating of 4 on. A fifth of the users with 10 or more such films is drawn. The later half of the films of each of these
users is held out.

| line       | trained on                                      | recommended from                               |
|------------|-------------------------------------------------|------------------------------------------------|
| trained on | all other users, and the first halves           | the vectors of these users                     |
| folded in  | all other users                                 | the first halves, by `recommend_for`           |
| popular    | -                                               | the films with the most users                  |
"""

import argparse

import numpy as np
import scipy.sparse as sp

from sparseopt import datasets, evaluation
from sparseopt.models import ImplicitFactorization, MatrixFactorization


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ratings", metavar="FILE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.2, help="share of the users that are left out")
    options = parser.parse_args()
    ratings = datasets.read_ratings(options.ratings)
    liked = ratings.chosen(4)
    print(f"{len(liked):,} pairs of {len(liked.user_ids):,} users and {len(liked.item_ids):,} items")
    print(f"{'':22}  {'trained on':>15}  {'folded in':>15}  {'popular':>15}")
    for loss in ("softmax", "bpr", "warp"):
        show(loss, [one(liked, seed, options.share, loss) for seed in range(options.seeds)])
    print()
    print(f"{'':22}  {'trained on':>15}  {'folded in':>15}  {'item biases':>15}")
    show("RMSE of ratings", [rated(ratings, seed, options.share) for seed in range(options.seeds)])


def show(name, found):
    columns = np.array(found).T
    cells = [f"{one.mean():.4f} ± {one.std(ddof=1):.4f}" if len(one) > 1 else f"{one[0]:.4f}" for one in columns]
    print(f"{name:22}  " + "  ".join(f"{cell:>15}" for cell in cells), flush=True)


def halves(ratings, seed, share):
    """The ratings of the others, and the earlier and the later ratings of the users that are left out."""
    n = np.bincount(ratings.users)
    able = np.flatnonzero(n >= 10)
    out = np.random.default_rng(seed).choice(able, int(share * len(able)), replace=False)
    theirs = np.isin(ratings.users, out)
    where = np.flatnonzero(theirs)
    first, last = evaluation.train_test_split_by_time(ratings.users[where], ratings.times[where], 0.5)
    return out, ratings.matrix(~theirs), ratings.matrix(where[first]), ratings.matrix(where[last])


def one(liked, seed, share, loss):
    out, others, first, last = halves(liked, seed, share)
    trained = ImplicitFactorization(loss=loss, random_state=seed).fit(others + first)
    model = ImplicitFactorization(loss=loss, random_state=seed).fit(others)
    counts = np.asarray(others.sum(axis=0))

    def popular(user):
        scores = counts.copy()
        scores[first[[user]].indices] = -1
        return np.argsort(-scores, kind="stable")[:10]

    return (ranked(last, out, lambda user: trained.recommend(user, 10, first)[0]),
            ranked(last, out, lambda user: model.recommend_for(first[[user]].indices)[0]), ranked(last, out, popular))


def ranked(last, users, recommend):
    return evaluation.ranking_metrics(np.array([recommend(user) for user in users]), last[users])["ndcg"]


def rated(ratings, seed, share):
    out, others, first, last = halves(ratings, seed, share)
    trained = MatrixFactorization(random_state=seed).fit(sp.coo_array(others + first))
    model = MatrixFactorization(random_state=seed).fit(others)
    squares, plain = [], []
    for user in out:
        known, wanted = first[[user]], last[[user]]
        items, scores = model.recommend_for(known.indices, others.shape[1], known.data)
        predicted = np.empty(others.shape[1])
        predicted[items[items >= 0]] = scores[items >= 0]
        squares.append((predicted[wanted.indices] - wanted.data)**2)
        bias = model.optimizer_.params["item_bias"] + model.mean_
        plain.append((bias[wanted.indices] + (known.data - bias[known.indices]).mean() - wanted.data)**2)
    errors = trained.predict(*last.tocoo().coords) - last.tocoo().data
    return (np.sqrt(np.mean(errors**2)), *(np.sqrt(np.concatenate(part).mean()) for part in (squares, plain)))


if __name__ == "__main__":
    main()
