"""Softmax: each pair of a user and an item against all items that are not the user's."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _config, _kernels, embedding
from .._typing import Floats
from ..gradients import Gradient, RowGradient
from . import _checks

_SCORES = 1 << 21       # scores that are computed at a time: few enough for the cache, many enough for the products


def softmax(users: Floats, items: Floats, item_bias: Floats, rows: npt.ArrayLike, X: Any,
            candidates: npt.ArrayLike | None = None, log_weights: npt.ArrayLike | None = None,
            regularization: float = 0.0) -> tuple[float, tuple[RowGradient, Gradient, Gradient]]:
    r"""Softmax of a user's items against all items that are not the user's, and its gradients.

    .. math:: \sum_{u, i} w_{ui} \left(-\log \frac{e^{s_{ui}}}{e^{s_{ui}} + \sum_{j \notin I_u} v_j e^{s_{uj}}}
              + \tfrac12 \lambda (\|p_u\|^2 + \|q_i\|^2)\right), \qquad s_{ui} = p_u \cdot q_i + b_i

    The loss that is returned is without the term of λ, which the gradients include. BLAS computes the scores and the
    gradients of vectors, with its own threads.

    Parameters
    ----------
    users : array of float32 or float64, shape (n_users, dim)
        The vectors p.
    items : array of the same dtype, shape (n_items, dim)
        The vectors q.
    item_bias : array of the same dtype, shape (n_items,)
    rows : array of integers, shape (k,)
        The users of the batch.
    X : scipy sparse array, shape (k, n_items)
        The weights w of the pairs of these users, above 0. I_u are the items of a row of X.
    candidates : None or array of integers, shape (m,)
        The items j, in increasing order, with all items of X among these. None stands for all items.
    log_weights : None or array of floats, shape (m,)
        log v of the candidates: -inf excludes an item from the sum over j. None stands for zeros.
    regularization : float
        λ, 0 or more.

    Returns
    -------
    loss : float
    gradients : tuple
        Those of users, items and item_bias. If all items are candidates, the last two are arrays.

    Raises
    ------
    TypeError, ValueError, IndexError
        If an argument is not as described above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, sparseopt as so
    >>> tables = {"p": so.normal((3, 4), seed=0), "q": so.normal((5, 4), seed=1), "b": so.zeros(5)}
    >>> opt = so.Adagrad(tables, lr=0.5)
    >>> X = sp.csr_array([[1.0, 1, 0, 0, 0], [0, 0, 0, 1, 1]])          # of users 0 and 2
    >>> for step in range(50):
    ...     loss, gradients = so.losses.softmax(*tables.values(), [0, 2], X)
    ...     opt.step(dict(zip(tables, gradients)))
    >>> (tables["p"] @ tables["q"].T + tables["b"])[[0, 2]].argmax(axis=1) // 2
    array([0, 2])

    References
    ----------
    Rendle 2021, "Item Recommendation from Implicit Feedback".
    """
    users = _checks.table("users", users)
    items = _checks.table("items", items, like=users)
    item_bias = _checks.table("item_bias", item_bias, like=users, ndim=1)
    if len(item_bias) != len(items):
        raise ValueError(f"item_bias has {len(item_bias)} numbers; items has {len(items)} rows")
    rows = _checks.rows("rows", rows, len(users))
    X = _checks.pairs("X", X, (len(rows), len(items)), users.dtype)
    _checks.zero_or_more("regularization", regularization)
    if candidates is None:
        if log_weights is not None:
            raise ValueError("candidates is None, and log_weights is not; without candidates it must be None")
    else:
        candidates = _checks.rows("candidates", candidates, len(items))
        if (np.diff(candidates) <= 0).any() or not np.isin(X.indices, candidates).all():
            raise ValueError("candidates must be in increasing order, with all items of X among these")
        if log_weights is not None:
            log_weights = np.asarray(log_weights, users.dtype)
            if log_weights.shape != candidates.shape or not (log_weights < np.inf).all():
                raise ValueError(f"log_weights has shape {log_weights.shape}; it must have shape {candidates.shape}, "
                                 "and numbers below inf")
    return _of_batch(users, items, item_bias, rows, (X.data, X.indices, X.indptr), candidates, log_weights,
                     regularization, _config.threads_for())


def _of_batch(users, items, item_bias, rows, X, candidates, log_weights, regularization, threads):
    """Return the same as `softmax`, without checks. X is the data, indices and indptr of a CSR array."""
    weights, columns, indptr = X
    p, q, bias = embedding.gather(users, rows), items, item_bias
    if candidates is not None:
        q, bias = embedding.gather(items, candidates), item_bias[candidates]
        columns = np.searchsorted(candidates, columns)
    shift = bias if log_weights is None else bias + log_weights
    dp, dq, db = np.zeros_like(p), np.zeros_like(q), np.zeros_like(bias)
    losses, own, at_once = np.empty(len(rows)), np.empty_like(weights), max(1, _SCORES // max(1, len(q)))
    scores = np.empty((min(at_once, len(p)), len(q)), p.dtype)
    for first in range(0, len(p), at_once):
        some = slice(first, first + at_once)
        slopes = np.matmul(p[some], q.T, out=scores[:len(p[some])])
        _kernels.losses.softmax_rows(slopes, bias, shift, indptr[first:first + len(slopes) + 1], columns, weights, own,
                                     losses[some], threads)
        np.matmul(slopes, q, out=dp[some])
        if first:
            dq += slopes.T @ p[some]
        else:
            np.matmul(slopes.T, p[some], out=dq)
        db += slopes.sum(axis=0)
    if regularization:
        decay, of_row = p.dtype.type(regularization), np.repeat(np.arange(len(p)), np.diff(indptr))
        _kernels.losses.add_scaled_rows(dp, decay * _sums(weights, of_row, p), p)
        _kernels.losses.add_scaled_rows(dq, decay * _sums(weights, columns, q), q)
    if candidates is not None:
        dq, db = RowGradient(candidates, dq), RowGradient(candidates, db)
    return float(losses.sum()), (RowGradient(rows, dp), dq, db)


def _sums(weights, rows, table):
    return np.bincount(rows, weights, len(table)).astype(table.dtype)
