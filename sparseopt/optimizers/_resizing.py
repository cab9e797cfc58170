"""Tables that grow and shrink, and rows that become new, while the run goes on.

Rows are added where no array has had rows, or in a copy. So a call writes what it likes there and may fail. Then
`adopt` gives the new arrays to the optimizer, all at once. Rows that become new are written by `adopt`, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, overload

from .._checks import at_least
from .._kernels import rowplan
from .._kernels.atomic import adopt
from .._reserve import Init, check_init
from .._text import listed, shown
from .._typing import Array, Floats
from ..gradients import row_numbers
from ._resuming import Resumable
from ._rule import UpdateRule

Inits = Init | Mapping[Any, Init | None]


class Resizable(Resumable):
    """The part of an optimizer that changes the number of rows of its tables."""

    @overload
    def resize(self, name: str | int, n_rows: int, init: Init | None = None) -> Floats: ...
    @overload
    def resize(self, name: Mapping[Any, int], *, init: Inits | None = None) -> dict[str | int, Floats]: ...

    def resize(self, name, n_rows=None, init=None):
        """Add rows to the end of a table, or give up rows there, and return the table that the optimizer has now.

        Added rows are as from the constructor: with a new state and the step count 0. Under missed="replay" they have
        missed no step. All other rows keep their bits.

        ====================  =================================================================================
        the table             what happens
        ====================  =================================================================================
        of `reserve`          It grows in place up to its capacity. Arrays of before stay views of its rows.
        beyond the capacity   It is copied, with its state, into memory with room for twice as many rows.
        any other             As beyond the capacity. So to add rows one by one costs few copies.
        becomes smaller       The array returned is a view. On reserved memory, the rows given up become zeros.
        ====================  =================================================================================

        After a copy, the array of before no longer belongs to the optimizer: go on with the one returned, or with
        `opt.params`. A signal finds all tables of the call as before, or as after.

        Parameters
        ----------
        name : str or int, or mapping
            The table: its key in `opt.params`. Or a mapping from these to numbers of rows, for several tables in one
            call.
        n_rows : int
            The number of rows, 0 or more. None if `name` is a mapping.
        init : None, callable, or mapping
            The first values of added rows, as in `reserve`. None is the init of `reserve`, and without that zeros. A
            mapping has one for each name. Checkpoints and pickles do not hold the init of `reserve`.

        Returns
        -------
        array, or dict from names to arrays

        Raises
        ------
        KeyError, TypeError, ValueError, MemoryError, RuntimeError
            If a parameter is not as described above, or another call is at work. The optimizer is then as before.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> opt = so.Adam({"user": so.zeros((2, 1)), "item": so.zeros((2, 1))}, lr=0.1)
        >>> opt.step({"item": so.RowGradient([1], [[1.0]])})
        >>> opt.resize("item", 4, init=so.init.Constant(0.5))[:, 0]
        array([ 0. , -0.1,  0.5,  0.5], dtype=float32)
        >>> opt.state["item"]["step"]
        array([0, 1, 0, 0], dtype=int32)
        >>> tables = opt.resize({"user": 3, "item": 5})
        >>> len(tables["user"]), len(opt.params["item"])
        (3, 5)
        """
        return self._counts.alone(self._resize, name, n_rows, init)

    def _resize(self, name, n_rows, init, more_updates=(), more_attributes=()):
        work = [(parameter, at_least(parameter.n_rows_of_it, wanted, 0), one)
                for parameter, wanted, one in self._by_name(name, "n_rows", n_rows, init)]
        arrays, updates, attributes = {}, [*more_updates], [*more_attributes]
        for parameter, wanted, one in work:
            if wanted != parameter.shape[0]:
                arrays[parameter.name], dicts, changes = parameter.resized(wanted, one, self._first_state())
                updates += dicts
                attributes += changes
        if updates or attributes:
            before = [(parameter, parameter.shape[0], parameter.arrays()) for parameter, _, _ in work]
            written = [array for one in self._parameters.values() for array in arrays.get(one.name) or one.arrays()]
            self._check_kept()                  # after an init, which may be anyone's code
            adopt([], updates, [*attributes, (self, "_written", tuple(written))])
            for parameter, old, _ in before:    # which has kept all arrays until here: freeing one may run code, too
                parameter.give_back(old)
        if isinstance(name, Mapping):
            return {parameter.name: parameter.table for parameter, _, _ in work}
        return work[0][0].table

    @overload
    def reset(self, name: str | int, rows: Array | list[int], init: Init | None = None) -> None: ...
    @overload
    def reset(self, name: Mapping[Any, Any], *, init: Inits | None = None) -> None: ...

    def reset(self, name, rows=None, init=None):
        """Make rows new: their weights, state and step counts are as those of rows that `resize` adds.

        Parameters
        ----------
        name : str or int, or mapping
            The table: its key in `opt.params`. Or a mapping from these to row numbers, for several tables in one call.
        rows : array of integers
            Row numbers in any shape and order, repeats allowed. None if `name` is a mapping.
        init : None, callable, or mapping
            As in `resize`. It is called with the row numbers as an array.

        Raises
        ------
        KeyError, TypeError, ValueError, IndexError, RuntimeError
            If a parameter is not as described above, or another call is at work. Nothing has been written then.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> table = so.zeros((3, 1))
        >>> opt = so.Adam(table, lr=0.1)
        >>> opt.step(np.ones((3, 1)))
        >>> opt.reset(0, [2])
        >>> table[:, 0], opt.state[0]["step"]
        (array([-0.1, -0.1,  0. ], dtype=float32), array([1, 1, 0], dtype=int32))
        """
        self._counts.alone(self._reset, name, rows, init)

    def _reset(self, name, rows, init, attributes=()):
        work = []
        for parameter, numbers, one in self._by_name(name, "rows", rows, init):
            numbers = row_numbers(numbers, parameter.rows_of_it).astype("int64")        # a copy of its own
            rowplan.check(parameter.rows_of_it, "row", numbers, parameter.shape[0])
            work.append((parameter, numbers, one))
        writes = [write for parameter, numbers, one in work
                  for write in parameter.made_new(numbers, one, self._first_state())]
        self._check_kept()
        adopt([], [], list(attributes), writes)

    def _first_state(self):
        """Return `_init_state`, or None if it has nothing to do."""
        return None if type(self)._init_state is UpdateRule._init_state else self._init_state

    def _by_name(self, name, what, value, init):
        """Return triples (parameter, value, init) of one table, or of a mapping from names to values."""
        if not isinstance(name, Mapping):
            check_init("init", init)
            return [(self._parameter(name), value, init)]
        if value is not None:
            raise TypeError(f"{what} is {shown(value)}; where name is a mapping, it must be None")
        work = [(self._parameter(one), given) for one, given in name.items()]
        inits = init if isinstance(init, Mapping) else dict.fromkeys(name, init)
        for one, each in inits.items():
            check_init(f"init of {shown(one)}", each)
        left = [one for one in inits if one not in name]
        if left:
            raise KeyError(f"init names {shown(left[0])}; name has {listed(name)}")
        return [(parameter, given, inits.get(parameter.name)) for parameter, given in work]


def resize_with(optimizer: Resizable, n_rows: Mapping[Any, int], init: Inits | None,
                updates: Sequence[tuple[dict[Any, Any], dict[Any, Any]]],
                attributes: Sequence[tuple[Any, str, Any]]) -> None:
    """Resize tables, update dicts and set attributes, all at once; see `adopt`."""
    optimizer._counts.alone(optimizer._resize, n_rows, None, init, updates, attributes)


def reset_with(optimizer: Resizable, rows: Mapping[Any, Any], init: Inits | None,
               attributes: Sequence[tuple[Any, str, Any]]) -> None:
    """Make rows new and set attributes, all at once; see `adopt`."""
    optimizer._counts.alone(optimizer._reset, rows, None, init, attributes)
