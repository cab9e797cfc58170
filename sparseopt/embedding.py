"""Between a table and its gradient: rows taken out, bags of rows, dot products of pairs, draws of negatives.

A bag of rows is a row of a sparse matrix X, its sum a row of `X @ table`: so the gradient of all these is a RowGradient, or a
MatmulGradient with the same X. Sums are taken in a fixed order: the same bits for any number of threads.
"""

import numpy as np
import scipy.sparse as sp

from . import _config, _kernels, _memory
from ._kernels import rowplan
from ._text import listed, shown
from .gradients import _integers, _numbers, csr_parts, row_numbers


def gather(table, rows, *, opt=None):
    """Return copies of rows of a table: `table[rows]`, by several threads, on cache lines.

    Parameters
    ----------
    table : array of float32 or float64, shape (n_rows, dim) or (n_rows,)
    rows : array of integers, any shape
    opt : None or Optimizer
        One that has the table: under missed="replay" the rows are first brought up to its last step.

    Returns
    -------
    array, shape (*rows.shape, dim) or rows.shape

    Raises
    ------
    TypeError, ValueError, IndexError
        If the table or the rows are not as said above, or opt has no such table.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = np.arange(6.0).reshape(3, 2)
    >>> so.embedding.gather(table, [2, 0])
    array([[4., 5.],
           [0., 1.]])
    """
    if rows is None:
        raise TypeError("rows is None; it must be integers")
    table, numbers, shape = _rows_of("table", "rows", table, rows, opt)
    out = _memory.empty((*shape, *table.shape[1:]), table.dtype)
    _kernels.take(table, numbers, out, _config.threads_for())
    return out


def dots(A, i, B, j, *, opt=None):
    r"""Return the dot products of rows of A with rows of B, without taking the rows out: A[i] · B[j].

    The gradient with respect to A is `RowGradient(i, d[:, None] * B[j])` for d of shape (k,), in factored form
    `MatmulGradient(bags(i, n_rows=len(A), weights=d), gather(B, j))`.

    Parameters
    ----------
    A, B : arrays of the same float dtype, shapes (n, dim) and (m, dim)
    i : None or array of integers, shape (k,)
        Rows of A; None is all, in turn.
    j : None or array of integers, shape (k,) or (k, each)
        Rows of B; None is all, in turn: k, or `each` times k.
    opt : None or Optimizer
        One that has both tables, where i and j are not None: as in `gather`.

    Returns
    -------
    array, shape (k,) or (k, each)

    Raises
    ------
    TypeError, ValueError, IndexError
        If something is not as said above.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> A, B = np.eye(3), np.arange(9.0).reshape(3, 3)
    >>> so.embedding.dots(A, [0, 2], B, [[1, 2], [0, 0]])
    array([[3., 6.],
           [2., 2.]])
    """
    A, first, k = _rows_of("A", "i", A, i, opt)
    B, second, shape = _rows_of("B", "j", B, j, opt)
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != B.shape[1] or A.dtype != B.dtype:
        raise ValueError(f"A has shape {A.shape} and dtype {A.dtype}, B {B.shape} and {B.dtype}; they must be tables of the "
                         "same dim and dtype")
    if len(k) != 1 or len(shape) not in (1, 2) or (shape[0] != k[0] and not (j is None and k[0] and shape[0] % k[0] == 0)):
        raise ValueError(f"i has shape {k} and j has shape {shape}; they must be (k,) and (k,) or (k, each)")
    if j is None and shape[0] != k[0]:
        shape = k[0], shape[0] // k[0]
    out = _memory.empty(shape, A.dtype)
    _kernels.dots(A, first, B, second, out, _config.threads_for())
    return out


def bags(indices, offsets=None, *, n_rows, weights=None, mode="sum"):
    """Return the sparse matrix whose product with a table is the sum (or mean) of each bag of rows.

    `matmul(X, table)` has the sums, `MatmulGradient(X, d)` is their gradient, if d is that of the sums.

    Parameters
    ----------
    indices : array of integers, shape (k,)
        The rows of all bags, one bag after the other.
    offsets : None or array of integers, shape (n_bags,)
        Where each bag begins; the first is 0. None: every index is a bag.
    n_rows : int
        Of the table.
    weights : None or array of floats, shape (k,)
        What each row counts in its bag's sum; None is 1. float32 unless they are float64.
    mode : "sum" or "mean"
        The mean divides by the sum of weights; a bag of none is 0.

    Returns
    -------
    scipy.sparse.csr_array, shape (n_bags, n_rows)

    Raises
    ------
    TypeError, ValueError, IndexError
        If something is not as said above.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> X = so.embedding.bags([0, 2, 1, 1], [0, 2], n_rows=3, mode="mean")
    >>> so.embedding.matmul(X, np.eye(3, dtype=np.float32))
    array([[0.5, 0. , 0.5],
           [0. , 1. , 0. ]], dtype=float32)
    """
    if mode not in ("sum", "mean"):
        raise ValueError(f"mode is {shown(mode)}; it must be 'sum' or 'mean'")
    indices = _integers(indices, "indices")
    rowplan.check("indices", "row", indices, n_rows)
    if offsets is None:
        bounds = np.arange(len(indices) + 1)
    else:
        bounds = np.append(_integers(offsets, "offsets"), len(indices))
        if bounds[0] != 0 or (np.diff(bounds) < 0).any():
            raise ValueError(f"offsets must rise from 0 to at most {len(indices)}, the number of indices")
    if weights is None:
        weights = np.ones(len(indices), np.float32)
    else:
        weights = _numbers(weights, "weights")
        weights = weights.astype(np.float64 if weights.dtype.kind == "f" and weights.itemsize == 8 else np.float32, copy=False)
        if weights.shape != indices.shape:
            raise ValueError(f"weights have shape {weights.shape}; with {len(indices)} indices they must have shape "
                             f"({len(indices)},)")
    if mode == "mean":
        sums = np.bincount(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)), weights, len(bounds) - 1)
        if not sums[np.diff(bounds) > 0].all():
            raise ValueError("weights of a bag sum to 0: it has no mean")
        weights = (weights / np.repeat(sums, np.diff(bounds))).astype(weights.dtype)
    X = sp.csr_array((len(bounds) - 1, n_rows), dtype=weights.dtype)
    X.data, X.indices, X.indptr = weights, indices, bounds.astype(indices.dtype)
    return X


