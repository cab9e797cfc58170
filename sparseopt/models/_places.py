"""Where the tables of a model are, in memory or in a store, and the steps of an epoch there.

A model trains by a task, which knows the data and no table. `batches` of a task draws what the next step is about, and
`gradients` turns the rows that a reader reads into gradients. There are two readers, and both give the same bits:

| reader | tables             | numbers of rows       |
|--------|--------------------|-----------------------|
| Memory | the whole tables   | as they are           |
| Pulled | copies of the rows | places in the copies  |
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from .._rows import Rows, Store
from .._text import shown
from ..gradients import RowGradient
from ..optimizers import Optimizer, resize_with
from ._base import Model, Progress

_LOOKED_AT = 1000           # rows of a store that are enough to see how large its vectors are

MakeTables = Callable[[Mapping[str, Rows], Callable[[Mapping[str, np.ndarray]], Optimizer]], Store]


class Task(Protocol):
    """An epoch of training. It is picklable, so that workers of a store can have it."""

    def batches(self, rng: np.random.Generator, worker: int, workers: int) -> Iterator[Any]:
        """Yield the batches of a worker. Workers share the data and the batch of a step. One alone takes all."""

    def gradients(self, reader: Any, batch: Any) -> tuple[dict[str, Any], tuple[int, int, float]]:
        """Return the gradients by table; and how many samples are done, how many terms the loss has, and the loss."""


class Memory:
    """Whole tables in the memory of this process, as a reader and as a store."""

    workers = 1

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self.tables = optimizer, optimizer.params
        self._replays = optimizer.missed == "replay"

    @property
    def steps(self):
        return self._optimizer.steps

    def read(self, *asked):
        """Return all tables by name, and the arrays of row numbers that are asked for.

        Each of `asked` has the names of the tables first, and then arrays of row numbers.
        """
        if self._replays:
            self._optimizer.catch_up({name: _joined(rows) for names, *rows in asked for name in names})
        return self.tables, [numbers for _, *rows in asked for numbers in rows]

    def catch_up(self):
        """Apply the missed steps of all rows. Return whether steps change rows that they do not touch."""
        if self._replays:
            self._optimizer.catch_up()
        return self._replays

    def part(self, X, rows, columns):
        """Return the rows and columns of a CSR array for what was read of two tables."""
        return X.indptr, X.indices

    def whole(self, gradients):
        """Return gradients of the tables of `read` as gradients of whole tables."""
        return gradients

    def fit(self, gradients_of, callback):
        for step in itertools.count(self.steps):
            found = gradients_of(self, step, 0)
            if found is None:
                return
            gradients, report = found
            self._optimizer.step(gradients)
            if callback(step, [report]):
                return


class Pulled:
    """The rows of a store that a step reads, as small tables with the different rows in ascending order."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, *asked):
        numbers, self._rows = [], {}
        for names, *rows in asked:
            different, places = np.unique(_joined(rows), return_inverse=True)
            ends = np.cumsum([one.size for one in rows])
            numbers += [some.reshape(one.shape) for some, one in zip(np.split(places, ends[:-1]), rows, strict=True)]
            self._rows |= dict.fromkeys(names, different)
        return self._client.pull(self._rows), numbers

    def part(self, X, rows, columns):
        rows, columns = self._rows[rows], self._rows[columns]
        some = X[rows]
        places = np.searchsorted(columns, some.indices)
        there = columns[np.minimum(places, len(columns) - 1)] == some.indices
        return np.append(0, np.cumsum(there))[some.indptr], places[there]

    def whole(self, gradients):
        return {name: _of_whole(gradient, self._rows[name]) for name, gradient in gradients.items()}


def _joined(arrays):
    return np.concatenate([array.reshape(-1) for array in arrays])


def _of_whole(gradient, rows):
    if isinstance(gradient, RowGradient):
        return RowGradient(rows[gradient.rows], gradient.values)
    return RowGradient(rows, gradient)


class Steps:
    """The gradients of each step of an epoch, as the `fit` of a store asks for them.

    An earlier step can be asked for again. The batches of a worker are drawn anew then, up to this step.

    Parameters
    ----------
    task : Task
    seed : int
        Of all that the batches draw.
    epoch, workers : int
    first : int
        The number of the first step.
    """

    def __init__(self, task: Task, seed: Any, epoch: int, workers: int, first: int) -> None:
        self._task, self._seed, self._epoch, self._workers, self._first = task, seed, epoch, workers, first
        self._begun: dict[int, tuple[int, Iterator[Any]]] = {}

    def __getstate__(self):
        return {**vars(self), "_begun": {}}         # generators cannot be pickled

    def __call__(self, client, step, worker):
        at, batches = self._begun.get(worker, (None, None))
        if at is None or step < at:
            at, batches = self._first, self._task.batches(self._rng(worker), worker, self._workers)
        batch = next(itertools.islice(batches, step - at, None), None)
        self._begun[worker] = step + 1, batches
        if batch is None:
            return None
        reader = client if isinstance(client, Memory) else Pulled(client)
        gradients, report = self._task.gradients(reader, batch)
        return reader.whole(gradients), report

    def _rng(self, worker):
        # The first worker draws what a worker alone draws.
        key = (self._epoch, worker) if worker else (self._epoch,)
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))


