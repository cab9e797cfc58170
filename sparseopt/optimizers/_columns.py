"""The numbers that depend on a step count and on hyper-parameters alone, such as 1 - β1^k of Adam.

A rule has a `Column` for each of these numbers. A column is computed for many counts at once, and shared by all tables
and optimizers that have the same hyper-parameters. So a hyper-parameter that changes at every step costs the columns
that depend on it, and no others.
"""

import functools
import math

import numpy as np

RANGE = {np.dtype(dtype): (float(np.finfo(dtype).tiny), float(np.finfo(dtype).max))
         for dtype in (np.float32, np.float64)}         # the smallest normal number, and the largest number
_BLOCK = 64             # counts computed together where all rows have one count
_FIRST = 512            # counts computed first where each row has its own: 1 - 0.9^k stays 1 from 350 on


def _exact(column, first, last, dtype):
    """Return the numbers of the counts from first to last in float64; raise OverflowError if one is not finite."""
    exact = column.function(np.arange(first, last + 1, dtype=np.float64), *column.numbers)
    if not np.abs(exact).max() <= RANGE[dtype][1]:
        raise OverflowError
    return exact


@functools.lru_cache(maxsize=64)
def _block(column, first, dtype):
    """Return the numbers of _BLOCK counts from `first` on, in float64 and in the table's dtype."""
    exact = _exact(column, first, first + _BLOCK - 1, dtype)
    return exact, exact.astype(dtype)


class _Values:
    """A column for the counts from 1 on, until the numbers stay what they are."""

    def __init__(self, column, dtype):
        self.column, self.dtype = column, dtype
        # The values, and whether the last one is that of all further counts. One attribute has both, so a signal or
        # another thread finds them together.
        self.known = np.empty(0, dtype), False

    def upto(self, count):
        """Return the values for the counts up to `count`, and the last count for which these serve."""
        values, converged = self.known
        while len(values) < count and not converged:
            exact = _exact(self.column, len(values) + 1, 2 * len(values) or _FIRST, self.dtype)
            values = np.concatenate([values, exact.astype(self.dtype)])
            converged = bool((exact[3 * len(exact) // 4 - 1:] == exact[-1]).all())
            if converged:
                moving = np.flatnonzero(values != values[-1])
                values = values[:moving[-1] + 2 if len(moving) else 1].copy()
            self.known = values, converged
        return values, math.inf if converged else len(values)


_values = functools.lru_cache(maxsize=16)(_Values)


class ByCount:
    """The columns of a group, for tables of one dtype."""

    def __init__(self, columns, dtype, each_row):
        """`each_row` says whether each row has a count of its own."""
        self.columns, self.dtype, self.each_row = columns, dtype, each_row
        # As `at` returns them. One attribute, see `_Values`.
        self.ready = 1, 0, (), ()

    def at(self, count):
        """Return numbers for the counts from `first` to `last`, among them `count`: first, last, values, exact values.

        If each row has a count of its own, `first` is 1. There are no exact values then.
        """
        if self.each_row:
            found = [_values(column, self.dtype).upto(count) for column in self.columns]
            last = min((last for _, last in found), default=math.inf)
            self.ready = 1, last, tuple([values for values, _ in found]), ()
        else:
            first = (count - 1) // _BLOCK * _BLOCK + 1
            found = [_block(column, first, self.dtype) for column in self.columns]
            self.ready = (first, first + _BLOCK - 1, tuple([values for _, values in found]),
                          tuple([exact for exact, _ in found]))
        return self.ready
