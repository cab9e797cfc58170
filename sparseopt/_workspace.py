"""Memory that arrays leave to the arrays after them."""

import sys
from types import TracebackType

from ._checks import at_least
from ._kernels.pool import Pool
from ._typing import Self


class Workspace:
    """Within `with Workspace():`, the memory of a freed array is kept, and given to the next array of about its size.

    A training loop makes arrays of the same sizes in every step. The system takes back the memory of a large array when
    the array is freed, and maps the memory of the next array page by page. In many loops this costs more than the
    arithmetic. In a workspace, such a loop maps no page after its first steps.

    All arrays that NumPy makes in the block take part: results of NumPy, of scipy and of this library. Other threads,
    and other tasks of asyncio, are as before. Arrays may outlive the block. The fits of all models use a workspace.

    Parameters
    ----------
    keep : int
        The most bytes that are kept for later arrays, 0 or more. When freed arrays exceed this number, all kept memory
        is returned to the system, and the workspace begins to keep memory anew.

    Attributes
    ----------
    kept : int
        Bytes that are kept now. After the block, this is 0.

    Raises
    ------
    TypeError, ValueError
        If keep is not as described above.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.normal((1000, 64), seed=0)
    >>> opt = so.Adagrad(table, lr=0.1)
    >>> with so.Workspace() as workspace:
    ...     for step in range(3):
    ...         rows = np.arange(step, 1000, 3)
    ...         opt.step(so.RowGradient(rows, 2 * so.embedding.gather(table, rows)))
    ...     workspace.kept > 0
    True

    References
    ----------
    NEP 49, "Data allocation strategies".
    """

    def __init__(self, keep: int = 1 << 28) -> None:
        self._pool = Pool(min(at_least("keep", keep, 0), sys.maxsize))
        self._before: list[object] = []

    @property
    def kept(self) -> int:
        return self._pool.kept

    def __enter__(self) -> Self:
        self._before.append(self._pool.enter())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._pool.leave(self._before.pop())
