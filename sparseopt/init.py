"""Starting values of tables that depend on their place alone: on a seed, the number of the row and the column.

A table can so be made in blocks, in any order, by any number of threads, processes and machines, with the same bits.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _checks, _config, _memory
from ._kernels import losses
from ._text import shown
from ._typing import Floats
from .gradients import _integers

__all__ = ["Constant", "Normal", "Uniform"]


@dataclass(frozen=True)
class Normal:
    r"""Independent draws from the normal distribution N(0, scale²).

    Called as ``init(rows, dim, dtype)``, it returns the values of these rows of the table. Philox turns the seed, the
    number of the row and the column into random bits. The inverse of the distribution function turns the bits into
    a value.

    Parameters
    ----------
    scale : float
        Standard deviation, finite and 0 or more.
    seed : int or sequence of ints
        Entropy for `numpy.random.SeedSequence`, each 0 or more. Seeds of different lengths give different values.

    Raises
    ------
    TypeError, ValueError
        If scale or seed is not as described above.

    References
    ----------
    J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    M. J. Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37, 1988.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> init = so.init.Normal(0.01, seed=0)
    >>> table = init(range(1000), 64)
    >>> bool(0.0099 < table.std() < 0.0101)
    True
    >>> np.array_equal(init([7, 3], 64), table[[7, 3]])
    True
    """

    scale: float
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _checks.not_negative("scale", self.scale))
        object.__setattr__(self, "seed", _seed(self.seed))

    def __call__(self, rows: npt.ArrayLike | range, dim: int | None, dtype: npt.DTypeLike = np.float32) -> Floats:
        """Return the values of some rows of the table.

        Parameters
        ----------
        rows : range or array of integers, shape (k,)
            Numbers of rows in the whole table, from 0 to 2**63 - 1, in any order.
        dim : None or int
            None stands for a table of one dimension.
        dtype : float32 or float64
            The values of one dtype are not those of the other, rounded.

        Returns
        -------
        array, shape (k, dim) or (k,)

        Raises
        ------
        TypeError, ValueError, IndexError
            If a parameter is not as described above, or a value cannot be held by dtype.
        """
        numbers, out = _place(rows, dim, dtype)
        # No value is further from 0 than 9 times the standard deviation.
        if self.scale > float(np.finfo(out.dtype).max) / 100:
            raise ValueError(f"scale is {self.scale}; {out.dtype} has no values so large")
        return _drawn(True, self.seed, numbers, self.scale, 0.0, out)


@dataclass(frozen=True)
class Uniform:
    """Independent draws from the uniform distribution on [low, high).

    Called as ``init(rows, dim, dtype)``, it returns the values of these rows of the table. Philox turns the seed, the
    number of the row and the column into random bits.

    Parameters
    ----------
    low, high : float
        Both finite, low at most high. If they are equal, all values are `low`.
    seed : int or sequence of ints
        As in `Normal`.

    Raises
    ------
    TypeError, ValueError
        If low, high or seed is not as described above.

    References
    ----------
    J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> import sparseopt as so
    >>> table = so.init.Uniform(-0.5, 0.5, seed=[3, 1])(range(1000), 64)
    >>> bool(-0.5 <= table.min() and table.max() < 0.5)
    True
    """

    low: float
    high: float
    seed: int | Sequence[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", _checks.finite("low", self.low))
        object.__setattr__(self, "high", _checks.finite("high", self.high))
        object.__setattr__(self, "seed", _seed(self.seed))
        if self.low > self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; low must be at most high")

    def __call__(self, rows: npt.ArrayLike | range, dim: int | None, dtype: npt.DTypeLike = np.float32) -> Floats:
        """Return the values of some rows of the table. Parameters, result and exceptions are those of `Normal`."""
        numbers, out = _place(rows, dim, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = np.array([self.low, self.high], out.dtype)
            if not np.isfinite(high - low):
                raise ValueError(f"low is {self.low} and high is {self.high}; their difference must be finite in "
                                 f"{out.dtype}")
        _drawn(False, self.seed, numbers, high - low, low, out)
        if low < high:              # rounding can give `high` itself
            np.minimum(out, np.nextafter(high, low), out=out)
        return out


@dataclass(frozen=True)
class Constant:
    """The same value everywhere.

    Parameters
    ----------
    value : float
        Finite.

    Raises
    ------
    TypeError, ValueError
        If value is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.init.Constant(0.5)([8, 9, 10], dim=None)
    array([0.5, 0.5, 0.5], dtype=float32)
    """

    value: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _checks.finite("value", self.value))

    def __call__(self, rows: npt.ArrayLike | range, dim: int | None, dtype: npt.DTypeLike = np.float32) -> Floats:
        """Return the values of some rows of the table. Parameters, result and exceptions are those of `Normal`."""
        _, out = _place(rows, dim, dtype)
        if abs(self.value) > float(np.finfo(out.dtype).max):
            raise ValueError(f"value is {self.value}; {out.dtype} has no values so large")
        out[...] = self.value
        return out


def _seed(seed):
    """Return a seed in a form that is compared and hashed by value."""
    single = not isinstance(seed, (Sequence, np.ndarray)) or isinstance(seed, (str, bytes))
    try:
        numbers = [*map(_entropy, [seed] if single else seed)]
    except TypeError:
        raise TypeError(f"seed is {shown(seed)}; it must be an integer or a sequence of integers") from None
    if not numbers or min(numbers) < 0:
        raise ValueError(f"seed is {shown(seed)}; it must be an integer of at least 0 or a sequence of such integers")
    return numbers[0] if single else tuple(numbers)


def _entropy(value):
    if isinstance(value, (bool, np.bool_)):
        raise TypeError
    return operator.index(value)


def _place(rows, dim, dtype):
    """Return the checked rows, a range or an array, and an array for their values."""
    if isinstance(rows, range):
        ends = (min(rows[0], rows[-1]), max(rows[0], rows[-1])) if rows else (0, 0)
    else:
        rows = _integers(rows, "rows")
        ends = (int(rows.min()), int(rows.max())) if rows.size else (0, 0)
    if not 0 <= ends[0] <= ends[1] <= np.iinfo(np.int64).max:
        raise IndexError(f"rows has {ends[0] if ends[0] < 0 else ends[1]}; it must be from 0 to 2**63 - 1")
    return rows, _memory.empty(len(rows) if dim is None else (len(rows), _checks.at_least("dim", dim, 0)), dtype)


def _drawn(normal, seed, rows, scale, shift, out):
    # SeedSequence fills up with zeros: to it, 5, [5] and [5, 0] are the same. The length tells them apart.
    length = () if isinstance(seed, int) else (len(seed),)
    key = int(np.random.SeedSequence(seed, spawn_key=length).generate_state(1, np.uint64)[0])
    numbers, first, step = (None, rows.start, rows.step) if isinstance(rows, range) else (rows, 0, 0)
    if out.size:
        losses.draw(normal, key, numbers, first, step, scale, shift, out.reshape(len(out), -1), _config.threads_for())
    return out
