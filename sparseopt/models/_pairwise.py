"""Epochs of bpr and warp: pairs of a user and an item in random order, each with drawn items."""

import numpy as np

from .. import _config, _kernels
from ..losses import pairwise

_DRAWN = 16         # the most items that warp draws for a pair, which is enough for most pairs


def steps(model, X, negatives, rng):
    """Take a step on each batch of the pairs of X. Yield the number of pairs and the loss of each step.

    warp needs few draws for most pairs, and many for some. So a pair goes on with the draws of the next pairs.
    """
    each, regularization = model._setting("negatives"), model._setting("regularization")
    if model.loss == "warp":
        each = min(each, X.shape[1])        # after more tries, the estimated rank is 1 and its logarithm 0
    ranks = pairwise._log_ranks(X.shape[1], each) if model.loss == "warp" else None
    own = X.indptr, X.indices
    users = np.repeat(np.arange(X.shape[0], dtype=np.int32), np.diff(X.indptr))
    order = rng.permutation(X.nnz)
    tables = model.optimizer_.params
    size = model._pairs_of_step(X)
    for start in range(0, X.nnz, size):
        batch = order[start:start + size]
        u, i, weights = (taken(array, batch) for array in (users, X.indices, X.data))
        width = each if ranks is None else max(min(each, _DRAWN), -(-each // len(batch)))
        drawn = negatives.draw(len(batch) * width, rng).reshape(-1, width)
        if model.optimizer_.missed == "replay":
            read = np.append(drawn, i)
            model._catch_up({"users": u, "items": read, "item_bias": read})
        loss, gradients = pairwise._pairs(tables["users"], tables["items"], tables["item_bias"], u, i, drawn, weights,
                                          own, regularization, ranks)
        model._take_step(dict(zip(("users", "items", "item_bias"), gradients, strict=True)))
        yield len(batch), loss


def taken(array, places):
    """Return array[places] by the compiled look-up, which is several times as fast as NumPy's."""
    out = np.empty(len(places), array.dtype)
    _kernels.take(array, places, out, _config.threads_for())
    return out
