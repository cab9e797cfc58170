"""One table of an optimizer: its state, its history of missed steps, and the compiled sweep bound to both.

A parameter checks and prepares. Only a compiled call writes: `Sweep.apply` for updates, `adopt` for state from outside.
So a signal finds a table before a call or after it.
"""

import itertools
import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from .. import _memory, gradients
from .._checks import NonfiniteError
from .._kernels import rowplan
from .._kernels.replay import History, plan_of, plan_of_one_step

LARGEST_COUNT = np.iinfo(np.int32).max
_LONG = 1 << 16                 # steps that a history always has room for


class Parameter:
    """One table: its name, its group, its state, and the sweep bound to them."""

    def __init__(self, name, title, table, group_index):
        check_table(table, title)
        self.name = name
        self.title = title              # the name in error messages
        self.what = f"gradient of {title}" if title else "gradient"
        self.rows_of_it = f"rows of {title}" if title else "rows"
        self.table = table
        self.shape, self.dtype = table.shape, table.dtype       # copies, because a user can assign table.shape
        self.group_index = group_index
        self.key = group_index, table.dtype         # tables of one key share settings
        self.dim = table.shape[1] if table.ndim == 2 else 1

    def bind(self, sweep, rule, group, step_count, missed):
        """Make the state that a rule asks for, and bind table and state to a Sweep of the given class.

        `missed` is a Missed under missed="replay", or else None.
        """
        if rule.by_elements and rule.row_state:
            raise ValueError(f"rule {rule.name!r} has by_elements=True and the row_state {rule.row_state}; with one "
                             "number a row it must have by_elements=False")
        self.rule = rule
        self.made_for = dict(group)
        self.count_of_each_row = rule.counted and step_count == "row" and missed is None and not rule.table_state
        shape, dtype = self.table.shape, self.table.dtype
        self.state = {}
        if missed is not None:          # the step that a row was last brought up to
            self.state["step"] = _memory.aligned(shape[:1], np.int32)
        elif rule.counted:
            self.state["step"] = _memory.aligned(shape[:1] if step_count == "row" else (), np.int32)
        self.state |= {name: _memory.aligned(shape, dtype, place=place)
                       for place, name in enumerate(rule.state, start=1)}
        self.state |= {name: _memory.aligned(shape[:1], dtype) for name in rule.row_state}
        self.state |= {name: _memory.aligned((), np.float64) for name in rule.table_state}
        arrays = [self.state[name] for name in rule.state + rule.row_state]
        self.sweep = sweep(rule.name, self.table, arrays, self.state.get("step"), missed and missed.rule,
                           by_elements=rule.by_elements, title=self.title or "the optimizer")
        if missed is not None:
            self.sweep.history, self.sweep.missed = self.new_history(missed, 0), missed

    # Counts and sizes.

    @property
    def count(self):
        """How many steps the table has taken; no row has taken more."""
        return self.sweep.count

    @property
    def nbytes(self):
        return self.table.nbytes + sum(array.nbytes for array in self.state.values())

    # A gradient, from its check to what a step does with it.

    def plan(self, gradient, written, threads=1):
        """Return the plan of a gradient, checked. Values that share memory with the arrays `written` are copied."""
        what, shape, rising = self.what, self.shape, self.sweep.rising
        form = gradients.entries(gradient, shape, self.dtype, what)
        plan = rowplan.plan(what, shape[0], self.dim, *form, rising=rising, num_threads=threads)
        if rowplan.overlap((form.values, form.weights), written):       # a plan itself copies all other arrays
            plan = rowplan.plan(what, shape[0], self.dim, *gradients.detached(form), rising=rising, num_threads=threads)
        return plan

    def plan_of_rows(self, rows, threads=1):
        """Return the plan of row numbers without a gradient, checked; None is all rows."""
        n = len(rows) if rows is not None else self.shape[0]
        nothing = np.empty((n, 0), self.dtype)
        return rowplan.plan(self.rows_of_it, self.shape[0], self.dim, rows, nothing, rising=self.sweep.rising,
                            num_threads=threads)

    def check_finite(self, plan, threads):
        """Raise what a step would raise for a NaN or an infinity."""
        bad = self._nonfinite_rows(plan, threads)
        if bad is not None:
            self._raise_nonfinite(plan, bad)

    def _nonfinite_rows(self, plan, threads):
        """Return which rows of a plan have a NaN or an infinity as a boolean array; None if no row has."""
        if math.isfinite(self.sweep.largest(plan, threads)):
            return None
        bad = self.sweep.nonfinite(plan)            # a bound that overflowed can still belong to finite numbers
        return bad if bad.any() else None

    def _raise_nonfinite(self, plan, bad):
        first = int(bad.argmax())
        row = np.asarray(self.sweep.gradient(plan, first))
        column = int((~np.isfinite(row)).argmax())
        raise NonfiniteError(f"{self.what} has {row[column]} at row {plan.rows[first]}, column {column}; it must be "
                             'finite (nonfinite="skip" leaves such rows out, "allow" does not look)')

    def leave_out(self, update, nonfinite):
        """Take rows that are not finite out of an update, and return how many; or raise, if `nonfinite` says so."""
        plan = update.plan
        bad = self._nonfinite_rows(plan, 1)
        if bad is None:
            return 0
        if nonfinite == "raise":
            self._raise_nonfinite(plan, bad)
        n_bad = int(bad.sum())
        warnings.warn(f"{self.what}: {n_bad} of {plan.n} touched rows have a NaN or an infinity and were left out",
                      RuntimeWarning, stacklevel=4)
        update.plan = plan.without(bad)
        return n_bad

    def prepare_past(self, update, state: Mapping = MappingProxyType({}), missed=None, term=None):
        """Let a step also change the state of the whole table, and add to the history of missed steps."""
        for name, value in state.items():
            update.set_table_state(self.state[name], value)
        if missed is not None:
            update.append_to_history(self.continued(missed, update), **term)

    # History of missed steps.

    def new_history(self, missed, start):
        """Return a history of steps that rows may miss from now on; all rows stand at the step `start`.

        Raises ValueError for betas that missed steps cannot have.
        """
        plan = None
        if missed.one_step:
            plan = plan_of_one_step(*missed.betas)
        elif missed.betas:
            try:
                plan = plan_of(*missed.betas, self.dtype)
            except ValueError as error:
                raise ValueError(f'{error}; missed="skip" takes them') from None
        return History(start, missed.size, missed.powers, plan, missed.eps, self.dtype)

    def continued(self, missed, update, takes_a_step=True):
        """Return the history for one step more: a new one if the old one is too long, or cannot express the step.

        With a new history, `update` first brings all rows up to the end of the old one. To find a plan takes many times
        as long as a step. So where betas change at every step, each history is for its one step, and needs no search.
        """
        sweep, history = self.sweep, self.sweep.history
        if history.now >= LARGEST_COUNT - 1:
            raise OverflowError(f"{self.title or 'the table'} has taken {history.now} steps; replay counts no further")
        long = history.now - history.start >= _LONG and 16 * history.nbytes > self.nbytes
        if long or missed != sweep.missed:
            changes_again = history.now - history.start <= 1 and missed != sweep.missed._replace(one_step=False)
            if missed.betas and changes_again and takes_a_step:
                missed = missed._replace(one_step=True)
            history = self.new_history(missed, sweep.count)
            update.begin_history(self.plan_of_rows(None), history, missed)
        return history

    def behind(self, rows):
        """Return how many steps each row is behind; None is all rows."""
        self.sweep.check_in_place()
        if rows is not None:
            self.plan_of_rows(rows)         # checks them
        steps = self.state["step"] if rows is None else self.state["step"][rows]
        return self.count - steps.astype(np.int64)

    def changes_of_count(self, state, history):
        """Return the changes, for `adopt`, by which a table counts on from other state and history.

        `history` is None, or a history with its Missed and the last step's hyper-parameters.
        """
        sweep = self.sweep
        if history is None:
            steps = int(np.max(state["step"], initial=0)) if self.rule.counted else 0
            return [(sweep, "count", steps)]
        history, missed, last_hyper = history
        return [(sweep, "count", history.now), (sweep, "history", history), (sweep, "missed", missed),
                (sweep, "last_hyper", last_hyper)]


def check_table(table, title):
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


def check_apart(parameters):
    """Raise ValueError if two tables overlap in memory."""
    ends = sorted((p.table.ctypes.data, p.table.ctypes.data + p.table.nbytes, p.title)
                  for p in parameters if p.table.size)
    for (_, stop, one), (start, _, other) in itertools.pairwise(ends):
        if start < stop:
            raise ValueError(f"params: {one} and {other} overlap in memory; every table needs memory of its own")
