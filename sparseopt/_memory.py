"""Arrays for tables and state, aligned to cache lines.

An array that starts 16 bytes off a cache line, as NumPy's do, makes every row of 64 floats touch five lines instead of
four. Large arrays come from NumPy's allocator, which asks the kernel for huge pages.
"""

import math
import operator
from numbers import Real
from typing import SupportsIndex

import numpy as np

from ._text import shown

_LINE = 64
_PAGE = 4096
APART = 17 * _LINE         # with three states: four arrays, spread over a page


def aligned(shape, dtype, allocate=np.zeros, place=0):
    """An array of any dtype that starts on a cache line; with a `place`, that many times 17 lines into a page.

    A processor compares the last twelve bits of addresses first, so that a load from one array seems to depend on a store to
    another at the same offset in its page. Large arrays all start at the same offset; rows of a table and its state then
    wait for each other. Places keep them apart.
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
        single = not isinstance(shape, (tuple, list)) and isinstance(shape, SupportsIndex)      # which is slow to ask
        lengths = tuple(map(operator.index, [shape] if single else shape))
    except TypeError:
        raise TypeError(f"shape is {shown(shape)}; it must be an integer or a tuple of integers") from None
    if min(lengths, default=0) < 0:
        raise ValueError(f"shape is {shown(shape)}; lengths must be 0 or more")
    if math.prod(lengths) >= 2**60:
        raise ValueError(f"shape is {shown(shape)}; no memory holds so many numbers")
    return lengths


def _number(name, value):
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {shown(value)}; it must be a number")
    return value


def empty(shape, dtype=np.float32):
    """Return an uninitialised array that starts on a cache line.

    Parameters
    ----------
    shape : int or tuple of int
        (n_rows, dim), or (n_rows,) for a table of dim 1.
    dtype : float32 or float64

    Raises
    ------
    TypeError
        If dtype is another.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.empty((1000, 64)).ctypes.data % 64
    0
    """
    return aligned(shape, _real(dtype), np.empty)


def zeros(shape, dtype=np.float32):
    """Return an array of zeros that starts on a cache line.

    Parameters, errors: as `empty`.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.zeros(3)
    array([0., 0., 0.], dtype=float32)
    """
    return aligned(shape, _real(dtype))


def normal(shape, dtype=np.float32, *, scale=1.0, seed=None):
    """Return an aligned array of independent draws from the normal distribution N(0, scale²).

    Parameters
    ----------
    shape, dtype
        As in `empty`.
    scale : float
        Standard deviation, 0 or more.
    seed : None, int, SeedSequence or numpy.random.Generator
        Whatever `numpy.random.default_rng` takes.

    Raises
    ------
    TypeError, ValueError
        If dtype or scale is not as said above.

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


def uniform(shape, dtype=np.float32, *, low=-1.0, high=1.0, seed=None):
    """Return an aligned array of independent draws from the uniform distribution on [low, high).

    Parameters
    ----------
    shape, dtype, seed
        As in `normal`.
    low, high : float
        Finite, low at most high.

    Raises
    ------
    TypeError, ValueError
        If dtype, low or high is not as said above.

    Examples
    --------
    >>> import sparseopt as so
    >>> table = so.uniform((1000, 64), low=-0.5, high=0.5, seed=0)
    >>> bool(table.min() >= -0.5 and table.max() < 0.5)
    True
    """
    if not 0 <= _number("high", high) - _number("low", low) <= np.finfo(_real(dtype)).max:
        raise ValueError(f"low is {shown(low)} and high is {shown(high)}; low must be at most high, their difference finite")
    array = empty(shape, dtype)
    np.random.default_rng(seed).random(dtype=array.dtype, out=array)
    array *= high - low
    array += low
    if low < high:              # rounding can reach it
        np.minimum(array, np.nextafter(array.dtype.type(high), array.dtype.type(low)), out=array)
    return array
