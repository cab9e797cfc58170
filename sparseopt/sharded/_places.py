"""Where a shard's rows stand: in memory, or on a disk with some of them in memory.

Both kinds have the same methods. `stage` checks and prepares a step, which its result then takes.
"""

import numpy as np

from .. import _config, _kernels, _memory, checkpoint
from ..disk import DiskTables
from ..gradients import RowGradient
from ..optimizers import Part, Staged, alike, number_rows, set_parts, while_held
from . import _checkpoints
from ._layout import made

_BLOCK = 1 << 16                # rows that get starting values together


class Memory:
    """Rows in memory."""

    moves = False               # whether a read moves rows, which a staged step must not see

    def __init__(self, number, layout, optimizer):
        self.opt, self.tables = optimizer, optimizer.params
        self.replays = optimizer if optimizer.missed == "replay" else None
        set_parts(optimizer, {name: Part(number, layout.shards, rows.n_rows) for name, rows in layout.rows.items()})
        for name, rows in layout.rows.items():
            number_rows(optimizer, name, range(number, rows.n_rows, layout.shards))

    def read(self, rows):
        """Return rows by local number. Clients have checked the numbers."""
        if self.replays is not None:
            self.replays.catch_up(rows)
        found, threads = {}, _config.threads_for(self.opt.num_threads)
        for name, numbers in rows.items():
            table = self.tables[name]
            found[name] = _memory.empty((len(numbers), *table.shape[1:]), table.dtype)
            _kernels.take(table, numbers, found[name], threads)
        return found

    def stage(self, gradients):
        return Staged(self.opt, gradients)

    def save(self, path):
        checkpoint.save(path, self.opt)

    def in_memory(self):
        """Return an optimizer with all rows, which may be the shard's own."""
        return self.opt

    def close(self):
        pass


class Disk(DiskTables):
    """Rows on a disk."""

    moves = True

    def __init__(self, number, layout):
        self._number, self._every = number, layout.shards
        super().__init__(layout.disk, {name: layout.part(name, number) for name in layout.rows},
                         lambda tables: made(layout.optimizer, tables), layout.cache_rows)

    def _core_of(self, optimizer):
        core = super()._core_of(optimizer)
        for name, table in core[1].items():
            number_rows(optimizer, name, _Numbers(table.cache.row_of, self._number, self._every))
        return core

    @property
    def opt(self):
        return self._optimizer

    def read(self, rows):
        return self.pull(rows)

    def stage(self, gradients):
        self.push(gradients)
        staged, self._staged = self._staged, None
        return staged

    def _step(self, by_name):
        self._staged = Staged(self._optimizer, by_name)

    def in_memory(self):
        return self.optimizer()


class _Numbers:
    """The numbers in whole tables of the rows in slots of a cache."""

    def __init__(self, rows, first, every):
        self.rows, self.first, self.every = rows, first, every

    def __getitem__(self, slot):
        return self.first + self.every * int(self.rows[slot])


def new(number, layout):
    """Return a shard's rows with their starting values."""
    if layout.disk is not None:
        return Disk(number, layout)
    tables = {}
    for name in layout.rows:
        rows = layout.part(name, number)
        table = tables[name] = _memory.zeros(rows.shape(rows.n_rows), rows.dtype)
        for start in range(0, rows.n_rows if rows.init is not None else 0, _BLOCK):
            table[start:start + _BLOCK] = rows.start(range(start, min(start + _BLOCK, rows.n_rows)))
    return Memory(number, layout, made(layout.optimizer, tables))


def loaded(path, number, layout):
    """Return a shard's rows from a checkpoint, whatever its number of shards."""
    if layout.disk is None:
        return Memory(number, layout, _checkpoints.read(path, number, layout))
    file = _checkpoints.own_file(path, number, layout)
    return _on_disk(number, layout, _checkpoints.read(path, number, layout) if file is None else file)


def taken(number, layout, kind, state, structure):
    """Return a shard's rows with the numbers of a state_dict of the same rows."""
    optimizer = alike(kind, state, structure)
    optimizer.load_state_dict(state)
    return Memory(number, layout, optimizer) if layout.disk is None else _on_disk(number, layout, optimizer)


def _on_disk(number, layout, source):
    place = Disk(number, layout)
    try:
        place.load(source)
    except BaseException:
        place.close()
        raise
    return place


def nothing(rows):
    """Return a gradient of no rows."""
    return RowGradient(np.empty(0, np.int64), rows.start([]))


def state_of(place):
    """Return the class, the state_dict and the structure of an optimizer with all rows of a shard."""
    optimizer = place.in_memory()
    return while_held(optimizer, lambda state, structure: (type(optimizer), state, structure))
