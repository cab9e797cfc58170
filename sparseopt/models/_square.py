"""Batches of `ImplicitFactorization` with the square loss: all pairs of some users, and the Gramians of both tables."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .. import embedding
from ..losses.pointwise import _of_batch, _update_gramian
from ._softmax import batches

NAMES = "users", "items"


class AllPairs:
    """The task of an epoch in memory, because the Gramians are those of whole tables."""

    def __init__(self, X, size, weight, regularization):
        self._X, self._size, self._weight, self._regularization = X, size, weight, regularization
        self._counts = [np.asarray(X.sum(axis=axis), dtype=np.float32) for axis in (1, 0)]
        self._gramians, self._stepped = None, None

    def batches(self, rng, worker, workers):
        return batches(self._X, self._size, rng)

    def gradients(self, reader, users):
        tables, some = [reader.tables[name] for name in NAMES], self._X[users]
        if reader.catch_up() or self._gramians is None:         # a step changes rows that it does not touch, too
            self._gramians = [table.T @ table for table in tables]
        else:
            for gramian, table, (rows, before) in zip(self._gramians, tables, self._stepped, strict=True):
                _update_gramian(gramian, before, embedding.gather(table, rows))
        with np.errstate(all="ignore"):     # of a training that diverges, which the step reports
            loss, gradients, before = _of_batch(*tables, users, some, self._gramians, self._counts, self._weight,
                                                self._regularization)
        self._stepped = [(gradient.rows, rows) for gradient, rows in zip(gradients, before, strict=True)]
        return {**dict(zip(NAMES, gradients, strict=True)), "item_bias": None}, (some.nnz, some.nnz, loss)


def folded_in(model, items, weights):
    """Return the vector of someone with these items: the minimum of the loss with the items' vectors as they are."""
    q, weight = model.optimizer_.params["items"].astype(np.float64), model._setting("unobserved_weight")
    own = q[items]
    A = weight * (q.T @ q) + (own * weights[:, None]).T @ own
    A[np.diag_indices(model.dim)] += model._setting("regularization") * (weights.sum() + weight * len(q)) + 1e-12
    return cho_solve(cho_factor(A), weights @ own).astype(np.float32)
