"""A search of scikit-learn over settings of a recommender, beside a loop by hand: NDCG@10 on MovieLens.

    python bench/search.py FILE [--dim N] [--splits N]

FILE has ratings, such as ratings.csv of ml-latest-small (grouplens.org/datasets/movielens). A user likes a film from a
rating of 4 on. The last tenth of each user's films is the test set. With more splits, earlier tenths are too.

| column       | how the model is trained and measured                                                     |
|--------------|-------------------------------------------------------------------------------------------|
| GridSearchCV | `fit` and `score` of Ratings, split by `TimeSplit`                                        |
| by hand      | `fit` of a matrix and `evaluate`, split by positions that a loop over the users picks     |
"""

import argparse
from itertools import product

import numpy as np
from sklearn.model_selection import GridSearchCV

from sparseopt import datasets, evaluation
from sparseopt.models import ImplicitFactorization

GRID = {"epochs": [5, 10, 20], "regularization": [0.05, 0.1, 0.2, 0.4]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ratings", metavar="FILE")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--splits", type=int, default=1)
    options = parser.parse_args()
    liked = datasets.read_ratings(options.ratings).chosen()
    print(f"{len(liked):,} pairs of {len(liked.user_ids):,} users and {len(liked.item_ids):,} items, {options.dim} "
          f"dimensions; splits: {options.splits}")
    model, cv = ImplicitFactorization(dim=options.dim), evaluation.TimeSplit(options.splits, test_size=0.1)
    search = GridSearchCV(model, GRID, cv=cv, error_score="raise", refit=False).fit(liked)
    splits = [[liked.matrix(part) for part in parts] for parts in by_hand(liked, options.splits)]
    settings = [dict(zip(GRID, values, strict=True)) for values in product(*GRID.values())]
    ours = [np.mean([evaluation.evaluate(ImplicitFactorization(dim=options.dim, **setting).fit(train), train,
                                         test)["ndcg"] for train, test in splits]) for setting in settings]
    found = search.cv_results_["mean_test_score"]
    print(f"{'':30s} {'GridSearchCV':>12s} {'by hand':>12s}")
    for place, (setting, params) in enumerate(zip(settings, search.cv_results_["params"], strict=True)):
        assert setting == params
        best = "".join(f"  best of {name}" for name, scores in (("GridSearchCV", found), ("the loop", ours))
                       if place == np.argmax(scores))
        print(f"{', '.join(f'{name} {value}' for name, value in setting.items()):30s} {found[place]:12.4f} "
              f"{ours[place]:12.4f}{best}")


def by_hand(liked, n_splits):
    """Yield the positions of training and test for each split, the earliest first."""
    by_user = [np.flatnonzero(liked.users == user) for user in range(len(liked.user_ids))]
    by_user = [theirs[np.argsort(liked.times[theirs], kind="stable")] for theirs in by_user]
    for after in reversed(range(n_splits)):
        parts = [], []
        for theirs in by_user:
            tenth = len(theirs) // 10
            end = len(theirs) - after * tenth
            parts[0].append(theirs[:end - tenth])
            parts[1].append(theirs[end - tenth:end])
        yield [np.sort(np.concatenate(part)) for part in parts]


if __name__ == "__main__":
    main()
