"""What all optimizers share: parameters, state, the way of a step. No maths, and no loop over rows, is in here."""

import copy
import itertools
import math
import operator
import warnings
from collections.abc import Mapping
from numbers import Integral
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from .. import _config, _kernels, _memory, gradients
from .._checks import not_negative, one_of, positive
from .._kernels import rowplan
from .._kernels.atomic import Counts, adopt
from .._kernels.replay import History, plan_of
from .._text import escaped, listed, shown
from ._hyper import CHECKS, or_none


class Rule(NamedTuple):
    """What an optimizer asks of the kernels for one group of parameters."""

    name: str                           # the row function in _kernels/rules/registry.pxi
    state: tuple[str, ...] = ()         # arrays in the table's shape, in the order in which the row function takes them,
    row_state: tuple[str, ...] = ()     # followed by arrays of one number a row
    table_state: tuple[str, ...] = ()   # float64 numbers of the whole table, which `_with_table_state` reads
    counted: bool = False               # whether the update depends on how many steps were taken


class Missed(NamedTuple):
    """What steps without a gradient do to a row, as missed="replay" asks for it of the kernels: see _kernels/replay.pyx."""

    rule: str | None = None             # the row function for all missed steps together; None: nothing moves
    size: int = 0                       # of the matrix that each step multiplies what is linear in it by
    powers: tuple[float, ...] = ()      # the numbers whose powers it takes
    betas: tuple[float, float, bool] | None = None      # Adam's β1 and β2, and whether v is the largest so far,
    eps: float = 0.0                                    # and its ε
    fixed: tuple[float, ...] = ()       # what else it reads

    @property
    def moves(self):
        """Whether a step without a gradient moves weights."""
        return bool(self.size or self.betas)


class _Parameter:
    """One table: its name, its group, its state, and the sweep bound to them."""

    def __init__(self, name, title, table, group_index):
        self.name = name
        self.title = title              # as error messages call it, and its gradient
        self.what = f"gradient of {title}" if title else "gradient"
        self.rows_of_it = f"rows of {title}" if title else "rows"
        self.table = table
        self.shape, self.dtype = table.shape, table.dtype       # as they were, should anyone assign to the table's
        self.group_index = group_index
        self.dim = table.shape[1] if table.ndim == 2 else 1

    def bind(self, rule, group, step_count, missed=None):
        self.rule = rule
        self.made_for = dict(group)
        shape, dtype = self.table.shape, self.table.dtype
        self.state = {}
        if missed is not None:          # the step that a row was last brought up to
            self.state["step"] = _memory.aligned(shape[:1], np.int32)
        elif rule.counted:
            self.state["step"] = _memory.aligned(shape[:1] if step_count == "row" else (), np.int32)
        self.state |= {name: _memory.aligned(shape, dtype, place=place) for place, name in enumerate(rule.state, start=1)}
        self.state |= {name: _memory.aligned(shape[:1], dtype) for name in rule.row_state}
        self.state |= {name: _memory.aligned((), np.float64) for name in rule.table_state}
        arrays = [self.state[name] for name in rule.state + rule.row_state]
        self.sweep = _kernels.Sweep(rule.name, self.table, arrays, self.state.get("step"), missed and missed.rule,
                                   by_elements=not rule.row_state, title=self.title or "the optimizer")
        if missed is not None:
            self.sweep.history, self.sweep.missed = self.new_history(missed, 0), missed

    def new_history(self, missed, start):
        """Of steps that rows may miss from now on: all rows stand at the step `start`."""
        dtype = self.dtype
        plan = plan_of(*missed.betas, dtype) if missed.betas else None
        return History(start, missed.size, missed.powers, plan, missed.eps, dtype)

    @property
    def count(self):
        """Of its steps; no row has taken more."""
        return self.sweep.count

    @property
    def nbytes(self):
        return self.table.nbytes + sum(array.nbytes for array in self.state.values())


