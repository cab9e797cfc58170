"""Learning rates that depend on the step: callables from the number of steps taken before (0 at the first) to the rate.

Any callable does for `lr`. These can also be stored in checkpoints, because they are their fields.
"""

import math
from dataclasses import asdict, dataclass, is_dataclass
from numbers import Integral, Real


@dataclass(frozen=True)
class Exponential:
    """lr · gamma^step.

    Parameters
    ----------
    lr : float
        The rate at step 0.
    gamma : float
        The factor from one step to the next.

    Examples
    --------
    >>> import sparseopt as so
    >>> so.schedules.Exponential(0.1, gamma=0.5)(2)
    0.025
    """

    lr: float
    gamma: float

    def __post_init__(self):
        _check(self, not_negative=("lr", "gamma"))

    def __call__(self, step):
        try:
            return self.lr * self.gamma**step
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class Linear:
    """From lr to `end` in a straight line over `steps` steps, then `end`.

    Parameters
    ----------
    lr, end : float
        The rates at step 0, and from step `steps` on.
    steps : int

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

    def __post_init__(self):
        _check(self, not_negative=("lr", "end"), steps=1)

    def __call__(self, step):
        done = min(step / self.steps, 1.0)
        return self.lr * (1 - done) + self.end * done


@dataclass(frozen=True)
class Cosine:
    """From lr to `end` along half a cosine over `steps` steps, after a linear `warmup` from 0; then `end`.

    Parameters
    ----------
    lr, end : float
        The highest rate, and the last.
    steps : int
        The last step of the descent, the warm-up included.
    warmup : int
        Step at which the rate reaches lr.

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

    def __post_init__(self):
        _check(self, not_negative=("lr", "end"), warmup=0, steps=1)
        if self.warmup >= self.steps:
            raise ValueError(f"warmup is {self.warmup}; it must be less than steps, which is {self.steps}")

    def __call__(self, step):
        if step < self.warmup:
            return self.lr * step / self.warmup
        done = min((step - self.warmup) / (self.steps - self.warmup), 1.0)
        return self.end + (self.lr - self.end) * (1 + math.cos(math.pi * done)) / 2


def _check(schedule, not_negative, **least):
    """Numbers finite and 0 or more, counts integers of at least so much; or raise."""
    for name in not_negative:
        value = getattr(schedule, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} is {value!r}; it must be a number, finite and 0 or more")
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value!r}; it must be finite and 0 or more")
    for name, lowest in least.items():
        value = getattr(schedule, name)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name} is {value!r}; it must be an integer of at least {lowest}")
        if value < lowest:
            raise ValueError(f"{name} is {value!r}; it must be an integer of at least {lowest}")


_STORED = {cls.__name__: cls for cls in (Exponential, Linear, Cosine)}


def to_json(lr):
    """A rate or schedule as JSON can hold it; None for a callable that is none of ours."""
    if not callable(lr):
        return lr
    if is_dataclass(lr) and _STORED.get(type(lr).__name__) is type(lr):
        fields = {name: int(value) if isinstance(value, Integral) else float(value) for name, value in asdict(lr).items()}
        return {"schedule": type(lr).__name__, **fields}
    return None


def from_json(stored):
    """The rate or schedule that `to_json` stored."""
    if not isinstance(stored, dict):
        return stored
    fields = dict(stored)
    return _STORED[fields.pop("schedule")](**fields)
