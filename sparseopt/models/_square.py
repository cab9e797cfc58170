"""Batches of `ImplicitFactorization` with the square loss: all pairs of some users, and the Gramians of both tables."""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .. import embedding
from ..losses.pointwise import _of_batch, _update_gramian
from ._softmax import batches

NAMES = "users", "items"


def steps(model, X, rng):
    """Take the steps of an epoch. Yield the number of pairs and the loss of each."""
    weight, regularization = model._setting("unobserved_weight"), model._setting("regularization")
    tables = [model.optimizer_.params[name] for name in NAMES]
    counts = [np.asarray(X.sum(axis=axis), dtype=np.float32) for axis in (1, 0)]
    model._catch_up()
    gramians = [table.T @ table for table in tables]
    replay = model.optimizer_.missed == "replay"
    for users in batches(X, model._pairs_of_step(X), rng):
        some = X[users]
        if replay:                      # a step changes rows that it does not touch, too
            model._catch_up()
            gramians = [table.T @ table for table in tables]
        with np.errstate(all="ignore"):     # of a training that diverges, which the step reports
            loss, gradients, before = _of_batch(*tables, users, some, gramians, counts, weight, regularization)
        model._take_step({**dict(zip(NAMES, gradients, strict=True)), "item_bias": None})
        for gramian, table, gradient, rows in zip(gramians, tables, gradients, before, strict=True):
            _update_gramian(gramian, rows, embedding.gather(table, gradient.rows))
        yield some.nnz, loss


def folded_in(model, items, weights):
    """Return the vector of someone with these items: the minimum of the loss with the items' vectors as they are."""
    q, weight = model.optimizer_.params["items"].astype(np.float64), model._setting("unobserved_weight")
    own = q[items]
    A = weight * (q.T @ q) + (own * weights[:, None]).T @ own
    A[np.diag_indices(model.dim)] += model._setting("regularization") * (weights.sum() + weight * len(q)) + 1e-12
    return cho_solve(cho_factor(A), weights @ own).astype(np.float32)
