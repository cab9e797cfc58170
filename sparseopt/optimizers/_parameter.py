"""One table of an optimizer: its state, its history of missed steps, and the compiled sweep bound to both.

A parameter checks and prepares. Only a compiled call writes: `Sweep.apply` for updates, `adopt` for state from outside.
So a signal finds a table before a call or after it.
"""

import itertools
import math
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from .. import _memory, _reserve, gradients
from .._checks import NonfiniteError
from .._kernels import rowplan
from .._kernels.replay import History, plan_of, plan_of_one_step

LARGEST_COUNT = np.iinfo(np.int32).max
_LONG = 1 << 16                 # steps that a history always has room for


class Part(NamedTuple):
    """Which rows of a larger table a table holds: `first`, `first` + `every`, and so on, below `n_rows`."""

    first: int
    every: int
    n_rows: int


class Parameter:
    """One table: its name, its group, its state, and the sweep bound to them."""

    def __init__(self, name, title, table, group_index, tables):
        """`tables` has those of its group by name: what `param_groups` shows."""
        check_table(table, title)
        self.name = name
        self.tables = tables
        self.title = title              # the name in error messages
        self.what = f"gradient of {title}" if title else "gradient"
        self.init_of_it = f"init of {title}" if title else "init"
        self.n_rows_of_it = f"n_rows of {title}" if title else "n_rows"
        self.rows_of_it = f"rows of {title}" if title else "rows"
        self.table = table
        self.shape, self.dtype = table.shape, table.dtype       # copies, because a user can assign table.shape
        self.part = None                # a Part, if this is a part of a larger table
        self.group_index = group_index
        self.key = group_index, table.dtype         # tables of one key share settings
        self.dim = table.shape[1] if table.ndim == 2 else 1
        self.numbers = None             # what errors call each row, if the table is a part of another

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
        tail, dtype = self.shape[1:], self.dtype
        by_row = {}                     # state with a row for each of the table: the row's shape, dtype and place
        if missed is not None or (rule.counted and step_count == "row"):
            by_row["step"] = (), np.int32, 0        # under missed="replay" the step that a row was last brought up to
        by_row |= {name: (tail, dtype, place) for place, name in enumerate(rule.state, start=1)}
        by_row |= {name: ((), dtype, 0) for name in rule.row_state}
        self.by_row = by_row
        self.state = {"step": _memory.aligned((), np.int32)} if rule.counted and "step" not in by_row else {}
        room = _reserve.room_of(self.table)
        self.rooms = room and self._rooms(room)     # by name, "" for the table; None: there is no room to grow
        if room is None:
            self.state |= {name: _memory.aligned((self.shape[0], *tail), dtype, place=place)
                           for name, (tail, dtype, place) in by_row.items()}
        else:
            for name in by_row:
                self.rooms[name].open(0, self.shape[0], dense=room.init is not None)
                self.state[name] = self.rooms[name].array(self.shape[0])
        self.state |= {name: _memory.aligned((), np.float64) for name in rule.table_state}
        self.sweep = self._bound(sweep, self.table, self.state, missed)
        if missed is not None:
            self.sweep.history, self.sweep.missed = self.new_history(missed, 0), missed

    def _rooms(self, room):
        """Return rooms of table and state as large as the room of the table."""
        return {"": room} | {name: _reserve.Room(room.capacity, tail, dtype, place=place)
                             for name, (tail, dtype, place) in self.by_row.items()}

    def _bound(self, sweep, table, state, missed):
        """Return a Sweep of the given class, bound to a table and its state."""
        arrays = [state[name] for name in self.rule.state + self.rule.row_state]
        return sweep(self.rule.name, table, arrays, state.get("step"), missed and missed.rule,
                     by_elements=self.rule.by_elements, title=self.title or "the optimizer")

    # Rows that are added, given up and made new.

    def arrays(self):
        return self.table, *self.state.values()

    def resized(self, n_rows, init, init_state):
        """Return the table and state with n_rows rows, and the changes by which `adopt` gives them to this parameter.

        The changes are updates of dicts, and attributes. New rows are written where no array has had rows.
        """
        self.sweep.check_in_place()
        old, rooms = self.shape[0], self.rooms
        by_row = {"": self.table, **{name: self.state[name] for name in self.by_row}}
        if n_rows <= old:
            by_row = {name: array[:n_rows] for name, array in by_row.items()}
        else:
            if rooms is None or rooms[""].n_rows != old or n_rows > rooms[""].capacity:
                rooms, by_row = self._moved(by_row, n_rows)
            begins = self.sweep.history is not None or init_state is not None
            for name in self.by_row:
                if begins:              # and writes, so a later call may find no more zeros there
                    rooms[name].open(old, n_rows)
                else:
                    rooms[name].fill(old, n_rows)
            rooms[""].fill(old, n_rows, init, self.init_of_it)
            by_row = {name: array.base[:n_rows] for name, array in by_row.items()}
        table = by_row.pop("")
        state = {**self.state, **by_row}
        if n_rows > old and begins:
            self._begin(table[old:], {name: array[old:] for name, array in by_row.items()}, init_state)
        sweep = self._bound(type(self.sweep), table, state, self.sweep.missed)
        for name in ("count", "history", "missed", "last_hyper"):
            setattr(sweep, name, getattr(self.sweep, name))
        changes = [(self, "table", table), (self, "shape", table.shape), (self, "sweep", sweep), (self, "rooms", rooms)]
        if n_rows > old or (rooms is not None and rooms[""].n_rows == old):
            changes.append((rooms[""], "n_rows", n_rows))
        if n_rows < old and rooms is not None:
            changes += [(room, "filled", 0) for room in rooms.values()]     # the rows given up are as they are
        return (table, *state.values()), [(self.state, by_row), (self.tables, {self.name: table})], changes

    def _moved(self, by_row, n_rows):
        """Return rooms for twice as many rows, and arrays in these with the numbers of others."""
        table = by_row[""]
        like = table.shape[1:], table.dtype, self.rooms and self.rooms[""].init
        try:
            rooms = self._rooms(_reserve.Room(2 * n_rows, *like))
        except MemoryError:             # where the system gives few addresses
            rooms = self._rooms(_reserve.Room(n_rows, *like))
        moved = {}
        for name, array in by_row.items():
            rooms[name].open(0, len(array))
            moved[name] = rooms[name].array(len(array))
            moved[name][...] = array
        return rooms, moved

    def give_back(self, old):
        """Give the memory of rows back to the system that a smaller size has given up; there were `old` rows."""
        n_rows = self.shape[0]
        if self.rooms is not None and self.rooms[""].n_rows == n_rows < old:
            for room in self.rooms.values():
                room.clear(n_rows, old)

    def made_new(self, rows, init, init_state):
        """Return triples (array, rows, values), for `adopt`, by which rows of the table and its state become new."""
        table = np.zeros((len(rows), *self.shape[1:]), self.dtype)
        if init is None and self.rooms is not None:
            init = self.rooms[""].init
        if init is not None:
            table[...] = _reserve.first_values(self.init_of_it, init, rows.copy(), table)
        state = {name: np.zeros((len(rows), *tail), dtype) for name, (tail, dtype, _) in self.by_row.items()}
        self._begin(table, state, init_state)
        return [(self.table, rows, table), *((self.state[name], rows, array) for name, array in state.items())]

    def _begin(self, table, state, init_state):
        """Give the state of new rows its first values; it comes as zeros. Table and state are of these rows alone."""
        if self.sweep.history is not None:
            state["step"][...] = self.sweep.history.now         # a new row has missed nothing
        if init_state is not None:
            of_table = {name: array.copy() for name, array in self.state.items() if name not in state}
            init_state(self.made_for, table, {**state, **of_table})

    # Counts and sizes.

    @property
    def count(self):
        """How many steps the table has taken; no row has taken more."""
        return self.sweep.count

    @property
    def nbytes(self):
        """The bytes of table and state; of the whole table, if this is a part of it."""
        n_rows = self.table.shape[0] if self.part is None else self.part.n_rows
        return sum(array.itemsize * math.prod((n_rows, *array.shape[1:]) if array.ndim else ())
                   for array in (self.table, *self.state.values()))

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
        number = int(plan.rows[first])
        if self.numbers is not None:
            number = self.numbers[number]
        raise NonfiniteError(f"{self.what} has {row[column]} at row {number}, column {column}; it must be "
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
                      RuntimeWarning, stacklevel=5)
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
