"""Checks of numbers and choices that several modules share.

Each check takes a parameter's name and its value, and returns the value in plain Python. Or it raises an error that
says which parameter it was, what came and what is allowed.
"""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from ._text import shown
from ._typing import Rate


class NonfiniteError(ValueError, FloatingPointError):
    """A gradient or a state has a NaN or an infinity: usually, training has diverged."""


def number(name: str, value: Any, allowed: str, holds: Callable[[float], bool]) -> float:
    """Return the value as a float for which `holds` is true; `allowed` says the same in words."""
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


def not_negative(name: str, value: Any) -> float:
    return number(name, value, "finite and 0 or more", lambda x: 0 <= x < math.inf)


def positive(name: str, value: Any) -> float:
    return number(name, value, "finite and above 0", lambda x: 0 < x < math.inf)


def below_one(name: str, value: Any) -> float:
    return number(name, value, "at least 0 and below 1", lambda x: 0 <= x < 1)


def finite(name: str, value: Any) -> float:
    return number(name, value, "finite", math.isfinite)


def at_least(name: str, value: Any, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {shown(value)}; it must be an integer of at least {lowest}")
    if value < lowest:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least {lowest}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    if value is not True and value is not False:
        raise TypeError(f"{name} is {shown(value)}; it must be True or False")
    return value


def one_of(name: str, value: Any, *allowed: str) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {shown(value)}; it must be {' or '.join(map(repr, allowed))}")
    return value


def rate_or_schedule(name: str, value: Any) -> Rate:
    return value if isinstance(value, Callable) else not_negative(name, value)
