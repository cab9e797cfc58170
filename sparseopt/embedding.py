"""Embedding layers: rows of a table, sums of bags of rows, dot products of pairs of rows, and random negatives.

A bag of rows is a row of a sparse matrix X, and its sum is a row of `X @ table`. So the gradient of a table is a
RowGradient, or a MatmulGradient with the same X. Each sum has a fixed order, so results are the same to the bit for any
number of threads.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from . import _config, _kernels, _memory
from ._kernels import rowplan
from ._text import listed, shown
from ._typing import Floats, Integers, Seed, Sparse
from .gradients import _integers, _numbers, csr_parts, row_numbers
from .optimizers import Optimizer, arranged

__all__ = ["Alias", "bags", "dots", "gather", "matmul"]


def gather(table: Floats, rows: npt.ArrayLike, *, opt: Optimizer | None = None) -> Floats:
    """Return copies of rows of a table, `table[rows]`, with several threads.

    The result starts on a cache line.

    Parameters
    ----------
    table : array of float32 or float64, shape (n_rows, dim) or (n_rows,)
    rows : array of integers, any shape
    opt : None or Optimizer
        An optimizer of this table. Under missed="replay", the steps that the rows have missed are applied first.

    Returns
    -------
    array, shape ``(*rows.shape, dim)`` or ``rows.shape``

    Raises
    ------
    TypeError, ValueError, IndexError
        If table or rows is not as described above, if a row is out of range, or if opt does not have this table.

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


def dots(A: Floats, i: npt.ArrayLike | None, B: Floats, j: npt.ArrayLike | None, *,
         opt: Optimizer | None = None) -> Floats:
    r"""Return the dot products A[i] · B[j] of rows of A with rows of B, without copies of the rows.

    Let d of shape (k,) be the gradient with respect to the dot products. The gradient with respect to A is then
    `RowGradient(i, d[:, None] * B[j])`. In factored form, this is
    `MatmulGradient(bags(i, n_rows=len(A), weights=d), gather(B, j))`.

    Parameters
    ----------
    A, B : arrays of the same float dtype, shapes (n, dim) and (m, dim)
    i : None or array of integers, shape (k,)
        Rows of A. None stands for all rows, in order.
    j : None or array of integers, shape (k,) or (k, each)
        Rows of B. None stands for all rows, in order; B must then have k or k · each rows.
    opt : None or Optimizer
        As in `gather`. If i is not None, the optimizer must have A. If j is not None, it must have B.

    Returns
    -------
    array, shape (k,) or (k, each)

    Raises
    ------
    TypeError, ValueError, IndexError
        If a parameter is not as described above, or a row is out of range.

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
        raise ValueError(f"A has shape {A.shape} and dtype {A.dtype}, B {B.shape} and {B.dtype}; they must be tables "
                         "of the same dim and dtype")
    if len(k) != 1 or len(shape) not in (1, 2) or (
            shape[0] != k[0] and not (j is None and k[0] and shape[0] % k[0] == 0)):
        raise ValueError(f"i has shape {k} and j has shape {shape}; they must be (k,) and (k,) or (k, each)")
    if j is None and shape[0] != k[0]:
        shape = k[0], shape[0] // k[0]
    out = _memory.empty(shape, A.dtype)
    _kernels.dots(A, first, B, second, out, _config.threads_for())
    return out


def bags(indices: npt.ArrayLike, offsets: npt.ArrayLike | None = None, *, n_rows: int,
         weights: npt.ArrayLike | None = None, mode: Literal["sum", "mean"] = "sum") -> sp.csr_array:
    """Return the sparse matrix X whose product with a table is the sum (or mean) of each bag of rows.

    The sums are `matmul(X, table)`. Let d be the gradient with respect to the sums. The gradient with respect to the
    table is then `MatmulGradient(X, d)`.

    Parameters
    ----------
    indices : array of integers, shape (k,)
        The rows of all bags, one bag after the other.
    offsets : None or array of integers, shape (n_bags,)
        The position in `indices` at which each bag begins, from 0. With None, every index is a bag of its own.
    n_rows : int
        The number of rows of the table.
    weights : None or array of floats, shape (k,)
        The factor of each row in the sum of its bag. None stands for 1. Any dtype except float64 becomes float32.
    mode : "sum" or "mean"
        The mean divides each sum by the sum of the weights. An empty bag gives 0.

    Returns
    -------
    scipy.sparse.csr_array, shape (n_bags, n_rows)

    Raises
    ------
    TypeError, ValueError, IndexError
        If a parameter is not as described above, or if a row is out of range. Also if mode is "mean" and the weights of
        a bag sum to 0.

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
    bounds = bag_bounds(offsets, len(indices))
    if weights is None:
        weights = np.ones(len(indices), np.float32)
    else:
        weights = _numbers(weights, "weights")
        double = weights.dtype.kind == "f" and weights.itemsize == 8
        weights = weights.astype(np.float64 if double else np.float32, copy=False)
        if weights.shape != indices.shape:
            raise ValueError(f"weights have shape {weights.shape}; with {len(indices)} indices they must have shape "
                             f"({len(indices)},)")
    if mode == "mean":
        sums = np.bincount(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)), weights, len(bounds) - 1)
        if not sums[np.diff(bounds) > 0].all():
            raise ValueError("weights of a bag sum to 0; with mode 'mean' no sum may be 0")
        weights = (weights / np.repeat(sums, np.diff(bounds))).astype(weights.dtype)
    X = sp.csr_array((len(bounds) - 1, n_rows), dtype=weights.dtype)
    X.data, X.indices, X.indptr = weights, indices, bounds.astype(indices.dtype)
    return X


