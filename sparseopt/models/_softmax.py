"""Batches of `ImplicitFactorization` with softmax.

A step takes all pairs of some users, so one matrix product gives all scores.
"""

import numpy as np

from .. import embedding
from ..losses.listwise import _of_batch

NAMES = "users", "items", "item_bias"


def batches(X, batch_size, rng, worker=0, workers=1):
    """Yield the rows of some users, until all users with pairs have come.

    The users of all workers have about batch_size pairs together.
    """
    users = np.flatnonzero(np.diff(X.indptr))
    if workers > 1:
        users = users[users % workers == worker]
    rng.shuffle(users)
    ends = np.cumsum(np.diff(X.indptr)[users])
    batch = (ends - 1) // -(-batch_size // workers)     # a user belongs to the batch of the user's last pair
    if len(users):
        yield from np.split(users, np.flatnonzero(np.diff(batch)) + 1)


class Users:
    """The task of an epoch. A step compares the items of its users with other items. Each worker takes some users.

    `negatives` is None for all items, the number of items to draw, or "batch".
    """

    def __init__(self, X, size, negatives, popularity, regularization):
        self._X, self._size, self._negatives, self._regularization = X, size, negatives, regularization
        counts = np.bincount(X.indices, minlength=X.shape[1])
        if negatives is not None:
            self._drawn_from = embedding.Alias((counts + 1)**popularity)    # + 1 so that any item can be drawn
            share = counts if negatives == "batch" else (counts + 1)**popularity
            self._log_share = np.log(np.maximum(share, np.finfo(np.float64).tiny) / share.sum())

    def batches(self, rng, worker, workers):
        for users in batches(self._X, self._size, rng, worker, workers):
            some = self._X[users]
            yield users, some, *self._candidates(some, rng)

    def _candidates(self, X, rng):
        """Return the items that a step compares with the items of its users, and the logarithms of their weights."""
        if self._negatives is None:
            return None, None
        drawn = X.indices if self._negatives == "batch" else self._drawn_from.draw(self._negatives, rng)
        items, times = np.unique(np.concatenate([drawn, X.indices]), return_inverse=True)
        times = np.bincount(times[:len(drawn)], minlength=len(items))
        with np.errstate(divide="ignore"):      # the weight -inf excludes an item that was not drawn
            return items, (np.log(times) - np.log(len(drawn)) - self._log_share[items]).astype(np.float32)

    def gradients(self, reader, batch):
        users, some, items, log_weights = batch
        read = np.arange(self._X.shape[1]) if items is None else items
        tables, (users, read, columns) = reader.read((["users"], users), (["items", "item_bias"], read, some.indices))
        loss, gradients = _of_batch(*(tables[name] for name in NAMES), users, (some.data, columns, some.indptr),
                                    None if items is None else read, log_weights, self._regularization, 1)
        return dict(zip(NAMES, gradients, strict=True)), (some.nnz, some.nnz, loss)
