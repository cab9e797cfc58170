from typing import Any, NamedTuple

from numpy import ndarray
from typing_extensions import disjoint_base

class Plan(NamedTuple):
    b1: float
    b2: float
    amsgrad: bool
    growth: float
    window: int
    bands: tuple[tuple[int, int, int], ...]

def plan_of(b1: float, b2: float, amsgrad: bool, dtype: Any) -> Plan: ...
def plan_of_one_step(b1: float, b2: float, amsgrad: bool) -> Plan: ...

@disjoint_base
class History:
    start: int
    now: int
    nbytes: int
    def __init__(self, start: int, size: int = 0, powers: tuple[float, ...] = (), plan: Plan | None = None,
                 eps: float = 0, dtype: Any = ...) -> None: ...
    def reserve(self) -> None: ...
    def append(self, matrix: tuple[float, ...] = (), rate: float = 0.0, factor: float = 0.0,
               fresh: float = 1.0) -> None: ...
    def arrays(self) -> dict[str, ndarray]: ...
    def restore(self, kept: dict[str, ndarray]) -> None: ...
    def numbers(self, s: int) -> ndarray: ...
