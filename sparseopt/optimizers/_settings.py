"""The numbers that a group's hyper-parameters come to in the kernels, worked out again only if they changed.

A step on one row takes a few microseconds. So `settings` compares a group with the group seen before, and does no more
if they are equal. For tables of one group and dtype it keeps a tuple in `optimizer._resolved`, of six:

    seen        the group as it was
    by_count    its CountTable: the numbers that depend on the step count alone
    hyper       the numbers of the row function, at the rate lr
    lr          the rate as a number
    limits      the gradient's sign and decay; unless trivial, also bounds and slope
    missed      under missed="replay" the Missed

A plain tuple, since Python unpacks no other sequence as fast. Each change replaces it whole, which no signal tears.
"""

import math

import numpy as np

from .._checks import not_negative
from .._text import shown
from ._groups import check_group, check_state_fits
from ._options import BY_GROUP
from ._rule import missed_of

_LIMITS = "clip_value", "max_row_norm", "max_norm"
_UNCOUNTED = "params", "lr", "eps", "weight_decay", *BY_GROUP          # hyper-parameters that no count table depends on


class CountTable:
    """The numbers that depend on the step count alone, a row for each count from 1 on, until they have converged."""

    def __init__(self, group, dtype):
        self.group = {name: value for name, value in group.items() if name not in _UNCOUNTED}
        self.dtype = dtype
        # Rows in the table's dtype and in float64, and whether all further rows are the same. One attribute has all
        # three, so a signal finds them together.
        self.table = np.empty((0, 0), dtype), np.empty((0, 0)), False

    def upto(self, count, by_count):
        """Return the table with rows up to `count`; `by_count` is an optimizer's `_by_count`."""
        rows, _, converged = self.table
        while len(rows) < count and not converged:
            size = max(64, 2 * len(rows))
            exact = np.ascontiguousarray(by_count(self.group, np.arange(1, size + 1, dtype=np.float64)))
            if not (np.abs(exact) <= np.finfo(self.dtype).max).all():
                _raise_overflow(self.group, self.dtype)
            if np.array_equal(exact[size // 2 - 1], exact[-1]):
                converged = True
                moving = np.flatnonzero((exact != exact[-1]).any(axis=1))
                exact = exact[:moving[-1] + 2 if len(moving) else 1]
            rows = exact.astype(self.dtype)
            self.table = rows, exact, converged         # sizes double, so that convergence is found early
        return self.table


_NOTHING = None, None, None, None, None, None


def rate_of(optimizer, group):
    """Return the rate that the next step takes in a group."""
    rate = group["lr"]
    if callable(rate):
        rate = not_negative(f"lr (of the schedule at step {optimizer.steps})", rate(optimizer.steps))
    return rate


def settings(optimizer, parameter):
    """Return the numbers of a parameter's next step, and what the step leaves behind beside the rows that it updates.

    The numbers are as `Sweep.prepare` takes them. The second is None, or keywords of `Parameter.prepare_past`.
    """
    group, key = optimizer.param_groups[parameter.group_index], parameter.key
    rate = group["lr"]
    if callable(rate):                  # first, because a schedule may change the group
        rate = rate_of(optimizer, group)
    seen, by_count, hyper, lr, limits, missed = optimizer._resolved.get(key, _NOTHING)
    if seen is None or _differ(group, seen):
        check_group(optimizer, group)
        check_state_fits(optimizer, group, parameter.made_for)
        if seen is None or any(group[name] != seen[name] for name in group if name not in _UNCOUNTED):
            by_count = CountTable(group, parameter.dtype)
        missed = missed_of(optimizer, group) if optimizer._missed == "replay" else None
        limits = _limits(optimizer, group)
        seen, hyper = dict(group), None
        optimizer._resolved[key] = seen, by_count, hyper, lr, limits, missed
    if hyper is None or rate != lr:
        optimizer._check_more(group, rate)
        lr, hyper = rate, hyper_numbers(optimizer, group, parameter.dtype, rate)
        optimizer._resolved[key] = seen, by_count, hyper, lr, limits, missed
    count = parameter.sweep.count + 1 if parameter.rule.counted else 1
    rows, exact, converged = by_count.table
    if len(rows) < count and not converged:
        rows, exact, _ = by_count.upto(count, optimizer._by_count)
    if missed is None and not parameter.rule.table_state:
        return (hyper, rows, count) + limits, None         # noqa: RUF005 (faster than to unpack)
    at, past = exact[min(count, len(rows)) - 1], {}
    if parameter.rule.table_state:
        at, past["state"] = optimizer._with_table_state(at, parameter.state)
        rows = at.astype(parameter.dtype)[None]
    if missed is not None:
        past["missed"], count = missed, parameter.sweep.count + 1
        past["term"] = {"rate": lr, **optimizer._missed_step(group, lr, count, at)}
    return (hyper, rows, count, *limits), past


def hyper_numbers(optimizer, group, dtype, lr):
    """Return the numbers of the row function in the table's dtype; or raise if one of them overflows there."""
    tiny = float(np.finfo(dtype).tiny)
    floored = {**group, **{name: max(group[name], tiny) for name in optimizer._floored if name in group}}
    with np.errstate(over="ignore"):
        numbers = np.array((*optimizer._hyper(floored, lr), group["weight_decay"]), dtype=dtype)
    if not np.isfinite(numbers).all():
        _raise_overflow({**group, "lr": lr}, dtype)
    return numbers[:-1]


def _limits(optimizer, group):
    sign = -1.0 if group["maximize"] else 1.0
    bounds = [math.inf if group[name] is None else group[name] for name in _LIMITS]
    slope = optimizer._count_slope(group)
    trivial = bounds == [math.inf] * 3 and not slope
    return sign, optimizer._coupled_decay(group), *([] if trivial else [*bounds, slope])


def _differ(group, other):
    try:
        return group != other
    except ValueError:          # an array among the values: the check says what is wrong with it
        return True


def _raise_overflow(group, dtype):
    largest = float(np.finfo(dtype).max)
    numbers = {name: value for name, value in group.items() if isinstance(value, float)}
    for name, value in numbers.items():
        if abs(value) > largest:
            raise ValueError(f"{name} is {shown(value)}; it must be finite in the table's dtype, {dtype}")
    raise ValueError(f"hyper-parameters {numbers} lead to numbers that are not finite in the table's dtype, {dtype}")
