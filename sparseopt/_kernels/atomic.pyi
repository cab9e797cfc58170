from typing import Any

from numpy import ndarray
from typing_extensions import disjoint_base

@disjoint_base
class Counts:
    steps: int
    nonfinite_rows: int
    def __enter__(self) -> Counts: ...
    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None: ...

def adopt(copies: list[tuple[ndarray, ndarray]], updates: list[tuple[dict, dict]],
          attributes: list[tuple[Any, str, Any]]) -> None: ...
