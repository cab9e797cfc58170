"""The square loss of all pairs of users and items, at the price of the observed pairs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _kernels, embedding
from .._typing import Floats
from ..gradients import RowGradient
from . import _checks


def square(users: Floats, items: Floats, rows: npt.ArrayLike, X: Any, gramians: tuple[Floats, Floats],
           counts: tuple[npt.ArrayLike, npt.ArrayLike], unobserved_weight: float = 0.3,
           regularization: float = 0.0) -> tuple[float, tuple[RowGradient, RowGradient]]:
    r"""Square loss of all pairs: 1 is wanted for the pairs of X, and 0 with a low weight for every pair.

    .. math:: \tfrac12 \sum_{u, i \in X} w_{ui} (s_{ui} - 1)^2 + \tfrac12 \alpha \sum_u \sum_{\text{all } i} s_{ui}^2
              + \tfrac12 \lambda \bigl(\sum_u (n_u + \alpha |I|) \|p_u\|^2 + \sum_i (n_i + \alpha |U|) \|q_i\|^2\bigr),
              \qquad s_{ui} = p_u \cdot q_i

    The sum over all i is :math:`p_u^T G p_u`, with the Gramian :math:`G = \sum_i q_i q_i^T`. So a batch costs
    O(pairs · dim + rows · dim²). Only items with a pair in the batch get a gradient. An item's terms of α and λ are
    divided among the item's pairs: over the batches of an epoch, the gradients add up to that of the whole loss.

    Parameters
    ----------
    users : array of float32 or float64, shape (n_users, dim)
        The vectors p.
    items : array of the same dtype, shape (n_items, dim)
        The vectors q.
    rows : array of integers, shape (k,)
        The users of the batch.
    X : scipy sparse array, shape (k, n_items)
        The weights w of all pairs of these users, above 0.
    gramians : tuple of two arrays, shape (dim, dim)
        users.T @ users and items.T @ items. `square_gramian` keeps these up to date as rows change.
    counts : tuple of two arrays of floats, shapes (n_users,) and (n_items,)
        n_u and n_i: the sums of all weights of a user and of an item, over all batches.
    unobserved_weight : float
        α, 0 or more.
    regularization : float
        λ, 0 or more.

    Returns
    -------
    loss : float
        Without the term of λ.
    gradients : tuple of two RowGradient
        Those of users and items.

    Raises
    ------
    TypeError, ValueError, IndexError
        If an argument is not as described above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, sparseopt as so
    >>> p, q = so.normal((3, 4), seed=0), so.normal((5, 4), seed=1)
    >>> opt = so.Adagrad({"p": p, "q": q}, lr=0.1)
    >>> X = sp.csr_array([[1.0, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
    >>> counts = X.sum(axis=1), X.sum(axis=0)
    >>> for step in range(100):
    ...     loss, gradients = so.losses.square(p, q, range(3), X, (p.T @ p, q.T @ q), counts)
    ...     opt.step(dict(zip("pq", gradients)))
    >>> (p @ q.T > 0.5).astype(int)
    array([[1, 1, 0, 0, 0],
           [0, 1, 1, 0, 0],
           [0, 0, 0, 1, 1]])

    References
    ----------
    Rendle, Krichene, Zhang and Koren 2022, "Revisiting the Performance of iALS on Item Recommendation Benchmarks".
    """
    users = _checks.table("users", users)
    items = _checks.table("items", items, like=users)
    rows = _checks.rows("rows", rows, len(users))
    X = _checks.pairs("X", X, (len(rows), len(items)), users.dtype)
    dim = users.shape[1]
    gramians = [_checks.floats(f"gramians[{i}]", one, (dim, dim), users.dtype)
                for i, one in enumerate(_checks.two("gramians", gramians))]
    counts = [_checks.floats(f"counts[{i}]", one, (len(table),), users.dtype)
              for i, (one, table) in enumerate(zip(_checks.two("counts", counts), (users, items), strict=True))]
    for i, (count, numbers) in enumerate(zip(counts, (rows[np.diff(X.indptr) > 0], X.indices), strict=True)):
        if len(numbers) and not count[numbers].min() > 0:
            raise ValueError(f"counts[{i}] has {count[numbers].min()} for a row with pairs; it must be above 0")
    for name, value in (("unobserved_weight", unobserved_weight), ("regularization", regularization)):
        _checks.zero_or_more(name, value)
    return _of_batch(users, items, rows, X, gramians, counts, unobserved_weight, regularization)[:2]


def _of_batch(users, items, rows, X, gramians, counts, unobserved_weight, regularization):
    """Return the same as `square`, without checks, and the vectors of the users and of the items of the batch."""
    touched, columns = _different(X.indices, len(items))
    p, q = embedding.gather(users, rows), embedding.gather(items, touched)
    dp, dq = p @ gramians[1], q @ gramians[0]
    share = (np.bincount(columns, X.data, len(touched)) / counts[1][touched]).astype(p.dtype)
    decay = [(regularization * (count + unobserved_weight * n)).astype(p.dtype)
             for count, n in ((counts[0][rows], len(items)), (counts[1][touched], len(users)))]
    loss = _kernels.losses.square(p, q, columns, X.data, X.indptr, unobserved_weight, *decay, share, dp, dq)
    return loss, (RowGradient(rows, dp), RowGradient(touched, dq)), (p, q)


def _different(numbers, n):
    """Return the different numbers among some below n, in increasing order, and the place of each number there."""
    found = np.zeros(n, bool)
    found[numbers] = True
    different = np.flatnonzero(found)
    places = np.empty(n, np.int32 if n < 1 << 31 else np.int64)
    places[different] = np.arange(len(different))
    return different, places[numbers]


def square_gramian(gramian: Floats, before: Floats, after: Floats) -> None:
    """Bring the Gramian of a table up to date in place, from some rows as they were and as they are.

    Parameters
    ----------
    gramian : array of floats, shape (dim, dim)
    before, after : arrays of the same dtype, shape (k, dim)

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described above.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.normal((9, 2), seed=0)
    >>> gramian, before = table.T @ table, table[[3, 5]]
    >>> table[[3, 5]] += 1
    >>> so.losses.square_gramian(gramian, before, table[[3, 5]])
    >>> bool(np.allclose(gramian, table.T @ table))
    True
    """
    for name, array in (("gramian", gramian), ("before", before), ("after", after)):
        _checks.table(name, array, like=None if array is gramian else gramian)
    if len(gramian) != gramian.shape[1] or len(before) != len(after):
        raise ValueError(f"gramian, before and after have the shapes {gramian.shape}, {before.shape} and "
                         f"{after.shape}; they must be (dim, dim), (k, dim) and (k, dim)")
    _update_gramian(gramian, before, after)


def _update_gramian(gramian, before, after):
    half = (after - before).T @ (after + before)        # its mean with its transpose is the difference of the Gramians
    gramian += (half + half.T) / 2
