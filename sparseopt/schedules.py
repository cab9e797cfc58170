"""Learning rates that depend on the step.

A schedule is a callable. Its argument is the number of steps taken before: 0 at the first step. The result is the
learning rate. `lr` takes any such callable. A checkpoint can store the schedules of this module, because each consists
of its fields. `Chain` combines schedules: a warm-up is a `Linear` before another schedule.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ._checks import at_least, not_negative
from ._text import shown
from ._typing import Rate

__all__ = ["Chain", "Constant", "Cosine", "CosineRestarts", "Exponential", "InverseTime", "Linear", "Step"]


@dataclass(frozen=True)
class Constant:
    """The rate lr at every step, for the parts of a `Chain`. Alone, the number lr does the same.

    Parameters
    ----------
    lr : float
        The rate: finite, 0 or more.

    Raises
    ------
    TypeError, ValueError
        If lr is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.schedules.Constant(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        _check(self, rates=("lr",))

    def __call__(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class Step:
    """The rate lr, multiplied by gamma after every `every` steps, or at each of the milestones.

    Parameters
    ----------
    lr : float
        The rate at step 0: finite, 0 or more.
    gamma : float
        The factor of each drop: finite, 0 or more.
    every : None or int
        The number of steps from one drop to the next, 1 or more.
    milestones : None or sequence of int
        Instead of `every`: the steps, 0 or more, at which the rate drops, in any order. At a milestone that is given
        twice, the rate drops twice.

    Raises
    ------
    TypeError, ValueError
        If both or neither of `every` and `milestones` are given, or a number is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> schedule = so.schedules.Step(1.0, gamma=0.5, every=10)
    >>> [schedule(step) for step in (0, 9, 10, 20)]
    [1.0, 1.0, 0.5, 0.25]
    >>> schedule = so.schedules.Step(1.0, gamma=0.5, milestones=[3, 10])
    >>> [schedule(step) for step in (2, 3, 9, 10)]
    [1.0, 0.5, 0.5, 0.25]

    References
    ----------
    torch.optim.lr_scheduler.StepLR and MultiStepLR.
    """

    lr: float
    gamma: float = 0.1
    every: int | None = None
    milestones: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _check(self, rates=("lr", "gamma"))
        if (self.every is None) == (self.milestones is None):
            raise ValueError(f"every is {shown(self.every)} and milestones {shown(self.milestones)}; exactly one of "
                             "the two must be given")
        if self.every is not None:
            return _check(self, every=1)
        if not isinstance(self.milestones, (list, tuple)):
            raise TypeError(f"milestones is {shown(self.milestones)}; it must be a list or tuple of integers of at "
                            "least 0")
        milestones = (at_least(f"milestones[{i}]", step, 0) for i, step in enumerate(self.milestones))
        object.__setattr__(self, "milestones", tuple(sorted(milestones)))

    def __call__(self, step: int) -> float:
        return _powered(self, step // self.every if self.every else bisect_right(self.milestones, step))


@dataclass(frozen=True)
class Exponential:
    """The rate lr · gamma^step.

    Parameters
    ----------
    lr : float
        The rate at step 0: finite, 0 or more.
    gamma : float
        The factor from one step to the next: finite, 0 or more.

    Raises
    ------
    TypeError, ValueError
        If lr or gamma is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.schedules.Exponential(0.1, gamma=0.5)(2)
    0.025
    """

    lr: float
    gamma: float

    def __post_init__(self) -> None:
        _check(self, rates=("lr", "gamma"))

    def __call__(self, step: int) -> float:
        return _powered(self, step)


@dataclass(frozen=True)
class InverseTime:
    """The rate lr / (1 + decay · step).

    Parameters
    ----------
    lr : float
        The rate at step 0: finite, 0 or more.
    decay : float
        Finite, 0 or more. At step 1 / decay the rate is half of lr.

    Raises
    ------
    TypeError, ValueError
        If lr or decay is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> schedule = so.schedules.InverseTime(1.0, decay=0.01)
    >>> [schedule(step) for step in (0, 100, 300)]
    [1.0, 0.5, 0.25]

    References
    ----------
    Robbins and Monro 1951, "A Stochastic Approximation Method": stochastic descent converges with
    rates that fall as 1/t.
    """

    lr: float
    decay: float

    def __post_init__(self) -> None:
        _check(self, rates=("lr", "decay"))

    def __call__(self, step: int) -> float:
        return self.lr / (1 + self.decay * step)


@dataclass(frozen=True)
class Linear:
    """A straight line from lr at step 0 to `end` at step `steps`, and `end` from then on.

    Parameters
    ----------
    lr, end : float
        The first and the last rate: finite, 0 or more.
    steps : int
        The step at which the rate reaches `end`, 1 or more.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> schedule = so.schedules.Linear(1.0, end=0.0, steps=4)
    >>> [schedule(step) for step in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """

    lr: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check(self, rates=("lr", "end"), steps=1)

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.lr * (1 - done) + self.end * done


@dataclass(frozen=True)
class Cosine:
    r"""Half a cosine from lr to `end`, after an optional linear warm-up from 0 to lr.

    .. math:: \text{end} + \tfrac12 (\text{lr} - \text{end})
              \left(1 + \cos \pi \frac{\text{step} - \text{warmup}}{\text{steps} - \text{warmup}}\right)

    ===================  ===================
    steps                rate
    ===================  ===================
    0 to `warmup`        a line from 0 to lr
    `warmup` to `steps`  the formula
    after `steps`        `end`
    ===================  ===================

    Parameters
    ----------
    lr, end : float
        The highest rate, and the last rate: finite, 0 or more.
    steps : int
        The step at which the rate reaches `end`. The warm-up is included.
    warmup : int
        The step at which the rate reaches lr: 0 or more, and less than `steps`.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> schedule = so.schedules.Cosine(1.0, steps=12, warmup=2)
    >>> [round(schedule(step), 2) for step in (0, 1, 2, 7, 12)]
    [0.0, 0.5, 1.0, 0.5, 0.0]

    References
    ----------
    Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", eq. 5, without restarts.
    """

    lr: float
    steps: int
    end: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        _check(self, rates=("lr", "end"), warmup=0, steps=1)
        if self.warmup >= self.steps:
            raise ValueError(f"warmup is {self.warmup}; it must be less than steps, which is {self.steps}")

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * step / self.warmup
        return _half_cosine(self, min((step - self.warmup) / (self.steps - self.warmup), 1.0))


@dataclass(frozen=True)
class CosineRestarts:
    """Half a cosine from lr towards `end`, which restarts at lr again and again.

    Each descent takes `growth` times as many steps as the descent before.

    Parameters
    ----------
    lr, end : float
        The rate at every restart, and the rate that a descent approaches: finite, 0 or more.
    steps : int
        The number of steps of the first descent, 1 or more. torch calls this T_0.
    growth : int
        The factor from the length of a descent to the length of the next, 1 or more. torch calls this T_mult.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> schedule = so.schedules.CosineRestarts(1.0, steps=4, growth=2)      # restarts at steps 4, 12, 28 ...
    >>> [round(schedule(step), 2) for step in (0, 2, 3, 4, 8, 11, 12)]
    [1.0, 0.5, 0.15, 1.0, 0.5, 0.04, 1.0]

    References
    ----------
    Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", eq. 5;
    torch.optim.lr_scheduler.CosineAnnealingWarmRestarts.
    """

    lr: float
    steps: int
    growth: int = 1
    end: float = 0.0

    def __post_init__(self) -> None:
        _check(self, rates=("lr", "end"), steps=1, growth=1)

    def __call__(self, step: int) -> float:
        length = self.steps
        if self.growth == 1:
            step %= length
        while step >= length:
            step -= length
            length *= self.growth
        return _half_cosine(self, step / length)


@dataclass(frozen=True)
class Chain:
    """Several schedules, one after the other. Each schedule counts its steps from 0.

    Parameters
    ----------
    parts : sequence
        Pairs (schedule, steps), and at the end a schedule without a number of steps, which goes on forever. A schedule
        is any callable. A checkpoint cannot hold a chain that has a callable from outside this module.

    Raises
    ------
    TypeError, ValueError
        If parts is not as described above.

    Examples
    --------
    Warm up, then another schedule:

    >>> from sparseopt.schedules import Chain, Constant, Cosine, CosineRestarts, Linear
    >>> schedule = Chain([(Linear(0.0, 1.0, steps=2), 2), CosineRestarts(1.0, steps=4)])
    >>> [round(schedule(step), 2) for step in range(8)]
    [0.0, 0.5, 1.0, 0.85, 0.5, 0.15, 1.0, 0.85]

    Warm up, stay, cool down:

    >>> schedule = Chain([(Linear(0.0, 1.0, steps=2), 2), (Constant(1.0), 3), Linear(1.0, 0.0, steps=2)])
    >>> [schedule(step) for step in range(9)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]

    References
    ----------
    torch.optim.lr_scheduler.SequentialLR.
    """

    parts: Sequence[tuple[Callable[[int], float], int] | Callable[[int], float]]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, (list, tuple)) or not self.parts:
            raise TypeError(f"parts is {shown(self.parts)}; it must be a list of pairs (schedule, steps), and a "
                            "schedule at the end")
        *pairs, last = self.parts
        for i, pair in enumerate(pairs):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not callable(pair[0]):
                raise TypeError(f"parts[{i}] is {shown(pair)}; it must be a pair (schedule, steps): only the last part "
                                "goes on forever")
            pairs[i] = pair[0], at_least(f"steps of parts[{i}]", pair[1], 1)
        if not callable(last):
            raise TypeError(f"the last of parts is {shown(last)}; it must be a schedule without steps: it goes on "
                            "forever")
        object.__setattr__(self, "parts", (*pairs, last))

    def __call__(self, step: int) -> float:
        *pairs, last = self.parts
        for schedule, steps in pairs:
            if step < steps:
                return schedule(step)
            step -= steps
        return last(step)


def _check(schedule, rates=(), **least):
    """Check that rates are finite and 0 or more, and that counts are integers of at least `least`.

    The fields become Python's own numbers, which JSON can hold.
    """
    for name in rates:
        object.__setattr__(schedule, name, not_negative(name, getattr(schedule, name)))
    for name, lowest in least.items():
        object.__setattr__(schedule, name, at_least(name, getattr(schedule, name), lowest))


def _powered(schedule, times):
    try:
        return schedule.lr * schedule.gamma**times
    except OverflowError:
        return math.inf if schedule.lr else 0.0


def _half_cosine(schedule, done):
    return schedule.end + (schedule.lr - schedule.end) * (1 + math.cos(math.pi * done)) / 2


_STORED = {cls.__name__: cls
           for cls in (Constant, Step, Exponential, InverseTime, Linear, Cosine, CosineRestarts, Chain)}


def to_json(lr: Rate) -> Any:
    """Return a rate or schedule as JSON can hold it, or None if a callable from outside this module is part of it."""
    try:
        return _stored(lr)
    except KeyError:
        return None


def _stored(value):
    if isinstance(value, tuple):
        return [_stored(one) for one in value]
    if not callable(value):
        return value
    name = type(value).__name__
    if _STORED.get(name) is not type(value):
        raise KeyError(name)
    return {"schedule": name, **{field.name: _stored(getattr(value, field.name)) for field in fields(value)}}


def from_json(stored: Any) -> Any:
    """Return the rate or schedule that `to_json` stored."""
    if isinstance(stored, list):
        return tuple(from_json(one) for one in stored)
    if not isinstance(stored, dict):
        return stored
    values = {name: from_json(value) for name, value in stored.items()}
    return _STORED[values.pop("schedule")](**values)
