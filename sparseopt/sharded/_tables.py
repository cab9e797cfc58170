"""Sharded tables: what makes the shards, runs a fit, saves, and recovers from failures."""

import contextlib
import copy
import importlib
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from .._checks import at_least, one_of
from .._kernels.atomic import adopt
from .._rows import Rows
from .._text import escaped, listed, shown
from .._typing import Array, FilePath, Self
from ..gradients import Gradient
from ..optimizers import Optimizer, Part, while_held
from . import _checkpoints
from ._client import Client, Lost
from ._fit import AsyncFit, SyncFit
from ._local import LocalEngine
from ._pieces import cut, filled
from ._shard import Layout, made


def _ray(layout):
    return importlib.import_module("._ray", __package__).RayEngine(layout)


ENGINES = {"local": LocalEngine, "ray": _ray}


class Tables:
    def __init__(self, rows: Mapping[str, Rows], optimizer: Callable[[Mapping[str, Any]], Optimizer], *,
                 shards: int = 1, workers: int = 1, engine: str = "local", mode: Literal["sync", "async"] = "sync",
                 staleness: int = 0, combine: Literal["none", "worker"] = "worker", folder: FilePath | None = None,
                 keep: int = 2) -> None:
        if optimizer is None:
            raise TypeError("optimizer is None; it must be a callable from tables by name to an Optimizer, such as "
                            "lambda tables: so.Adam(tables)")
        layout = _checked_layout(rows, optimizer, shards, workers, mode, staleness, combine)
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
        self._keep = at_least("keep", keep, 1)

    def _start(self, layout, engine):
        self._layout, self._engine_name = layout, one_of("engine", engine, *ENGINES)
        self.rows: dict[str, Rows] = dict(layout.rows)
        self.metadata: dict[str, Any] = {}
        self._engine, self._to_fill, self._taking = ENGINES[engine](layout), set(), None
        try:
            self._begin_run(fill=range(layout.shards))
        except BaseException:
            self.close()
            raise

    # What the shards hold.

    @property
    def workers(self) -> int:
        return self._layout.workers

    @property
    def shards(self) -> int:
        return self._layout.shards

    @property
    def steps(self) -> int:
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

    def _settle(self):
        """Begin a new run if a signal interrupted a fit, or the loading of shards. Nothing of the old one waits then.
        """
        if self._engine is None:
            raise RuntimeError("these tables are closed")
        if self._taking is not None:
            self._accept()
        if self._unsettled:
            self._begin_run()

    def restore(self) -> int:
        if self._engine is None:
            raise RuntimeError("these tables are closed")
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
        self._settle()
        if at_least("worker", worker, 0) >= self.workers:
            raise ValueError(f"worker is {worker}; it must be from 0 to {self.workers - 1}")
        return self._new_client(worker)

    def _new_client(self, worker, in_fit=False):
        return Client(self._engine.link, self._layout, self._about, self._run, worker, in_fit)

    def pull(self, rows: Mapping[str, Any]) -> dict[str, Array]:
        return self._own_client().read(rows)

    def push(self, gradients: Mapping[str, Gradient | None]) -> None:
        if self.workers > 1:
            raise RuntimeError(f"push is for tables with one worker, and these have {self.workers}; each worker pushes "
                               "through its client")
        self._own_client().push(gradients)

    def _own_client(self):
        self._settle()
        if self._own is None:
            self._own = self.client(0)
        return self._own

    # Training.

    def fit(self, gradients_of: Callable[..., Any], steps: int | None = None, *, checkpoint_every: int | None = None,
            callback: Callable[[int, list[Any]], Any] | None = None) -> None:
        if not callable(gradients_of):
            raise TypeError(f"gradients_of is {shown(gradients_of)}; it must be a callable")
        if callback is not None and not callable(callback):
            raise TypeError(f"callback is {shown(callback)}; it must be None or a callable")
        if steps is not None:
            at_least("steps", steps, 0)
        if checkpoint_every is not None:
            at_least("checkpoint_every", checkpoint_every, 1)
            self._need_folder("checkpoint_every")
        self._settle()
        self._begin_run()
        self._unsettled = True
        try:
            kind = SyncFit if self._layout.mode == "sync" else AsyncFit
            kind(self, gradients_of, steps, checkpoint_every, callback).run()
        except BaseException:
            with contextlib.suppress(Exception):        # if this fails too, the next call does it
                self._engine.end()
                self._begin_run()
            raise

    # Checkpoints.

    def save(self) -> Path:
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
        self._settle()
        parts = {name: Part(0, 1, rows.n_rows) for name, rows in self.rows.items()}
        pieces = ((shard, self.shards, *self._each("state", self._run, shards=[shard])[0])
                  for shard in range(self.shards))
        whole = filled(None, parts, pieces)
        whole.metadata = dict(self.metadata)
        return whole

    def load(self, optimizer: Optimizer) -> None:
        self._settle()
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
        said = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
        return (f"Tables({tables}; {self._about['optimizer']}; {said}" + ("; closed)" if self._engine is None else ")"))

    def close(self) -> None:
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
         combine: Literal["none", "worker"] | None = None, keep: int = 2) -> Tables:
    found = _checkpoints.latest(folder)
    manifest = found.manifest
    chosen = {"shards": shards, "workers": workers, "mode": mode, "staleness": staleness, "combine": combine}
    if mode is not None and mode != manifest["mode"] and staleness is None:
        chosen["staleness"] = 0
    chosen = {name: manifest[name] if value is None else value for name, value in chosen.items()}
    rows = {name: Rows(*one) for name, one in manifest["tables"].items()}
    layout = _checked_layout(rows, optimizer, **chosen)
    tables = Tables.__new__(Tables)
    tables._set_folder(folder, keep)
    tables._origin = found.path
    tables._start(layout, engine)
    tables.metadata = tables._each("kept_metadata", tables._run)[0]
    return tables


def _shapes(tables):
    return listed([f"{name} {shape} {dtype}" for name, (shape, dtype) in tables.items()], show=escaped)


def _checked_layout(rows, optimizer, shards, workers, mode, staleness, combine):
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
    return Layout(dict(rows), optimizer, at_least("shards", shards, 1), at_least("workers", workers, 1), mode,
                  staleness, combine)
