"""Sharded tables: what makes the shards, runs a fit, saves, and recovers from failures."""

import contextlib
import copy
import importlib
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt

from .._checks import at_least, one_of
from .._kernels.atomic import adopt
from .._rows import Rows
from .._text import escaped, listed, shown
from .._typing import FilePath, Floats, Self
from ..gradients import Gradient
from ..optimizers import Optimizer, Part, while_held
from . import _checkpoints
from ._client import Client, Lost
from ._fit import AsyncFit, SyncFit
from ._layout import Layout, made
from ._local import LocalEngine
from ._pieces import cut, filled


def _ray(layout):
    return importlib.import_module("._ray", __package__).RayEngine(layout)


ENGINES = {"local": LocalEngine, "ray": _ray}


class Tables:
    r"""Tables by name whose rows are spread over shards, with one optimizer. It is a store, as `so.DiskTables` is.

    Row r stands on shard ``r % shards``. Each worker reads rows with `Client.pull`, and sends gradients with
    `Client.push`; `fit` does this for workers of its own. With more shards there is room for more rows. A step is not
    faster, because rows and gradients travel.

    Parameters
    ----------
    rows : mapping from str to Rows
        How the tables are made. The same starting values stand on any number of shards.
    optimizer : callable
        From a mapping of arrays by name to an `Optimizer` of these arrays. Each shard calls it for its own rows.
    shards, workers : int
        1 or more.
    engine : "local" or "ray"
        "local" has all shards and workers in this process. "ray" has each one in a process of its own, on the machines
        of a Ray cluster, or on this machine (extra `sharded`).
    mode : "sync" or "async"
        In "sync", a step has the gradients of all workers, in the order of the workers. In "async", each push is a step
        of its own, and each shard takes it when it arrives.
    staleness : int
        How many steps a worker may be ahead of the slowest one in "async", 0 or more.
    combine : "worker" or "none"
        "worker" sends the sum of each worker's repeated rows. "none" sends all of them, in "sync" for the bits of one
        machine with any number of workers. The Notes say more.
    folder : None, str or path
        Where checkpoints are written, for `save`, and to go on after a shard has died. Every shard must reach it. It
        must not hold checkpoints of other tables.
    keep : None or int
        How many checkpoints stay there, 1 or more. None stands for 2. Without a folder it must be None.
    disk : None, str or path
        An existing folder of every shard's machine, where each shard keeps its rows as `so.DiskTables` does. None keeps
        them in memory. On a disk missed must be "skip", and another number of shards in `load` takes their memory.
    cache_rows : None, int or mapping from str to int
        With disk, how many rows of each table a shard has in memory at most; None is 1,000,000.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as described above, or `folder` has a checkpoint: see `so.sharded.load`.
    ImportError
        If engine is "ray", and the package ray is missing.

    Attributes
    ----------
    rows : dict of str to Rows
    metadata : dict
        Anything that JSON can hold and that should travel with a checkpoint.

    Notes
    -----
    Let a machine take each step with the gradients of all workers, one after the other.

    ==========================  =================================================================
    setting                     weights, state and counts
    ==========================  =================================================================
    combine="none"              the bits of that machine
    combine="worker"            the bits depend on the number of workers, not on that of shards;
                                with one worker they are those of that machine
    max_grad_norm               as above, but the norm's last bits depend on the number of shards
    mode="async"                no promise of bits
    ==========================  =================================================================

    After an error or a signal, all shards are as before the step or as after.

    ==============  ================================================  ==========================================
    what dies       sync                                              async
    ==============  ================================================  ==========================================
    a worker        a new one does the step again                     a new one goes on with its next step
    a shard         all shards go back to the last checkpoint, and    this shard goes back to the last checkpoint,
                    the workers do the steps since then again         and the others go on
    a shard,        `fit` raises RuntimeError                         `fit` raises RuntimeError
    no `folder`
    ==============  ================================================  ==========================================

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> rows = {"item": so.Rows(1000, 2)}
    >>> with so.sharded.Tables(rows, lambda tables: so.Adam(tables, lr=0.1), shards=4, workers=2) as tables:
    ...     def gradients_of(client, step, worker):
    ...         values = client.pull({"item": [step, 999]})["item"]
    ...         return {"item": so.RowGradient([step, 999], values - [[1.0, -1.0]] * 2)}
    ...     tables.fit(gradients_of, steps=3)
    ...     tables.steps, tables.pull({"item": [999]})["item"].round(2)
    (3, array([[ 0.3, -0.3]], dtype=float32))
    """

    def __init__(self, rows: Mapping[str, Rows], optimizer: Callable[[Mapping[str, Any]], Optimizer], *,
                 shards: int = 1, workers: int = 1, engine: str = "local", mode: Literal["sync", "async"] = "sync",
                 staleness: int = 0, combine: Literal["none", "worker"] = "worker", folder: FilePath | None = None,
                 keep: int | None = None, disk: FilePath | None = None,
                 cache_rows: int | Mapping[str, int] | None = None) -> None:
        if optimizer is None:
            raise TypeError("optimizer is None; it must be a callable from tables by name to an Optimizer, such as "
                            "lambda tables: so.Adam(tables)")
        layout = _checked_layout(rows, optimizer, shards, workers, mode, staleness, combine, disk, cache_rows)
        self._set_folder(folder, keep)
        if self._folder is not None and self._folder.exists() and (old := _checkpoints.saved(self._folder)):
            raise ValueError(f"folder is {shown(str(self._folder))}, which has a checkpoint of step {old[-1].steps}; "
                             "so.sharded.load reads it, and new tables need another folder")
        # The optimizer is first made for tables without rows, so that what is wrong with it is said here.
        made(optimizer, {name: one.start([]) for name, one in layout.rows.items()})
        self._origin = None
        self._start(layout, engine)

    def _set_folder(self, folder, keep):
        self._folder = None if folder is None else Path(folder)
        self._keep = 2 if keep is None else at_least("keep", keep, 1)
        if folder is None and keep is not None:
            raise ValueError(f"keep is {keep} and folder is None; without a folder there are no checkpoints, and keep "
                             "must be None")

    def _start(self, layout, engine):
        self._layout, self._engine_name = layout, one_of("engine", engine, *ENGINES)
        self.rows: dict[str, Rows] = dict(layout.rows)
        self.metadata: dict[str, Any] = {}
        self._fitting, self._to_fill, self._taking = False, set(), None
        self._engine = ENGINES[engine](layout)
        try:
            self._begin_run(fill=range(layout.shards))
        except BaseException:
            self.close()
            raise

    # What the shards hold.

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self._layout.workers

    @property
    def shards(self) -> int:
        """The number of shards."""
        return self._layout.shards

    @property
    def steps(self) -> int:
        """The number of steps taken; in async mode that of the shard that took most."""
        self._settle()
        return max(about["steps"] for about in self._each("about", self._run))

    def _call(self, calls):
        if self._engine is None:
            raise RuntimeError("these tables are closed")
        return self._engine.link.call(calls)

    def _each(self, method, *arguments, shards=None):
        """Call a method of all shards, or of some. Return their results in the order of the shards."""
        shards = range(self.shards) if shards is None else sorted(shards)
        results = self._call({shard: [(method, arguments)] for shard in shards})
        return [results[shard][0] for shard in shards]

    def _begin_run(self, fill=()):
        """Begin a new run, in which messages of clients of the old one are refused.

        Shards of `fill` get the rows of the last checkpoint, or starting values if there is none.
        """
        self._unsettled, self._to_fill = True, set(fill) | self._to_fill
        run, fill, origin = secrets.token_hex(8), sorted(self._to_fill), self._origin
        kept = [shard for shard in range(self.shards) if shard not in self._to_fill]
        about = []
        if fill:
            about += self._each("make", run, shards=fill) if origin is None else self._each("load", run, origin,
                                                                                            shards=fill)
        if kept:
            about += self._each("reset", run, shards=kept)
        most = max(one["steps"] for one in about)
        if any(one["steps"] < most for one in about):           # in async mode alone, after a failure
            self._each("idle", run, most)
        self._run, self._about, self._own, self._first_step = run, about[0], None, most
        self._to_fill, self._taking, self._unsettled = set(), None, False

    def _settle(self, what=None):
        """End what a signal interrupted, so that nothing of an earlier fit or load waits. Within a fit, do nothing.

        With `what`, a call that changes rows or makes clients, raise RuntimeError within a fit.
        """
        if self._engine is None:
            raise RuntimeError("these tables are closed")
        if self._fitting:
            if what is not None:
                raise RuntimeError(f"{what} was called within fit; a callback may read and save, and no more")
            return
        if self._taking is not None:
            self._accept()
        if self._unsettled:
            self._begin_run()

    def restore(self) -> int:
        """Replace shards that died outside a fit, and go back to the last checkpoint, as `fit` does by itself.

        If all shards are alive, the rows stay as they are. Clients must be made anew.

        Returns
        -------
        int
            The number of steps taken.

        Raises
        ------
        RuntimeError
            If shards died, and there is no `folder`.

        Examples
        --------
        >>> import sparseopt as so
        >>> tables = so.sharded.Tables({"item": so.Rows(10, 2)}, so.SGD, shards=2)
        >>> tables.restore()
        0
        """
        if self._engine is None or self._fitting:
            self._settle("restore")
        try:
            self._each("is_loaded")
        except Lost as error:
            self._recover(error)
        else:
            self._recover(None)
        return self.steps

    def _recover(self, error):
        """Replace dead shards, and load what the mode says."""
        if isinstance(error, Lost) and error.shards:
            self._engine.replace(error.shards)
        empty = {shard for shard, loaded in enumerate(self._each("is_loaded")) if not loaded}
        if empty and self._folder is None:
            raise RuntimeError(f"shards {listed(sorted(empty))} died, and their rows are lost: there is no folder with "
                               "checkpoints") from error
        self._begin_run(fill=range(self.shards) if empty and self._layout.mode == "sync" else empty)

    # Clients.

    def client(self, worker: int = 0) -> Client:
        """Return a worker's access to the shards, for loops of one's own. It can be pickled.

        With engine "ray" it works in any process of the cluster. A later `fit`, `load` or `restore` ends it.

        Parameters
        ----------
        worker : int
            From 0 to `workers` - 1. Each worker has one client.

        Raises
        ------
        TypeError, ValueError
            If there is no such worker.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> tables = so.sharded.Tables({"item": so.Rows(10, 2)}, so.SGD, shards=2, workers=2)
        >>> one, other = tables.client(0), tables.client(1)
        >>> one.push({"item": so.RowGradient([3], np.ones((1, 2)))})
        >>> tables.steps                                     # it waits for the other worker
        0
        >>> other.push({})
        >>> tables.steps
        1
        """
        self._settle("client")
        if at_least("worker", worker, 0) >= self.workers:
            raise ValueError(f"worker is {worker}; it must be from 0 to {self.workers - 1}")
        return self._new_client(worker)

    def _new_client(self, worker, in_fit=False):
        return Client(self._engine.link, self._layout, self._about, self._run, worker, in_fit)

    def pull(self, rows: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
        """Return copies of rows as they are now, whatever workers have sent for the next step.

        Parameters
        ----------
        rows : mapping from str to array of integers
            Rows may repeat, in any order. Under missed="replay" they are caught up first.

        Returns
        -------
        dict of str to array
            Of shape (k, dim), or (k,) for a table of one dimension.

        Raises
        ------
        TypeError, KeyError, IndexError
            If the rows are not those of the tables.
        RuntimeError
            If a shard has died, or the tables are closed.

        Examples
        --------
        >>> import sparseopt as so
        >>> tables = so.sharded.Tables({"item": so.Rows(10, 2, init=so.init.Constant(1.0))}, so.SGD, shards=2)
        >>> tables.pull({"item": [9, 0]})["item"].shape
        (2, 2)
        """
        return self._own_client()._read(rows)

    def push(self, gradients: Mapping[str, Gradient | None]) -> None:
        """Take a step, as the one worker of these tables.

        Parameters
        ----------
        gradients : mapping from str to gradient
            As in `Optimizer.step`.

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            As `Optimizer.step`. All shards are then as before.
        RuntimeError
            If there are several workers: each pushes through its client. Also if a shard has died.

        Examples
        --------
        >>> import sparseopt as so
        >>> tables = so.sharded.Tables({"item": so.Rows(10, None)}, lambda tables: so.SGD(tables, lr=0.5), shards=2)
        >>> tables.push({"item": so.RowGradient([3, 3], [1.0, 1.0])})
        >>> tables.pull({"item": [3]})["item"]
        array([-1.], dtype=float32)
        """
        if self.workers > 1:
            raise RuntimeError(f"push is for tables with one worker, and these have {self.workers}; each worker pushes "
                               "through its client")
        self._own_client("push").push(gradients)

    def _own_client(self, what=None):
        self._settle(what)
        if self._own is None:
            self._own = self._new_client(0)
        return self._own

    # Training.

    def fit(self, gradients_of: Callable[..., Any], steps: int | None = None, *, checkpoint_every: int | None = None,
            callback: Callable[[int, list[Any]], Any] | None = None) -> None:
        """Take steps with the gradients that `gradients_of(client, step, worker)` returns for each worker.

        Parameters
        ----------
        gradients_of : callable
            It reads rows by `client.pull`. It returns a mapping of gradients, or a pair of these and a small report, or
            None if the worker has no more steps. `step` is the number of steps taken before; in async mode, the number
            before this fit plus the worker's own steps in it. After a failure it may be called again for an earlier
            step, and must be able to do that step again. With engine "ray" it is pickled, by cloudpickle.
        steps : None or int
            How many steps to take at most, in async mode each worker. None goes on until every worker returns None.
        checkpoint_every : None or int
            Save whenever `tables.steps` is a multiple of this number.
        callback : None or callable
            Called in this process after each step, as ``callback(steps, reports)``, with a list of one report for each
            worker. In async mode a step has the report of one worker, and None for the others. A true result ends the
            fit. After a failure, steps that are done again are told again.

        Raises
        ------
        TypeError, ValueError
            If a parameter or a result is not as described above.
        RuntimeError
            If a shard has died, and there is no `folder`.
        Exception
            What `gradients_of`, `callback` or a step raises. The step is then dropped on all shards.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> tables = so.sharded.Tables({"item": so.Rows(10, None)}, lambda tables: so.SGD(tables, lr=0.5), workers=2)
        >>> def gradients_of(client, step, worker):
        ...     return ({"item": so.RowGradient([worker], [1.0])}, worker) if step < 2 else None
        >>> tables.fit(gradients_of, callback=lambda steps, reports: print(steps, reports))
        1 [0, 1]
        2 [0, 1]
        >>> tables.pull({"item": [0, 1, 2]})["item"]
        array([-1., -1.,  0.], dtype=float32)
        """
        if not callable(gradients_of):
            raise TypeError(f"gradients_of is {shown(gradients_of)}; it must be a callable")
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {shown(callback)}; it must be None or a callable")
        if steps is not None:
            at_least("steps", steps, 0)
        if checkpoint_every is not None:
            at_least("checkpoint_every", checkpoint_every, 1)
            self._need_folder("checkpoint_every")
        self._settle("fit")
        self._begin_run()
        kind = SyncFit if self._layout.mode == "sync" else AsyncFit
        fit = kind(self, gradients_of, steps, checkpoint_every, callback)
        self._unsettled = self._fitting = True
        try:
            fit.run()
        except BaseException:
            self._fitting = False
            with contextlib.suppress(Exception):        # if this fails too, the next call does it
                self._engine.end()
                self._begin_run()
            raise
        self._fitting = False

    # Checkpoints.

    def save(self) -> Path:
        """Write a checkpoint into `folder`, and return its path. `so.sharded.load` reads the newest.

        It has a file for each shard, which `so.load` reads too, and a manifest. The manifest is written last. So after
        a kill at any moment the last complete checkpoint is there. Older ones than the newest `keep` are removed.

        Raises
        ------
        ValueError, TypeError
            If there is no folder; or as `so.save`.
        OSError
            If a file cannot be written.
        RuntimeError
            If a shard has died.

        Examples
        --------
        >>> import os, tempfile, sparseopt as so
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tables = so.sharded.Tables({"item": so.Rows(10, 2)}, so.SGD, shards=2, folder=folder)
        ...     sorted(os.listdir(tables.save()))
        ['manifest.json', 'shard-0-of-2.safetensors', 'shard-1-of-2.safetensors']
        """
        self._need_folder("save")
        self._settle()
        return self._save()

    def _save(self):
        layout = self._layout
        steps = max(about["steps"] for about in self._each("about", self._run))
        path = _checkpoints.new_folder(self._folder, steps)
        files = self._call({shard: [("save", (self._run, path / _checkpoints.file_name(shard, layout.shards),
                                              {} if shard else self.metadata))] for shard in range(layout.shards)})
        _checkpoints.finish(path, {
            "steps": steps, "shards": layout.shards, "workers": layout.workers, "mode": layout.mode,
            "staleness": layout.staleness, "combine": layout.combine,
            "tables": {name: [rows.n_rows, rows.dim, rows.dtype.name] for name, rows in layout.rows.items()},
            "files": [files[shard][0] for shard in range(layout.shards)]}, self._keep)
        self._origin = path
        return path

    def _need_folder(self, what):
        if self._folder is None:
            raise ValueError(f"{what} needs a folder; hand one in when the tables are made")

    def optimizer(self) -> Optimizer:
        """Return an optimizer in memory with copies of all rows and of all state, for `so.save` or to train on.

        Examples
        --------
        >>> import numpy as np, sparseopt as so
        >>> tables = so.sharded.Tables({"item": so.Rows(10, 2)}, so.Adam, shards=3)
        >>> tables.push({"item": so.RowGradient([7], np.ones((1, 2)))})
        >>> opt = tables.optimizer()
        >>> opt.params["item"].shape, opt.state["item"]["step"]
        ((10, 2), array([0, 0, 0, 0, 0, 0, 0, 1, 0, 0], dtype=int32))
        """
        self._settle()
        parts = {name: Part(0, 1, rows.n_rows) for name, rows in self.rows.items()}
        pieces = ((shard, self.shards, *self._each("state", self._run, shards=[shard])[0])
                  for shard in range(self.shards))
        whole = filled(None, parts, pieces)
        whole.metadata = copy.deepcopy(self.metadata)
        return whole

    def load(self, optimizer: Optimizer) -> None:
        """Take over the rows, the state and the whole run of an optimizer in memory that has the same tables.

        Clients must be made anew. While this goes on, shards take twice their memory.

        Parameters
        ----------
        optimizer : Optimizer
            Of any class. Its hyper-parameters, counts and metadata are taken over too.

        Raises
        ------
        TypeError, ValueError
            If it is no optimizer, or its tables have other names, shapes or dtypes. All shards are then as before.

        Examples
        --------
        >>> import sparseopt as so
        >>> opt = so.Adam({"item": so.normal((10, 2), seed=0)}, lr=0.1)
        >>> tables = so.sharded.Tables({"item": so.Rows(10, 2)}, so.Adam, shards=3)
        >>> tables.load(opt)
        >>> bool((tables.pull({"item": range(10)})["item"] == opt.params["item"]).all())
        True
        """
        self._settle("load")
        self._check_alike(optimizer)
        while_held(optimizer, lambda state, structure: self._offer(type(optimizer), state, structure))
        self._taking = secrets.token_hex(8), copy.deepcopy(optimizer.metadata)
        self._accept()

    def _accept(self):
        """Let all shards begin with what they were offered. After a signal, the next call ends this."""
        run, metadata = self._taking
        about = self._each("accept", self._run, run)[0]
        adopt([], [], [(self, name, value) for name, value in (
            ("_run", run), ("_about", about), ("_own", None), ("metadata", metadata), ("_taking", None))])

    def _check_alike(self, optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is a {type(optimizer).__name__}; it must be an Optimizer")
        ours = {name: (rows.shape(rows.n_rows), rows.dtype) for name, rows in self.rows.items()}
        theirs = {name: (table.shape, table.dtype) for name, table in optimizer.params.items()}
        if ours != theirs:
            raise ValueError(f"optimizer has the tables {_shapes(theirs)}; these are {_shapes(ours)}")

    def _offer(self, kind, state, structure):
        for shard in range(self.shards):
            parts = {name: Part(shard, self.shards, rows.n_rows) for name, rows in self.rows.items()}
            self._each("offer", self._run, kind, cut(state, parts), structure, shards=[shard])

    def __repr__(self) -> str:
        layout = self._layout
        tables = listed([f'"{escaped(name, 80)}" {rows.shape(rows.n_rows)} {rows.dtype}'
                         for name, rows in self.rows.items()], show=str)
        chosen = {name: getattr(layout, name) for name in ("shards", "workers")} | {"engine": self._engine_name}
        chosen |= {name: getattr(layout, name) for name in ("mode", "staleness", "combine")}
        if layout.disk is not None:
            chosen |= {"disk": layout.disk, "cache_rows": layout.cache_rows}
        said = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
        return (f"Tables({tables}; {self._about['optimizer']}; {said}" + ("; closed)" if self._engine is None else ")"))

    def close(self) -> None:
        """End shards and workers. Rows that no checkpoint has are lost."""
        if self._fitting:
            self._settle("close")
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load(folder: FilePath, optimizer: Callable[[Mapping[str, Any]], Optimizer] | None = None, *,
         shards: int | None = None, workers: int | None = None, engine: str = "local",
         mode: Literal["sync", "async"] | None = None, staleness: int | None = None,
         combine: Literal["none", "worker"] | None = None, keep: int | None = None, disk: FilePath | None = None,
         cache_rows: int | Mapping[str, int] | None = None) -> Tables:
    """Return tables with the rows of the newest complete checkpoint of a folder, on any number of shards.

    Parameters
    ----------
    folder : str or path
        Where `Tables.save` or `Tables.fit` wrote. Further checkpoints go there too.
    optimizer : None or callable
        As in `Tables`. It is needed for what no file holds: a learning rate that is a callable from outside
        `sparseopt.schedules`, or an optimizer of one's own class.
    shards, workers, mode, staleness, combine
        As in `Tables`; None stands for what the checkpoint says.
    engine, keep, disk, cache_rows
        As in `Tables`, whatever the tables had before. Without disk, all rows come to memory. With disk, `optimizer`
        is needed.

    Returns
    -------
    Tables

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or no complete checkpoint in it.
    ValueError, OSError
        If a file of the checkpoint is damaged, missing, or of another checkpoint; or as `so.load`.
    TypeError, ValueError
        If a parameter is not as described above.

    Examples
    --------
    >>> import tempfile, numpy as np, sparseopt as so
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tables = so.sharded.Tables({"item": so.Rows(10, 2)}, so.Adam, shards=2, folder=folder)
    ...     tables.push({"item": so.RowGradient([3], np.ones((1, 2)))})
    ...     path = tables.save()
    ...     again = so.sharded.load(folder, shards=5)
    >>> again.shards, again.steps, again.pull({"item": [3]})["item"].round(3)
    (5, 1, array([[-0.001, -0.001]], dtype=float32))
    """
    found = _checkpoints.latest(folder)
    manifest = found.manifest
    chosen = {"shards": shards, "workers": workers, "mode": mode, "staleness": staleness, "combine": combine}
    if mode is not None and mode != manifest["mode"] and staleness is None:
        chosen["staleness"] = 0
    chosen = {name: manifest[name] if value is None else value for name, value in chosen.items()}
    rows = {name: Rows(*one) for name, one in manifest["tables"].items()}
    layout = _checked_layout(rows, optimizer, **chosen, disk=disk, cache_rows=cache_rows)
    tables = Tables.__new__(Tables)
    tables._set_folder(folder, keep)
    tables._origin = found.path
    tables._start(layout, engine)
    tables.metadata = tables._each("kept_metadata", tables._run)[0]
    return tables


def _shapes(tables):
    return listed([f"{name} {shape} {dtype}" for name, (shape, dtype) in tables.items()], show=escaped)


def _checked_layout(rows, optimizer, shards, workers, mode, staleness, combine, disk, cache_rows):
    if not isinstance(rows, Mapping) or not rows:
        raise TypeError(f"rows is {shown(rows)}; it must be a mapping from names to so.Rows, with one table or more")
    for name, one in rows.items():
        if not isinstance(name, str):
            raise TypeError(f"rows has the name {shown(name)}; names must be strings")
        if not isinstance(one, Rows):
            raise TypeError(f"rows of {shown(name)} is {shown(one)}; it must be a so.Rows")
    if optimizer is not None and not callable(optimizer):
        raise TypeError(f"optimizer is {shown(optimizer)}; it must be a callable from tables by name to an Optimizer, "
                        "such as lambda tables: so.Adam(tables)")
    one_of("mode", mode, "sync", "async")
    if at_least("staleness", staleness, 0) and mode == "sync":
        raise ValueError(f'staleness is {staleness} with mode="sync"; it is for mode="async"')
    one_of("combine", combine, "none", "worker")
    if disk is None and cache_rows is not None:
        raise ValueError(f"cache_rows is {shown(cache_rows)} without disk; it says how many rows of a shard on a disk "
                         "stand in memory")
    if disk is not None and optimizer is None:
        raise TypeError("optimizer is None; with disk it must be a callable from tables by name to an Optimizer")
    return Layout(dict(rows), optimizer, at_least("shards", shards, 1), at_least("workers", workers, 1), mode,
                  staleness, combine, None if disk is None else os.path.abspath(os.fsdecode(disk)),
                  1_000_000 if cache_rows is None else cache_rows)
