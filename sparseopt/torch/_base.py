"""The part that all optimizers for torch share.

torch's optimizer keeps groups and state, and has hooks. The step is that of a NumPy optimizer bound to the tensors'
memory (`_binding.py`). Hyper-parameters go from torch's groups to the NumPy optimizer at every step, since schedulers
change them.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import chain
from threading import RLock
from typing import Any, ClassVar, overload
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.optimizer import ParamsT

from .. import optimizers
from .._text import listed, shown
from ..gradients import RowGradient
from ..optimizers import BY_GROUP, DEFAULTS, Options, Unpack, spell_out
from ._attach import Link, attach
from ._binding import Binding, hyper_of
from ._gradients import gradient_of

_BRING_UP = ("opt.attach(model) before training and before torch.compile, or opt.catch_up(param, rows) before each "
             "look-up")
_EXECUTION = "capturable", "differentiable", "foreach", "fused"     # ways in which torch computes the same numbers


class Optimizer(torch.optim.Optimizer):
    """Base of the optimizers for torch: updates parameters in place, only in the rows that a gradient touches.

    Parameters are on the CPU, of float32 or float64, with sparse or dense gradients, all in one optimizer. The first
    dimension of a parameter counts its rows. `sparseopt.Optimizer` explains the options.

    Parameters
    ----------
    params : iterable of tensors, of pairs (name, tensor), or of dicts
        As torch.optim takes them: `model.parameters()`, `model.named_parameters()`, or groups.
    lr : float or tensor of one number
        The learning rate, 0 or more. torch.optim.lr_scheduler changes it.
    step_count : "row" or "global"
        The step count that bias correction uses: the row's own, or the parameter's, as in torch.
    missed : "skip" or "replay"
        What steps that do not touch a row do to it: nothing, or what the dense optimizer does. "replay" needs `attach`.
    max_grad_norm : None or float
        Scale the gradients of a step down to this norm, over all parameters, sparse and dense.
    nonfinite : "raise", "skip" or "allow"
        How a step treats a NaN or an infinity in a gradient.
    num_threads : None or int
        None is torch.get_num_threads().

    Raises
    ------
    TypeError, ValueError
        If a parameter or a hyper-parameter is not as said above, or two parameters overlap in memory.

    Attributes
    ----------
    param_groups : list of dict
        As in torch.
    state : mapping from parameters to dicts
        Tensors under torch's names, which share memory with the optimizer's own state. `step` counts the steps of each
        row (int32). It has one number under step_count="global".
    """

    param_groups: list[dict[str, Any]]
    state: defaultdict[torch.Tensor, Any]
    _numpy: ClassVar[type[optimizers.Optimizer]]
    _binding: Binding | None

    def __init__(self, params: ParamsT, defaults: dict[str, Any], **options: Unpack[Options]) -> None:
        for name in options:
            if name not in DEFAULTS:
                raise TypeError(f"{type(self).__name__} takes no keyword {shown(name)}; its keywords are "
                                f"{', '.join([*defaults, *DEFAULTS])}")
        given = {**DEFAULTS, **options}
        defaults = {**defaults, **{name: given.pop(name) for name in BY_GROUP}}
        self._options = given
        self._start()
        super().__init__(params, defaults)
        self._bound()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            spell_out(cls.__init__)

    def _start(self):
        self._binding = None
        self._followed: set[torch.Tensor] = set()       # parameters whose rows are brought up before they are read
        self._attached: WeakSet[torch.nn.Module] = WeakSet()
        self._links: WeakSet[Link] = WeakSet()
        self._turn = RLock()            # so that threads that evaluate a model wait while one of them brings it up

    @property
    def _hyper(self):
        """The names of the hyper-parameters."""
        return [name for name in self.defaults if name not in _EXECUTION]

    # The step.

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch._disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters by one step, only in the rows that their gradients touch.

        Parameters without a gradient are left out, as in torch. A signal finds all parameters stepped, or none.

        Parameters
        ----------
        closure : None or callable
            Computes the loss anew, and its gradients; the step returns its loss.

        Raises
        ------
        TypeError, ValueError, IndexError
            If a gradient has a NaN or an infinity under nonfinite="raise", or does not fit. Nothing has been written.
        RuntimeError
            Under missed="replay", for a sparse gradient of a parameter that no attached module has, or for a row that
            was read before its missed steps were brought up (see `attach`). Nothing has been written.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        binding, replays = self._bound(), self._options["missed"] == "replay"
        gradients, stepped, dense, behind = {}, [], [], set(binding.behind)
        for name, tensor in zip(binding.names, binding.tensors, strict=True):
            if tensor.grad is None:
                continue
            gradients[name] = gradient_of(tensor.grad, name)
            stepped.append(tensor)
            if tensor.grad.layout == torch.strided:
                dense.append(name)
                behind.discard(name)
            elif replays:
                self._check_followed(tensor, name)
                behind.add(name)
            if name in binding.behind:
                self._check_brought_up(binding, name, gradients[name])
        self._synchronize(binding)
        left_out = binding.optimizer.nonfinite_rows
        binding.behind |= behind            # before the step, so that a signal leaves no row behind unnoticed
        self._hold(binding)
        binding.optimizer.step(gradients)
        if replays and binding.optimizer.nonfinite_rows > left_out:     # rows of dense gradients, too, have missed it
            binding.optimizer.catch_up(dict.fromkeys(dense))
        binding.behind = behind
        self._hold(binding)
        if stepped:
            torch.autograd.graph.increment_version([one for one in stepped if not one.is_inference()])
        return loss

    def _check_followed(self, tensor, name):
        if tensor not in self._followed:
            raise RuntimeError(f'"{name}" has a sparse gradient under missed="replay", and nothing brings its rows up '
                               f"before they are read; call {_BRING_UP}")

    def _check_brought_up(self, binding, name, gradient):
        """Raise if a row with a gradient has missed steps: the forward has then read it as it was before them."""
        rows = gradient.rows if isinstance(gradient, RowGradient) else getattr(gradient, "row", None)
        step = binding.optimizer.state[name]["step"]
        taken = step if rows is None else np.take(step, rows, mode="clip")      # the step refuses what is no row
        (behind,) = binding.optimizer.stale({name: [0]})[name]
        now = step[0] + behind
        if taken.min(initial=now) < now:
            first = int(taken.argmin())
            raise RuntimeError(f'row {first if rows is None else rows[first]} of "{name}" has a gradient, and '
                               f"{now - taken[first]} steps to catch up: the forward read the row without them. Call "
                               f"{_BRING_UP}")

    def _synchronize(self, binding):
        """Give the NumPy optimizer the hyper-parameters of torch's groups."""
        inner, hyper, number = binding.optimizer, self._hyper, 0
        states = inner.state            # once, because it makes a mapping of all tables
        for group in self.param_groups:
            values = hyper_of(group, hyper)
            for _ in group["params"]:
                inner.param_groups[number].update(self._settings(values, states[binding.names[number]]))
                number += 1
        self._take_threads(inner)

    def _take_threads(self, inner):
        inner.num_threads = self._options["num_threads"] or torch.get_num_threads()

    def _settings(self, values: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hyper-parameters of a parameter's next step; its state is NumPy's."""
        return values

    # Replay.

    def attach(self, *modules: torch.nn.Module) -> None:
        """Have the modules bring rows up before they read them, under missed="replay".

        A forward of torch.nn.Embedding or EmbeddingBag brings up the rows of its input. A forward of another module
        that has a parameter of this optimizer itself brings up all rows of the parameter. So does a subclass of
        Embedding with a forward of its own, which may read other rows than those of its input. In evaluation mode
        (`model.eval()`), a forward of an attached module first brings up everything, which later forwards then find
        done. Before `state_dict` and `load_state_dict` of a module, its parameters are brought up, too.

        Code that reads or writes a weight without its module finds rows as they were last brought up. Such code calls
        `catch_up` first: copies and pickles of the model, averages of weights, products with `embedding.weight`. A step
        raises if a row with a gradient is still behind. Attach before torch.compile, which looks at hooks when it
        compiles.

        Attached modules keep the optimizer alive while rows have steps to catch up. Under DistributedDataParallel other
        processes read rows, too: call `opt.catch_up(param, param.grad._indices()[0])` before each step.

        Parameters
        ----------
        *modules : torch.nn.Module
            The model, or parts of it. Their submodules are attached, too.

        Raises
        ------
        RuntimeError
            Under missed="skip", where no row is ever behind.
        TypeError, ValueError
            If something is no module, or no module has a parameter of this optimizer.

        Examples
        --------
        >>> import torch, sparseopt.torch
        >>> model = torch.nn.Embedding(4, 2, sparse=True)
        >>> opt = sparseopt.torch.Adam(model.parameters(), missed="replay")
        >>> opt.attach(model)
        """
        self._check_replays("attach")
        link = Link(self)
        self._followed |= attach(link, modules, self._bound().position, self._attached)
        self._links.add(link)
        self._hold(self._bound())

    def _hold(self, binding):
        """Have the attached modules keep this optimizer alive while rows have steps to catch up."""
        for link in self._links:
            link.held = self if binding.behind else None

    def is_behind(self, param: torch.Tensor) -> bool:
        """Return whether rows of a parameter may have steps to catch up; of a tensor that is not its own, False."""
        binding = self._bound()
        return param in binding.position and binding.names[binding.position[param]] in binding.behind

    @torch._disable_dynamo
    def catch_up(self, param: torch.Tensor | None = None, rows: torch.Tensor | npt.ArrayLike | None = None) -> None:
        """Bring rows up to the last step, under missed="replay", before they are read.

        Parameters
        ----------
        param : None or tensor
            A parameter; None is all of them.
        rows : None, tensor or array of integers
            Row numbers in any shape, repeats allowed; None is all rows.

        Raises
        ------
        RuntimeError
            Under missed="skip", where no row is ever behind.
        TypeError, ValueError, IndexError
            If param is no parameter of this optimizer, or rows are not row numbers of it. Nothing has been written.

        Examples
        --------
        >>> import torch, sparseopt.torch
        >>> weight = torch.nn.Parameter(torch.zeros(3, 1))
        >>> opt = sparseopt.torch.SGD([weight], lr=1.0, momentum=0.5, missed="replay")
        >>> opt.catch_up(weight, [0, 2])
        """
        self._check_replays("catch_up")
        with self._turn:
            binding = self._bound()
            if param is None:
                if rows is not None:
                    raise TypeError("rows are given without param; rows belong to one parameter")
                names = sorted(binding.behind)
            elif not isinstance(param, torch.Tensor) or param not in binding.position:
                raise ValueError(f"param is {shown(param)}; it must be a parameter of this optimizer, one of "
                                 f"{listed(binding.names)}")
            else:
                names = [binding.names[binding.position[param]]]
            numbers = rows.detach().cpu().numpy() if isinstance(rows, torch.Tensor) else rows
            if binding.behind.intersection(names):
                self._take_threads(binding.optimizer)
                binding.optimizer.catch_up(dict.fromkeys(names, numbers))
                if rows is None:
                    binding.behind.difference_update(names)
                    self._hold(binding)
            elif rows is not None:
                binding.optimizer.stale(dict.fromkeys(names, numbers))      # raises if they are no rows
            if param is not None:
                self._followed.add(param)

    def _check_replays(self, what):
        if self._options["missed"] != "replay":
            raise RuntimeError(f'{what} needs missed="replay"; this optimizer has missed='
                               f"{shown(self._options['missed'])}: no row is behind")

    # Groups and state.

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, as torch.optim.Optimizer.add_param_group.

        Raises
        ------
        TypeError, ValueError
            If a parameter or a hyper-parameter is not as `Optimizer` says. The optimizer is then as before.
        """
        super().add_param_group(param_group)
        if self._binding is not None:
            try:
                self._bound()
            except BaseException:
                self.param_groups.pop()
                raise

    @property
    def nonfinite_rows(self) -> int:
        """The number of rows left out under nonfinite="skip" so far."""
        binding = self._bound()
        return binding.left_out + binding.optimizer.nonfinite_rows

    def _bound(self):
        """Return a binding to the tensors as they are now: the present one, or a new one that adopts the state."""
        old = self._binding
        if old is not None and old.holds(self.param_groups, self.state):
            return old
        if old is not None and old.behind:
            if not old.in_place():
                raise RuntimeError(f"{listed(sorted(old.behind))} moved in memory while rows had steps to catch up; "
                                   "call opt.catch_up(), or state_dict() of the attached model, before it is moved or "
                                   "its parameters are replaced")
            old.optimizer.catch_up({name: None for name in old.behind})
            old.behind.clear()
            self._hold(old)
        new = Binding(self._numpy, type(self).__name__, self.param_groups, self._hyper, self._options, self.state)
        for tensor, state in zip(new.tensors, new.states, strict=True):
            self.state[tensor] = state
        if old is not None:
            new.left_out = old.left_out + old.optimizer.nonfinite_rows
        self._binding = new
        return new

    def state_dict(self) -> dict[str, Any]:
        """Return state and groups, as torch.optim.Optimizer.state_dict; under missed="replay" all rows caught up.

        Where one step count holds for all rows (step_count="global" or missed="replay"), `step` is one number. So
        torch.optim.SparseAdam, Adam and AdamW load it.
        """
        binding = self._bound()
        replays = self._options["missed"] == "replay"
        if replays:
            self.catch_up()
        packed = super().state_dict()
        if replays or self._options["step_count"] == "global":
            states = iter(binding.names)
            for number in chain.from_iterable(group["params"] for group in packed["param_groups"]):
                name = next(states)
                if "step" in packed["state"].get(number, {}):
                    count = float(binding.optimizer.state[name]["step"].max(initial=0))
                    packed["state"][number] = {**packed["state"][number], "step": torch.tensor(count, device="cpu")}
        return packed

    @torch._disable_dynamo
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, or that of torch's optimizer of the same name.

        Adam and SparseAdam take each other's, too. Hyper-parameters that it does not have stay as they are.

        Raises
        ------
        TypeError, ValueError, KeyError
            If state or hyper-parameters do not fit. The optimizer is then as before.
        """
        self._bound()
        if self._options["missed"] == "replay":
            self.catch_up()
        kept = self.param_groups, self.state, self._binding
        try:
            super().load_state_dict(dict(state_dict))
            for before, group in zip(kept[0], self.param_groups, strict=True):
                self._complete(group, before)
            self._restore_precision(state_dict)
            self._bound()
        except BaseException:
            self.param_groups, self.state, self._binding = kept
            raise

    def _complete(self, group, before):
        for name in _EXECUTION:
            group.pop(name, None)
        name, decay = type(self).__name__, group.get("weight_decay")
        if decay and "weight_decay" not in self.defaults:
            raise ValueError(f"weight_decay is {shown(decay)} in the groups of the state_dict; {name} has none")
        if "decoupled_weight_decay" not in self.defaults:       # torch's Adam is AdamW where it is set
            decoupled = group.pop("decoupled_weight_decay", None)
            if decay and decoupled is not None and bool(decoupled) != (self._numpy is optimizers.AdamW):
                raise ValueError(f"decoupled_weight_decay is {shown(decoupled)} in the groups of the state_dict; "
                                 f"{name} has the {'coupled' if decoupled else 'decoupled'} kind")
        for name, value in before.items():
            group.setdefault(name, value)

    def _restore_precision(self, state_dict):
        """Take state as it was kept: torch has converted all of it to the parameter's dtype."""
        numbers, tensors = (chain.from_iterable(group["params"] for group in groups)
                            for groups in (state_dict["param_groups"], self.param_groups))
        for number, tensor in zip(numbers, tensors, strict=True):
            for key, value in state_dict["state"].get(number, {}).items():
                ours = self.state[tensor].get(key)
                if isinstance(value, torch.Tensor) and ours is not None and ours.dtype != value.dtype:
                    self.state[tensor][key] = value

    def __getstate__(self) -> dict[str, Any]:
        self._bound()
        if self._options["missed"] == "replay":
            self.catch_up()
        return {**super().__getstate__(), "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_options" in state:             # a copy; torch's load_state_dict calls this without
            self._start()
        super().__setstate__(state)
