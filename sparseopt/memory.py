"""Arrays for tables and state, aligned to cache lines.

An array that starts 16 bytes off a cache line, as NumPy's do, makes every row of 64 floats touch five lines instead of
four. Large arrays come from NumPy's allocator, which asks the kernel for huge pages.
"""

import numpy as np

_LINE = 64


def _aligned(shape, dtype, allocate):
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64, np.int32):
        raise TypeError(f"dtype is {dtype}; tables are float32 or float64")
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = allocate(n_bytes + _LINE, dtype=np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start:start + n_bytes].view(dtype).reshape(shape)


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
    return _aligned(shape, dtype, np.empty)


def zeros(shape, dtype=np.float32):
    """Return an array of zeros that starts on a cache line.

    Parameters, errors: as `empty`.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.zeros(3)
    array([0., 0., 0.], dtype=float32)
    """
    return _aligned(shape, dtype, np.zeros)


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
    if not scale >= 0:
        raise ValueError(f"scale is {scale!r}; it must be 0 or more")
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
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"low is {low!r} and high is {high!r}; they must be finite, low at most high")
    array = empty(shape, dtype)
    np.random.default_rng(seed).random(dtype=array.dtype, out=array)
    array *= high - low
    array += low
    return array
