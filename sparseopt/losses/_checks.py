"""Checks of the arguments of losses."""

from numbers import Real

import numpy as np
import scipy.sparse as sp

from .._kernels import rowplan
from .._text import shown
from ..gradients import _unmasked, csr_parts, row_numbers


def table(name, array, like=None, ndim=2):
    """Return a table of float32 or float64 as kernels read it. With `like`, dtype and dim must be those of this one."""
    plain = isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)
    if not plain or array.dtype not in (np.float32, np.float64) or array.ndim != ndim:
        raise TypeError(f"{name} is a {type(array).__name__} of shape {getattr(array, 'shape', None)} and dtype "
                        f"{getattr(array, 'dtype', None)}; it must be an array of float32 or float64, with "
                        f"{ndim} dimension{'s' if ndim > 1 else ''}")
    if like is not None and array.dtype != like.dtype:
        raise ValueError(f"{name} has dtype {array.dtype}; it must have dtype {like.dtype}")
    if like is not None and array.ndim == like.ndim and array.shape[1:] != like.shape[1:]:
        raise ValueError(f"{name} has shape {array.shape}; its rows must have shape {like.shape[1:]}")
    return np.require(array, requirements="CA")


def rows(name, numbers, n_rows, shape=None):
    """Return row numbers, flat and checked. With `shape`, they must have this shape; else one dimension."""
    found = np.shape(numbers)
    if found != shape if shape is not None else len(found) != 1:
        raise ValueError(f"{name} has shape {found}; it must have shape {'(k,)' if shape is None else shape}")
    checked = row_numbers(numbers, name)
    rowplan.check(name, "row", checked, n_rows)
    return checked


def floats(name, values, shape, dtype):
    """Return finite numbers of this shape and dtype, C-contiguous."""
    array = _unmasked(values, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} is {shown(values)}; it must be numbers")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must have shape {shape}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {shown(array[~np.isfinite(array)].flat[0].item())}; it must be finite in {dtype}")
    return array


def pairs(name, X, shape, dtype):
    """Return a CSR array of positive weights, without repeated entries."""
    if not sp.issparse(X) or X.ndim != 2:
        raise TypeError(f"{name} is a {type(X).__name__}; it must be a scipy sparse array of two dimensions")
    if X.shape != shape:
        raise ValueError(f"{name} has shape {X.shape}; it must have shape {shape}: the users of the batch, and all "
                         "items")
    weights, indices, indptr = csr_parts(X, name)
    X = sp.csr_array((floats(name, weights, weights.shape, dtype), indices, indptr), shape=shape)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    if X.nnz and not X.data.min() > 0:
        raise ValueError(f"{name} has the weight {X.data.min()}; weights must be above 0")
    return X


def two(name, values):
    """Return the two parts of a tuple or list."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise TypeError(f"{name} is {shown(values)}; it must be a tuple of two arrays: of users and of items")
    return values


def zero_or_more(name, value):
    """Raise if value is not a finite number of 0 or more."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < np.inf:
        raise ValueError(f"{name} is {shown(value)}; it must be finite and 0 or more")
