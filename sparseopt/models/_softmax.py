"""Batches of `ImplicitFactorization` with softmax.

A step takes all pairs of some users, so one matrix product gives all scores.
"""

import numpy as np

from ..losses.listwise import _of_batch

NAMES = "users", "items", "item_bias"


def batches(X, batch_size, rng):
    """Yield the rows of some users with about batch_size pairs together, until all users with pairs have come."""
    users = np.flatnonzero(np.diff(X.indptr))
    rng.shuffle(users)
    ends = np.cumsum(np.diff(X.indptr)[users])
    batch = (ends - 1) // batch_size            # a user belongs to the batch of the user's last pair
    yield from np.split(users, np.flatnonzero(np.diff(batch)) + 1)


class Candidates:
    """The items that a step compares with the items of its users, and the logarithm of how often each counts.

    `negatives` is None for all items, the number of items to draw, or "batch". `share` is proportional to the
    probability of each item.
    """

    def __init__(self, negatives, drawn_from, share, rng):
        self._negatives, self._drawn_from, self._rng = negatives, drawn_from, rng
        if negatives is not None:
            self._log_share = np.log(np.maximum(share, np.finfo(np.float64).tiny) / share.sum())

    def __call__(self, X):
        if self._negatives is None:
            return None, None
        drawn = X.indices if self._negatives == "batch" else self._drawn_from.draw(self._negatives, self._rng)
        items, times = np.unique(np.concatenate([drawn, X.indices]), return_inverse=True)
        times = np.bincount(times[:len(drawn)], minlength=len(items))
        with np.errstate(divide="ignore"):      # the weight -inf excludes an item that was not drawn
            return items, (np.log(times) - np.log(len(drawn)) - self._log_share[items]).astype(np.float32)


def steps(model, X, drawn_from, rng):
    """Take the steps of an epoch. Yield the number of pairs and the loss of each."""
    counts = np.bincount(X.indices, minlength=X.shape[1])
    negatives, regularization = model._setting("negatives"), model._setting("regularization")
    if model._takes_all(X.shape[1]):
        negatives = None
    share = counts if negatives == "batch" else (counts + 1)**model._setting("popularity")
    candidates, everything = Candidates(negatives, drawn_from, share, rng), np.arange(X.shape[1])
    for users in batches(X, model._pairs_of_step(X), rng):
        some = X[users]
        items, log_weights = candidates(some)
        read = everything if items is None else items
        model._catch_up({"users": users, "items": read, "item_bias": read})
        tables = model.optimizer_.params
        loss, gradients = _of_batch(*(tables[name] for name in NAMES), users, some, items, log_weights, regularization,
                                   1)
        model._take_step(dict(zip(NAMES, gradients, strict=True)))
        yield some.nnz, loss