def bag_bounds(offsets: npt.ArrayLike | None, n: int) -> Integers:
    """Return the checked positions between bags: bag b has the indices from bounds[b] to before bounds[b + 1] of n."""
    if offsets is None:
        return np.arange(n + 1)
    bounds = np.append(_integers(offsets, "offsets"), n)
    if bounds[0] != 0 or (np.diff(bounds) < 0).any():
        raise ValueError(f"offsets are {shown(offsets)}; they must be sorted, begin with 0, and be at most {n}, the "
                         "number of indices")
    return bounds


def matmul(X: Sparse, W: Floats) -> Floats:
    """Return `X @ W` of a sparse X and a table, with several threads.

    The result starts on a cache line.

    Parameters
    ----------
    X : scipy sparse array, shape (batch, n_rows)
        Any format. A CSR array is not copied if its values have the dtype of W.
    W : array of float32 or float64, shape (n_rows, dim) or (n_rows,)

    Returns
    -------
    array, shape (batch, dim) or (batch,)

    Raises
    ------
    TypeError, ValueError, IndexError
        If X or W is not as described above, or a column of X is out of range.

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
    if W.ndim == 1:             # here scipy's loop is as fast as a kernel
        return sp.csr_array((weights, indices, indptr), shape=X.shape) @ W
    out = _memory.empty((X.shape[0], *W.shape[1:]), W.dtype)
    _kernels.matmul(weights, indices, indptr, W, out, _config.threads_for())
    return out


class Alias:
    """Draws integers from 0 to n - 1 in proportion to weights. A draw takes constant time for any n.

    Parameters
    ----------
    weights : array of floats, shape (n,)
        The probability of integer i is proportional to weights[i]. Weights are finite, 0 or more, and not all 0.

    Raises
    ------
    ValueError
        If weights are not as described above.

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

    def __init__(self, weights: npt.ArrayLike) -> None:
        weights = np.ascontiguousarray(weights, dtype=np.float64)
        if weights.ndim != 1 or not 0 < len(weights) < 2**31:
            raise ValueError(f"weights have shape {weights.shape}; they must be (n,), with n from 1 to 2**31 - 1")
        if not (np.isfinite(weights).all() and weights.min() >= 0 and 0 < weights.sum() < np.inf):
            raise ValueError(f"weights are from {weights.min()} to {weights.max()}; they must be finite, 0 or more, "
                             "and not all 0")
        self._threshold, self._alias = _kernels.alias_table(weights, weights.sum())

    def __len__(self) -> int:
        return len(self._alias)

    def draw(self, size: int | tuple[int, ...], seed: Seed = None) -> npt.NDArray[np.int32]:
        """Return drawn integers. The same seed gives the same integers.

        Parameters
        ----------
        size : int or tuple of int
            The shape of the result.
        seed : None, int, SeedSequence or numpy.random.Generator
            As in `numpy.random.default_rng`.

        Returns
        -------
        array of int32, of shape `size`

        Raises
        ------
        TypeError, ValueError
            As in `numpy.random.default_rng` and `numpy.random.Generator.integers`.
        """
        bits = np.random.default_rng(seed).integers(2**64, size=size, dtype=np.uint64)
        out = np.empty(bits.shape, np.int32)
        _kernels.alias_draw(self._threshold, self._alias, bits.reshape(-1), out.reshape(-1))
        return out


def _table(name, table):
    plain = isinstance(table, np.ndarray) and not isinstance(table, np.ma.MaskedArray)
    if not plain or table.dtype not in (np.float32, np.float64) or table.ndim not in (1, 2):
        raise TypeError(f"{name} is a {type(table).__name__} of shape {getattr(table, 'shape', None)} and dtype "
                        f"{getattr(table, 'dtype', None)}; it must be an array of float32 or float64, of one or two "
                        "dimensions")
    return table if table.flags.c_contiguous else np.ascontiguousarray(table)


def _rows_of(name, rows_name, table, rows, opt):
    """Return the table, its row numbers (flat and checked, or None), and their original shape.

    With `opt`, the steps that these rows have missed are applied first.
    """
    checked = _table(name, table)
    if rows is None:
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
        opt.catch_up(arranged(opt, {name: rows if name == names[0] else [] for name in opt.params}))
