"""The part that all optimizers share, above all the step. This folder has no maths of rules and no loop over rows.

a) An optimizer has a list of groups with hyper-parameters (`param_groups`), and a `Parameter` for each table. A
   subclass describes its update rule (`_rule.py`). `Resumable` keeps and restores its run (`_resuming.py`),
   and `Resizable` adds rows (`_resizing.py`).
b) A call happens whole or not at all. First comes whatever can fail, and whatever runs code of the user: schedules,
   mappings, warnings. Row numbers are read after that, and copied. One compiled call then writes: `Sweep.apply` or
   `adopt`. No signal handler runs within this call.
c) `self._counts.alone` refuses a second call at the same time, from another thread, a schedule or a hook.
d) Hyper-parameters may change at any time, so each step compares them with those of the last step (`_settings.py`).
"""

import math
from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType
from typing import Any, ClassVar

from .. import _config, _kernels
from .._kernels.atomic import Counts, adopt
from .._text import shown
from .._typing import Array, Floats
from ..gradients import Gradient, row_numbers
from . import _options
from ._groups import checked_defaults, extended
from ._options import Options, Params, Unpack, spell_out
from ._resizing import Resizable
from ._settings import rate_of, settings
from ._structure import Gradients, Rows, group_parts, structure_of


class Optimizer(Resizable):
    """Base of all optimizers: updates tables in place, only in the rows that a gradient touches.

    A gradient touches a row if it has a stored entry there, an explicit zero included. Other rows keep their bits, and
    so does their state. Under missed="replay" they keep them until `catch_up` or a later touch brings them up.

    Parameters
    ----------
    params : array, mapping, sequence, or list of dicts
        The tables: C-contiguous, writeable NumPy arrays of float32 or float64 with shape (n_rows, dim), or (n_rows,)
        for dim 1. They come as one array, a mapping from names to arrays, or a sequence of arrays. Or they come as a
        list of groups `{"params": any of these, "lr": ..., ...}`, each with hyper-parameters of its own.
    lr : float or callable
        The learning rate, 0 or more, or a schedule: a callable from the number of steps taken before (0 at the first)
        to the rate. See `sparseopt.schedules`.
    weight_decay : float
        λ. Added to the gradient of touched rows as `λ w` (coupled), unless the optimizer says that its decay is
        decoupled.
    maximize : bool
        Ascend instead of descend.
    clip_value : None or float
        Bound on the size of each number of a gradient, after repeats are summed; as `torch.nn.utils.clip_grad_value_`.
    max_row_norm : None or float
        Scale the gradient of each touched row down to this 2-norm, after clip_value.
    max_norm : None or float
        Scale each updated row of the table down to this 2-norm, as torch.nn.Embedding does before each look-up. Not
        under missed="replay" if missed steps move weights.
    step_count : "row" or "global"
        The step count that bias correction uses: how many steps this row has taken, or how many its table has. Under
        missed="replay" every row takes every step, so both counts are equal.
    missed : "skip" or "replay"
        Under "skip", steps that do not touch a row leave it alone. Under "replay" they do to it what the dense
        optimizer does with a gradient of zeros. The row is then brought up when a later step touches it, and `catch_up`
        brings up rows before they are read. An optimizer whose missed steps have no closed form raises ValueError.
    max_grad_norm : None or float
        Scale the gradients of a call down to this global 2-norm. The norm is taken over all tables of the call, after
        repeats are summed and after clip_value and max_row_norm.
    nonfinite : "raise", "skip" or "allow"
        How a step treats a NaN or an infinity in a gradient. "raise" raises before anything is written. "skip" leaves
        those rows out, with a RuntimeWarning that says how many (`nonfinite_rows` adds them up). "allow" does not look.
    num_threads : None or int
        None is `so.get_num_threads()`. Results do not depend on the number.

    Raises
    ------
    TypeError, ValueError
        If a table or a hyper-parameter is not as said above, or two tables overlap.

    Attributes
    ----------
    param_groups : list of dict
        The groups with their hyper-parameters, read at every step: `opt.param_groups[0]["lr"] *= 0.98` works.
    state : mapping
        From the name of a parameter (its position, if it has none) to its state arrays, under torch's names. `step`
        counts the steps of each row (int32); optimizers that need no count keep none. The arrays may be written to.
        `take_over` takes state and counts of another run. `reset` makes rows new. Under missed="replay" `step` is the
        step that a row was last brought up to.
    params : mapping
        From names to tables.
    steps : int
        The number of steps taken.
    nonfinite_rows : int
        The number of rows left out under nonfinite="skip" so far.
    metadata : dict
        What should travel with a checkpoint: anything that JSON can hold, and `so.IdMap`.
    """

    # The module whose Sweep tables are bound to. Benchmarks and tests make a subclass with another build's module.
    _kernels: ClassVar[Any] = _kernels

    def __init__(self, params: Params, defaults: Mapping[str, Any], **options: Unpack[Options]) -> None:
        self._counts = Counts()
        of_groups = self._take_options(options)
        self.metadata: dict[str, Any] = {}
        self._structure, groups = structure_of(params)
        self._defaults = checked_defaults({**defaults, **of_groups})
        self._resolved: dict[Any, Any] = {}
        self._apply, self._not_finite = self._kernels.Sweep.apply, self._kernels.Sweep.not_finite
        self.param_groups: list[dict[str, Any]] = []
        self._parameters = {}
        adopt([], [], extended(self, groups))

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a group of tables with hyper-parameters of its own, as torch's method of this name.

        The step counts of the new tables begin at 0, and so does their history under missed="replay". `opt.steps` goes
        on, so a schedule does too. `opt.param_groups` becomes a new list: the dicts so far, and the new one.

        Parameters
        ----------
        group : dict
            With the key "params", and hyper-parameters. Those left out have the constructor's values. The params have
            the form of the other groups: a mapping with new names, or an array or a sequence of arrays.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            If a table or a hyper-parameter is not as `Optimizer` says, a table overlaps another, or a name exists. Also
            if the optimizer was made for one array, or another call is at work. The optimizer is then as before.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> opt = so.SGD({"users": so.zeros((2, 1))}, lr=1.0)
        >>> opt.add_param_group({"params": {"items": so.zeros((3, 1))}, "lr": 0.5})
        >>> opt.step({"items": so.RowGradient([2], [[1.0]])})
        >>> opt.params["items"].T, [group["lr"] for group in opt.param_groups]
        (array([[ 0. ,  0. , -0.5]], dtype=float32), [1.0, 0.5])
        """
        self._counts.alone(self._add_param_group, group)

    def _add_param_group(self, group):
        self._check_kept()
        params, hyper = group_parts("group", group)
        tables = self._structure.added(params, self._parameters)
        adopt([], [], extended(self, [(tables, hyper)]))

    def step(self, grads: Gradients) -> None:
        """Update the tables in place by one step, only in the rows that the gradients touch.

        A signal, KeyboardInterrupt included, finds all tables of the call stepped, or none.

        Parameters
        ----------
        grads : gradient, mapping or sequence
            One gradient, a mapping from names to gradients, or a sequence of gradients, as the parameters came. A table
            with None, or whose name is left out, is not touched. A gradient is a `RowGradient`, a `MatmulGradient`, a
            scipy sparse array of the table's shape, or a dense NumPy array. A dense one touches all rows.

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            If a gradient does not fit its table, has a NaN or an infinity under nonfinite="raise", or a table has moved
            in memory since construction. Nothing has been written then: tables and state are as before.
        RuntimeError
            If another call is at work in this optimizer. Nothing has been written by this one.
        """
        self._counts.alone(self._step, grads)

    def _step(self, grads):
        updates, left_out = self._prepared(grads)
        if self._max_grad_norm is not None:
            self._clip(updates, sum(update.square_sum() for update in updates))
        self._apply(updates, self._counts, left_out)

    def _prepared(self, grads):
        """Return the updates of a step, checked, and how many rows were left out."""
        threads = _config.threads_for(self._num_threads)
        work, updates, left_out = [], [], 0
        for parameter, gradient in self._structure.pairs(grads, self._parameters, "grads", "gradients"):
            if gradient is not None:
                numbers, past = settings(self, parameter)
                work.append((parameter, gradient, numbers, past))
        for parameter, gradient, numbers, past in work:
            update = parameter.sweep.prepare(parameter.plan(gradient, self._written, threads), threads, numbers)
            if past is not None:
                parameter.prepare_past(update, **past)
            updates.append(update)
        if self._nonfinite != "allow":
            for i in self._not_finite(updates):
                left_out += work[i][0].leave_out(updates[i], self._nonfinite)
        return updates, left_out

    def _clip(self, updates, square_sum):
        norm = math.sqrt(square_sum)
        if self._nonfinite != "allow" and not math.isfinite(norm):
            raise ValueError("the global norm of the gradients overflows; max_grad_norm cannot scale them")
        clip = self._max_grad_norm / (norm + 1e-6)
        if not clip > 1:                        # a norm of NaN, where it is allowed, makes NaN of all, as in torch
            for update in updates:
                update.scale(clip)

    def check(self, grads: Gradients) -> dict[str | int, Gradient]:
        """Raise the error that `step` would raise for what is wrong with a gradient, and write nothing.

        Code that collects gradients can refuse a wrong one at once. Form, shapes and row numbers are checked. Under
        nonfinite="raise", a NaN or an infinity raises too. Under "skip" and "allow" a step raises for neither, so this
        does not look for them. Nor does this look at tables, or at the global norm that max_grad_norm needs.

        Parameters
        ----------
        grads : gradient, mapping or sequence
            As in `step`.

        Returns
        -------
        dict
            From the names in `opt.params` to the gradients as they came, without those that are None.

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            As `step`, for what is wrong with a gradient.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> opt = so.SGD(so.zeros((3, 2)), lr=1.0)
        >>> opt.check(so.RowGradient([3], np.ones((1, 2))))
        Traceback (most recent call last):
            ...
        IndexError: gradient has row 3 at position 0; the table has 3 rows
        """
        threads = _config.threads_for(self._num_threads)
        pairs = self._structure.pairs(grads, self._parameters, "grads", "gradients")
        pairs = [pair for pair in pairs if pair[1] is not None]
        plans = [parameter.plan(gradient, (), threads) for parameter, gradient in pairs]
        if self._nonfinite == "raise":
            for (parameter, _), plan in zip(pairs, plans, strict=True):
                parameter.check_finite(plan, threads)
        return {parameter.name: gradient for parameter, gradient in pairs}

    def catch_up(self, rows: Rows | None = None) -> None:
        """Bring rows up to the last step, under missed="replay", before they are read. A step does so by itself.

        Parameters
        ----------
        rows : None, array of integers, mapping or sequence
            Row numbers in any shape, repeats allowed. Several tables take a mapping or a sequence of them, as the
            parameters came; a name left out is not touched. None is all rows, of a table or of all tables.

        Raises
        ------
        RuntimeError
            Under missed="skip", where no row is ever behind; and as `step`.
        TypeError, ValueError, KeyError, IndexError
            If the rows are not those of the tables. Nothing has been written then.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> table = so.zeros((4, 2))
        >>> opt = so.SGD(table, lr=0.5, momentum=0.5, missed="replay")
        >>> opt.step(so.RowGradient([2], np.ones((1, 2))))
        >>> opt.step(so.RowGradient([3], np.ones((1, 2))))
        >>> table[2], opt.stale()                               # row 2 has missed a step
        (array([-0.5, -0.5], dtype=float32), array([2, 2, 1, 0]))
        >>> opt.catch_up()
        >>> table[2], opt.stale()                               # in which its momentum has moved it on
        (array([-0.75, -0.75], dtype=float32), array([0, 0, 0, 0]))
        """
        self._check_replays("catch_up")
        self._counts.alone(self._catch_up, rows)

    def _catch_up(self, rows):
        threads = _config.threads_for(self._num_threads)
        self._apply([parameter.sweep.prepare_catching_up(parameter.plan_of_rows(numbers, threads), threads)
                     for parameter, numbers in self._rows_of(rows)])

    def stale(self, rows: Rows | None = None) -> Any:
        """Return how many steps each row is behind, under missed="replay".

        Parameters
        ----------
        rows : None, array of integers, mapping or sequence
            As in `catch_up`.

        Returns
        -------
        array of integers, or in the shape of several parameters, a dict or list of them
            One number a row, flat whatever the shape of `rows`. Before a table's first step no row of it is behind.

        Raises
        ------
        RuntimeError, TypeError, ValueError, KeyError, IndexError
            As `catch_up`.
        """
        self._check_replays("stale")
        behind = {parameter.name: parameter.behind(numbers) for parameter, numbers in self._rows_of(rows)}
        return self._structure.formed(behind, self._parameters)

    def _check_replays(self, what):
        if self._missed != "replay":
            raise RuntimeError(f'{what} needs missed="replay"; this optimizer has missed={shown(self._missed)}: no row '
                               "is behind")

    def _rows_of(self, rows):
        """Return pairs (parameter, row numbers or None for all)."""
        if rows is None:
            return [(parameter, None) for parameter in self._parameters.values()]
        return [(parameter, None if numbers is None else row_numbers(numbers, parameter.rows_of_it))
                for parameter, numbers in self._structure.pairs(rows, self._parameters, "rows", "row numbers")]

    def current_lr(self, group: int = 0) -> float:
        """Return the rate that the next step takes in a group: the number, or its schedule at step `opt.steps`.

        Parameters
        ----------
        group : int
            Its position in `opt.param_groups`.

        Examples
        --------
        >>> import sparseopt as so
        >>> opt = so.SGD(so.zeros((3, 2)), lr=so.schedules.Linear(1.0, end=0.0, steps=4))
        >>> opt.step(so.RowGradient([1], [[1.0, 1.0]]))
        >>> opt.current_lr()
        0.75
        """
        if isinstance(group, bool) or not isinstance(group, Integral) or not 0 <= group < len(self.param_groups):
            raise IndexError(f"group is {shown(group)}; it must be from 0 to {len(self.param_groups) - 1}")
        return rate_of(self, self.param_groups[group])

    @property
    def params(self) -> Mapping[str | int, Floats]:
        return MappingProxyType({name: parameter.table for name, parameter in self._parameters.items()})

    @property
    def state(self) -> Mapping[str | int, Mapping[str, Array]]:
        return MappingProxyType({name: MappingProxyType(one.state) for name, one in self._parameters.items()})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_defaults", ()):
            raise AttributeError(f"{name} is a hyper-parameter: set opt.param_groups[0][{name!r}]")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        usual = _options.DEFAULTS
        tables = ", ".join(f"{p.title + ' ' if p.title else ''}{p.shape} {p.dtype}" for p in self._parameters.values())
        hyper = [", ".join(f"{name}={shown(value)}" for name, value in group.items()
                           if name != "params" and not (name in _options.BY_GROUP and value == usual[name]))
                 for group in self.param_groups]
        options = ", ".join(f"{name}={shown(getattr(self, name))}" for name in _options.CHECKS
                            if getattr(self, name) != usual[name])
        return f"{type(self).__name__}({'; '.join(filter(None, [tables, *hyper, options]))})"


spell_out(Optimizer.__init__)
