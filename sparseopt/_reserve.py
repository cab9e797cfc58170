"""Tables with room to grow: addresses for many rows, of which the first ones are in use.

The system gives memory to a page when the page is first written. So rows that are not in use cost addresses alone.
"""

import math
import mmap
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _memory
from ._checks import at_least
from ._text import shown
from ._typing import Floats

# From row numbers, dim (None for a table of shape (n_rows,)) and dtype to the first values of these rows.
Init = Callable[..., Any]

_LARGE = 1 << 20                # bytes from which an array has pages of its own
_HUGE = 21                      # a huge page has 2^21 bytes
_BLOCK = 1 << 22                # numbers that an init returns at a time
_AHEAD = 1 << 16                # most numbers that an init returns for rows to come
_LINUX = sys.platform == "linux"
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if _LINUX else 0)       # Python has the name from 3.13 on


class Room:
    """Memory of an array, with room for `capacity` rows.

    `n_rows` rows are in use. An array that has all of these may grow here; a view of fewer rows may not. No array has
    ever had rows from `seen` on. Rows from `written` on are zeros. Rows from n_rows to `filled` have the values that
    the init `last` gives them.
    """

    def __init__(self, capacity, tail, dtype, init=None, place=0):
        self.capacity, self.init, self.last = capacity, init, init
        self.n_rows = self.seen = self.written = self.filled = 0
        self.row_bytes = math.prod(tail) * np.dtype(dtype).itemsize
        self.mapping = None
        self.memory = _memory.aligned((capacity, *tail), dtype, self._allocate, place)
        self.begin = self.memory.ctypes.data

    def _allocate(self, n_bytes, dtype):
        if n_bytes < _LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):
            return np.zeros(n_bytes, dtype)
        try:
            self.mapping = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
        except OSError as error:
            raise MemoryError(f"the system has no room for {self.capacity} rows of {self.row_bytes} bytes: "
                              f"{error}") from None
        memory = np.frombuffer(self.mapping, dtype)
        self.mapped = memory.ctypes.data
        return memory

    @property
    def __array_interface__(self):
        return self.memory.__array_interface__

    def array(self, n_rows):
        """Return the first rows. The base of this array is one of all rows, and the base of that one is this room."""
        return np.asarray(self)[:n_rows]

    def open(self, lo, hi, dense=True):
        """Make rows zeros that no array has yet. `dense`: all of them will soon be written, so pages may be huge."""
        if lo < self.written:
            self.clear(lo, min(hi, self.written))
        if hi > self.written:           # faster than max
            self.written = hi
        if dense and self.mapping is not None:
            # The page before `lo` joins these rows to those before. The last one has rows that are not in use.
            first, last = self.begin + lo * self.row_bytes >> _HUGE, self.begin + hi * self.row_bytes >> _HUGE
            if first < last:
                self._advise("MADV_HUGEPAGE", first << _HUGE, last << _HUGE)

    def fill(self, lo, hi, init=None, name="init"):
        """Give rows their first values that no array has yet. None is the room's own init, or zeros."""
        init = self.init if init is None else init
        unseen, ready = lo >= self.seen, hi <= self.filled and init is self.last
        if hi > self.seen:
            self.seen = hi
        if ready:
            return
        top = hi
        if unseen and init is self.last:
            # This takes about as long for one row as for ten, so rows to come are filled, too.
            top = min(self.capacity, hi + min(_AHEAD // max(1, math.prod(self.memory.shape[1:])), hi // 16))
        self.filled, self.last = 0, init                # in case that init raises
        self.open(lo, top)
        if init is not None:
            fill(name, self.memory[:top], lo, init)
        self.filled = top

    def clear(self, lo, hi):
        """Make rows zeros. The memory of many rows goes back to the system."""
        if self.mapping is not None and _LINUX and (hi - lo) * self.row_bytes >= _LARGE:
            page = mmap.PAGESIZE
            first = -(-(self.begin + lo * self.row_bytes) // page) * page
            last = (self.begin + hi * self.row_bytes) // page * page
            self._advise("MADV_DONTNEED", first, last)
            # Rows that reach into other pages.
            self.memory[lo:-(-(first - self.begin) // self.row_bytes)] = 0
            lo = (last - self.begin) // self.row_bytes
        if lo < hi:
            self.memory[lo:hi] = 0

    def _advise(self, advice, first, last):
        """Tell the system about the pages from one address to another."""
        first = max(first, self.mapped)
        if hasattr(mmap, advice):
            self.mapping.madvise(getattr(mmap, advice), first - self.mapped, last - first)


def room_of(table):
    """Return the Room in which a table may grow, or None."""
    whole = table.base
    room = getattr(whole, "base", None)
    fits = (isinstance(room, Room) and len(table) == room.n_rows and table.dtype == whole.dtype
            and table.shape[1:] == whole.shape[1:] and table.ctypes.data == room.begin)
    return room if fits else None


def copied(table):
    """Return a copy of a table, with the same room to grow."""
    room = room_of(table)
    if room is None:
        return table.copy()
    other = Room(room.capacity, table.shape[1:], table.dtype, room.init)
    array = other.array(len(table))
    other.written = other.seen = other.n_rows = len(table)
    array[...] = table
    return array


def reserve(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float32, *, n_rows: int = 0,
            init: Init | None = None) -> Floats:
    """Return a table of n_rows rows with room for more, which `Optimizer.resize` adds without a copy.

    Room costs addresses, and no memory before rows are written. A process may reserve many times the memory of its
    machine. The state of an optimizer that is made for such a table has the same room.

    Parameters
    ----------
    shape : int or tuple of int
        (capacity, dim), or (capacity,) for a table of dim 1. A table can grow beyond its capacity, too: then it is
        copied.
    dtype : float32 or float64
    n_rows : int
        The number of rows in use, from 0 to capacity.
    init : None or callable
        `init(rows, dim, dtype)` returns the first values of rows, shape (len(rows), dim), as those of `so.init` do. For
        a table of shape (capacity,), dim is None and the shape is (len(rows),). The values must depend on the numbers
        of the rows alone, because rows may come in blocks and ahead of their use. None stands for zeros, which cost no
        memory before they are written. The table keeps init for rows that are added later.

    Returns
    -------
    array, shape (n_rows, dim) or (n_rows,)

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above, or init returns something else.
    MemoryError
        If the system does not give so many addresses.

    Notes
    -----
    Memory comes in pages. Rows that init fills, and rows that `Optimizer.resize` adds, get pages of 2 MB where the
    system has them, which makes steps on random rows faster. Rows of zeros that are in use from the start get pages of
    4 KB. So a row that is alone in its page takes 4 KB. Windows counts the whole capacity against its page file.

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> table = so.reserve((100_000_000, 64), n_rows=2)         # 26 GB of addresses
    >>> opt = so.Adam({"item": table}, lr=0.1)
    >>> opt.step({"item": so.RowGradient([1], np.ones((1, 64)))})
    >>> larger = opt.resize("item", 3)
    >>> larger[:, 0], np.shares_memory(larger, table)
    (array([ 0. , -0.1,  0. ], dtype=float32), True)
    """
    dtype, (capacity, *tail) = _memory._real(dtype), _shape_of_table(shape)
    n_rows = at_least("n_rows", n_rows, 0)
    if n_rows > capacity:
        raise ValueError(f"n_rows is {n_rows} and the capacity is {capacity}; n_rows must be at most the capacity")
    check_init("init", init)
    room = Room(capacity, tail, dtype, init)
    room.open(0, n_rows, dense=init is not None)
    room.n_rows = room.seen = n_rows
    table = room.array(n_rows)
    if init is not None:
        fill("init", table, 0, init)
    return table


def _shape_of_table(shape):
    lengths = _memory._checked(shape)
    if len(lengths) not in (1, 2):
        raise ValueError(f"shape is {shown(shape)}; it must be (capacity, dim) or (capacity,)")
    return lengths


def check_init(name, init):
    if init is not None and (not callable(init) or isinstance(init, type)):     # so.init.Normal without its scale
        raise TypeError(f"{name} is {shown(init)}; it must be None, or a callable that takes (rows, dim, dtype), such "
                        "as so.init.Normal(0.01)")


def fill(name, table, lo, init):
    """Give the rows of a table from `lo` on their first values."""
    block = max(1, _BLOCK // max(1, math.prod(table.shape[1:])))
    for start in range(lo, len(table), block):
        rows = range(start, min(start + block, len(table)))
        table[start:rows.stop] = first_values(name, init, rows, table)


def first_values(name, init, rows, table):
    """Return init(rows, dim, dtype) for a table, checked."""
    dim = table.shape[1] if table.ndim == 2 else None
    values = np.asarray(init(rows, dim, table.dtype))
    shape = len(rows), *table.shape[1:]
    if values.shape != shape or values.dtype.kind not in "fiu":
        raise ValueError(f"{name} returned an array of shape {values.shape} and dtype {values.dtype} for {len(rows)} "
                         f"rows; it must return numbers of shape {shape}")
    return values
