"""Gradients in all forms that users pass, converted to one checked form.

scipy trusts the parts of its arrays, although any code can write to them. In scipy's loops, an index out of range ends
the process. So every scipy array from outside goes through `checked` before a method of scipy reads its parts.

Every form of gradient is a list of entries. Each entry belongs to one row of the table:

| form                     | what an entry adds to the gradient of its row |
|--------------------------|-----------------------------------------------|
| RowGradient, NumPy array | a row of values                               |
| scipy sparse array       | one value at one column                       |
| MatmulGradient           | a weight times a row of values                |

Numbers are converted only if their dtype differs from the table's. Arrays are copied only if the kernels cannot read
them as they are.
"""

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from ._kernels import rowplan
from ._text import shown
from ._typing import Array, Floats, Integers, Sparse

__all__ = ["Gradient", "MatmulGradient", "RowGradient"]

_ENTRYWISE = "csr", "csc", "coo"        # the kernels read these formats without a conversion


class RowGradient:
    """A gradient given by the rows that it touches.

    The gradient of row r is the sum of `values[i]` over all i with `rows[i] == r`.

    Parameters
    ----------
    rows : array of integers, shape (k,)
        Row numbers in [0, n_rows), in any order.
    values : array of floats, shape (k, dim), or (k,) for a table of dim 1

    Raises
    ------
    TypeError, ValueError
        If rows are not integers, if values are not numbers, or if their shapes do not fit together.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.zeros((5, 2))
    >>> so.SGD(table, lr=1.0).step(so.RowGradient([3, 1, 3], np.ones((3, 2))))
    >>> table[:, 0]
    array([ 0., -1.,  0., -2.,  0.], dtype=float32)
    """

    __slots__ = ("_rows", "_values")

    def __init__(self, rows: npt.ArrayLike, values: npt.ArrayLike) -> None:
        self._rows = _integers(rows, "rows")
        self._values = _numbers(values, "values")
        if self.values.ndim not in (1, 2) or len(self.values) != len(self.rows):
            raise ValueError(f"values have shape {self.values.shape}; with {len(self.rows)} rows they must have shape "
                             f"({len(self.rows)}, dim) or ({len(self.rows)},)")

    @property
    def rows(self) -> Integers:
        """The row numbers, shape (k,)."""
        return self._rows

    @property
    def values(self) -> Array:
        """The values, shape (k, dim) or (k,)."""
        return self._values

    def __repr__(self) -> str:
        return f"RowGradient(rows: {self.rows.shape}, values: {self.values.shape} {self.values.dtype})"


def trusted(rows: Integers, values: Floats) -> RowGradient:
    """Return a RowGradient of arrays that need no check: what the constructor would keep as they are."""
    gradient = RowGradient.__new__(RowGradient)
    gradient._rows, gradient._values = rows, values
    return gradient


