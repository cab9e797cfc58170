"""What each hyper-parameter may be. A check returns the value in its plain form, or raises an error that says what came
and what is allowed."""

import math
from collections.abc import Callable
from numbers import Integral, Real

import numpy as np

from .._text import shown


def _number(name, value, allowed, holds):
    plain = value.item() if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise TypeError(f"{name} is {shown(value)}; it must be a number, {allowed}")
    try:
        value = float(plain)
    except OverflowError:               # an integer of hundreds of digits
        value = -math.inf if plain < 0 else math.inf
    if not holds(value):
        raise ValueError(f"{name} is {shown(value)}; it must be {allowed}")
    return value


def not_negative(name, value):
    return _number(name, value, "finite and 0 or more", lambda x: 0 <= x < math.inf)


def positive(name, value):
    return _number(name, value, "finite and above 0", lambda x: 0 < x < math.inf)


def below_one(name, value):
    return _number(name, value, "at least 0 and below 1", lambda x: 0 <= x < 1)


def finite(name, value):
    return _number(name, value, "finite", math.isfinite)


def at_least(name, value, lowest):
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {shown(value)}; it must be an integer of at least {lowest}")
    if value < lowest:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least {lowest}")
    return int(value)


def betas(name, value):
    try:
        first, second = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {shown(value)}; it must be a pair of numbers, each at least 0 and below 1") from None
    return below_one(f"{name}[0]", first), below_one(f"{name}[1]", second)


def flag(name, value):
    if value is not True and value is not False:
        raise TypeError(f"{name} is {shown(value)}; it must be True or False")
    return value


def rate_or_schedule(name, value):
    return value if isinstance(value, Callable) else not_negative(name, value)


def or_none(check):
    return lambda name, value: None if value is None else check(name, value)


CHECKS = {
    "lr": rate_or_schedule,
    "betas": betas,
    "eps": not_negative,
    "weight_decay": not_negative,
    "maximize": flag,
    "clip_value": or_none(positive),
    "max_row_norm": or_none(positive),
    "max_norm": or_none(positive),
    "amsgrad": flag,
    "momentum": not_negative,
    "dampening": finite,
    "nesterov": flag,
    "lr_decay": not_negative,
    "initial_accumulator_value": not_negative,
    "rho": below_one,
    "alpha": below_one,
    "centered": flag,
    "momentum_decay": not_negative,
    "decoupled_weight_decay": flag,
    "beta": not_negative,
    "l1": not_negative,
    "l2": not_negative,
}
