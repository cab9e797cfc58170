"""The NumPy optimizer that works on the memory of torch's tensors, and its state as tensors.

A binding holds for the tensors, their memory and their state as they were when it was made. `holds` finds out whether
something has changed: a model was moved, for instance. Then the optimizer makes a new binding, which adopts the state
by copy.
"""

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .. import optimizers
from .._text import listed, shown
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
    names = [name for number, group in enumerate(groups)
             for name in group.get("param_names") or _places(number, group)]
    return names if len(set(names)) == len(names) else [name for number, group in enumerate(groups)
                                                        for name in _places(number, group)]


def _places(number, group):
    return [f"param_groups[{number}]['params'][{place}]" for place in range(len(group["params"]))]


def plain(value):
    """Return a hyper-parameter without tensors and lists: torch takes both."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


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
        self.pointers: list[int] = []
        self.position: dict[torch.Tensor, int] = {}
        self.names = names_of(groups)
        self.states: list[dict[str, torch.Tensor]] = []
        self.values: list[tuple[torch.Tensor, ...]] = []        # of `states`, to notice others in the same dict
        self.behind: set[str] = set()           # tables of which rows may have missed steps
        inner = []
        for group in groups:
            for tensor in group["params"]:
                name = self.names[len(self.tensors)]
                check_parameter(kind, name, tensor)
                inner.append({"params": {name: as_table(tensor)}, **{key: plain(group[key]) for key in settings}})
                self.position[tensor] = len(self.tensors)
                self.tensors.append(tensor)
                self.pointers.append(tensor.data_ptr())
        self.optimizer = cls(inner, **options)
        for tensor, name in zip(self.tensors, self.names, strict=True):
            self._adopt(name, given.get(tensor) or {})
            self._share(tensor, name)

    def in_place(self) -> bool:
        """Return whether all tensors are where they were."""
        return all(tensor.data_ptr() == pointer for tensor, pointer in zip(self.tensors, self.pointers, strict=True))

    def holds(self, groups: list[dict[str, Any]], states: Mapping[torch.Tensor, Mapping[str, Any]]) -> bool:
        """Return whether groups and states of torch's optimizer are still those of this binding."""
        number = 0
        for group in groups:
            for tensor in group["params"]:
                if number == len(self.tensors) or tensor is not self.tensors[number]:
                    return False
                state, values = self.states[number], self.values[number]
                if states[tensor] is not state or tensor.data_ptr() != self.pointers[number]:
                    return False
                if len(state) != len(values) or not all(map(operator.is_, state.values(), values)):
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

    def _adopt(self, name, given):
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
            array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
            if array.shape != ours[key].shape and array.size == ours[key].size:
                array = array.reshape(ours[key].shape)
            elif array.size == 1 and key != "step":
                array = np.broadcast_to(array.reshape(()), ours[key].shape)
            arrays[key] = array
        self.optimizer.take_over(name, **arrays)