class MatmulGradient:
    """The gradient `X.T @ dY` of `X @ W` with respect to W, as its two factors. The product is never formed.

    Embedding bags, linear models and factorization machines have such gradients. X holds the features of a batch, and
    dY is the gradient of the loss with respect to the outputs. A row of W is touched if its column of X has a stored
    entry.

    Parameters
    ----------
    X : scipy sparse array or matrix, shape (batch, n_rows)
        With CSR and COO, the cost of a step does not grow with n_rows. CSC costs one pass over its indptr.
    dY : array of floats, shape (batch, dim), or (batch,) for a table of dim 1

    Raises
    ------
    TypeError, ValueError
        If X is not a 2-D sparse array of numbers, if its parts do not fit together, or if dY does not fit X.

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

    def __init__(self, X: Sparse, dY: npt.ArrayLike) -> None:
        if not sp.issparse(X):
            raise TypeError(f"X is a {type(X).__name__}; it must be a scipy sparse array or matrix "
                            "(if X is dense, pass the product X.T @ dY)")
        if X.ndim != 2:
            raise ValueError(f"X has shape {X.shape}; it must have two dimensions, (batch, n_rows)")
        self._X = X if X.format in _ENTRYWISE else checked(X, "X").tocsr()
        _numbers(_part(self._X, "X", "data", 1), "X")
        self._dY = _numbers(dY, "dY")
        if self.dY.ndim not in (1, 2) or len(self.dY) != X.shape[0]:
            raise ValueError(f"dY has shape {self.dY.shape}; with X of shape {X.shape} it must have shape "
                             f"({X.shape[0]}, dim) or ({X.shape[0]},)")

    @property
    def X(self) -> Any:
        """The features, shape (batch, n_rows)."""
        return self._X

    @property
    def dY(self) -> Array:
        """The gradient with respect to the outputs, shape (batch, dim) or (batch,)."""
        return self._dY

    def __repr__(self) -> str:
        return f"MatmulGradient(X: {self.X.shape} {self.X.format}, dY: {self.dY.shape} {self.dY.dtype})"


#: The forms of a gradient of one table.
Gradient = RowGradient | MatmulGradient | Array | Sparse


class Entries(NamedTuple):
    """The one checked form of a gradient, as `_kernels.rowplan.plan` takes it."""

    rows: Integers | None
    values: Floats
    indptr: Integers | None = None
    columns: Integers | None = None
    sources: Integers | None = None
    weights: Floats | None = None


def entries(gradient: Gradient, shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> Entries:
    """Return a gradient as Entries for a table of this shape and dtype. Errors call the gradient `what`."""
    dim = shape[1] if len(shape) == 2 else 1
    if isinstance(gradient, RowGradient):
        values = gradient._values
        width = values.shape[1] if values.ndim == 2 else 1
        if width != dim:
            raise ValueError(f"{what} has values of shape {values.shape}; the table has shape {shape}, so they must "
                             f"have shape {(len(values), dim)}")
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
    raise TypeError(f"{what} is a {type(gradient).__module__}.{type(gradient).__qualname__}; it must be a scipy sparse "
                    "array or matrix, a RowGradient, a MatmulGradient or a NumPy array")


def row_numbers(rows: npt.ArrayLike, what: str) -> Integers:
    """Return row numbers of any shape as a flat array that the kernels can read, or raise."""
    return _integers(_unmasked(rows, what).reshape(-1), what)


def detached(form: Entries) -> Entries:
    """Return a copy of the entries, for arrays that share memory with what the step is about to write."""
    if form.sources is not None:        # only the rows of values that some entry uses are copied
        used, sources = np.unique(form.sources, return_inverse=True)
        form = form._replace(values=form.values[used], sources=sources.reshape(-1))
    return Entries(*(array if array is None else array.copy() for array in form))


def _sparse(gradient, shape, dim, dtype, what):
    if gradient.shape not in (shape, (shape[0], dim)):
        raise ValueError(f"{what} has shape {gradient.shape}; the table has shape {shape}")
    if gradient.format not in _ENTRYWISE:
        gradient = checked(gradient, what)
    values, *numbers = _parts(gradient, what)
    data = _readable(_numbers(values, what), dtype, what)
    if gradient.ndim == 1:
        return Entries(numbers[0], data, columns=np.zeros(len(values), dtype=np.int32))
    if gradient.format == "coo":
        return Entries(numbers[0], data, columns=numbers[1])
    indices, indptr = numbers
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
        raise ValueError(f"{what} has dY of shape {dY.shape}; the table has shape {shape}, so dY must have shape "
                         f"{(len(dY), dim)}")
    values, (weights, *numbers) = _readable(dY, dtype, what), _parts(X, what)
    weights = _readable(_numbers(weights, what), dtype, what)
    if X.format == "coo":
        return Entries(numbers[1], values, sources=numbers[0], weights=weights)
    indices, indptr = numbers
    if X.format == "csr":
        return Entries(indices, values, sources=rowplan.expanded(what, "sample", indptr, indices), weights=weights)
    return Entries(None, values, indptr=indptr, sources=indices, weights=weights)


def checked(X: Any, what: str) -> Any:
    """Return a scipy array or matrix of any format as a CSR, CSC or COO array whose indices are in range.

    The result shares memory with X if X has one of these formats. The flags of X (sorted, canonical) are not taken
    over, because any code can break what the flags promise. The check costs one pass over the row and column numbers.

    Parameters
    ----------
    X : scipy sparse array or matrix
    what : str
        The name of X in errors.

    Returns
    -------
    scipy.sparse.csr_array, csc_array or coo_array
        LIL becomes CSR. BSR, DIA (without its zeros) and DOK become COO.

    Raises
    ------
    TypeError
        If the values are not numbers, or the format is unknown.
    ValueError, IndexError
        If the parts of X do not fit together, or a row or column number is out of range.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from sparseopt.gradients import checked
    >>> X = sp.csr_array([[0.0, 1.0], [2.0, 0.0]])
    >>> X.indices[1] = 7
    >>> checked(X, "X")
    Traceback (most recent call last):
        ...
    IndexError: X has column 7 at position 1; the table has 2 columns
    """
    if X.format in _BY_ENTRIES:
        X = _BY_ENTRIES[X.format](X, what)
    elif X.format not in _ENTRYWISE:
        raise TypeError(f"{what} has the format {shown(X.format)}; it must be one of "
                        f"{', '.join((*_ENTRYWISE, *_BY_ENTRIES))}")
    values, *numbers = _parts(X, what)
    if values.dtype.kind not in "fiubc":
        raise TypeError(f"{what} has dtype {values.dtype}; it must be of numbers")
    if values.dtype == np.float16:          # scipy has no loops for float16
        values = values.astype(np.float32)
    if X.format == "coo":
        for axis, coords in enumerate(numbers):
            rowplan.check(what, ("column", "row")[axis - X.ndim], coords, X.shape[axis])
        return sp.coo_array((values, tuple(numbers)), shape=X.shape)
    indices, indptr = numbers
    across = X.format == "csr"
    _check_indptr(what, "row" if across else "column", indptr, len(indices))
    rowplan.check(what, "column" if across else "row", indices, X.shape[-1 if across else 0])
    return (sp.csr_array if across else sp.csc_array)((values, indices, indptr), shape=X.shape)


def csr_parts(X: Any, what: str) -> tuple[Array, Integers, Integers]:
    """Return checked values, indices and indptr of a scipy array as a CSR array has them, readable for the kernels."""
    if X.format != "csr":
        X = checked(X, what).tocsr()
    values, indices, indptr = _parts(X, what)
    rowplan.check_csr(what, indptr, indices, X.shape[1], len(values))
    return values, indices, indptr


def _parts(X, what):
    """Return the values and the numbers (indices and indptr, or coords) of a CSR, CSC or COO array.

    Their lengths are checked, and the kernels can read the numbers. The range of the numbers is not checked.
    """
    values = _part(X, what, "data", 1)
    if X.format == "coo":
        coords = X.coords
        if not isinstance(coords, tuple | list) or len(coords) != X.ndim:
            raise ValueError(f"{what} is a malformed coo array: its coords must be {X.ndim} arrays")
        numbers = [_index_part(X, what, f"coords[{axis}]", array) for axis, array in enumerate(coords)]
        lengths = [len(values), *map(len, numbers)]
        if min(lengths) < max(lengths):
            raise ValueError(f"{what} is malformed: its arrays give it {min(lengths)} and {max(lengths)} entries")
        return values, *numbers
    indices, indptr = _index_part(X, what, "indices"), _index_part(X, what, "indptr")
    _check_lengths(X, what, len(values), indices, indptr)
    return values, indices, indptr


def _check_lengths(X, what, n, indices, indptr, block=1):
    lines = 1 if X.ndim == 1 else X.shape[1 if X.format == "csc" else 0] // block
    if len(indices) != n or len(indptr) != lines + 1:
        raise ValueError(f"{what} is a malformed {X.format} array: {n} values, {len(indices)} indices and "
                         f"{len(indptr)} indptr for shape {X.shape}"
                         + (f" in blocks of {X.data.shape[1:]}" if X.format == "bsr" else ""))


def _part(X, what, name, ndim, given=None):
    part = getattr(X, name, None) if given is None else given
    if not isinstance(part, np.ndarray) or isinstance(part, np.ma.MaskedArray) or part.ndim != ndim:
        kind = type(part).__name__ + (f" of {part.ndim} dimensions" if isinstance(part, np.ndarray) else "")
        raise ValueError(f"{what} is a malformed {X.format} array: its {name} is a {kind}; it must be a plain array of "
                         f"{ndim} dimension(s)")
    return part


def _index_part(X, what, name, given=None):
    part = _part(X, what, name, 1, given)
    if part.size and part.dtype.kind not in "iu":
        raise ValueError(f"{what} is a malformed {X.format} array: its {name} is of {part.dtype}; it must be of "
                         "integers")
    return _native(part, what)


def _check_indptr(what, kind, indptr, n):
    if indptr[0] != 0 or indptr[-1] != n:
        raise ValueError(f"{what} has an indptr from {indptr[0]} to {indptr[-1]}; it must run from 0 to its {n} "
                         "entries")
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        at = int(falls.argmax())
        raise ValueError(f"{what} has an indptr that falls at {kind} {at}, from {indptr[at]} to {indptr[at + 1]}")


# Conversions of the other formats to COO or CSR. scipy's conversions would need a check of every entry before them.

def _of_bsr(X, what):
    values, indices, indptr = _part(X, what, "data", 3), _index_part(X, what, "indices"), _index_part(X, what, "indptr")
    high, wide = values.shape[1:]
    if not (high and wide) or X.shape[0] % high or X.shape[1] % wide:
        raise ValueError(f"{what} is a malformed bsr array: its shape {X.shape} is not whole blocks of {(high, wide)}")
    _check_lengths(X, what, len(values), indices, indptr, high)
    _check_indptr(what, "block row", indptr, len(indices))
    rowplan.check(what, "block column", indices, X.shape[1] // wide)
    first_rows = np.repeat(np.arange(len(indptr) - 1) * high, np.diff(indptr))
    rows = first_rows[:, None, None] + np.arange(high)[:, None]
    columns = indices[:, None, None].astype(np.int64) * wide + np.arange(wide)
    rows, columns = (np.broadcast_to(numbers, values.shape).reshape(-1) for numbers in (rows, columns))
    return sp.coo_array((values.reshape(-1), (rows, columns)), shape=X.shape)


def _of_dia(X, what):
    values, offsets = _part(X, what, "data", 2), _index_part(X, what, "offsets")
    if len(values) != len(offsets) or len(np.unique(offsets)) != len(offsets):
        raise ValueError(f"{what} is a malformed dia array: {len(values)} diagonals and {len(offsets)} offsets; each "
                         "diagonal must have an offset of its own")
    outside = (offsets <= -X.shape[0]) | (offsets >= X.shape[1])
    if outside.any():
        raise ValueError(f"{what} is a malformed dia array: it has the offset {offsets[outside.argmax()]}; with shape "
                         f"{X.shape} offsets must be from {1 - X.shape[0]} to {X.shape[1] - 1}")
    values = values[:, :X.shape[1]]
    rows = np.arange(values.shape[1]) - offsets[:, None]
    stored = (rows >= 0) & (rows < X.shape[0]) & (values != 0)
    return sp.coo_array((values[stored], (rows[stored], np.nonzero(stored)[1])), shape=X.shape)


def _of_lil(X, what):
    rows, values = _part(X, what, "rows", 1), _part(X, what, "data", 1)
    if not len(rows) == len(values) == X.shape[0]:
        raise ValueError(f"{what} is a malformed lil array: {len(rows)} rows and {len(values)} data for shape "
                         f"{X.shape}")
    for i, (one, other) in enumerate(zip(rows, values, strict=True)):
        if not (isinstance(one, list) and isinstance(other, list) and len(one) == len(other)):
            raise ValueError(f"{what} is a malformed lil array: row {i} has the columns {shown(one)} and the values "
                             f"{shown(other)}; they must be lists of the same length")
    indices = _from_python(chain.from_iterable(rows), None, X, what)
    indptr = np.cumsum([0, *map(len, rows)])
    data = _from_python(chain.from_iterable(values), X.dtype, X, what)
    return _raw(sp.csr_array, X, data, indices=indices, indptr=indptr)


def _of_dok(X, what):
    keys = _from_python(X.keys(), None, X, what)
    if keys.size and keys.shape[1:] != ((X.ndim,) if X.ndim > 1 else ()):
        raise ValueError(f"{what} is a malformed dok array: its keys must be {X.ndim} integers each")
    keys = keys.reshape(-1, X.ndim)
    return _raw(sp.coo_array, X, _from_python(X.values(), X.dtype, X, what), coords=tuple(keys.T))


def _from_python(numbers, dtype, X, what):
    """Return an array of the numbers. Row and column numbers have dtype None, and NumPy chooses."""
    try:
        array = np.array(list(numbers), dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{what} is a malformed {X.format} array: {error}") from error
    return array if array.size else array.astype(dtype or np.int64)


def _raw(kind, X, values, **parts):
    """Return a scipy array with unchecked parts. scipy's constructor would read the parts before `checked` does."""
    made = kind(X.shape, dtype=np.float32)
    vars(made).update(data=values, **parts)
    return made


