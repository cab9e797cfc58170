"""The NumPy optimizer that works on the memory of torch's tensors, and its state as tensors.

A binding holds for the tensors, their memory and their state as they were when it was made. `holds` finds out whether
something has changed: a model was moved, for instance. Then the optimizer makes a new binding, which adopts the state
by copy.
"""

import operator
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch

from .. import optimizers
from .._text import escaped, listed, shown
from ._gradients import as_table


def check_parameter(kind, name, tensor):
    """Raise if a tensor cannot be a parameter; `kind` is the class of the optimizer, for errors."""
    if tensor.layout != torch.strided:
        raise ValueError(f'"{name}" has the layout {tensor.layout}; {kind} requires dense parameter tensors (their '
                         "gradients may be sparse)")
    if tensor.is_complex():
        raise ValueError(f'"{name}" has dtype {tensor.dtype}; {kind} does not support complex parameters')
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f'"{name}" has dtype {tensor.dtype}; it must be torch.float32 or torch.float64')
    if tensor.device.type != "cpu":
        raise ValueError(f'"{name}" is on the device {tensor.device}; it must be on the CPU, where the kernels run')
    if not tensor.is_contiguous():
        raise ValueError(f'"{name}" is not contiguous; it is updated in place, so make it from tensor.contiguous()')


def names_of(groups):
    """Return the name of each parameter, in order: the user's where torch was given names, else its place."""
    places = [[f"param_groups[{number}]['params'][{place}]" for place in range(len(group["params"]))]
              for number, group in enumerate(groups)]
    given = [[escaped(str(name), 80) for name in group.get("param_names") or place]
             for group, place in zip(groups, places, strict=True)]
    names = list(chain.from_iterable(given))
    fit = len(set(names)) == len(names) and list(map(len, given)) == list(map(len, places))
    return names if fit else list(chain.from_iterable(places))


def hyper_of(group, names):
    """Return the hyper-parameters of a group without tensors and lists: torch takes both."""
    values = {name: _plain(group[name]) for name in names}
    if callable(values["lr"]):
        raise TypeError(f"lr is {shown(values['lr'])}; it must be a number. torch.optim.lr_scheduler changes it")
    return values


def _plain(value):
    if isinstance(value, torch.Tensor):
        value = value.tolist()
        return value[0] if isinstance(value, list) and len(value) == 1 else value
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _as_array(tensor):
    """Return a tensor as an array; of bfloat16, which NumPy does not have, as float32."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _place(tensor):
    """Return where and how a tensor lies in memory, if it is contiguous."""
    return tensor.data_ptr(), tensor.shape, tensor.is_contiguous()


class Binding:
    """Tensors, the NumPy optimizer that updates their memory, and tensors that share the memory of its state.

    Parameters
    ----------
    cls : class
        The NumPy optimizer's.
    kind : str
        The name of torch's optimizer, for errors.
    groups : list of dict
        torch's groups. Each of their parameters becomes a group of the NumPy optimizer.
    settings : list of str
        The names of the hyper-parameters.
    options : dict
        Options of the whole NumPy optimizer.
    given : mapping from tensors to dicts
        State to start from.
    """

    def __init__(self, cls: type[optimizers.Optimizer], kind: str, groups: list[dict[str, Any]], settings: list[str],
                 options: Mapping[str, Any], given: Mapping[torch.Tensor, Mapping[str, Any]]) -> None:
        self.tensors: list[torch.Tensor] = []
        self.places: list[tuple[Any, ...]] = []
        self.position: dict[torch.Tensor, int] = {}
        self.names = names_of(groups)
        self.states: list[dict[str, torch.Tensor]] = []
        # The tensors in `states` and their addresses, to notice a tensor that was replaced or has moved.
        self.values: list[tuple[torch.Tensor, ...]] = []
        self.pointers: list[list[int]] = []
        self.behind: set[str] = set()           # tables whose rows may have missed steps.
        self.left_out = 0                       # rows that earlier bindings left out: see `Optimizer.nonfinite_rows`.
        inner = []
        for group in groups:
            for tensor in group["params"]:
                name = self.names[len(self.tensors)]
                check_parameter(kind, name, tensor)
                inner.append({"params": {name: as_table(tensor)}, **hyper_of(group, settings)})
                self.position[tensor] = len(self.tensors)
                self.tensors.append(tensor)
                self.places.append(_place(tensor))
        self.optimizer = cls(inner, **options)
        for tensor, name in zip(self.tensors, self.names, strict=True):
            self._adopt(tensor, name, given.get(tensor) or {})
            self._share(tensor, name)

    def in_place(self) -> bool:
        """Return whether all tensors are where they were."""
        return list(map(_place, self.tensors)) == self.places

    def holds(self, groups: list[dict[str, Any]], states: Mapping[torch.Tensor, Mapping[str, Any]]) -> bool:
        """Return whether groups and states of torch's optimizer are still those of this binding."""
        number = 0
        for group in groups:
            for tensor in group["params"]:
                if number == len(self.tensors) or tensor is not self.tensors[number]:
                    return False
                state, values = self.states[number], self.values[number]
                if states[tensor] is not state or _place(tensor) != self.places[number]:
                    return False
                if len(state) != len(values) or not all(map(operator.is_, state.values(), values)):
                    return False
                if [value.data_ptr() for value in values] != self.pointers[number]:
                    return False
                number += 1
        return number == len(self.tensors)

    def _share(self, tensor, name):
        """Note the state of a table as tensors. An array of the table's shape becomes one of the parameter's shape."""
        table = self.optimizer.params[name]
        state = {}
        for key, array in self.optimizer.state[name].items():
            long = array.shape == table.shape and array.dtype == table.dtype
            state[key] = torch.from_numpy(array).reshape(tensor.shape if long else array.shape)
        self.states.append(state)
        self.values.append(tuple(state.values()))
        self.pointers.append([value.data_ptr() for value in state.values()])

    def _adopt(self, tensor, name, given):
        """Copy state of another run, of torch's optimizers for instance, into a table's."""
        ours = self.optimizer.state[name]
        given = {key: value for key, value in given.items() if value is not None}
        if "step" not in ours:          # a rule that does not depend on counts
            given.pop("step", None)
        if not given:
            return
        unknown, missing = [key for key in given if key not in ours], [key for key in ours if key not in given]
        if "step" in missing and "momentum_buffer" in given:
            given["step"] = 1           # torch.optim.SGD keeps no count: its buffer says that a step was taken
            missing.remove("step")
        if unknown or (missing and missing != ["mu_product"]):
            raise ValueError(f'the state of "{name}" has {listed(given)}; {type(self.optimizer).__name__} has '
                             f"{listed(ours)} with these hyper-parameters")
        arrays = {}
        for key, value in given.items():
            if not isinstance(value, (torch.Tensor, int, float)) or isinstance(value, bool):
                raise TypeError(f'{key} of "{name}" is {shown(value)}; it must be a tensor or a number')
            array = _as_array(value) if isinstance(value, torch.Tensor) else np.asarray(value)
            if array.shape == tensor.shape and array.size == ours[key].size:
                array = array.reshape(ours[key].shape)
            elif array.size == 1 and key in ("step", "mu_product"):     # of all rows
                array = array.reshape(()) if key == "step" else np.full(ours[key].shape, array.item())
            arrays[key] = array
        self.optimizer.take_over(name, **arrays)
