"""Ranking by pairs: an item of a user against drawn items that are not the user's."""

from numbers import Real

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from .. import _config, _memory
from .._kernels import losses
from .._text import shown
from .._typing import Floats, Sparse
from ..gradients import RowGradient, _parts, checked
from . import _checks

_BLOCK = 64         # users whose losses the kernel adds up together


def bpr(P: Floats, Q: Floats, b: Floats, users: npt.ArrayLike, items: npt.ArrayLike, negatives: npt.ArrayLike,
        weights: npt.ArrayLike | None = None, *, seen: Sparse | None = None,
        regularization: float = 0.0) -> tuple[float, tuple[RowGradient, RowGradient, RowGradient]]:
    r"""Bayesian personalized ranking: the score of an item of a user is to be above the scores of drawn items.

    The score of item i for user u is :math:`s_{ui} = p_u \cdot q_i + b_i`. The loss is the sum over the pairs (u, i)

    .. math:: \frac{w_{ui}}{m} \sum_j \bigl(\log(1 + e^{s_{uj} - s_{ui}})
              + \tfrac12 \lambda (\|p_u\|^2 + \|q_i\|^2 + \|q_j\|^2)\bigr)

    over the negatives j of the pair that the user has not seen. m is the number of negatives that were drawn for the
    pair. The loss that is returned is without λ, and the gradients are with λ.

    Parameters
    ----------
    P : array of float32 or float64, shape (n_users, dim)
        The vectors of the users.
    Q : array of the same dtype, shape (n_items, dim)
        The vectors of the items.
    b : array of the same dtype, shape (n_items,)
        The biases of the items.
    users, items : arrays of integers, shape (k,)
        The pairs.
    negatives : array of integers, shape (k, m)
        The items drawn for each pair, m at least 1.
    weights : None or array of numbers, shape (k,)
        The weights w of the pairs. None stands for 1.
    seen : None or scipy sparse array, shape (n_users, n_items)
        Its stored entries are the items of the users, which are left out of the negatives. A CSR array is read as it
        is, and the rows of these users must be in ascending order. None: users have seen nothing.
    regularization : float
        λ, 0 or more.

    Returns
    -------
    loss : float
    gradients : (RowGradient, RowGradient, RowGradient)
        The gradients of P, Q and b, over the rows that the loss reads.

    Raises
    ------
    TypeError, ValueError, IndexError
        If a parameter is not as described above, or a number is out of range.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> P, Q, b = so.normal((4, 8), scale=0.1, seed=0), so.normal((6, 8), scale=0.1, seed=1), so.zeros(6)
    >>> opt = so.Adagrad({"P": P, "Q": Q, "b": b}, lr=0.1)
    >>> for _ in range(20):
    ...     loss, gradients = so.losses.bpr(P, Q, b, [0, 1], [2, 5], [[3], [4]])
    ...     opt.step(dict(zip(opt.params, gradients)))
    >>> bool(loss < 0.5)
    True

    References
    ----------
    Rendle et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit Feedback".
    """
    return _pairs(*_checked(P, Q, b, users, items, negatives, weights, seen, regularization))


def warp(P: Floats, Q: Floats, b: Floats, users: npt.ArrayLike, items: npt.ArrayLike, negatives: npt.ArrayLike,
         weights: npt.ArrayLike | None = None, *, seen: Sparse | None = None,
         regularization: float = 0.0) -> tuple[float, tuple[RowGradient, RowGradient, RowGradient]]:
    r"""Weighted approximate rank: an item of a user against the first drawn item whose score is too near.

    The score of item i for user u is :math:`s_{ui} = p_u \cdot q_i + b_i`. Let j be the first negative of a pair
    (u, i) that the user has not seen and that has :math:`s_{uj} > s_{ui} - 1`. Let it be the t-th that was drawn. The
    loss is the sum over the pairs that have such a j

    .. math:: w_{ui} \bigl(\log\lfloor\frac{n_{items} - 1}{t}\rfloor (1 - s_{ui} + s_{uj})
              + \tfrac12 \lambda (\|p_u\|^2 + \|q_i\|^2 + \|q_j\|^2)\bigr)

    The quotient estimates the rank of item i. It is at least 1. The loss that is returned is without λ, and the
    gradients are with λ.

    Parameters
    ----------
    P, Q, b, users, items, weights, seen, regularization
        As in `bpr`.
    negatives : array of integers, shape (k, m)
        The items drawn for each pair, in the order in which they are tried.

    Returns
    -------
    loss : float
    gradients : (RowGradient, RowGradient, RowGradient)
        The gradients of P, Q and b, over the rows of the pairs that have such a j.

    Raises
    ------
    TypeError, ValueError, IndexError
        As in `bpr`.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> P, Q, b = so.normal((4, 8), scale=0.1, seed=0), so.normal((6, 8), scale=0.1, seed=1), so.zeros(6)
    >>> opt = so.Adagrad({"P": P, "Q": Q, "b": b}, lr=0.1)
    >>> for _ in range(20):
    ...     loss, gradients = so.losses.warp(P, Q, b, [0, 1], [2, 5], [[3, 4], [4, 0]])
    ...     opt.step(dict(zip(opt.params, gradients)))
    >>> loss
    0.0

    References
    ----------
    Weston, Bengio and Usunier 2011, "WSABIE: Scaling Up To Large Vocabulary Image Annotation".
    """
    batch = _checked(P, Q, b, users, items, negatives, weights, seen, regularization)
    return _pairs(*batch, _log_ranks(len(batch[1]), batch[5].shape[1], batch[0].dtype))


