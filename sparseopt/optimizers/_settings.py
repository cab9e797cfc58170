"""The numbers that a group's hyper-parameters come to in the kernels, worked out again only if they changed.

A step on one row takes a few microseconds. So `settings` compares a group with the group seen before, and does no more
if they are equal. For tables of one group and dtype it keeps a tuple in `optimizer._resolved`, of six:

    seen        the group as it was
    by_count    its ByCount: the numbers that depend on the step count
    hyper       the numbers of the row function, at the rate lr
    lr          the rate as a number
    limits      the gradient's sign and decay; unless trivial, also bounds and slope
    missed      under missed="replay" the Missed

A plain tuple, since Python unpacks no other sequence as fast. Each change replaces it whole, which no signal tears.
A change costs the checks of what has changed. NumPy's slow calls (finfo, errstate, isfinite) are left out for it.
"""

import math

import numpy as np

from .._checks import not_negative
from .._text import shown
from ._columns import RANGE, ByCount
from ._groups import check_group, check_state_fits
from ._rule import missed_of

_LIMITS = "clip_value", "max_row_norm", "max_norm"
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
    rule = parameter.rule
    if seen is None or _differ(group, seen):
        check_state_fits(optimizer, group, parameter, check_group(optimizer, group, seen))
        columns = optimizer._by_count(group)
        if seen is None or columns != by_count.columns:
            by_count = ByCount(columns, parameter.dtype, parameter.count_of_each_row)
        missed = missed_of(optimizer, group) if optimizer._missed == "replay" else None
        limits = _limits(optimizer, group)
        seen, hyper = dict(group), None
        optimizer._resolved[key] = seen, by_count, hyper, lr, limits, missed
    if hyper is None or rate != lr:
        optimizer._check_more(group, rate)
        lr, hyper = rate, hyper_numbers(optimizer, group, parameter.dtype, rate)
        optimizer._resolved[key] = seen, by_count, hyper, lr, limits, missed
    count = parameter.sweep.count + 1 if rule.counted else 1
    first, last, values, exact = by_count.ready
    if not first <= count <= last:
        try:
            first, last, values, exact = by_count.at(count)
        except OverflowError:
            raise _overflow(group, parameter.dtype) from None
    if missed is None and not rule.table_state:
        return (hyper, values, first, count) + limits, None         # noqa: RUF005 (faster than to unpack)
    at, past = [column[count - first] for column in exact], {}
    if rule.table_state:
        at, past["state"] = optimizer._with_table_state(at, parameter.state)
        first, values = count, tuple(np.array(at, parameter.dtype)[:, None])
    if missed is not None:
        past["missed"], count = missed, parameter.sweep.count + 1
        past["term"] = {"rate": lr, **optimizer._missed_step(group, lr, count, at)}
    return (hyper, values, first, count, *limits), past


def hyper_numbers(optimizer, group, dtype, lr):
    """Return the numbers of the row function in the table's dtype; or raise if one of them overflows there."""
    tiny, largest = RANGE[dtype]
    floored = group
    for name in optimizer._floored:
        if group.get(name, tiny) < tiny:
            floored = {**floored, name: tiny}
    numbers = optimizer._hyper(floored, lr)
    for number in (*numbers, group["weight_decay"]):
        if not -largest <= number <= largest:
            raise _overflow({**group, "lr": lr}, dtype)
    return np.array(numbers, dtype)


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


def _overflow(group, dtype):
    """Return the error for numbers that are not finite in the table's dtype."""
    largest = RANGE[dtype][1]
    numbers = {name: value for name, value in group.items() if isinstance(value, float)}
    for name, value in numbers.items():
        if abs(value) > largest:
            return ValueError(f"{name} is {shown(value)}; it must be finite in the table's dtype, {dtype}")
    return ValueError(f"hyper-parameters {numbers} lead to numbers that are not finite in the table's dtype, {dtype}")