_BY_ENTRIES = {"bsr": _of_bsr, "dia": _of_dia, "lil": _of_lil, "dok": _of_dok}


def _integers(array, name):
    array = _unmasked(array, name)
    if array.ndim != 1:
        raise ValueError(f"{name} have shape {array.shape}; they must have one dimension")
    if array.dtype.kind not in "iu":
        if array.size:
            raise TypeError(f"{name} have dtype {array.dtype}; they must be integers")
        array = array.astype(np.int64)          # an empty list
    return _native(array)


def _native(array, what="rows"):
    """Return row or column numbers as the kernels read them: contiguous int32 or int64."""
    if array.dtype not in (np.int32, np.int64):
        too_large = array > np.iinfo(np.int64).max if array.dtype.kind == "u" else np.zeros(1, np.bool_)
        if too_large.any():
            at = too_large.argmax()
            raise IndexError(f"{what} has {array[at]} at position {at}; no table has so many rows")
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
    """Return values as the kernels read them: of the table's dtype, aligned, and with contiguous rows."""
    if values.dtype != dtype:
        _numbers(values, what)
        with np.errstate(over="ignore"):        # an overflow becomes an infinity, and `nonfinite` decides about it
            return np.ascontiguousarray(values, dtype=dtype)
    if not values.flags.aligned:
        return values.copy()
    if values.flags.c_contiguous:
        return values
    rows_are_consecutive = values.ndim == 2 and values.strides[1] == values.itemsize
    if rows_are_consecutive and values.strides[0] % values.itemsize == 0 and values.strides[0] >= 0:
        return values
    return np.ascontiguousarray(values)