def _pairs(P, Q, b, users, items, others, weights, own, regularization, ranks=None):
    """Return what `bpr` returns; with `ranks`, what `warp` returns. The parameters must be checked.

    `others` has shape (k, each). `own` is the (indptr, indices) of a CSR array whose rows are sorted, or None. `ranks`
    has the logarithm of the rank for each number of tries. Beyond `each` tries, a pair takes the others of the next
    pairs.
    """
    threads = _config.threads_for()
    k, each = others.shape
    places = k * each if ranks is None else k
    left = (np.empty(k, users.dtype), np.empty(k + places, np.result_type(items, others)), np.empty(k + 1, np.int64),
            np.empty(k, P.dtype), np.empty(k, P.dtype))
    n, m = losses.find_pairs(P, Q, b, users, items, others, weights, own, ranks, regularization,
                             np.empty(places, np.int32), left, threads)
    rows, both = left[0][:n], left[1][:n + m]
    values, db = _memory.empty((2 * n + m, P.shape[1]), P.dtype), np.empty(n + m, P.dtype)
    dP, dQ = values[:n], values[n:]
    loss = losses.compare_pairs(P, Q, b, (rows, both, *left[2:]), ranks is not None, np.empty(m, P.dtype),
                                np.empty(m, P.dtype), (dP, dQ, db), np.empty(-(-n // _BLOCK)), threads)
    return loss, (RowGradient(rows, dP), RowGradient(both, dQ), RowGradient(both, db))


def _checked(P, Q, b, users, items, negatives, weights, seen, regularization):
    """Return the parameters of a loss up to `seen` as the kernels take them, with regularization as the last."""
    P = _checks.table("P", P)
    Q = _checks.table("Q", Q, P)
    b = _checks.table("b", b, P, ndim=1)
    if b.shape != Q.shape[:1]:
        raise ValueError(f"b has shape {b.shape}; with Q of shape {Q.shape} it must have shape {Q.shape[:1]}")
    users, items = _checks.rows("users", users, len(P)), _checks.rows("items", items, len(Q))
    k, shape = len(users), np.shape(negatives)
    if len(items) != k:
        raise ValueError(f"users has {k} numbers and items has {len(items)}; they must be pairs")
    if len(shape) != 2 or shape[0] != k or not shape[1]:
        raise ValueError(f"negatives has shape {shape}; with {k} pairs it must have shape ({k}, m), with m at least 1")
    others = _checks.rows("negatives", negatives, len(Q), shape).reshape(shape)
    weights = np.ones(k, P.dtype) if weights is None else _checks.floats("weights", weights, (k,), P.dtype)
    if isinstance(regularization, bool) or not isinstance(regularization, Real) or not 0 <= regularization < np.inf:
        raise ValueError(f"regularization is {shown(regularization)}; it must be finite and 0 or more")
    own = None if seen is None else _own("seen", seen, users, (len(P), len(Q)))
    return P, Q, b, users, items, others, weights, own, float(regularization)


def _own(name, X, users, shape):
    """Return the (indptr, indices) of a sparse array, checked in the rows of these users."""
    if not sp.issparse(X) or X.shape != shape:
        raise TypeError(f"{name} is a {type(X).__name__} of shape {getattr(X, 'shape', None)}; it must be None or a "
                        f"scipy sparse array of shape {shape}")
    if X.format != "csr":
        X = checked(X, name).tocsr()
        X.sort_indices()
    _, indices, indptr = _parts(X, name)
    bad = losses.first_unsorted(users, indptr, indices, shape[1])
    if bad >= 0:
        raise ValueError(f"{name} has row {users[bad]}, whose columns are not in ascending order from 0 to "
                         f"{shape[1] - 1}; X.sum_duplicates() puts the columns of a valid CSR array in order")
    return indptr, indices


def _log_ranks(n_items, each, dtype=np.float32):
    """Return the logarithm of the rank that warp estimates, for each number of draws from 1 on."""
    return np.log(np.maximum((n_items - 1) // np.arange(1, each + 1), 1)).astype(dtype)