class Placed(Model):
    """A model whose tables are in memory, or in the store that its parameter `tables` makes."""

    tables: MakeTables | None
    store_: Store | None

    @property
    def optimizer_(self) -> Optimizer:
        own = vars(self)
        store = own.get("store_")
        if store is None:
            if "optimizer_" not in own:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute 'optimizer_'")
            return own["optimizer_"]
        if own.get("_copied", (None,))[0] != store.steps:
            own["_copied"] = store.steps, store.optimizer()
        return own["_copied"][1]

    @optimizer_.setter
    def optimizer_(self, optimizer: Optimizer) -> None:
        vars(self).update(optimizer_=optimizer, store_=None)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy of the model has. The tables of a copy are in memory."""
        own = dict(vars(self))
        own.pop("_copied", None)
        return own if own.get("store_") is None else {**own, "optimizer_": self.optimizer_, "store_": None}

    def _settings(self):
        return {**super()._settings(), "tables": None}

    def _check_tables_parameter(self):
        if self.tables is not None and not callable(self.tables):
            raise TypeError(f"tables is {shown(self.tables)}; it must be None or a callable that returns a store, such "
                            "as functools.partial(sparseopt.sharded.Tables, shards=4)")

    def _new(self, rows, make):
        """Return the attributes that hold new tables: in memory, or in a store."""
        if self.tables is None:
            tables = {name: one.start(range(one.n_rows)) for name, one in rows.items()}
            return {"optimizer_": make(tables), "store_": None}
        return {"optimizer_": None, "store_": self._new_store(rows, make)}

    def _new_store(self, rows, make):
        store = self.tables(rows, make)
        if not callable(getattr(store, "fit", None)):
            raise TypeError(f"tables returned {shown(store)}; it must return a store, such as a "
                            "sparseopt.sharded.Tables")
        if store.steps:
            raise ValueError(f"tables returned a store that has taken {store.steps} steps; it must return a new one, "
                             "for instance in an empty folder")
        return store

    def _set(self, attributes):
        """Set attributes in one call, which no signal finds half done. A store that is replaced is closed."""
        before = vars(self).get("store_")
        vars(self).update(attributes)
        vars(self).pop("_copied", None)
        if before is not None and before is not self.store_:
            before.close()

    def _place(self):
        """Return where the tables are, as `tables` says now."""
        store = vars(self).get("store_")
        if self.tables is None:
            if store is not None:
                self._set({"optimizer_": self.optimizer_, "store_": None})
            return Memory(self.optimizer_)
        if store is None:
            optimizer = self.optimizer_
            store = self._new_store({name: Rows(len(table), *(table.shape[1:] or (None,)), table.dtype)
                                     for name, table in optimizer.params.items()}, _Alike(optimizer))
            store.load(optimizer)
            self._set({"optimizer_": None, "store_": store})
        return store

    def _check_may_grow(self):
        if self.tables is not None:
            raise ValueError(f"X has something new, and tables is {shown(self.tables)}; a store does not grow. tables "
                             "must be None")

    def _grow(self, rows, known, updates=()):
        """Give the tables so many rows, update dicts and set attributes of this model, all at once."""
        if all(one.n_rows == self._n_rows(name) for name, one in rows.items()):
            vars(self).update(known)
            return
        self._check_may_grow()
        self._place()
        resize_with(self.optimizer_, {name: one.n_rows for name, one in rows.items()},
                    {name: one.init for name, one in rows.items()}, updates,
                    [(self, name, value) for name, value in known.items()])

    def _some_rows(self, name, rows):
        """Return rows of a table as they are now; of a store, about a thousand of these rows."""
        store = vars(self).get("store_")
        if store is None:
            return self.optimizer_.params[name][rows]
        rows = rows[::max(1, len(rows) // _LOOKED_AT)]
        # A store on a disk can pull as many rows together as a step reads, which is not known here.
        return np.concatenate([store.pull({name: some})[name] for some in np.split(rows, range(8, len(rows), 8))])

    def _n_rows(self, name):
        store = vars(self).get("store_")
        return len(self.optimizer_.params[name]) if store is None else store.rows[name].n_rows

    def _dim(self, name):
        store = vars(self).get("store_")
        return self.optimizer_.params[name].shape[1] if store is None else store.rows[name].dim

    def _said_rate(self):
        return super()._said_rate() if vars(self).get("store_") is None else "Set"

    def _take_steps(self, task, total, callback):
        """Take the steps of an epoch of `total` samples. Return whether the callback ended the epoch."""
        place, epoch, ended = self._place(), len(self.loss_curve_), False
        done, terms, loss = 0, 0, 0.0

        def after(step, reports):
            nonlocal done, terms, loss, ended
            for report in reports:
                if report is not None:
                    done, terms, loss = done + report[0], terms + report[1], loss + report[2]
            ended = bool(callback and callback(Progress(self, epoch, done, total, loss / max(terms, 1))))
            return ended

        with self._diverging():
            place.fit(Steps(task, self._seed(), epoch, place.workers, place.steps), callback=after)
        self.loss_curve_.append(loss / max(terms, 1))
        return ended


class _Alike:
    """Makes optimizers of the class and settings of another optimizer."""

    def __init__(self, optimizer):
        state = optimizer.state_dict()
        self._kind, self._groups, self._options = type(optimizer), state["param_groups"], state["options"]

    def __call__(self, tables):
        groups = [{**group, "params": {name: tables[name] for name in group["params"]}} for group in self._groups]
        return self._kind(groups, num_threads=1, **self._options)
