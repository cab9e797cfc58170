"""How a run goes on elsewhere: state_dict, state of another run, copies and pickles, and what checkpoints need.

Every method checks first, in Python, where it may fail or be interrupted. All changes come last, in one compiled call:
`adopt` or `Sweep.apply`. No signal handler runs within it. `self._counts.alone` refuses a second call at the same time.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy.typing as npt

from .. import _config, _memory, _reserve
from .._kernels.atomic import Counts, adopt
from .._kernels.ids import Ids
from .._text import listed, shown
from .._typing import Array, Self
from ._groups import check_group, checked_defaults
from ._options import CHECKS, TakesOptions
from ._parameter import LARGEST_COUNT, Parameter
from ._rule import UpdateRule, missed_of
from ._settings import hyper_numbers
from ._state_dict import check_form, count, matched_arrays, matched_groups, restored_history, same_names, taken
from ._structure import STRUCTURES

_Kind = TypeVar("_Kind", bound="Resumable")
_Result = TypeVar("_Result")
_KEPT = "step_count", "missed", "max_grad_norm", "nonfinite"        # options that a state_dict has


class Resumable(UpdateRule, TakesOptions):
    """The part of an optimizer that keeps, copies and restores its run. `Optimizer` sets the attributes below."""

    param_groups: list[dict[str, Any]]
    metadata: dict[str, Any]
    _counts: Counts
    _parameters: dict[str | int, Parameter]
    _group_params: list[int]                # the id of each group's params, to notice others
    _written: tuple[Array, ...]             # every table and state array
    _defaults: dict[str, Any]               # hyper-parameters of groups that leave some out

    @property
    def steps(self) -> int:
        return self._counts.steps

    @property
    def nonfinite_rows(self) -> int:
        return self._counts.nonfinite_rows

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs: parameters, state, hyper-parameters, counts and metadata.

        The arrays in it are the live ones, as in torch: `copy.deepcopy` keeps a moment. Under missed="replay" it also
        has the history of the steps. If hyper-parameters have changed for which that history was made, all rows are
        caught up first.

        Examples
        --------
        >>> import copy, numpy as np, sparseopt as so
        >>> opt = so.Adam(so.zeros((3, 2)), lr=0.1)
        >>> kept = copy.deepcopy(opt.state_dict())
        >>> opt.step(so.RowGradient([1], np.ones((1, 2))))
        >>> opt.load_state_dict(kept)
        >>> opt.params[0].any(), opt.steps
        (np.False_, 0)
        """
        return self._counts.alone(self._state_dict)

    def _state_dict(self):
        kept = self._without_history()
        if self._missed == "replay":
            threads = _config.threads_for(self._num_threads)
            updates = []
            for parameter in self._parameters.values():
                update = parameter.sweep.prepare_nothing(threads)
                missed = missed_of(self, self.param_groups[parameter.group_index])
                parameter.continued(missed, update, takes_a_step=False)
                updates.append(update)
            self._apply(updates)
            kept["history"] = {name: parameter.sweep.history.arrays() for name, parameter in self._parameters.items()}
        return kept

    def _without_history(self):
        self._check_kept()
        for group in self.param_groups:
            check_group(self, group)
        return {
            "optimizer": type(self).__name__,
            "params": {name: parameter.table for name, parameter in self._parameters.items()},
            "state": {name: dict(parameter.state) for name, parameter in self._parameters.items()},
            "param_groups": [{**group, "params": list(group["params"])} for group in self.param_groups],
            "defaults": dict(self._defaults),
            "options": {name: getattr(self, name) for name in _KEPT},
            "steps": self.steps,
            "nonfinite_rows": self.nonfinite_rows,
            "metadata": self.metadata,
        }

    def _check_kept(self):
        """Raise ValueError if groups, tables or state are others than those that the optimizer was made with."""
        if [id(group.get("params")) for group in self.param_groups] != self._group_params:
            raise ValueError("param_groups has other groups or params than at construction; an optimizer keeps its "
                             "tables. call add_param_group to add tables")
        for parameter in self._parameters.values():
            parameter.sweep.check_in_place()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned: parameters and state in place, hyper-parameters, counts and metadata.

        Raises
        ------
        TypeError, KeyError, ValueError
            If it is of another optimizer, of other parameters, shapes or dtypes. Nothing has been written then.
        """
        self._counts.alone(self._load_state_dict, state_dict)

    def _load_state_dict(self, state_dict, attributes=()):
        ours = self._without_history()
        check_form(state_dict, ours)
        copies = matched_arrays(state_dict, ours)
        groups = self._loaded_groups(state_dict["param_groups"])
        histories = self._loaded_histories(state_dict, groups) if self._missed == "replay" else {}
        defaults = state_dict.get("defaults", self._defaults)       # older files have none
        same_names("defaults", defaults, self._defaults)
        changes = [*self._loaded_metadata(state_dict["metadata"]), (self, "_defaults", checked_defaults(defaults))]
        for key in ("max_grad_norm", "nonfinite"):
            changes.append((self, f"_{key}", CHECKS[key](key, state_dict["options"][key])))
        for key in ("steps", "nonfinite_rows"):
            changes.append((self._counts, key, count(key, state_dict[key])))
        for name, parameter in self._parameters.items():
            changes.append((parameter, "made_for", groups[parameter.group_index]))
            changes += parameter.changes_of_count(state_dict["state"][name], histories.get(name))
        adopt(copies, list(zip(self.param_groups, groups, strict=True)), [*changes, *attributes])

    def _loaded_metadata(self, theirs):
        """Return changes for `adopt`. A map of ids is copied, into our map if we have one under its key."""
        metadata, changes = dict(theirs), []
        for key, value in theirs.items():
            if isinstance(getattr(value, "_map", None), Ids):
                metadata[key], ours = copy.copy(value), self.metadata.get(key)
                if type(ours) is type(value):
                    changes.append((ours, "_map", metadata[key]._map))
                    metadata[key] = ours
        return [*changes, (self, "metadata", metadata)]

    def _loaded_groups(self, theirs):
        groups = matched_groups(theirs, self.param_groups)
        for ours, group in zip(self.param_groups, groups, strict=True):
            check_group(self, group)
            if self._rule(group) != self._rule(ours):
                raise ValueError(f"state_dict is of rule {shown(self._rule(group).name)}; this optimizer has "
                                 f"{shown(self._rule(ours).name)}")
        return groups

    def _loaded_histories(self, state_dict, groups):
        """Return, by name, what `Parameter.changes_of_count` takes as history."""
        same_names("history", state_dict["history"], self._parameters)
        loaded = {}
        for name, parameter in self._parameters.items():
            group = groups[parameter.group_index]
            missed = missed_of(self, group)
            history = restored_history(parameter.new_history(missed, 0), state_dict, name)
            loaded[name] = history, missed, hyper_numbers(self, group, parameter.dtype, 1.0)
        return loaded

    def take_over(self, name: str | int, *, step: int | npt.ArrayLike | None = None, **state: npt.ArrayLike) -> None:
        """Take over the state of a table from another run, of torch for instance. The next step uses that state.

        Write the weights into the table yourself: `table[...] = weights`. `opt.steps` stays as it is, so a schedule
        goes on from there. State that is left out stays as it is, too.

        Parameters
        ----------
        name : str or int
            The parameter: its key in `opt.params`.
        step : None, int or array of integers, shape (n_rows,)
            How many steps every row has taken, or an array with the count of each row. Whole floats are taken, for
            torch counts in floats. Under step_count="global" and missed="replay" the count must be the same for all
            rows.
        **state : arrays
            State under the names of `opt.state[name]`, in its shapes. NAdam's `mu_product` is computed from `step`,
            unless it is given.

        Raises
        ------
        KeyError, TypeError, ValueError
            If there is no such table or state, or an array does not fit. Nothing has been written then.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> table = so.zeros((2, 1), np.float64)
        >>> opt = so.Adam(table, lr=0.1, missed="replay")
        >>> opt.take_over(0, step=1000, exp_avg=np.ones((2, 1)), exp_avg_sq=np.ones((2, 1)))
        >>> opt.step(so.RowGradient([0], [[1.0]]))
        >>> table[0].round(3), opt.stale()
        (array([-0.08]), array([0, 1]))
        """
        self._counts.alone(self._take_over, name, state if step is None else {**state, "step": step})

    def _take_over(self, name, given):
        parameter = self._parameter(name)
        parameter.sweep.check_in_place()
        ours, group = parameter.state, self.param_groups[parameter.group_index]
        for key in given:
            if key not in ours:
                raise TypeError(f"{type(self).__name__} keeps no state {shown(key)}; its state is {listed(ours)}")
        new = {key: taken(key, value, ours[key]) for key, value in given.items()}
        changes = []
        if "step" in new:
            for key, value in self._state_after(group, new["step"]).items():
                value = value.max() if ours[key].ndim == 0 else value
                new.setdefault(key, taken(key, value, ours[key]))
            history = self._history_at(parameter, group, new["step"]) if self._missed == "replay" else None
            changes = parameter.changes_of_count(new, history)
        adopt([(ours[key], value) for key, value in new.items()], [], changes)

    def _parameter(self, name):
        """Return the Parameter of this name, or raise."""
        parameter = self._parameters.get(name)
        if parameter is None:
            raise KeyError(f"name is {shown(name)}; the names in params are {listed(self._parameters)}"
                           + ("" if isinstance(next(iter(self._parameters)), str) else " (positions, from 0)"))
        return parameter

    def _history_at(self, parameter, group, steps):
        """Return a new history with all rows at one count, as `Parameter.changes_of_count` takes it; or raise."""
        first, last = steps.min(initial=LARGEST_COUNT), steps.max(initial=0)
        if first < last or last >= LARGEST_COUNT - 1:
            raise ValueError(f'step is from {first} to {last}; under missed="replay" every row has taken every step, '
                             f"so it must be one number below {LARGEST_COUNT - 1}")
        missed = missed_of(self, group)
        return parameter.new_history(missed, int(last)), missed, None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._counts.alone(self._deepcopy, memo)

    def _deepcopy(self, memo):
        state = self._state_dict()
        for name, table in state["params"].items():
            if id(table) not in memo:
                memo[id(table)] = _reserve.copied(table)
            state["params"][name] = memo[id(table)]
        return restored(type(self), state, self._structure.kind, self._num_threads, dict(state["params"]))

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), self.state_dict(), self._structure.kind, self._num_threads)


def alike(cls: type[_Kind], state: Mapping[str, Any], structure: str, num_threads: int | None = None,
          tables: Mapping[str | int, Array] | None = None) -> _Kind:
    """Return a new optimizer of the class, shapes and settings of a state_dict; its numbers are still to be loaded.

    `structure` is the form of its params: "single", "mapping" or "sequence". Its tables are new, unless `tables` has
    them by name.
    """
    if tables is None:
        tables = {name: _memory.zeros(table.shape, table.dtype) for name, table in state["params"].items()}
    groups = [({name: tables[name] for name in group["params"]}, {key: group[key] for key in group if key != "params"})
              for group in state["param_groups"]]
    # Groups carry the hyper-parameters: a user's subclass may have another signature. A single array has no group.
    hyper = groups[0][1] if structure == "single" else {}
    optimizer = cls(STRUCTURES[structure].params_of(groups), **hyper, **state["options"], num_threads=num_threads)
    optimizer._defaults = checked_defaults(state.get("defaults", groups[0][1]))       # older files have none
    return optimizer


def restored(cls, state, structure, num_threads=None, tables=None):
    """Return a new optimizer as `alike` does, with its numbers."""
    optimizer = alike(cls, state, structure, num_threads, tables)
    optimizer.load_state_dict(state)
    return optimizer


def while_held(optimizer: Resumable, use: Callable[[dict[str, Any], str], _Result]) -> _Result:
    """Return use(state_dict, structure), during which no other call can be at work in the optimizer.

    `structure` is as `alike` takes it.
    """
    return optimizer._counts.alone(lambda: use(optimizer._state_dict(), optimizer._structure.kind))


def load_with(optimizer: Resumable, state_dict: Mapping[str, Any], attributes: Sequence[tuple[Any, str, Any]]) -> None:
    """Call `load_state_dict` and set attributes, all at once; see `adopt`."""
    optimizer._counts.alone(optimizer._load_state_dict, state_dict, attributes)


def number_rows(optimizer: Resumable, name: str | int, numbers: Sequence[int] | Array) -> None:
    """Have errors call row i of a table `numbers[i]`: its number in a larger table, of which this one is a part."""
    optimizer._parameters[name].numbers = numbers
