"""Arrays for tables and state, aligned to cache lines.

NumPy's arrays start 16 bytes after the start of a cache line. In such an array, a row of 64 floats touches five lines
instead of four. Large arrays come from NumPy's allocator, because NumPy asks the kernel for huge pages.
"""

import math
import operator
from numbers import Real
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from ._text import shown
from ._typing import Floats, Seed

_LINE = 64
_PAGE = 4096
APART = 17 * _LINE         # spreads a table and three state arrays over a page


def aligned(shape, dtype, allocate=np.zeros, place=0):
    """Return an array of any dtype that starts on a cache line, `place` times 17 lines after the start of a page.

    A processor compares the last twelve bits of addresses first. So a load seems to depend on a store to another array
    if both addresses have the same offset in their pages. Large arrays all start at the same offset. Rows of a table
    and of its state would then wait for each other. Different places prevent this. With place 0, the array may start on
    any cache line of a page.
    """
    dtype = np.dtype(dtype)
    shape = _checked(shape)
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = allocate(n_bytes + (_PAGE if place else _LINE), dtype=np.uint8)
    start = (place * APART - memory.ctypes.data) % (_PAGE if place else _LINE)
    return memory[start:start + n_bytes].view(dtype).reshape(shape)


def _real(dtype):
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"dtype is {dtype}; tables are float32 or float64")
    return dtype


def _checked(shape):
    try:
        # SupportsIndex is slow to test, so it comes last.
        single = not isinstance(shape, (tuple, list)) and isinstance(shape, SupportsIndex)
        lengths = tuple(map(operator.index, [shape] if single else shape))
    except TypeError:
        raise TypeError(f"shape is {shown(shape)}; it must be an integer or a tuple of integers") from None
    if min(lengths, default=0) < 0:
        raise ValueError(f"shape is {shown(shape)}; lengths must be 0 or more")
    if math.prod(lengths) >= 2**60:
        raise ValueError(f"shape is {shown(shape)}; it must have fewer than 2**60 elements")
    return lengths


def _number(name, value):
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {shown(value)}; it must be a number")
    return value


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Floats:
    """Return an uninitialised array that starts on a cache line.

    Parameters
    ----------
    shape : int or tuple of int
        (n_rows, dim), or (n_rows,) for a table of dim 1.
    dtype : float32 or float64

    Returns
    -------
    array, of the given shape and dtype

    Raises
    ------
    TypeError
        If dtype is neither float32 nor float64, or shape does not consist of integers.
    ValueError
        If a length is below 0, or the array would have 2**60 elements or more.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.empty((1000, 64)).ctypes.data % 64
    0
    """
    return aligned(shape, _real(dtype), np.empty)


def zeros(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> Floats:
    """Return an array of zeros that starts on a cache line.

    Parameters
    ----------
    shape, dtype
        As in `empty`.

    Returns
    -------
    array, of the given shape and dtype

    Raises
    ------
    TypeError, ValueError
        As in `empty`.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.zeros(3)
    array([0., 0., 0.], dtype=float32)
    """
    return aligned(shape, _real(dtype))


def normal(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, scale: float = 1.0,
           seed: Seed = None) -> Floats:
    """Return an aligned array of independent draws from the normal distribution N(0, scale²).

    Parameters
    ----------
    shape, dtype
        As in `empty`.
    scale : float
        Standard deviation, 0 or more.
    seed : None, int, SeedSequence or numpy.random.Generator
        As in `numpy.random.default_rng`.

    Returns
    -------
    array, of the given shape and dtype

    Raises
    ------
    TypeError, ValueError
        If shape, dtype or scale is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> table = so.normal((1000, 64), scale=0.01, seed=0)
    >>> bool(0.0099 < table.std() < 0.0101)
    True
    """
    if not 0 <= _number("scale", scale) <= np.finfo(_real(dtype)).max / 100:
        raise ValueError(f"scale is {shown(scale)}; it must be finite in the table's dtype and 0 or more")
    array = empty(shape, dtype)
    np.random.default_rng(seed).standard_normal(dtype=array.dtype, out=array)
    array *= scale
    return array


def uniform(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, low: float = -1.0, high: float = 1.0,
            seed: Seed = None) -> Floats:
    """Return an aligned array of independent draws from the uniform distribution on [low, high).

    Parameters
    ----------
    shape, dtype, seed
        As in `normal`.
    low, high : float
        Both finite, low at most high.

    Returns
    -------
    array, of the given shape and dtype

    Raises
    ------
    TypeError, ValueError
        If shape, dtype, low or high is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> table = so.uniform((1000, 64), low=-0.5, high=0.5, seed=0)
    >>> bool(table.min() >= -0.5 and table.max() < 0.5)
    True
    """
    if not 0 <= _number("high", high) - _number("low", low) <= np.finfo(_real(dtype)).max:
        raise ValueError(f"low is {shown(low)} and high is {shown(high)}; low must be at most high, and their "
                         "difference must be finite")
    array = empty(shape, dtype)
    np.random.default_rng(seed).random(dtype=array.dtype, out=array)
    array *= high - low
    array += low
    if low < high:              # rounding can give `high` itself
        np.minimum(array, np.nextafter(array.dtype.type(high), array.dtype.type(low)), out=array)
    return array
