"""The hyper-parameters of all optimizers, and which values each may have; a new one gets its check here."""

from collections.abc import Callable
from typing import Any

from .._checks import below_one, finite, flag, not_negative, positive, rate_or_schedule
from .._text import shown


def betas(name, value):
    try:
        first, second = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {shown(value)}; it must be a pair of numbers, each at least 0 and below "
                        "1") from None
    return below_one(f"{name}[0]", first), below_one(f"{name}[1]", second)


def or_none(check):
    return lambda name, value: None if value is None else check(name, value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
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
