"""Tables on a disk: the rows in use stand in memory, and a file has a record of every other row.

a) A cache is an ordinary table with an ordinary optimizer. A row brings its state and its count along, so a step on
   the cache gives the bits that it would give on the whole table. The numbers of a whole table (a count under
   step_count="global", NAdam's product) stand in the optimizer.
b) Every call first finds out where its rows stand, then brings those that are not in memory, then does its work. Rows
   that come and go change no table, so a call that fails between leaves every table as it was.
c) The file has no name, and vanishes with its process. What lasts is a checkpoint: `save` and `load` stream it.
"""

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from . import _memory, _tensors, checkpoint, embedding, gradients
from ._checks import at_least
from ._kernels import disk, rowplan
from ._kernels.atomic import Counts
from ._rows import Init, Rows
from ._text import escaped, listed, shown
from ._typing import FilePath, Floats, Self
from .gradients import Gradient, MatmulGradient, row_numbers
from .optimizers import Optimizer, alike, load_with, number_rows, while_held

try:
    import fcntl
except ImportError:             # Windows has no fcntl
    fcntl = None

__all__ = ["DiskTable", "DiskTables"]

_CHUNK = 1 << 22                # bytes of records that are read or written at a time
_MOST_THREADS = 256


class _Table:
    """One table: its cache and its file."""

    def __init__(self, name, rows, optimizer, folder, threads):
        self.name, self.rows, self.folder = name, rows, folder
        self.what = f'gradient of "{escaped(name, 80)}"' if isinstance(name, str) else "gradient"
        self.title = f'rows of "{escaped(name, 80)}"' if isinstance(name, str) else "rows"
        self.array = optimizer.params[name]
        self.keys = _keys_of_rows(optimizer, name)
        self.arrays = _arrays_of_rows(optimizer, name)
        with _unnamed_file(folder) as file:
            self.cache = disk.Cache(file.fileno(), rows.n_rows, self.arrays, threads)
        self.reserved = 0       # bytes of the file that the file system has given
        self.pulled = 0         # the call of `find` that found the rows of the last pull

    @property
    def n_bytes(self):
        return self.rows.n_rows * self.cache.record_bytes

    def places(self):
        """Return the names that the arrays of a record have in a checkpoint."""
        return [f"params/{self.name}", *(f"state/{self.name}/{key}" for key in self.keys)]

    def empty(self, n):
        """Return arrays for the numbers of n rows."""
        return [np.empty((n, *array.shape[1:]), array.dtype) for array in self.arrays]

    def chunks(self):
        """Yield the first row and the number of rows of parts of the table, and a buffer for their records."""
        size = max(1, min(self.rows.n_rows, _CHUNK // self.cache.record_bytes))
        buffer = _page_aligned(size * self.cache.record_bytes)
        for first in range(0, self.rows.n_rows, size):
            yield first, min(size, self.rows.n_rows - first), buffer

    def reserve(self):
        """Give every record its place on the disk. Writes to places that a file has not yet had take turns."""
        zeros = None
        while self.reserved < self.n_bytes:
            zeros = _page_aligned(min(_CHUNK, self.n_bytes), np.zeros) if zeros is None else zeros
            part = zeros[:min(len(zeros), self.n_bytes - self.reserved)]
            self.check(-disk.reserve(self.cache.file, self.reserved, part))
            self.reserved += len(part)

    def settle(self):
        """Wait for the rows on their way, and raise OSError if one of them could not be brought or written back."""
        self.check(self.cache.settle())

    def check(self, failed):
        """Raise OSError for an errno of a read, or for -errno of a write."""
        if failed:
            what = "written" if failed < 0 else "read"
            raise OSError(abs(failed), f"{os.strerror(abs(failed))}: records of rows could not be {what}",
                          os.fspath(self.folder))


class _Calls(Counts):
    what = "table"              # in the error of a second call at the same time


class _Disk:
    """The part that `DiskTable` and `DiskTables` share: tables by name."""

    def __init__(self, folder: FilePath, rows: dict[Any, Rows], make: Callable[[Any], Optimizer],
                 cache_rows: Mapping[Any, int], threads: int) -> None:
        self._alone = _Calls().alone
        self._process = os.getpid()
        self._folder = os.fsdecode(folder)
        self._threads = at_least("threads", threads, 1)
        if threads > _MOST_THREADS:
            raise ValueError(f"threads is {threads}; it must be at most {_MOST_THREADS}")
        if not os.path.isdir(self._folder):
            raise NotADirectoryError(errno.ENOTDIR, "folder must be an existing folder", self._folder)
        if not callable(make):
            raise TypeError(f"optimizer is {shown(make)}; it must be a callable from tables to an Optimizer, such as "
                            "lambda tables: so.Adam(tables)")
        slots = {name: max(1, min(cache_rows[name], each.n_rows)) for name, each in rows.items()}
        arrays = {name: _memory.zeros(each.shape(slots[name]), each.dtype) for name, each in rows.items()}
        optimizer = make(arrays)
        _check_made(optimizer, arrays)
        self._rows = rows
        needed = sum(each.n_rows * disk.record_bytes(_arrays_of_rows(optimizer, name)) for name, each in rows.items())
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"the records take {needed:,} bytes, and the disk has {free:,} left",
                          self._folder)
        self._core = self._core_of(optimizer)

    def _core_of(self, optimizer):
        tables = {name: _Table(name, rows, optimizer, self._folder, self._threads)
                  for name, rows in self._rows.items()}
        for name, table in tables.items():
            number_rows(optimizer, name, table.cache.row_of)
        return optimizer, tables

    @property
    def _optimizer(self):
        return self._open()[0]

    @property
    def _tables(self):
        return self._open()[1]

    def _open(self):
        core = self._core
        if core is None:
            raise ValueError("this table is closed")
        return core

    # What both classes offer.

    @property
    def steps(self) -> int:
        """The number of steps taken."""
        return self._optimizer.steps

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer with their hyper-parameters, as `Optimizer.param_groups`. They may be changed."""
        return self._optimizer.param_groups

    @property
    def metadata(self) -> dict[str, Any]:
        """Anything that JSON can hold and that should travel with a checkpoint."""
        return self._optimizer.metadata

    @metadata.setter
    def metadata(self, metadata: dict[str, Any]) -> None:
        self._optimizer.metadata = metadata

    def save(self, path: FilePath) -> None:
        """Write a checkpoint, which `load` and `so.load` read. It takes the memory of a few thousand rows.

        At any time, `path` holds the complete old file or the complete new one. `so.load(path)` gives an optimizer in
        memory, with the same bits.

        Parameters
        ----------
        path : str or path
            The folder must exist.

        Raises
        ------
        TypeError, ValueError, OSError
            As `so.save`.
        """
        self._call(self._save, path)

    def load(self, source: FilePath | Optimizer) -> None:
        """Take over the rows, the state and the whole run of a checkpoint, or of an optimizer in memory.

        The optimizer must be of the same class and have tables of the same names, shapes and dtypes. The rows are
        streamed to a new file. After an error all is as before.

        Parameters
        ----------
        source : path or Optimizer
            A file that `save` or `so.save` wrote, or an optimizer.

        Raises
        ------
        TypeError, KeyError, ValueError, OSError
            As `so.load`.
        """
        self._call(self._load, source)

    def optimizer(self) -> Optimizer:
        """Return an optimizer in memory with copies of all rows and of all state."""
        return self._call(self._in_memory)

    def close(self) -> None:
        """Give back the memory and the file. Rows that no checkpoint has are lost."""
        if self._process == os.getpid() and self._core is not None:
            self._alone(self._close)

    def __repr__(self) -> str:
        if self._core is None:
            return f"{type(self).__name__}(closed)"
        tables = listed([f"{_title(name)}{rows.shape(rows.n_rows)} {np.dtype(rows.dtype)}, cache_rows="
                         f"{self._tables[name].cache.n_slots}" for name, rows in self._rows.items()], show=str)
        return f"{type(self).__name__}({tables}; {type(self._optimizer).__name__})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Calls.

    def _call(self, function, *arguments):
        return self._alone(self._checked, function, arguments)

    def _checked(self, function, arguments):
        self._open()
        if self._process != os.getpid():
            raise RuntimeError(f"this table belongs to process {self._process}; a forked process cannot use it")
        return function(*arguments)

    def _close(self):
        core, self._core = self._core, None
        for table in core[1].values():
            table.cache.close()

    # Rows that come.

    def _numbers(self, wanted):
        """Return copies of row numbers by name, checked."""
        numbers = {}
        for name, rows in wanted.items():
            table = self._tables[name]
            numbers[name] = row_numbers(rows, table.title).copy()
            rowplan.check(table.title, "row", numbers[name], table.rows.n_rows)
        return numbers

    def _pull(self, wanted):
        slots = self._slots_of(self._numbers(wanted), used=True)
        for name in slots:
            self._tables[name].pulled = self._tables[name].cache.calls
        return {name: embedding.gather(self._tables[name].array, at) for name, at in slots.items()}

    def _prefetch(self, wanted):
        for name, rows in self._numbers(wanted).items():
            table = self._tables[name]
            table.settle()
            _, missing = table.cache.find(rows, np.empty(len(rows), np.int32), False)
            if len(missing):
                self._begin(table, np.unique(missing), table.pulled)

    def _slots_of(self, wanted, used):
        """Return the slots of rows, by name, after all of them have been brought to memory."""
        slots, late = {}, []
        for name, rows in wanted.items():
            table, cache = self._tables[name], self._tables[name].cache
            slots[name] = np.empty(len(rows), np.int32)
            n_found, missing = cache.find(rows, slots[name], used)
            if len(missing) and cache.at_work:
                table.settle()
                n_found, missing = cache.find(rows, slots[name], False)
            if len(missing):
                missing = np.unique(missing)
                if n_found + len(missing) > cache.n_slots:
                    raise ValueError(f"{table.title}: {n_found + len(missing)} different rows come together; "
                                     f"cache_rows is {cache.n_slots}: take a larger cache, or smaller batches")
                late.append((table, missing))
        for table, missing in late:
            self._begin(table, missing, table.cache.calls)
        for table, _ in late:
            table.settle()
            _, missing = table.cache.find(wanted[table.name], slots[table.name], False)
            if len(missing):            # no slot is -1 from here on, whatever a later change of this file does
                raise RuntimeError(f"{table.title}: {len(missing)} rows did not come")
        return slots

    def _begin(self, table, missing, since):
        fresh = table.cache.unwritten(missing)
        values = self._start(table, fresh) if len(fresh) else []
        if len(missing) > table.cache.n_free:           # rows leave, and may be written back
            table.reserve()
        table.cache.begin(missing, values, since)

    def _start(self, table, rows):
        """Return the numbers of rows that nobody has changed, as a new optimizer of the whole table would have them."""
        state, kind = self._kept()
        tables = {name: other.array[:0] for name, other in self._tables.items()}
        tables[table.name] = np.require(table.rows.start(rows), requirements="CAW")
        new = alike(type(self._optimizer), state, kind, 1, tables)
        return _arrays_of_rows(new, table.name)

    def _kept(self):
        return while_held(self._optimizer, lambda state, kind: (state, kind))

    # Steps.

    def _push(self, given):
        forms = {}
        for name, gradient in given.items():
            table = self._tables[name]
            rows = table.rows
            form = gradients.entries(gradient, rows.shape(rows.n_rows), np.dtype(rows.dtype), table.what)
            forms[name] = _entries(table, form)
        slots = self._slots_of({name: rows for name, (rows, _) in forms.items()}, used=False)
        for name, at in slots.items():
            self._tables[name].cache.change(at)
        self._step({name: gradient_at(slots[name]) for name, (_, gradient_at) in forms.items()})

    def _step(self, by_name):
        self._optimizer.step(by_name)

    # All rows.

    def _parts(self):
        """Yield a table, a first row, and the numbers of the rows from there on, for all rows of all tables."""
        for table in self._tables.values():
            table.settle()
            for first, n, buffer in table.chunks():
                arrays = table.empty(n)
                failed, fresh = table.cache.read(first, arrays, buffer)
                table.check(failed)
                if fresh.any():
                    for array, values in zip(arrays, self._start(table, first + np.flatnonzero(fresh)), strict=True):
                        array[fresh] = values
                yield table, first, arrays

    def _save(self, path):
        state, kind = self._kept()
        for name, table in self._tables.items():
            specs = [_tensors.Streamed(array.dtype, (table.rows.n_rows, *array.shape[1:])) for array in table.arrays]
            state["params"][name] = specs[0]
            state["state"][name] |= zip(table.keys, specs[1:], strict=True)
        checkpoint.write(path, state, kind, (piece for table, _, arrays in self._parts()
                                             for piece in zip(table.places(), arrays, strict=True)))

    def _in_memory(self):
        state, kind = self._kept()
        shapes = {name: _tensors.Streamed(np.dtype(rows.dtype), rows.shape(rows.n_rows))
                  for name, rows in self._rows.items()}
        new = alike(type(self._optimizer), {**state, "params": shapes}, kind, self._optimizer.num_threads)
        for table, first, arrays in self._parts():
            for array, values in zip(_arrays_of_rows(new, table.name), arrays, strict=True):
                array[first:first + len(values)] = values
        for name, table in self._tables.items():
            state["params"][name] = new.params[name]
            state["state"][name] |= {key: new.state[name][key] for key in table.keys}
        new.load_state_dict(state)
        return new

    def _load(self, source):
        if isinstance(source, Optimizer):
            while_held(source, lambda state, _: self._take(state, lambda table: _slices(source, table)))
            return
        with checkpoint.reading(source, self.param_groups) as (reader, state):
            checkpoint.read_lists(reader, state)
            del state["structure"]
            for name, arrays in state["state"].items():
                for key, stored in arrays.items():
                    if not stored.shape:
                        arrays[key] = checkpoint.read_new(reader, f"state/{name}/{key}")
            self._take(state, lambda table: _checked_pieces(reader, table, state))

    def _take(self, state, pieces_of):
        """Take over a state_dict. `pieces_of(table)` yields first rows and the arrays of rows from there on."""
        for table in self._tables.values():
            _check_fits(table, state)
        kept, kind = self._kept()
        arrays = {name: _memory.zeros(table.array.shape, table.array.dtype) for name, table in self._tables.items()}
        new = alike(type(self._optimizer), kept, kind, self._optimizer.num_threads, arrays)
        _, tables = core = self._core_of(new)
        state = {**state, "params": arrays, "state": dict(state["state"])}
        for name, table in tables.items():
            state["state"][name] = {**state["state"][name], **{key: new.state[name][key] for key in table.keys}}
        new.load_state_dict(state)                      # checks all but the rows
        for name, table in tables.items():
            last = 0
            rows = pieces_of(table)
            for (first, _, buffer), (_, pieces) in zip(table.chunks(), rows, strict=True):
                table.check(-table.cache.write(first, pieces, buffer))
                if "step" in table.keys:
                    last = max(last, int(pieces[1 + table.keys.index("step")].max(initial=0)))
            if "step" in table.keys:
                new.state[name]["step"][:1] = last      # the count that `load_state_dict` finds
            table.reserved = table.n_bytes
            table.cache.all_written()
        new.metadata = dict(self.metadata)              # with the maps of ids that are filled anew
        load_with(new, state, [(self, "_core", core)])


class DiskTables(_Disk):
    """Several tables that are larger than memory, with one optimizer. The rows in use stand in memory.

    A row leaves memory when room is needed for others, and then a file has its weights, its state and its count. Every
    step gives the same bits as the optimizer gives with all rows in memory.

    Parameters
    ----------
    folder : str or path
        An existing folder on the disk that is to hold the tables. The file there has no name, and vanishes with the
        process: `save` writes what should last.
    rows : mapping from str to Rows
        How the tables are made. Rows that nobody has changed are no part of the file.
    optimizer : callable
        From a mapping of arrays by name to an `Optimizer` of these arrays. The arrays are the tables of the rows in
        memory. Under missed="replay" a step moves rows that stand on the disk, so missed must be "skip".
    cache_rows : int or mapping from str to int
        How many rows of each table stand in memory at most. A call needs room for all its rows. A row on the disk takes
        4 bytes of memory, for its place.
    threads : int
        Threads that read and write rows, from 1 to 256.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above.
    OSError
        If there is no such folder, or the disk has no room for all rows.

    Attributes
    ----------
    rows : dict of str to Rows
    steps : int
    workers : int
        1: `fit` asks one worker for gradients.
    param_groups : list of dict
    metadata : dict

    Notes
    -----
    A record has a multiple of 512 bytes. So a table of narrow rows takes more room on the disk than in memory. The
    first call that needs room in memory fills the file with zeros, which takes as long as a copy of that size.
    Two threads cannot call a table at once, and a forked process cannot use it. Both raise RuntimeError.
    If the disk fails, a call raises OSError, and all rows are as before. Rows that could not be written back stay in
    memory, and the next call tries again.

    Examples
    --------
    >>> import tempfile, numpy as np, sparseopt as so
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = {"item": so.Rows(1_000_000, 2), "user": so.Rows(10, 2)}
    ...     with so.DiskTables(folder, rows, lambda tables: so.Adam(tables, lr=0.1), cache_rows=100) as tables:
    ...         tables.push({"item": so.RowGradient([999_999], [[1.0, -1.0]])})
    ...         tables.pull({"item": [999_999, 3]})["item"].round(3)
    array([[-0.1,  0.1],
           [ 0. ,  0. ]], dtype=float32)
    """

    def __init__(self, folder: FilePath, rows: Mapping[str, Rows], optimizer: Callable[[dict[str, Floats]], Optimizer],
                 cache_rows: int | Mapping[str, int] = 1_000_000, threads: int = 16) -> None:
        if not isinstance(rows, Mapping) or not rows:
            raise TypeError(f"rows is {shown(rows)}; it must be a mapping from names to so.Rows")
        for name, each in rows.items():
            if not isinstance(name, str) or not isinstance(each, Rows):
                raise TypeError(f"rows has {shown(name)}: {shown(each)}; it must be a mapping from names to so.Rows")
        if isinstance(cache_rows, Mapping):
            if set(cache_rows) != set(rows):
                raise ValueError(f"cache_rows has the names {listed(cache_rows)}; the tables are {listed(rows)}")
        else:
            cache_rows = dict.fromkeys(rows, cache_rows)
        for each in cache_rows.values():
            at_least("cache_rows", each, 1)
        super().__init__(folder, dict(rows), optimizer, cache_rows, threads)

    @property
    def rows(self) -> dict[str, Rows]:
        return dict(self._rows)

    @property
    def workers(self) -> int:
        return 1

    def prefetch(self, rows: Mapping[str, npt.ArrayLike]) -> None:
        """Begin to bring rows to memory, and return at once. The next call that needs them waits for them.

        The rows of the last `pull` stay in memory. If there is no room for all rows, the others come when they are
        pulled. Errors of the disk are raised by the call that waits.

        Parameters
        ----------
        rows : mapping from str to array of integers

        Raises
        ------
        TypeError, KeyError, IndexError, RuntimeError, OSError
            As `pull`.
        """
        self._call(self._prefetch, self._known("rows", rows))

    def pull(self, rows: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
        """Return copies of rows.

        Parameters
        ----------
        rows : mapping from str to array of integers
            Rows may repeat, in any order.

        Returns
        -------
        dict of str to array
            Of shape (k, dim), or (k,) for a table of one dimension.

        Raises
        ------
        TypeError, KeyError, IndexError
            If the rows are not those of the tables.
        ValueError
            If a table's different rows are more than its cache_rows.
        OSError
            If the disk fails.
        RuntimeError
            If another call is at work.
        """
        return self._call(self._pull, self._known("rows", rows))

    def push(self, gradient: Mapping[str, Gradient | None]) -> None:
        """Take one step of the optimizer. Rows that are not in memory come first.

        Parameters
        ----------
        gradient : mapping from str to gradient
            As `Optimizer.step` takes it: row numbers and shapes are those of the whole tables.

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            As `Optimizer.step`, or as `pull`. Nothing has been written then.
        OSError, RuntimeError
            As `pull`. Nothing has been written then.
        """
        self._call(self._push, self._known("gradient", gradient))

    def fit(self, gradients_of: Callable[..., Any], steps: int | None = None,
            callback: Callable[[int, list[Any]], Any] | None = None) -> None:
        """Take steps with the gradients that a function returns.

        Parameters
        ----------
        gradients_of : callable
            Called as ``gradients_of(client, step, worker)``. `client` has `pull`, `step` is the number of steps taken
            before, and `worker` is 0. It returns gradients as `push` takes them, or a pair of gradients and a report.
            None ends the fit.
        steps : None or int
            The most steps to take. None sets no bound.
        callback : None or callable
            Called as ``callback(step, [report])`` after each step, with the number of steps taken. A true result ends
            the fit.
        """
        if not callable(gradients_of):
            raise TypeError(f"gradients_of is {shown(gradients_of)}; it must be a callable")
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {shown(callback)}; it must be None or a callable")
        left = None if steps is None else at_least("steps", steps, 0)
        while left is None or left > 0:
            found = gradients_of(self, self.steps, 0)
            if found is None:
                return
            gradient, report = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
            if not isinstance(gradient, Mapping):
                raise TypeError(f"gradients_of returned {shown(found)} at step {self.steps}; it must return a mapping "
                                "of gradients, a pair of such a mapping and a report, or None")
            self.push(gradient)
            left = None if left is None else left - 1
            if callback is not None and callback(self.steps, [report]):
                return

    def _known(self, what, given):
        """Return what is given for tables by name, without None."""
        if not isinstance(given, Mapping):
            raise TypeError(f"{what} is a {type(given).__name__}; it must be a mapping, with names among "
                            f"{listed(self._rows)}")
        for name in given:
            if name not in self._rows:
                raise KeyError(f"{what} names {shown(name)}; the tables are {listed(self._rows)}")
        return {name: one for name, one in given.items() if one is not None}


class DiskTable(_Disk):
    """A table that is larger than memory, with its optimizer. The rows in use stand in memory.

    `DiskTables` is the same for several tables, and says more.

    Parameters
    ----------
    folder : str or path
        An existing folder on the disk that is to hold the table.
    n_rows : int
    dim : None or int
        None stands for a table of one dimension.
    optimizer : callable
        From an array, the table of the rows in memory, to an `Optimizer` of this array.
    cache_rows : int
        How many rows stand in memory at most.
    threads : int
        Threads that read and write rows, from 1 to 256.
    init : None or callable
        Starting values, as in `Rows`.
    dtype : float32 or float64

    Raises
    ------
    TypeError, ValueError, OSError
        As `DiskTables`.

    Attributes
    ----------
    rows : Rows
    steps : int
    param_groups : list of dict
    metadata : dict

    Examples
    --------
    >>> import os, tempfile, numpy as np, sparseopt as so
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "checkpoint.safetensors")
    ...     with so.DiskTable(folder, 1_000_000, 2, lambda table: so.Adagrad(table, lr=0.1), cache_rows=100) as table:
    ...         table.push(so.RowGradient([7, 7], np.ones((2, 2))))
    ...         table.save(path)
    ...     so.load(path).params[0][7]
    array([-0.1, -0.1], dtype=float32)
    """

    def __init__(self, folder: FilePath, n_rows: int, dim: int | None, optimizer: Callable[[Floats], Optimizer],
                 cache_rows: int = 1_000_000, threads: int = 16, init: Init | None = None,
                 dtype: npt.DTypeLike = np.float32) -> None:
        super().__init__(folder, {0: Rows(n_rows, dim, dtype, init)}, lambda arrays: optimizer(arrays[0]),
                         {0: at_least("cache_rows", cache_rows, 1)}, threads)

    @property
    def rows(self) -> Rows:
        return self._rows[0]

    def prefetch(self, rows: npt.ArrayLike) -> None:
        """Begin to bring rows to memory, as `DiskTables.prefetch`."""
        self._call(self._prefetch, {0: rows})

    def pull(self, rows: npt.ArrayLike) -> Floats:
        """Return copies of rows, as `DiskTables.pull`."""
        return self._call(self._pull, {0: rows})[0]

    def push(self, gradient: Gradient) -> None:
        """Take one step of the optimizer, as `DiskTables.push`."""
        self._call(self._push, {0: gradient})

    def _step(self, by_name):
        self._optimizer.step(by_name[0])


def _keys_of_rows(optimizer, name):
    """Return the names of the state that has numbers for each row of a table."""
    return [key for key, array in optimizer.state[name].items() if array.ndim]


def _arrays_of_rows(optimizer, name):
    """Return the arrays that have numbers for each row: the table, then that state."""
    state = optimizer.state[name]
    return [optimizer.params[name], *(state[key] for key in _keys_of_rows(optimizer, name))]


def _title(name):
    return f'"{escaped(name, 80)}" ' if isinstance(name, str) else ""


def _check_made(optimizer, arrays):
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer returned a {type(optimizer).__name__}; it must return an Optimizer")
    params = optimizer.params
    if params.keys() != arrays.keys() or any(params[name] is not arrays[name] for name in arrays):
        raise ValueError(f"optimizer returned an Optimizer of the tables {listed(params)}; it must be one of the "
                         f"arrays that it was called with, {listed(arrays)}")
    if optimizer.missed != "skip":
        raise ValueError(f"the optimizer has missed={shown(optimizer.missed)}; it must be 'skip' for a table on disk, "
                         "because under replay a step moves rows that are not in memory")
    if optimizer.steps:
        raise ValueError(f"the optimizer has taken {optimizer.steps} steps; it must be new")


def _check_fits(table, state):
    """Raise ValueError if a state_dict has other arrays than a table."""
    name, n_rows = table.name, table.rows.n_rows
    arrays = {"params": state["params"].get(name), **state["state"].get(name, {})}
    for key, ours in zip(["params", *table.keys], table.arrays, strict=True):
        theirs, shape = arrays.get(key), (n_rows, *ours.shape[1:])
        if theirs is None:
            if arrays["params"] is not None:
                raise ValueError(f"it is of another optimizer: the state of {shown(name)} has no {shown(key)}")
            raise ValueError(f"it has no {shown(key)} of {shown(name)}; its tables are {listed(state['params'])}")
        if tuple(theirs.shape) != shape or theirs.dtype != ours.dtype:
            raise ValueError(f"it has {shown(key)} of {shown(name)} of shape {tuple(theirs.shape)} and dtype "
                             f"{theirs.dtype}; this table has {shape} and {ours.dtype}")


def _slices(optimizer, table):
    """Yield first rows and the arrays of rows from there on, of a table of an optimizer in memory."""
    arrays = _arrays_of_rows(optimizer, table.name)
    for first, n, _ in table.chunks():
        yield first, [array[first:first + n] for array in arrays]


def _checked_pieces(reader, table, state):
    """Yield the same of a checkpoint."""
    names = table.places()
    size = next(table.chunks(), (0, 1))[1]
    for first, pieces in reader.pieces(names, size):
        if state["options"]["nonfinite"] != "allow":
            for place in names[1:]:
                checkpoint.check_piece(place, pieces[place])
        yield first, [pieces[place] for place in names]


def _entries(table, form):
    """Return the row of each entry of a gradient, checked, and the gradient as a function of the entries' slots."""
    n_rows, what = table.rows.n_rows, table.what
    n_slots, dim = table.cache.n_slots, table.array.shape[1] if table.array.ndim == 2 else 1
    if form.indptr is not None:
        others = form.columns if form.sources is None else form.sources
        rows = rowplan.expanded(what, "row", form.indptr, others)
    elif form.rows is None:
        if n_rows > n_slots:
            raise ValueError(f"{what} is dense and touches all {n_rows} rows; cache_rows has room for {n_slots}")
        rows = np.arange(n_rows)
    else:
        rows = form.rows.copy()
    rowplan.check(what, "row", rows, n_rows)
    if form.columns is not None:
        rowplan.check(what, "column", form.columns, dim)
        return rows, lambda slots: sp.coo_array((form.values, (slots, form.columns)), shape=(n_slots, dim))
    if form.sources is not None:
        n = len(form.values)
        rowplan.check(what, "sample", form.sources, n)
        return rows, lambda slots: MatmulGradient(
            sp.coo_array((form.weights, (form.sources, slots)), shape=(n, n_slots)), form.values)
    return rows, lambda slots: gradients.trusted(slots, form.values)


def _page_aligned(n_bytes, allocate=np.empty):
    memory = allocate(n_bytes + mmap.PAGESIZE, dtype=np.uint8)
    start = -memory.ctypes.data % mmap.PAGESIZE
    return memory[start:start + n_bytes]


def _unnamed_file(folder):
    """Return a new file without a name, which reads and writes past the system's cache if the file system can."""
    file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (the caller closes it)
    if fcntl is not None and hasattr(os, "O_DIRECT"):
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
            os.pwrite(file.fileno(), memoryview(_page_aligned(512, np.zeros)), 512)     # disks of 4,096 bytes refuse
        except OSError:
            fcntl.fcntl(file, fcntl.F_SETFL, flags)
    return file
