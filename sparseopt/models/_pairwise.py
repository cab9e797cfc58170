"""Epochs of bpr and warp: pairs of a user and an item in random order, each with drawn items."""

import numpy as np

from .. import _config, _kernels, embedding
from ..losses import pairwise

_DRAWN = 16         # the most items that warp draws for a pair, which is enough for most pairs


class Pairs:
    """The task of an epoch. Each worker takes the pairs of some users.

    warp needs few draws for most pairs, and many for some. So a pair goes on with the draws of the next pairs.
    """

    def __init__(self, X, warp, size, negatives, popularity, regularization):
        self._X, self._size, self._regularization = X, size, regularization
        self._each = min(negatives, X.shape[1]) if warp else negatives      # after more tries, the estimated rank is 1
        self._ranks = pairwise._log_ranks(X.shape[1], self._each) if warp else None
        counts = np.bincount(X.indices, minlength=X.shape[1])
        self._negatives = embedding.Alias((counts + 1)**popularity)         # + 1 so that any item can be drawn

    def batches(self, rng, worker, workers):
        X = self._X
        users = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(X.indptr))
        order = rng.permutation(X.nnz if workers == 1 else np.flatnonzero(users % workers == worker))
        size = -(-self._size // workers)
        for start in range(0, len(order), size):
            batch = order[start:start + size]
            u, i, weights = (taken(array, batch) for array in (users, X.indices, X.data))
            width = self._each if self._ranks is None else max(min(self._each, _DRAWN), -(-self._each // len(batch)))
            yield u, i, self._negatives.draw(len(batch) * width, rng).reshape(-1, width), weights

    def gradients(self, reader, batch):
        u, i, drawn, weights = batch
        tables, (u, i, drawn) = reader.read((["users"], u), (["items", "item_bias"], i, drawn))
        own = reader.part(self._X, "users", "items")
        loss, gradients = pairwise._pairs(tables["users"], tables["items"], tables["item_bias"], u, i, drawn, weights,
                                          own, self._regularization, self._ranks)
        return dict(zip(("users", "items", "item_bias"), gradients, strict=True)), (len(u), len(u), loss)


def taken(array, places):
    """Return array[places] by the compiled look-up, which is several times as fast as NumPy's."""
    out = np.empty(len(places), array.dtype)
    _kernels.take(array, places, out, _config.threads_for())
    return out
