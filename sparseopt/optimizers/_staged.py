"""A step in two phases, for tables whose rows are spread over several optimizers.

`Staged` checks and prepares. `commit` writes, after all optimizers have prepared theirs.
"""

from collections.abc import Mapping

from ._base import Optimizer
from ._parameter import Part
from ._structure import Gradients


class Staged:
    """A step that has been checked and prepared, and not yet taken. The optimizer must take no other step meanwhile."""

    def __init__(self, optimizer: Optimizer, grads: Gradients) -> None:
        self._optimizer, self._grads, self._steps = optimizer, grads, optimizer.steps
        self._prepared = optimizer._counts.alone(optimizer._prepared, grads)

    @property
    def taken(self) -> bool:
        """Whether the step was taken."""
        return self._optimizer.steps > self._steps

    def square_sum(self) -> float:
        """Return the sum of squares of the gradients, repeats summed and rows clipped."""
        updates, _ = self._prepared
        return float(sum(update.square_sum() for update in updates))

    def commit(self, square_sum: float | None = None) -> None:
        """Take the step; a second call does nothing.

        `square_sum` is that of all optimizers, for max_grad_norm; None stands for that of this one.
        """
        self._optimizer._counts.alone(self._commit, square_sum)

    def _commit(self, square_sum):
        optimizer = self._optimizer
        if self.taken:                          # a signal came after the step, and before `commit` returned
            return
        prepared, self._prepared = self._prepared, None
        if prepared is None:                    # a signal came after the updates were scaled
            prepared = optimizer._prepared(self._grads)
        updates, left_out = prepared
        if optimizer._max_grad_norm is not None:
            if square_sum is None:
                square_sum = sum(update.square_sum() for update in updates)
            optimizer._clip(updates, square_sum)
        optimizer._apply(updates, optimizer._counts, left_out)


def set_parts(optimizer: Optimizer, parts: Mapping[str, Part]) -> None:
    """Say which rows of larger tables the tables of an optimizer hold.

    A history under missed="replay" then restarts when that of the larger table would, so its rows have the same bits.
    """
    for name, part in parts.items():
        optimizer._parameters[name].part = part
