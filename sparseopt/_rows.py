"""How a table is made, and what a place that holds tables can do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import _checks, _memory
from ._reserve import Init
from ._text import shown
from ._typing import Floats, Integers, Self
from .gradients import Gradient
from .init import Constant
from .optimizers import Optimizer


@dataclass(frozen=True)
class Rows:
    """How a table is made: its number of rows, its dim, its dtype and its starting values.

    Parameters
    ----------
    n_rows : int
        0 or more.
    dim : None or int
        None stands for a table of one dimension.
    dtype : float32 or float64
    init : None or callable
        Called as ``init(rows, dim, dtype)``, it returns the values of these rows, as `so.init.Normal` does. It must
        depend on the numbers of the rows alone. None stands for zeros.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.

    Examples
    --------
    >>> import sparseopt as so
    >>> rows = so.Rows(1_000_000_000, 64, init=so.init.Normal(0.01, seed=0))
    >>> rows.start([999_999_999]).shape
    (1, 64)
    """

    n_rows: int
    dim: int | None
    dtype: Any = np.float32
    init: Init | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_rows", _checks.at_least("n_rows", self.n_rows, 0))
        if self.dim is not None:
            object.__setattr__(self, "dim", _checks.at_least("dim", self.dim, 0))
        object.__setattr__(self, "dtype", _memory._real(self.dtype))
        if self.init is not None and (not callable(self.init) or isinstance(self.init, type)):
            raise TypeError(f"init is {shown(self.init)}; it must be None or a callable such as so.init.Normal(0.01)")

    def shape(self, n: int) -> tuple[int, ...]:
        """Return the shape of n rows: (n, dim), or (n,)."""
        return (n,) if self.dim is None else (n, self.dim)

    def start(self, rows: Sequence[int] | Integers) -> Floats:
        """Return the starting values of some rows of the table, which may lie beyond n_rows.

        Raises
        ------
        TypeError, ValueError
            If init returns an array of another shape or dtype.
        """
        values = (self.init or Constant(0.0))(rows, self.dim, self.dtype)
        shape = self.shape(len(rows))
        if not isinstance(values, np.ndarray) or values.dtype != self.dtype:
            came = f"dtype {values.dtype}" if isinstance(values, np.ndarray) else shown(values)
            raise TypeError(f"init returned {came}; it must return an array of {self.dtype}")
        if values.shape != shape:
            raise ValueError(f"init returned shape {values.shape}; it must be {shape}")
        return values


class Store(Protocol):
    """A place that holds tables by name, with one optimizer: memory, a disk, or shards on several machines."""

    @property
    def rows(self) -> dict[str, Rows]:
        """How each table is made, by name."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What travels with a checkpoint."""

    @property
    def steps(self) -> int:
        """The number of steps taken."""

    @property
    def workers(self) -> int:
        """The number of workers for which `fit` asks for gradients."""

    def pull(self, rows: Mapping[str, npt.ArrayLike], /) -> dict[str, Floats]:
        """Return copies of rows of some tables. Rows may repeat. Under missed="replay" they are caught up first."""

    def push(self, gradient: Mapping[str, Gradient | None], /) -> None:
        """Take one step of the optimizer on all tables."""

    def fit(self, gradients_of: Callable[..., Any], steps: int | None = None, *,
            callback: Callable[[int, list[Any]], Any] | None = None) -> None:
        """Take steps with the gradients that `gradients_of(client, step, worker)` returns for each worker.

        It returns a mapping of gradients, or a pair of these and a small report, or None if the worker has no more
        steps. `client.pull` reads rows. `step` is the number of steps that were taken before. After a failure,
        `gradients_of` may be called again with an earlier step. steps=None goes on until every worker returns None.

        After each step `callback(step, reports)` runs in the calling process. A true result ends the fit.
        """

    def optimizer(self) -> Optimizer:
        """Return an optimizer in memory with copies of all rows and of all state."""

    def load(self, optimizer: Optimizer, /) -> None:
        """Take over the rows and the run of an optimizer in memory that has the same tables."""

    def close(self) -> None:
        """Give the place back. The store cannot be used after that."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...
