"""Checks of the arguments of losses."""

import numpy as np

from .._kernels import rowplan
from .._text import shown
from ..gradients import row_numbers


def table(name, array, like=None, ndim=2):
    """Return a C-contiguous table of float32 or float64. With `like`, dtype and dim must be those of this table."""
    plain = isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)
    if not plain or array.dtype not in (np.float32, np.float64) or array.ndim != ndim:
        raise TypeError(f"{name} is a {type(array).__name__} of shape {getattr(array, 'shape', None)} and dtype "
                        f"{getattr(array, 'dtype', None)}; it must be an array of float32 or float64, with "
                        f"{ndim} dimension{'s' if ndim > 1 else ''}")
    if like is not None and array.dtype != like.dtype:
        raise ValueError(f"{name} has dtype {array.dtype}; it must have dtype {like.dtype}")
    if like is not None and array.ndim == like.ndim and array.shape[1:] != like.shape[1:]:
        raise ValueError(f"{name} has shape {array.shape}; its rows must have shape {like.shape[1:]}")
    return np.ascontiguousarray(array)


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
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} is {shown(values)}; it must be numbers")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must have shape {shape}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {shown(array[~np.isfinite(array)].flat[0].item())}; it must be finite in {dtype}")
    return array