def matmul(X, W):
    """Return `X @ W` of a sparse X and a table, by several threads, on cache lines.

    Parameters
    ----------
    X : scipy sparse array, shape (batch, n_rows)
        Of any format; CSR is not copied where its values have W's dtype.
    W : array of float32 or float64, shape (n_rows, dim) or (n_rows,)

    Returns
    -------
    array, shape (batch, dim) or (batch,)

    Raises
    ------
    TypeError, ValueError, IndexError
        If X or W is not as said above.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, sparseopt as so
    >>> so.embedding.matmul(sp.csr_array([[0, 2.0], [1, 0]]), np.array([[1.0, 2], [3, 4]]))
    array([[6., 8.],
           [1., 2.]])
    """
    if not sp.issparse(X) or X.ndim != 2:
        raise TypeError(f"X is a {type(X).__name__}; it must be a scipy sparse array of two dimensions")
    W = _table("W", W)
    if X.shape[1] != len(W):
        raise ValueError(f"X has shape {X.shape} and W {W.shape}; X must have as many columns as W rows")
    values, indices, indptr = csr_parts(X, "X")
    with np.errstate(over="ignore"):
        weights = np.ascontiguousarray(_numbers(values, "X"), dtype=W.dtype)
    if W.ndim == 1:             # scipy's loop is as good as it gets
        return sp.csr_array((weights, indices, indptr), shape=X.shape) @ W
    out = _memory.empty((X.shape[0], *W.shape[1:]), W.dtype)
    _kernels.matmul(weights, indices, indptr, W, out, _config.threads_for())
    return out


class Alias:
    """Draws numbers from a weighted distribution, each in constant time, whatever their number.

    Parameters
    ----------
    weights : array of floats, shape (n,)
        Number i is drawn in proportion to weights[i]: finite, 0 or more, not all 0.

    Raises
    ------
    ValueError
        If the weights are not as said above.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> negatives = so.embedding.Alias(np.array([8, 1, 0, 1]) ** 0.75)
    >>> drawn = negatives.draw(10_000, seed=0)
    >>> np.bincount(drawn, minlength=4) / 10_000
    array([0.7074, 0.1428, 0.    , 0.1498])

    References
    ----------
    Walker 1977, "An Efficient Method for Generating Discrete Random Variables with General Distributions"; Vose 1991.
    """

    def __init__(self, weights):
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        if weights.ndim != 1 or not 0 < len(weights) < 2**31:
            raise ValueError(f"weights have shape {weights.shape}; they must be (n,), with n from 1 to 2**31 - 1")
        if not (np.isfinite(weights).all() and weights.min() >= 0 and 0 < weights.sum() < np.inf):
            raise ValueError(f"weights are from {weights.min()} to {weights.max()}; they must be finite, 0 or more, not all 0")
        self._threshold, self._alias = _kernels.alias_table(weights, weights.sum())

    def __len__(self):
        return len(self._alias)

    def draw(self, size, seed=None):
        """Return numbers drawn, int32 of the given shape; the same ones for the same seed.

        Parameters
        ----------
        size : int or tuple of int
        seed : None, int or numpy.random.Generator
            Whatever `numpy.random.default_rng` takes.
        """
        bits = np.random.default_rng(seed).integers(2**64, size=size, dtype=np.uint64)
        out = np.empty(bits.shape, np.int32)
        _kernels.alias_draw(self._threshold, self._alias, bits.reshape(-1), out.reshape(-1))
        return out


def _table(name, table):
    plain = isinstance(table, np.ndarray) and not isinstance(table, np.ma.MaskedArray)
    if not plain or table.dtype not in (np.float32, np.float64) or table.ndim not in (1, 2):
        raise TypeError(f"{name} is a {type(table).__name__} of shape {getattr(table, 'shape', None)} and dtype "
                        f"{getattr(table, 'dtype', None)}; it must be an array of float32 or float64, with one row a number or "
                        "vector")
    return table if table.flags.c_contiguous else np.ascontiguousarray(table)


def _rows_of(name, rows_name, table, rows, opt):
    """The table, row numbers (flat, checked) or None, and the shape in which they came; brought up to date, if `opt` says."""
    checked = _table(name, table)
    if rows is None:            # all, in turn: not looked up, so nothing that a step could have left behind
        return checked, None, (len(checked),)
    shape = np.shape(rows)
    numbers = row_numbers(rows, rows_name)
    rowplan.check(rows_name, "row", numbers, len(checked))
    if opt is not None:
        _catch_up(opt, table, numbers)
    return checked, numbers, shape


def _catch_up(opt, table, rows):
    names = [name for name, param in opt.params.items() if param is table]
    if not names:
        raise ValueError(f"opt has no such table; its tables are {listed(opt.params)}")
    if opt.missed == "replay":
        given = {name: rows if name == names[0] else [] for name in opt.params}
        opt.catch_up({"single": rows, "mapping": given, "sequence": list(given.values())}[opt._structure])
