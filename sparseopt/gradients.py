"""Everything that users hand in as a gradient, brought to one checked form. Nothing else in the core knows scipy.

Every form is a list of entries; each entry belongs to a row of the table and adds to the gradient of that row
- a row of values               (RowGradient, dense arrays),
- one value at one column       (scipy sparse arrays), or
- a weight times a row of values (MatmulGradient).

Numbers are converted only where their type is not the table's, and copied only where the kernels could not read them as
they stand.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .kernels import rowplan


class RowGradient:
    """A gradient given by the rows it touches.

    The gradient is the sum over i of `values[i]` at row `rows[i]`; repeated rows add up.

    Parameters
    ----------
    rows : array of integers, shape (k,)
        Row numbers in [0, n_rows), in any order.
    values : array of floats, shape (k, dim), or (k,) for a table of dim 1

    Raises
    ------
    TypeError, ValueError
        If rows are not integers, values not numbers, or their shapes do not fit together.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((5, 2))
    >>> so.SGD(table, lr=1.0).step(so.RowGradient([3, 1, 3], np.ones((3, 2))))
    >>> table[:, 0]
    array([ 0., -1.,  0., -2.,  0.], dtype=float32)
    """

    __slots__ = ("_rows", "_values")

    def __init__(self, rows, values):
        self._rows = _integers(rows, "rows")
        self._values = _numbers(values, "values")
        if self.values.ndim not in (1, 2) or len(self.values) != len(self.rows):
            raise ValueError(f"values have shape {self.values.shape}; with {len(self.rows)} rows they must have shape "
                             f"({len(self.rows)}, dim) or ({len(self.rows)},)")

    @property
    def rows(self):
        return self._rows

    @property
    def values(self):
        return self._values

    def __repr__(self):
        return f"RowGradient(rows: {self.rows.shape}, values: {self.values.shape} {self.values.dtype})"


class MatmulGradient:
    """The gradient of `X @ W` with respect to W, as its two factors: `X.T @ dY`, never formed.

    What an embedding bag, a linear model or a factorization machine hands back: X holds the features of a batch, dY the
    gradient of the loss with respect to the batch's outputs. A row of W is touched if its column of X has a stored entry.

    Parameters
    ----------
    X : scipy sparse array or matrix, shape (batch, n_rows)
        CSR and COO cost no work that grows with n_rows; CSC costs a pass over its indptr.
    dY : array of floats, shape (batch, dim), or (batch,) for a table of dim 1

    Raises
    ------
    TypeError, ValueError
        If X is not a 2-D sparse array of numbers, or dY does not fit it.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, sparseopt as so
    >>> W = so.zeros((4, 2))
    >>> X = sp.csr_array([[1.0, 0, 2, 0], [1, 0, 0, 0]])
    >>> so.SGD(W, lr=1.0).step(so.MatmulGradient(X, np.ones((2, 2))))
    >>> W[:, 0]
    array([-2.,  0., -2.,  0.], dtype=float32)
    """

    __slots__ = ("_X", "_dY")

    def __init__(self, X, dY):
        if not sp.issparse(X):
            raise TypeError(f"X is a {type(X).__name__}; it must be a scipy sparse array or matrix "
                            "(of a dense X, hand in the product X.T @ dY)")
        if X.ndim != 2:
            raise ValueError(f"X has shape {X.shape}; it must have two dimensions, (batch, n_rows)")
        _numbers(X.data if X.format in ("csr", "csc", "coo") else np.empty(0, X.dtype), "X")
        self._X = X if X.format in ("csr", "csc", "coo") else X.tocsr()
        self._dY = _numbers(dY, "dY")
        if self.dY.ndim not in (1, 2) or len(self.dY) != X.shape[0]:
            raise ValueError(f"dY has shape {self.dY.shape}; with X of shape {X.shape} it must have shape "
                             f"({X.shape[0]}, dim) or ({X.shape[0]},)")

    @property
    def X(self):
        return self._X

    @property
    def dY(self):
        return self._dY

    def __repr__(self):
        return f"MatmulGradient(X: {self.X.shape} {self.X.format}, dY: {self.dY.shape} {self.dY.dtype})"


class Entries(NamedTuple):
    """The one checked form, as `kernels.rowplan.plan` takes it."""

    rows: np.ndarray | None
    values: np.ndarray
    indptr: np.ndarray | None = None
    columns: np.ndarray | None = None
    sources: np.ndarray | None = None
    weights: np.ndarray | None = None


def entries(gradient, shape, dtype, what):
    """Return a gradient as Entries for a table of this shape and dtype, or raise an error that names it as `what`."""
    dim = shape[1] if len(shape) == 2 else 1
    if isinstance(gradient, RowGradient):
        values = gradient._values
        width = values.shape[1] if values.ndim == 2 else 1
        if width != dim:
            raise ValueError(f"{what} has values of shape {values.shape}; the table has shape {shape}, so they must have "
                             f"shape {(len(values), dim)}")
        return Entries(gradient._rows, _readable(values, dtype, what))
    if isinstance(gradient, MatmulGradient):
        return _product(gradient, shape, dim, dtype, what)
    if sp.issparse(gradient):
        return _sparse(gradient, shape, dim, dtype, what)
    if isinstance(gradient, np.ndarray) and not isinstance(gradient, np.ma.MaskedArray):
        values = _numbers(gradient, what)
        if values.shape != shape:
            raise ValueError(f"{what} has shape {values.shape}; the table has shape {shape}")
        return Entries(None, _readable(values, dtype, what))
    raise TypeError(f"{what} is a {type(gradient).__module__}.{type(gradient).__qualname__}; it must be a scipy sparse array "
                    "or matrix, a RowGradient, a MatmulGradient or a NumPy array")


def row_numbers(rows, what):
    """Row numbers of any shape as the kernels read them; or raise."""
    return _integers(_unmasked(rows, what).reshape(-1), what)


def detached(form):
    """The same entries in memory of their own: for arrays that lie in what the step is about to write."""
    if form.sources is not None:        # of the values, as many rows as are needed
        used, sources = np.unique(form.sources, return_inverse=True)
        form = form._replace(values=form.values[used], sources=sources.reshape(-1))
    return Entries(*(array if array is None else array.copy() for array in form))


def _sparse(gradient, shape, dim, dtype, what):
    if gradient.shape not in (shape, (shape[0], dim)):
        raise ValueError(f"{what} has shape {gradient.shape}; the table has shape {shape}")
    _numbers(np.empty(0, gradient.dtype), what)
    if gradient.format not in ("csr", "csc", "coo"):
        gradient = gradient.tocsr() if gradient.format == "lil" else gradient.tocoo()
    data = _readable(gradient.data, dtype, what)
    if gradient.ndim == 1:
        rows = _native(gradient.coords[0] if gradient.format == "coo" else gradient.indices)
        return Entries(rows, data, columns=np.zeros(len(rows), dtype=np.int32))
    if gradient.format == "coo":
        return Entries(_native(gradient.coords[0]), data, columns=_native(gradient.coords[1]))
    indices, indptr = _native(gradient.indices), _native(gradient.indptr)
    _check_compressed(gradient, indptr, what)
    if gradient.format == "csr":
        return Entries(None, data, indptr=indptr, columns=indices)
    return Entries(indices, data, columns=rowplan.expanded(what, "column", indptr, indices))


def _product(gradient, shape, dim, dtype, what):
    X, dY = gradient.X, gradient.dY
    width = dY.shape[1] if dY.ndim == 2 else 1
    if X.shape[1] != shape[0]:
        raise ValueError(f"{what} has X of shape {X.shape}; the table has {shape[0]} rows, so X must have shape "
                         f"{(X.shape[0], shape[0])}")
    if width != dim:
        raise ValueError(f"{what} has dY of shape {dY.shape}; the table has shape {shape}, so it must have shape "
                         f"{(len(dY), dim)}")
    values, weights = _readable(dY, dtype, what), _readable(X.data, dtype, what)
    if X.format == "coo":
        return Entries(_native(X.coords[1]), values, sources=_native(X.coords[0]), weights=weights)
    indices, indptr = _native(X.indices), _native(X.indptr)
    _check_compressed(X, indptr, what)
    if X.format == "csr":
        return Entries(indices, values, sources=rowplan.expanded(what, "sample", indptr, indices), weights=weights)
    return Entries(None, values, indptr=indptr, sources=indices, weights=weights)


def _check_compressed(matrix, indptr, what):
    lines = matrix.shape[0] if matrix.format == "csr" else matrix.shape[1]
    if len(matrix.indices) != len(matrix.data) or len(indptr) != lines + 1:
        raise ValueError(f"{what} is a malformed {matrix.format} array: {len(matrix.data)} values, {len(matrix.indices)} "
                         f"indices and {len(indptr)} indptr for shape {matrix.shape}")


def csr_parts(X, what):
    """indptr and indices of a CSR array as the kernels read them, checked."""
    _check_compressed(X, X.indptr, what)
    indptr, indices = _native(X.indptr), _native(X.indices)
    rowplan.check_csr(what, indptr, indices, X.shape[1], len(X.data))
    return indptr, indices


def _integers(array, name):
    array = _unmasked(array, name)
    if array.ndim != 1:
        raise ValueError(f"{name} have shape {array.shape}; they must have one dimension")
    if array.dtype.kind not in "iu":
        if array.size:
            raise TypeError(f"{name} have dtype {array.dtype}; they must be integers")
        array = array.astype(np.int64)          # an empty list
    return _native(array)


def _native(array):
    """Row numbers as the kernels read them: contiguous int32 or int64."""
    if array.dtype not in (np.int32, np.int64):
        too_large = array > np.iinfo(np.int64).max if array.dtype.kind == "u" else np.zeros(1, np.bool_)
        if too_large.any():
            raise IndexError(f"rows has {array[too_large.argmax()]} at position {too_large.argmax()}; no table has that many")
        array = array.astype(np.int64)
    return np.require(array, requirements="CA")


def _unmasked(array, name):
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it, or leave its masked entries out")
    return np.asarray(array)


def _numbers(array, name):
    array = _unmasked(array, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {array.dtype}; it must be float32, float64 or convertible to them")
    return array


def _readable(values, dtype, what):
    """Values as the kernels read them: of the table's dtype, aligned, rows of consecutive elements."""
    if values.dtype != dtype:
        _numbers(values, what)
        with np.errstate(over="ignore"):        # an overflow becomes an infinity, which `nonfinite` deals with
            return np.ascontiguousarray(values, dtype=dtype)
    if not values.flags.aligned:
        return values.copy()
    if values.flags.c_contiguous:
        return values
    rows_are_consecutive = values.ndim == 2 and values.strides[1] == values.itemsize
    if rows_are_consecutive and values.strides[0] % values.itemsize == 0 and values.strides[0] >= 0:
        return values
    return np.ascontiguousarray(values)