_LONG = 1 << 16                 # steps that a history always has room for
_LARGEST_COUNT = np.iinfo(np.int32).max
# Hyper-parameters of all optimizers.
_COMMON = {"maximize": False, "clip_value": None, "max_row_norm": None, "max_norm": None}
_UNCOUNTED = "params", "lr", "eps", "weight_decay", *_COMMON        # hyper-parameters that no count table depends on
_LIMITS = "clip_value", "max_row_norm", "max_norm"
_NOT_NEGATIVE = {"exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "acc_delta", "sum", "n"}      # state, if all is well


class _CountTable:
    """What depends on the step count alone, a row a count, from 1 on; it stops growing where it has converged."""

    def __init__(self, group, dtype):
        self.group = {name: value for name, value in group.items() if name not in _UNCOUNTED}
        self.dtype = dtype
        # Rows in the table's dtype and in float64, and whether more are all the same: one attribute, which no signal tears.
        self.table = np.empty((0, 0), dtype), np.empty((0, 0)), False

    def upto(self, count, by_count):
        """The table with rows for counts from 1 on; `by_count` goes from a group and counts to an array (counts, columns)."""
        rows, _, converged = self.table
        while len(rows) < count and not converged:
            size = max(64, 2 * len(rows))
            exact = np.ascontiguousarray(by_count(self.group, np.arange(1, size + 1, dtype=np.float64)))
            if not (np.abs(exact) <= np.finfo(self.dtype).max).all():
                _raise_overflow(self.group, self.dtype)
            if np.array_equal(exact[size // 2 - 1], exact[-1]):
                converged = True
                moving = np.flatnonzero((exact != exact[-1]).any(axis=1))
                exact = exact[:moving[-1] + 2 if len(moving) else 1]
            rows = exact.astype(self.dtype)
            self.table = rows, exact, converged         # by steps of 2: a late count finds out early what has converged
        return self.table


_OPTIONS = {
    "step_count": lambda name, value: one_of(name, value, "row", "global"),
    "missed": lambda name, value: one_of(name, value, "skip", "replay"),
    "nonfinite": lambda name, value: one_of(name, value, "raise", "skip", "allow"),
    "max_grad_norm": or_none(positive),
    "num_threads": or_none(_config.check_num_threads),
}


_OPTION_DEFAULTS = {"step_count": "row", "missed": "skip", "nonfinite": "raise", "max_grad_norm": None, "num_threads": None}


def _option(name, fixed=False):
    """A keyword of an optimizer that can be read, and unless it is fixed by construction, set."""
    hidden = f"_{name}"

    def set_(self, value):
        if fixed and hasattr(self, hidden):
            raise AttributeError(f"{name} cannot change after construction; it is {shown(getattr(self, hidden))}")
        setattr(self, hidden, _OPTIONS[name](name, value))

    return property(operator.attrgetter(hidden), set_)


class Optimizer:
    """Base of all optimizers: updates tables in place, only in the rows that a gradient touches.

    A row is touched by a gradient that has a stored entry in it, an explicit zero included. Other rows keep their bits, and
    so does their state; under missed="replay" until `catch_up` or a later touch brings them up.

    Parameters
    ----------
    params : array, mapping, sequence, or list of dicts
        The tables: C-contiguous, writeable NumPy arrays of float32 or float64 with shape (n_rows, dim), or (n_rows,) for
        dim 1. One array, a mapping from names to arrays, or a sequence of arrays; or a list of groups
        `{"params": any of these, "lr": ..., ...}`, each with hyper-parameters of its own.
    lr : float or callable
        The learning rate, 0 or more, or a schedule: a callable from the number of steps taken before (0 at the first) to
        the rate. See `sparseopt.schedules`.
    weight_decay : float
        λ. Added to the gradient of touched rows as `λ w` (coupled), unless the optimizer says that it is decoupled.
    maximize : bool
        Ascend instead of descend.
    clip_value : None or float
        Bound on the size of each number of a gradient, after repeats are summed; as torch.nn.utils.clip_grad_value_.
    max_row_norm : None or float
        Scale the gradient of each touched row down to this 2-norm, after clip_value.
    max_norm : None or float
        Scale each updated row of the table down to this 2-norm, as torch.nn.Embedding does before each look-up. Not under
        missed="replay" where missed steps move weights.
    step_count : "row" or "global"
        The step count that bias correction uses: how many steps this row has taken, or how many its table has. Under
        missed="replay" every row takes every step, so both are one.
    missed : "skip" or "replay"
        What happened to a row in the steps that did not touch it: nothing, or exactly what the dense optimizer does with a
        gradient of zeros. Under "replay" a row is brought up when a step touches it; `catch_up` brings up those about to be
        read. What has no closed form raises.
    max_grad_norm : None or float
        Scale the gradients of a call down to this global 2-norm. The norm is taken over all tables of the call, after repeats
        are summed and after clip_value and max_row_norm.
    nonfinite : "raise", "skip" or "allow"
        A NaN or an infinity in a gradient: raise before anything is written; leave those rows out, with a RuntimeWarning
        that says how many (`nonfinite_rows` adds them up); or do not look.
    num_threads : None or int
        None is `so.get_num_threads()`. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If a table or a hyper-parameter is not as said above, or two tables overlap.

    Attributes
    ----------
    param_groups : list of dict
        The groups with their hyper-parameters, read at every step: `opt.param_groups[0]["lr"] *= 0.98` works.
    state : mapping
        From the name of a parameter (its position, if it has none) to its state arrays, under torch's names. `step` counts
        the steps of each row (int32); optimizers that need no count keep none. The arrays may be written to, to reset a
        row for instance; state and counts of another run are handed in by `take_over`. Under missed="replay" `step` is the
        step that a row was last brought up to: to reset a row, catch it up and clear the rest of its state, not its step.
    params : mapping
        From names to tables.
    steps : int
        The number of steps taken.
    nonfinite_rows : int
        The number of rows left out under nonfinite="skip" so far.
    metadata : dict
        Anything that JSON can hold and that should travel with a checkpoint.
    """

    _floored: tuple[str, ...] = ("eps",)     # hyper-parameters for which 0 means "nothing, and 0/0 is 0"
    _adds_decay = False                      # whether the rule itself adds λ w to the gradient
    _linear = False                          # whether w and its state are linear in a gradient that is linear in w
    _starting: tuple[str, ...] = ()          # hyper-parameters that only the first state depends on

    def __init__(self, params, defaults, *, maximize=False, clip_value=None, max_row_norm=None, max_norm=None,
                 step_count="row", missed="skip", max_grad_norm=None, nonfinite="raise", num_threads=None):
        self._counts = Counts()
        self.step_count = step_count
        self.missed = missed
        self.nonfinite = nonfinite
        self.max_grad_norm = max_grad_norm
        self.num_threads = num_threads
        self.metadata = {}

        self._structure, groups = _named_groups(params)
        self._defaults = defaults = {**defaults, "maximize": maximize, "clip_value": clip_value, "max_row_norm": max_row_norm,
                                     "max_norm": max_norm}
        self.param_groups = []
        self._parameters = []
        for index, (tables, given) in enumerate(groups):
            group = {"params": MappingProxyType(tables), **defaults, **given}
            self._check_group(group)
            self.param_groups.append(group)
            for name, table in tables.items():
                title = f'"{escaped(name, 80)}"' if self._structure == "mapping" else f"parameter {name}"
                title = "" if self._structure == "single" else title
                _check_table(table, title)
                self._parameters.append(_Parameter(name, title, table, index))
        _check_apart(self._parameters)
        for parameter in self._parameters:
            group = self.param_groups[parameter.group_index]
            parameter.bind(self._rule(group), group, step_count, self._replayed(group) if missed == "replay" else None)
            self._init_state(group, parameter.table, parameter.state)
        self._group_params = [id(group["params"]) for group in self.param_groups]
        self._by_name = {parameter.name: parameter for parameter in self._parameters}
        self._resolved = {}
        self._apply, self._not_finite = _kernels.Sweep.apply, _kernels.Sweep.not_finite
        self._written = tuple(a for p in self._parameters for a in (p.table, *p.state.values()))

    step_count = _option("step_count", fixed=True)
    missed = _option("missed", fixed=True)
    nonfinite = _option("nonfinite")
    max_grad_norm = _option("max_grad_norm")
    num_threads = _option("num_threads")
    steps = property(operator.attrgetter("_counts.steps"))
    nonfinite_rows = property(operator.attrgetter("_counts.nonfinite_rows"))

    # What a subclass says of itself.

    def _rule(self, group):
        """Return the Rule for the parameters of a group."""
        raise NotImplementedError

    def _hyper(self, group, lr):
        """Return the numbers that the row function takes, in its order."""
        raise NotImplementedError

    def _by_count(self, group, k):
        """Return the numbers that depend on the step counts k alone, an array (len(k), columns) of float64."""
        return np.ones((len(k), 1))

    def _count_slope(self, group):
        """Return the d of a rule whose one number by count is 1 + (k - 1) d, in place of `_by_count`; or 0."""
        return 0.0

    def _with_table_state(self, at, state):
        """Return the numbers of one step for a rule with state of the whole table, and that state's values after the step."""
        raise NotImplementedError

    def _state_after(self, group, k):
        """Return what of the state step counts k alone determine, by name; for runs that are taken over without it."""
        return {}

    def _init_state(self, group, table, state):
        """Give the state its first values; it comes as zeros."""

    def _coupled_decay(self, group):
        """Return the λ of the `λ w` that is added to gradients."""
        return 0.0 if self._adds_decay else group["weight_decay"]

    def _check_more(self, group, lr):
        """Raise if hyper-parameters, each all right alone, are wrong together."""

    def _missed_steps(self, group):
        """Return the Missed of a group; raise ValueError where missed steps cannot be done at once."""
        raise ValueError(f'missed is "replay"; what missed steps come to is not known of {type(self).__name__}, so it must be '
                         '"skip"')

    def _missed_step(self, group, lr, k, at):
        """Return what step k leaves to the rows that miss it: arguments of History.append. `at` is k's row of `_by_count`."""
        return {}

    # The way of a step.

    def step(self, grads):
        """Update the tables in place by one step, only in the rows that the gradients touch.

        Parameters
        ----------
        grads : gradient, mapping or sequence
            In the shape of the parameters: one gradient, a mapping from names to gradients (a name left out, or with None,
            is not touched), or a sequence of gradients (None skips). A gradient is a scipy sparse array or matrix of the
            table's shape, a `RowGradient`, a `MatmulGradient`, or a dense NumPy array (which touches all rows).

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            If a gradient does not fit its table, has a NaN or an infinity under nonfinite="raise", or a table has moved in
            memory since construction. Nothing has been written then: tables and state are as before.
        RuntimeError
            If another call is at work in this optimizer. Nothing has been written by this one.

        A signal, KeyboardInterrupt included, finds all tables of the call stepped, or none.
        """
        # Whatever can fail and whatever is the user's code comes first. Row numbers are read after the schedules have run,
        # into memory of our own. `apply` then writes, without any Python in between.
        with self._counts:
            threads = _config.threads_for(self._num_threads)
            work, updates, left_out = [], [], 0
            for parameter, gradient in self._pairs(grads):
                if gradient is not None:
                    numbers, past = self._settings(parameter)
                    work.append((parameter, gradient, numbers, past))
            for parameter, gradient, numbers, past in work:
                update = parameter.sweep.prepare(self._plan(parameter, gradient, threads), threads, numbers)
                if past is not None:
                    self._prepare_past(parameter, update, **past)
                updates.append(update)
            if self._nonfinite != "allow":
                for i in self._not_finite(updates):
                    left_out += self._leave_out(work[i][0], updates[i])
            if self._max_grad_norm is not None:
                self._clip(updates)
            self._apply(updates, self._counts, left_out)

    def _prepare_past(self, parameter, update, state=MappingProxyType({}), missed=None, term=None):
        """What a step leaves behind beside the rows that it updates."""
        for name, value in state.items():
            update.set_number(parameter.state[name], value)
        if missed is not None:
            update.replay(self._continued(parameter, missed, update), **term)

    def catch_up(self, rows=None):
        """Bring rows up to the last step, under missed="replay": do it with those that are about to be read.

        Idempotent; costs what it touches. A step brings up the rows of its gradient by itself.

        Parameters
        ----------
        rows : None, array of integers, mapping or sequence
            Row numbers in any shape, repeats allowed; for several parameters in their shape: a mapping from names (one left
            out is not touched) or a sequence. None is all rows, of a table or of all tables.

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
        with self._counts:
            threads = _config.threads_for(self._num_threads)
            self._apply([parameter.sweep.prepare_catching_up(self._row_plan(parameter, numbers, threads), threads)
                         for parameter, numbers in self._rows_of(rows)])

    def stale(self, rows=None):
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
        behind = {}
        for parameter, numbers in self._rows_of(rows):
            parameter.sweep.check_in_place()
            if numbers is not None:
                self._row_plan(parameter, numbers)          # checks them
            steps = parameter.state["step"] if numbers is None else parameter.state["step"][numbers]
            behind[parameter.name] = parameter.count - steps.astype(np.int64)
        if self._structure == "single":
            return behind[0]
        return behind if self._structure == "mapping" else list(behind.values())

    def _check_replays(self, what):
        if self._missed != "replay":
            raise RuntimeError(f'{what} is of missed="replay"; this optimizer has missed={shown(self._missed)}: '
                               "no row is behind")

    def _rows_of(self, rows):
        """Pairs (parameter, row numbers or None for all)."""
        if rows is None:
            return [(parameter, None) for parameter in self._parameters]
        return [(parameter, None if numbers is None else gradients.row_numbers(numbers, parameter.rows_of_it))
                for parameter, numbers in self._pairs(rows, "rows", "row numbers")]

    def _row_plan(self, parameter, rows, threads=1):
        what = parameter.rows_of_it
        n = len(rows) if rows is not None else parameter.shape[0]
        nothing = np.empty((n, 0), parameter.dtype)
        return rowplan.plan(what, parameter.shape[0], parameter.dim, rows, nothing, rising=parameter.sweep.rising,
                            num_threads=threads)

    def _replayed(self, group):
        """The Missed of a group, once it is sure that there is one."""
        if (self._adds_decay and group["weight_decay"]) or (self._coupled_decay(group) and not self._linear):
            decay = group["weight_decay"]
            raise ValueError(f'weight_decay is {decay} with missed="replay"; {type(self).__name__} would have to take '
                             "missed steps one by one, for the gradient λ w never vanishes. Decoupled decay (AdamW, Lion, "
                             "NAdam with decoupled_weight_decay) and SGD's can be replayed; missed=\"skip\" takes any")
        missed = self._missed_steps(group)
        if group["max_norm"] is not None and missed.moves:
            raise ValueError(f'max_norm is {group["max_norm"]} with missed="replay"; missed steps of {type(self).__name__} '
                             "move weights, and the norm after each of them has no closed form. missed=\"skip\" takes max_norm")
        for dtype in {table.dtype for table in group["params"].values()} if missed.betas else ():
            try:
                plan_of(*missed.betas, dtype)
            except ValueError as error:
                raise ValueError(f'{error}; missed="skip" takes them') from None
        return missed

    def _continued(self, parameter, missed, update):
        """The history that takes one step more: a new one, where the one so far is too long or cannot express what comes.

        `update` then first brings all rows up to the end of the one so far.
        """
        sweep, history = parameter.sweep, parameter.sweep.history
        if history.now >= _LARGEST_COUNT - 1:
            raise OverflowError(f"{parameter.title or 'the table'} has taken {history.now} steps; replay counts no further")
        long = history.now - history.start >= _LONG and 16 * history.nbytes > parameter.nbytes
        if long or missed != sweep.missed:
            history = parameter.new_history(missed, sweep.count)
            update.begin(self._row_plan(parameter, None), history, missed)
        return history

    def _pairs(self, given, name="grads", kind="gradients"):
        """Pairs (parameter, what is given for it)."""
        if self._structure == "single":
            if given is None:
                raise TypeError(f"{name} is None; there is one table, so it must be a gradient")
            return [(self._parameters[0], given)]
        if self._structure == "mapping":
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} is a {type(given).__name__}; the parameters are a mapping, so it must be one, with "
                                f"names among {listed(self._by_name)}")
            pairs, parameters = [], dict(self._by_name)
            for key, one in given.items():
                parameter = parameters.pop(key, None)
                if parameter is None:
                    if key in self._by_name:
                        raise ValueError(f"{name} names {shown(key)} twice; a mapping gives each name once")
                    raise KeyError(f"{name} names {shown(key)}; the parameters are {listed(self._by_name)}")
                pairs.append((parameter, one))
            return pairs
        if not isinstance(given, (list, tuple)):
            raise TypeError(f"{name} is a {type(given).__name__}; the parameters are a sequence, so it must be a list or "
                            f"tuple of {len(self._parameters)} {kind}")
        if len(given) != len(self._parameters):
            raise ValueError(f"{name} has {len(given)} {kind}; there are {len(self._parameters)} parameters"
                             + (" (None skips one)" if kind == "gradients" else ""))
        return list(zip(self._parameters, given, strict=True))

    def _plan(self, parameter, gradient, threads=1):
        what, shape, sweep = parameter.what, parameter.shape, parameter.sweep
        form = gradients.entries(gradient, shape, parameter.dtype, what)
        plan = rowplan.plan(what, shape[0], parameter.dim, *form, rising=sweep.rising, num_threads=threads)
        if rowplan.overlap((form.values, form.weights), self._written):         # all else a plan copies
            plan = rowplan.plan(what, shape[0], parameter.dim, *gradients.detached(form), rising=sweep.rising,
                                num_threads=threads)
        return plan

    def _settings(self, parameter):
        """The numbers of a parameter's group as `Sweep.prepare` takes them, and what `_prepare_past` takes or None.

        Worked out again only where they changed.
        """
        group, dtype = self.param_groups[parameter.group_index], parameter.dtype
        key = parameter.group_index, dtype
        rate = group["lr"]
        if callable(rate):                  # first, for it may change what else is in the group
            rate = self._rate(group)
        seen, by_count, hyper, lr, limits, missed = self._resolved.get(key, (None,) * 6)
        if seen is None or _differ(group, seen):
            self._check_group(group)
            self._check_state_fits(group, parameter.made_for)
            if seen is None or any(group[name] != seen[name] for name in group if name not in _UNCOUNTED):
                by_count = _CountTable(group, dtype)
            missed = self._replayed(group) if self._missed == "replay" else None
            sign = -1.0 if group["maximize"] else 1.0
            bounds = [math.inf if group[name] is None else group[name] for name in _LIMITS]
            slope = self._count_slope(group)
            limits = sign, self._coupled_decay(group), *([] if bounds == [math.inf] * 3 and not slope else [*bounds, slope])
            seen, hyper = dict(group), None
            self._resolved[key] = seen, by_count, hyper, lr, limits, missed
        if hyper is None or rate != lr:
            self._check_more(group, rate)
            lr, hyper = rate, self._hyper_of(group, dtype, rate)
            self._resolved[key] = seen, by_count, hyper, lr, limits, missed
        count = parameter.sweep.count + 1 if parameter.rule.counted else 1
        rows, exact, converged = by_count.table
        if len(rows) < count and not converged:
            rows, exact, _ = by_count.upto(count, self._by_count)
        if missed is None and not parameter.rule.table_state:
            return (hyper, rows, count) + limits, None         # noqa: RUF005 (faster than to unpack)
        at, past = exact[min(count, len(rows)) - 1], {}
        if parameter.rule.table_state:
            at, past["state"] = self._with_table_state(at, parameter.state)
            rows = at.astype(dtype)[None]
        if missed is not None:
            past["missed"], count = missed, parameter.sweep.count + 1
            past["term"] = {"rate": lr, **self._missed_step(group, lr, count, at)}
        return (hyper, rows, count, *limits), past

    def _hyper_of(self, group, dtype, lr):
        tiny = float(np.finfo(dtype).tiny)
        floored = {**group, **{name: max(group[name], tiny) for name in self._floored if name in group}}
        return _as_dtype((*self._hyper(floored, lr), group["weight_decay"]), dtype, {**group, "lr": lr})[:-1]

    def _finite(self, parameter, plan, threads):
        """The plan itself if its gradient is finite, else less the rows that are not; or raise."""
        if math.isfinite(parameter.sweep.largest(plan, threads)):
            return plan
        bad = parameter.sweep.nonfinite(plan)       # a bound that overflowed can still belong to finite numbers
        if not bad.any():
            return plan
        if self.nonfinite == "raise":
            first = int(bad.argmax())
            row = np.asarray(parameter.sweep.gradient(plan, first))
            column = int((~np.isfinite(row)).argmax())
            raise ValueError(f"{parameter.what} has {row[column]} at row {plan.rows[first]}, column {column}; it must be "
                             'finite (nonfinite="skip" leaves such rows out, "allow" does not look)')
        warnings.warn(f"{parameter.what}: {bad.sum()} of {plan.n} touched rows have a NaN or an infinity and were left out",
                      RuntimeWarning, stacklevel=4)
        return plan.without(bad)

    def _leave_out(self, parameter, update):
        """Take the rows that are not finite out of an update, and return how many; or raise."""
        plan = update.plan
        update.plan = self._finite(parameter, plan, 1)
        return plan.n - update.plan.n

    def _clip(self, updates):
        norm = math.sqrt(sum(update.square_sum() for update in updates))
        if self.nonfinite != "allow" and not math.isfinite(norm):
            raise ValueError("the global norm of the gradients overflows; max_grad_norm cannot scale them")
        clip = self.max_grad_norm / (norm + 1e-6)
        if not clip > 1:                        # a norm of NaN, where it is allowed, makes NaN of all, as in torch
            for update in updates:
                update.scale(clip)

    def _check_group(self, group):
        missing = [name for name in self._defaults if name not in group]
        if missing:
            raise KeyError(f"a group has no {shown(missing[0])}; a group has params, {', '.join(self._defaults)}")
        for name, value in group.items():
            if name == "params":
                continue
            if name not in self._defaults:
                raise TypeError(f"{type(self).__name__} has no hyper-parameter {shown(name)}; a group has params, "
                                f"{', '.join(self._defaults)}")
            group[name] = CHECKS[name](name, value)
        if not callable(group["lr"]):
            self._check_more(group, group["lr"])

    def _check_state_fits(self, group, made_for):
        """Raise if a hyper-parameter has changed that says which state there is, or how it starts."""
        for name, value in group.items():
            changed = value is not made_for[name] if name == "params" else name in self._starting and value != made_for[name]
            if changed or self._rule({**made_for, name: value}) != self._rule(made_for):
                raise ValueError(f"{name} has changed from {shown(made_for[name])} to {shown(value)}; the state was made "
                                 "for the former, so it cannot change after construction")

    # What can be read.

    @property
    def params(self):
        return MappingProxyType({parameter.name: parameter.table for parameter in self._parameters})

    @property
    def state(self):
        return MappingProxyType({p.name: MappingProxyType(p.state) for p in self._parameters})

    def __repr__(self):
        tables = ", ".join(f"{p.title + ' ' if p.title else ''}{p.shape} {p.dtype}" for p in self._parameters)
        hyper = [", ".join(f"{name}={shown(value)}" for name, value in group.items()
                           if name != "params" and not (name in _COMMON and value == _COMMON[name]))
                 for group in self.param_groups]
        options = [f"{name}={shown(getattr(self, name))}" for name, default in _OPTION_DEFAULTS.items()
                   if getattr(self, name) != default]
        return f"{type(self).__name__}({'; '.join([tables, *hyper, *([', '.join(options)] if options else [])])})"

    # Checkpoints.

    def state_dict(self):
        """Return all that a resumed run needs: parameters, state, hyper-parameters, counts and metadata.

        The arrays in it are the live ones, as in torch: `copy.deepcopy` keeps a moment. Under missed="replay" the history of
        the steps is in it too, and if hyper-parameters have changed that it is made for, all rows are caught up first.

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
        with self._counts:
            return self._state_dict()

    def _state_dict(self):
        kept = self._without_history()
        if self._missed == "replay":
            threads = _config.threads_for(self._num_threads)
            updates = []
            for parameter in self._parameters:
                update = parameter.sweep.prepare_nothing(threads)
                self._continued(parameter, self._replayed(self.param_groups[parameter.group_index]), update)
                updates.append(update)
            self._apply(updates)
            kept["history"] = {parameter.name: parameter.sweep.history.arrays() for parameter in self._parameters}
        return kept

    def _without_history(self):
        if [id(group.get("params")) for group in self.param_groups] != self._group_params:
            raise ValueError("param_groups has other groups or params than at construction; an optimizer keeps its tables, so "
                             "make a new one")
        for group in self.param_groups:
            self._check_group(group)
        for parameter in self._parameters:
            parameter.sweep.check_in_place()
        return {
            "optimizer": type(self).__name__,
            "params": dict(self.params),
            "state": {p.name: dict(p.state) for p in self._parameters},
            "param_groups": [{**group, "params": list(group["params"])} for group in self.param_groups],
            "options": {"step_count": self.step_count, "missed": self.missed, "max_grad_norm": self.max_grad_norm,
                        "nonfinite": self.nonfinite},
            "steps": self.steps,
            "nonfinite_rows": self.nonfinite_rows,
            "metadata": self.metadata,
        }

    def load_state_dict(self, state_dict):
        """Take over what `state_dict` returned: parameters and state in place, hyper-parameters, counts and metadata.

        Raises
        ------
        TypeError, KeyError, ValueError
            If it is of another optimizer, of other parameters, shapes or dtypes. Nothing has been written then.
        """
        with self._counts:
            self._load_state_dict(state_dict)

    def _load_state_dict(self, state_dict):
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is a {type(state_dict).__name__}; it must be a mapping, as state_dict() returns")
        ours = self._without_history()
        missing = [key for key in (*ours, *(["history"] if self._missed == "replay" else [])) if key not in state_dict]
        if missing:
            raise KeyError(f"state_dict has no {shown(missing[0])}")
        if state_dict["optimizer"] != ours["optimizer"]:
            raise ValueError(f"state_dict is of {state_dict['optimizer']}; this optimizer is {ours['optimizer']}")
        options = state_dict["options"]
        _same_names("options", options, ours["options"])
        for name in ("step_count", "missed"):
            if options[name] != ours["options"][name]:
                raise ValueError(f"state_dict has {name}={shown(options[name])}; this optimizer has "
                                 f"{shown(ours['options'][name])}")
        copies = _matched("params", state_dict["params"], ours["params"])
        _same_names("state", state_dict["state"], ours["state"])
        for name, state in ours["state"].items():
            copies += _matched(f"state of {shown(name)}", state_dict["state"][name], state)
            for key in state:
                _check_state(f"state_dict has, as state of {shown(name)},", key, np.asarray(state_dict["state"][name][key]))
        groups = self._matched_groups(state_dict["param_groups"])
        loaded = [(self, f"_{name}", _OPTIONS[name](name, options[name])) for name in ("max_grad_norm", "nonfinite")]
        loaded += [(self._counts, name, _count(name, state_dict[name])) for name in ("steps", "nonfinite_rows")]
        if not isinstance(state_dict["metadata"], Mapping):
            raise TypeError(f"metadata is {shown(state_dict['metadata'])}; it must be a mapping")
        histories = self._matched_histories(state_dict, groups) if self._missed == "replay" else {}

        changes = [(self, "metadata", dict(state_dict["metadata"])), *loaded]
        for parameter in self._parameters:
            changes.append((parameter, "made_for", groups[parameter.group_index]))
            changes += self._counted(parameter, state_dict["state"][parameter.name], histories.get(parameter.name))
        adopt(copies, list(zip(self.param_groups, groups, strict=True)), changes)

    def _counted(self, parameter, state, history):
        """What a table counts with this state, and the history that goes on from there: changes for `adopt`."""
        sweep = parameter.sweep
        if history is None:
            steps = int(np.max(state["step"], initial=0)) if parameter.rule.counted else 0
            return [(sweep, "count", steps)]
        history, missed, last_hyper = history
        return [(sweep, "count", history.now), (sweep, "history", history), (sweep, "missed", missed),
                (sweep, "last_hyper", last_hyper)]

    def take_over(self, name, *, step=None, **state):
        """Take over the state of a table from another run, of torch for instance. The next step uses that state.

        Write the weights into the table yourself: `table[...] = weights`. `opt.steps` stays as it is, so that a schedule goes
        on from there. State that is left out stays as it is, too.

        Parameters
        ----------
        name : str or int
            The parameter: its key in `opt.params`.
        step : None, int or array of integers, shape (n_rows,)
            How many steps every row has taken, or an array with the count of each row. Whole floats are taken, for torch counts
            in floats. Under step_count="global" and missed="replay" the count must be the same for all rows.
        **state : arrays
            State under the names of `opt.state[name]`, in its shapes. NAdam's `mu_product` is worked out from `step`, unless
            it is handed in.

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
        with self._counts:
            if name not in self._by_name:
                raise KeyError(f"name is {shown(name)}; the names in params are {listed(self._by_name)}"
                               + (" (a single table has the name 0)" if self._structure == "single" else ""))
            parameter = self._by_name[name]
            parameter.sweep.check_in_place()
            ours = parameter.state
            given = state if step is None else {**state, "step": step}
            for key in given:
                if key not in ours:
                    raise TypeError(f"{type(self).__name__} keeps no state {shown(key)}; its state is {listed(ours)}")
            taken = {key: _taken(key, value, ours[key]) for key, value in given.items()}
            if "step" in taken:
                group = self.param_groups[parameter.group_index]
                for key, value in self._state_after(group, taken["step"]).items():
                    value = value.max() if ours[key].ndim == 0 else value
                    taken.setdefault(key, _taken(key, value, ours[key]))
            changes = []
            if "step" in taken:
                history = None
                if self._missed == "replay":
                    first, last = taken["step"].min(initial=_LARGEST_COUNT), taken["step"].max(initial=0)
                    if first < last or last >= _LARGEST_COUNT - 1:
                        raise ValueError(f"step is from {first} to {last}; under missed=\"replay\" every row has taken every "
                                         f"step, so it must be one number below {_LARGEST_COUNT - 1}")
                    missed = self._replayed(self.param_groups[parameter.group_index])
                    history = parameter.new_history(missed, int(last)), missed, None
                changes = self._counted(parameter, taken, history)
            adopt([(ours[key], value) for key, value in taken.items()], [], changes)

    def current_lr(self, group=0):
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
        return self._rate(self.param_groups[group])

    def _rate(self, group):
        rate = group["lr"]
        if callable(rate):
            rate = not_negative(f"lr (of the schedule at step {self.steps})", rate(self.steps))
        return rate

    def __setattr__(self, name, value):
        if name in self.__dict__.get("_defaults", ()):
            raise AttributeError(f"{name} is a hyper-parameter: set opt.param_groups[0][{name!r}]")
        super().__setattr__(name, value)

    def __deepcopy__(self, memo):
        with self._counts:
            state = self._state_dict()
            for name, table in state["params"].items():
                state["params"][name] = copy.deepcopy(table, memo)
            return restored(type(self), state, self._structure, self._num_threads, dict(state["params"]))

    def __reduce__(self):
        return restored, (type(self), self.state_dict(), self._structure, self._num_threads)

    def _matched_histories(self, state_dict, groups):
        """From names to history, Missed, and the hyper-parameters that catching up reads."""
        _same_names("history", state_dict["history"], self.params)
        matched = {}
        for parameter in self._parameters:
            group = groups[parameter.group_index]
            missed = self._replayed(group)
            history = parameter.new_history(missed, 0)
            try:
                history.restore(state_dict["history"][parameter.name])
            except (KeyError, ValueError) as error:
                raise ValueError(f"state_dict has a history of {shown(parameter.name)} that is none of these hyper-parameters: "
                                 f"{error}") from error
            steps = np.asarray(state_dict["state"][parameter.name]["step"])
            if steps.max(initial=0) > history.now:
                raise ValueError(f"state_dict has steps of {shown(parameter.name)} up to {steps.max()}; its history ends at "
                                 f"{history.now}")
            matched[parameter.name] = history, missed, self._hyper_of(group, parameter.dtype, 1.0)
        return matched

    def _matched_groups(self, groups):
        if len(groups) != len(self.param_groups):
            raise ValueError(f"state_dict has {len(groups)} param_groups; this optimizer has {len(self.param_groups)}")
        loaded = []
        for ours, group in zip(self.param_groups, groups, strict=True):
            if list(group["params"]) != list(ours["params"]):
                raise ValueError(f"state_dict has a group of params {list(group['params'])}; this optimizer has "
                                 f"{list(ours['params'])}")
            group = {**ours, **group, "params": ours["params"]}
            self._check_group(group)
            if self._rule(group) != self._rule(ours):
                raise ValueError(f"state_dict is of rule {shown(self._rule(group).name)}; this optimizer has "
                                 f"{shown(self._rule(ours).name)}")
            loaded.append(group)
        return loaded


def _count(name, value):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is {shown(value)}; it must be an integer of at least 0")
    return int(value)


def _check_state(what, key, array):
    """Raise ValueError if a state has numbers that no run leaves."""
    if key == "step" and array.min(initial=0) < 0:
        raise ValueError(f"{what} {shown(key)} with {array.min()}; step counts must be 0 or more")
    if key == "mu_product" and not (array.min(initial=0) >= 0 and array.max(initial=0) <= 1):
        raise ValueError(f"{what} 'mu_product' from {array.min():g} to {array.max():g}; it must be from 0 to 1")
    if key in _NOT_NEGATIVE and array.min(initial=0) < 0:
        raise ValueError(f"{what} {shown(key)} with {array.min():g}; it must be 0 or more")


def _taken(key, value, ours):
    """What is handed in for a state, in its shape and dtype; or raise."""
    array = np.asarray(value)
    if key == "step" and array.dtype.kind == "f" and (array == np.floor(array)).all() and np.abs(array).max(initial=0) < 2**53:
        array = array.astype(np.int64)
    if array.dtype.kind not in ("iu" if key == "step" else "fiu"):
        raise TypeError(f"{key} has dtype {array.dtype}; it must be {'integers' if key == 'step' else 'numbers'}")
    if key == "step":
        if array.min(initial=0) < 0 or array.max(initial=0) > _LARGEST_COUNT:
            wrong = array.min() if array.min() < 0 else array.max()
            raise ValueError(f"step has {wrong}; it must be from 0 to {_LARGEST_COUNT}")
        if ours.ndim == 0 and array.ndim:
            if array.size == 0 or (array != array.flat[0]).any():
                raise ValueError("step has more than one number; with step_count=\"global\" it must be one")
            array = array.flat[0]
        elif array.ndim == 0:
            array = np.broadcast_to(array, ours.shape)
    if np.shape(array) != ours.shape:
        raise ValueError(f"{key} has shape {np.shape(array)}; the state has shape {ours.shape}")
    with np.errstate(over="ignore"):
        taken = np.array(array, dtype=ours.dtype, order="C")
    if not np.isfinite(taken).all():
        raise ValueError(f"{key} has a NaN or an infinity in {ours.dtype}; it must be finite")
    _check_state("state has", key, taken)
    return taken


def alike(cls, state, structure, num_threads=None, tables=None):
    """A new optimizer of the kind, shapes and settings of a state_dict; its numbers are still to be loaded.

    Its tables are new, unless `tables` has them by name.
    """
    if tables is None:
        tables = {name: _memory.zeros(table.shape, table.dtype) for name, table in state["params"].items()}
    groups = []
    for group in state["param_groups"]:
        named = {name: tables[name] for name in group["params"]}
        groups.append({**group, "params": named if structure == "mapping" else list(named.values())})
    options = {**state["options"], "num_threads": num_threads}
    if structure == "single":
        (table,) = groups[0].pop("params")
        return cls(table, **groups[0], **options)
    return cls(groups, **options)


def restored(cls, state, structure, num_threads=None, tables=None):
    """The same, with its numbers."""
    optimizer = alike(cls, state, structure, num_threads, tables)
    optimizer.load_state_dict(state)
    return optimizer


def _differ(group, other):
    try:
        return group != other
    except ValueError:          # an array among the values: the check says what is wrong with it
        return True


def _as_dtype(hyper, dtype, group):
    """Hyper-parameters as the kernels take them; or raise if one is finite as given but not in the table's dtype."""
    with np.errstate(over="ignore"):
        numbers = np.array(hyper, dtype=dtype)
        if not np.isfinite(numbers).all():
            _raise_overflow(group, dtype)
    return numbers


def _raise_overflow(group, dtype):
    largest = float(np.finfo(dtype).max)
    numbers = {name: value for name, value in group.items() if isinstance(value, float)}
    for name, value in numbers.items():
        if abs(value) > largest:
            raise ValueError(f"{name} is {shown(value)}; it must be finite in the table's dtype, {dtype}")
    raise ValueError(f"hyper-parameters {numbers} lead to numbers that are not finite in the table's dtype, {dtype}")


def _named_groups(params):
    """Return ("single", "mapping" or "sequence", [(name -> table, hyper-parameters)])."""
    if isinstance(params, Mapping):
        return "mapping", [(_mapped(params), {})]
    if isinstance(params, np.ndarray):
        return "single", [({0: params}, {})]
    if not isinstance(params, (list, tuple)):
        raise TypeError(f"params is a {type(params).__name__}; it must be an array, a mapping, a sequence of arrays or a list "
                        "of groups")
    if not params:
        raise ValueError("params is empty; there must be at least one table")
    if not any(isinstance(item, Mapping) for item in params):
        return "sequence", [(dict(enumerate(params)), {})]
    groups, names = [], {}
    for position, item in enumerate(params):
        if not isinstance(item, Mapping) or "params" not in item:
            raise TypeError(f"params[{position}] is no group; a group is a dict with the key 'params'")
        inner = item["params"]
        if isinstance(inner, (list, tuple)) and any(isinstance(table, Mapping) for table in inner):
            raise TypeError(f"params[{position}] has groups in its params; they must be tables")
        structure, [(tables, _)] = _named_groups(inner)
        if structure != "mapping":
            tables = {len(names) + i: table for i, table in tables.items()}
        repeated = [name for name in tables if name in names]
        if repeated:
            raise ValueError(f"params names {shown(repeated[0])} in two groups")
        names |= dict.fromkeys(tables)
        groups.append((tables, {key: value for key, value in item.items() if key != "params"}))
    kinds = {isinstance(name, str) for name in names}
    if len(kinds) != 1:
        raise TypeError("params has groups with names and groups without; name all or none")
    return "mapping" if kinds == {True} else "sequence", groups


def _mapped(params):
    if not params:
        raise ValueError("params is empty; there must be at least one table")
    for name in params:
        if not isinstance(name, str):
            raise TypeError(f"params has the name {shown(name)}; names must be strings")
    return dict(params)


def _check_table(table, title):
    what = f"parameter {title}" if title.startswith('"') else title or "params"
    if not isinstance(table, np.ndarray) or isinstance(table, np.ma.MaskedArray):
        raise TypeError(f"{what} is a {type(table).__name__}; it must be a NumPy array")
    if table.dtype not in (np.float32, np.float64):
        raise TypeError(f"{what} has dtype {table.dtype}; it must be float32 or float64, in native byte order")
    if table.ndim not in (1, 2):
        raise ValueError(f"{what} has shape {table.shape}; it must be (n_rows, dim) or (n_rows,)")
    if not table.flags.c_contiguous:
        raise ValueError(f"{what} is not C-contiguous; it is updated in place, so hand in np.ascontiguousarray of it")
    if not table.flags.aligned:
        raise ValueError(f"{what} is not aligned to its dtype; hand in a copy of it")
    if not table.flags.writeable:
        raise ValueError(f"{what} is read-only; it is updated in place")


def _check_apart(parameters):
    ends = sorted((p.table.ctypes.data, p.table.ctypes.data + p.table.nbytes, p.title) for p in parameters if p.table.size)
    for (_, stop, one), (start, _, other) in itertools.pairwise(ends):
        if start < stop:
            raise ValueError(f"params: {one} and {other} overlap in memory; every table needs memory of its own")


def _same_names(what, theirs, ours):
    if set(theirs) != set(ours):
        raise ValueError(f"state_dict has {what} named {listed(sorted(map(str, theirs)))}; this optimizer has "
                         f"{listed(sorted(map(str, ours)))}")


def _matched(what, theirs, ours):
    """Pairs (our array, their array) of the same name, shape and dtype; or raise."""
    _same_names(what, theirs, ours)
    for name, array in ours.items():
        other = np.asarray(theirs[name])
        if other.shape != array.shape or other.dtype != array.dtype:
            raise ValueError(f"state_dict has {what}, {shown(name)}, of shape {other.shape} and dtype {other.dtype}; this "
                             f"optimizer has {array.shape} and {array.dtype}")
    return [(array, np.asarray(theirs[name])) for name, array in ours.items()]
