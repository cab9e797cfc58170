from collections.abc import Callable
from typing import Any, TypeVar

from numpy import ndarray
from typing_extensions import disjoint_base

_Result = TypeVar("_Result")

@disjoint_base
class Counts:
    steps: int
    nonfinite_rows: int
    def alone(self, function: Callable[..., _Result], *arguments: Any) -> _Result: ...

def adopt(copies: list[tuple[ndarray, ndarray]], updates: list[tuple[dict, dict]],
          attributes: list[tuple[Any, str, Any]],
          rows: list[tuple[ndarray, ndarray, ndarray]] = ...) -> None: ...
