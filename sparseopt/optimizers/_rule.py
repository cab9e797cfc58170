"""A rule's description: `Rule`, `Column`, `Missed`, and the methods that a subclass of `Optimizer` overrides.

The maths of a rule is compiled, in `_kernels/rules`. A subclass of `Optimizer` names the compiled functions, and gives
them their numbers in float64. It contains no loop over rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Rule(NamedTuple):
    """The rule that the kernels apply to one group of parameters, and the state that it needs."""

    name: str                           # the row function in _kernels/rules/registry.pxi.
    state: tuple[str, ...] = ()         # arrays in the table's shape, in the row function's order.
    row_state: tuple[str, ...] = ()     # then arrays with one number for each row.
    table_state: tuple[str, ...] = ()   # float64 numbers of the whole table, which `_with_table_state` reads.
    counted: bool = False               # whether the update depends on how many steps were taken.
    # Whether the update of an element depends on the numbers of that element alone. If so, the kernels may give the row
    # function several neighbouring rows as one.
    by_elements: bool = True


class Column(NamedTuple):
    """A number that depends on the step count k and on hyper-parameters alone: function(k, *numbers).

    k is an array of float64. The function stands in a module, so that two equal columns are known as equal. Its values
    have a limit, or move so slowly that a quarter of many thousand counts tells.
    """

    function: Callable[..., np.ndarray]
    numbers: tuple[float, ...]


class Missed(NamedTuple):
    """The effect of steps without a gradient, for missed="replay". See _kernels/replay.pyx."""

    rule: str | None = None             # the row function for all missed steps together; None: nothing moves.
    size: int = 0                       # rows of the matrix of a missed step, for weight and momentum; 0: none.
    powers: tuple[float, ...] = ()      # the numbers whose powers the row function takes.
    betas: tuple[float, float, bool] | None = None      # Adam's β1, β2 and amsgrad.
    eps: float = 0.0                                    # Adam's ε.
    fixed: tuple[float, ...] = ()       # other hyper-parameters whose change begins a new history.
    one_step: bool = False              # whether the history is for one step: see `Parameter.continued`.

    @property
    def moves(self):
        """Whether a step without a gradient moves weights."""
        return bool(self.size or self.betas)


class UpdateRule:
    """The part of an optimizer that differs from one to the next: attributes and methods that a subclass overrides.

    A new optimizer needs `_rule` and `_hyper`, and the hyper-parameters lr and weight_decay. `group` is an entry of
    `param_groups`, with checked hyper-parameters. `_hyper` gets the hyper-parameters of `_floored` above 0. `lr` is the
    rate of this step as a number.
    """

    _floored: tuple[str, ...] = ("eps",)     # 0 becomes the smallest normal number, so that 0 / 0 gives 0.
    _adds_decay = False                      # whether the rule itself adds λ w to the gradient.
    _linear = False                          # whether the rule is linear, so that coupled decay can be replayed.
    _starting: tuple[str, ...] = ()          # hyper-parameters that only the first state depends on.

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        """Return the Rule for the parameters of a group."""
        raise NotImplementedError

    def _hyper(self, group: Mapping[str, Any], lr: float) -> tuple[float, ...]:
        """Return the numbers that the row function takes, in its order."""
        raise NotImplementedError

    def _by_count(self, group: Mapping[str, Any]) -> tuple[Column, ...]:
        """Return the numbers that depend on the step count k: up to four columns.

        Without columns the row function gets the one number 1 + (k - 1) `_count_slope`.
        """
        return ()

    def _count_slope(self, group: Mapping[str, Any]) -> float:
        """Return d of the number 1 + (k - 1) d."""
        return 0.0

    def _with_table_state(self, at: Sequence[float],
                          state: Mapping[str, np.ndarray]) -> tuple[Sequence[float], dict[str, float]]:
        """Return the numbers of one step for a rule with `table_state`, and the values of that state after the step.

        `at` has the numbers of the columns.
        """
        raise NotImplementedError

    def _state_after(self, group: Mapping[str, Any], k: np.ndarray) -> dict[str, np.ndarray]:
        """Return the state that step counts k alone determine, by name, for `take_over` of a run without it."""
        return {}

    def _init_state(self, group: Mapping[str, Any], table: np.ndarray, state: Mapping[str, np.ndarray]) -> None:
        """Give the state its first values; it comes as zeros."""

    def _coupled_decay(self, group: Mapping[str, Any]) -> float:
        """Return the λ of the `λ w` that is added to gradients."""
        return 0.0 if self._adds_decay else group["weight_decay"]

    def _check_more(self, group: Mapping[str, Any], lr: float) -> None:
        """Raise ValueError if hyper-parameters, each valid alone, are invalid together."""

    def _missed_steps(self, group: Mapping[str, Any]) -> Missed:
        """Return the Missed of a group; raise ValueError if missed steps cannot be done at once."""
        raise ValueError(f'missed is "replay"; it must be "skip", since {type(self).__name__} has no rule for missed '
                         "steps")

    def _missed_step(self, group: Mapping[str, Any], lr: float, k: int, at: Sequence[float]) -> dict[str, Any]:
        """Return the effect of step k on rows that miss it, as arguments of Update.append_to_history.

        `at` has the numbers of the columns for k, or what `_with_table_state` made of these.
        """
        return {}


def missed_of(optimizer: UpdateRule, group: Mapping[str, Any]) -> Missed:
    """Return the Missed of a group, or raise ValueError if missed steps have no closed form."""
    name, decay = type(optimizer).__name__, group["weight_decay"]
    if (optimizer._adds_decay and decay) or (optimizer._coupled_decay(group) and not optimizer._linear):
        raise ValueError(f'weight_decay is {decay} with missed="replay"; {name} would have to take missed steps one by '
                         "one, since the gradient λ w never vanishes. Decoupled decay can be replayed (AdamW, Lion, "
                         'NAdam with decoupled_weight_decay), and so can SGD\'s. missed="skip" takes any weight_decay')
    missed = optimizer._missed_steps(group)
    if group["max_norm"] is not None and missed.moves:
        raise ValueError(f'max_norm is {group["max_norm"]} with missed="replay"; missed steps of {name} move '
                         'weights, and the norm after each has no closed form. missed="skip" takes max_norm')
    return missed
