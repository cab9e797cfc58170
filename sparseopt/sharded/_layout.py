"""What every shard and worker knows of sharded tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .._rows import Rows
from .._text import listed, shown
from ..optimizers import Optimizer


@dataclass(frozen=True)
class Layout:
    """How many shards and workers there are, and what stands on them."""

    rows: Mapping[str, Rows]
    optimizer: Callable[[Mapping[str, Any]], Optimizer]
    shards: int
    workers: int
    mode: Literal["sync", "async"] = "sync"
    staleness: int = 0
    combine: Literal["none", "worker"] = "worker"
    disk: str | None = None
    cache_rows: int | Mapping[str, int] = 1_000_000

    def part(self, name, number):
        """Return how the rows of a shard are made, as a table of its own."""
        rows = self.rows[name]
        init = None if rows.init is None else StartingValues(rows.init, number, self.shards)
        return Rows(len(range(number, rows.n_rows, self.shards)), rows.dim, rows.dtype, init)


@dataclass(frozen=True)
class StartingValues:
    """The values of the rows `first`, `first` + `every`, ... of a table, by their number among these rows."""

    init: Callable[..., Any]
    first: int
    every: int

    def __call__(self, rows, dim, dtype):
        if isinstance(rows, range):
            rows = range(self.first + self.every * rows.start, self.first + self.every * rows.stop,
                         self.every * rows.step)
        else:
            rows = self.first + self.every * np.asarray(rows, np.int64)
        return self.init(rows, dim, dtype)


def made(make, tables):
    """Return the optimizer that `make` makes of tables, checked."""
    optimizer = make(tables)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer returned {shown(optimizer)}; it must return an Optimizer")
    params = optimizer.params
    if params.keys() != tables.keys() or any(params[name] is not table for name, table in tables.items()):
        raise ValueError(f"optimizer returned an optimizer of {listed(params)}; it must be of the tables that it was "
                         f"given, {listed(tables)}")
    return optimizer
