"""What workers do with shards: pull rows, push gradients, and lead a step to its end."""

import math
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _memory
from .._kernels import rowplan
from .._text import listed, shown
from .._typing import Array
from ..gradients import Gradient, RowGradient, entries, row_numbers


class Lost(Exception):
    """Shards or workers have died: their numbers."""

    def __init__(self, shards=(), workers=()):
        self.shards, self.workers = set(shards), set(workers)
        said = [f"{what} {listed(sorted(numbers))}" for what, numbers in (("shards", self.shards),
                                                                          ("workers", self.workers)) if numbers]
        super().__init__(f"{' and '.join(said)} died")

    def __reduce__(self):
        return Lost, (self.shards, self.workers)


class Link:
    """How a process reaches the shards. A subclass has `_call` and `pause`, and can be pickled.

    `remote` says whether a message costs its bytes, so that repeated rows are worth a sum.
    """

    remote = True
    _unfinished = None

    def call(self, calls):
        """Let shards do calls, all at the same time: {shard: [(method, arguments), ...]} -> {shard: results}.

        Raise Lost if shards have died, or else the first shard's error, after all have answered.
        """
        self.settle()
        return self._call(calls)

    def settle(self):
        """Finish what a signal interrupted in `wait` with whole=True."""
        if self._unfinished is not None:
            self._until_done(*self._unfinished)

    def wait(self, arguments, method, what, whole=False):
        """Let shards do one call each, again and again until none of them has to wait. Return their results.

        If a signal interrupts this, and `whole` is true, the next call of any kind first does these calls again.
        """
        self.settle()
        if whole:
            self._unfinished = arguments, method, what
        return self._until_done(arguments, method, what)

    def _until_done(self, arguments, method, what):
        results, left = {}, {shard: [(method, one)] for shard, one in arguments.items()}
        try:
            while left:
                for shard, (result, *_) in self._call(left).items():
                    if result is not None:
                        results[shard] = result
                left = {shard: calls for shard, calls in left.items() if shard not in results}
                if left:
                    self.pause(what)
        except Exception:
            self._unfinished = None
            raise
        self._unfinished = None
        return results

    def _call(self, calls):
        raise NotImplementedError

    def pause(self, what):
        """Wait a moment for another worker; raise RuntimeError if none can come."""
        raise NotImplementedError


def take_step(link, about, n_shards, run, turn, workers):
    """Take the step of the gradients that wait on all shards, or on none. Return how many steps were taken so far."""
    message, square_sum, others = (run, turn, workers), 0.0, "the gradients of other workers"
    if about["nonfinite"] == "raise" or about["max_grad_norm"] is not None:
        try:
            sums = link.wait(dict.fromkeys(range(n_shards), message), "prepare", others)
            square_sum = sum(sums[shard] for shard in range(n_shards))          # in the order of the shards
            if about["nonfinite"] != "allow" and not math.isfinite(square_sum):
                raise ValueError("the global norm of the gradients overflows; max_grad_norm cannot scale them")
        except Lost:
            raise
        except Exception:
            link.wait(dict.fromkeys(range(n_shards), message), "drop", others, whole=True)
            raise
    return link.wait(dict.fromkeys(range(n_shards), (*message, square_sum)), "commit", others, whole=True)[0]


class Client:
    """One worker's access to sharded tables: see `Tables.client`.

    It can be pickled. A copy in another process counts as another client.
    """

    def __init__(self, link, layout, about, run, worker, in_fit=False):
        self.worker: int = worker
        self._link, self._layout, self._about, self._run, self._in_fit = link, layout, about, run, in_fit
        self._turn = None
        self._token, self._sent = secrets.token_hex(8), 0

    def __reduce__(self):
        return Client, (self._link, self._layout, self._about, self._run, self.worker, self._in_fit)

    def pull(self, rows: Mapping[str, Any]) -> dict[str, Array]:
        parts, back = self._split_rows(rows)
        turn = self._now()
        messages = {shard: (self._run, turn, self.worker, part) for shard, part in enumerate(parts)}
        return self._assembled(self._link.wait(messages, "pull", "the gradients of other workers"), back)

    def read(self, rows: Mapping[str, Any]) -> dict[str, Array]:
        """Return rows as they are now, whatever waits."""
        parts, back = self._split_rows(rows)
        found = self._link.call({shard: [("read", (self._run, part))] for shard, part in enumerate(parts)})
        return self._assembled({shard: answer for shard, (answer,) in found.items()}, back)

    def push(self, gradients: Mapping[str, Gradient | None]) -> None:
        if self._in_fit:
            raise RuntimeError("push was called within fit; gradients_of returns its gradients, and fit pushes them")
        if self.send(gradients):
            self.take_step()

    def exchange(self, gradients: Mapping[str, Gradient | None], next_rows: Mapping[str, Any]) -> dict[str, Array]:
        self._split_rows(next_rows)             # raises what is wrong with them before the step
        self.push(gradients)
        return self.pull(next_rows)

    def send(self, gradients):
        """Send gradients to all shards, without a step. Return whether it is this client's part to take the step."""
        parts, turn = self._split(gradients), self._now()
        self._sent += 1             # if a signal interrupts this, the next call sends other gradients for this turn
        messages = {shard: (self._run, turn, self.worker, (self._token, self._sent), part)
                    for shard, part in enumerate(parts)}
        complete = self._link.wait(messages, "push", "workers that are behind")[0]
        self._turn = turn + 1
        return complete or self._layout.mode == "async"

    def take_step(self):
        """Take the step of the gradients sent last: of all workers, or in async mode of this one."""
        workers = (self.worker,) if self._layout.mode == "async" else tuple(range(self._layout.workers))
        return take_step(self._link, self._about, self._layout.shards, self._run, self._turn - 1, workers)

    def _now(self):
        """Return the turn of the next push."""
        if self._turn is None:
            self._turn = self._link.call({0: [("turn_of", (self._run, self.worker))]})[0][0]
        return self._turn

    # Rows.

    def _split_rows(self, rows):
        """Return for each shard its local rows by table, and what `_assembled` needs to put the answers together."""
        n_shards, layout = self._layout.shards, self._layout.rows
        if not isinstance(rows, Mapping):
            raise TypeError(f"rows is a {type(rows).__name__}; it must be a mapping, with names among {listed(layout)}")
        parts, back = [{} for _ in range(n_shards)], {}
        for name, numbers in rows.items():
            table = self._table(name, "rows")
            numbers = row_numbers(numbers, f"rows of {shown(name)}")
            rowplan.check(f"rows of {shown(name)}", "row", numbers, table.n_rows)
            inverse = None
            if self._link.remote:
                numbers, inverse = np.unique(numbers, return_inverse=True)
            order, bounds = None, [0, len(numbers)]
            if n_shards > 1:
                numbers, order, bounds = by_shard(numbers, n_shards)
            for shard in range(n_shards):
                parts[shard][name] = numbers[bounds[shard]:bounds[shard + 1]]
            back[name] = table, order, bounds, inverse
        return parts, back

    def _assembled(self, found, back):
        answers = {}
        for name, (table, order, bounds, inverse) in back.items():
            if order is None:
                values = found[0][name]
            else:
                values = _memory.empty(table.shape(bounds[-1]), table.dtype)
                for shard, answer in found.items():
                    values[order[bounds[shard]:bounds[shard + 1]]] = answer[name]
            answers[name] = values if inverse is None else values[inverse]
        return answers

    def _table(self, name, what):
        if name not in self._layout.rows:
            raise KeyError(f"{what} names {shown(name)}; the tables are {listed(self._layout.rows)}")
        return self._layout.rows[name]

    # Gradients.

    def _split(self, gradients):
        """Return for each shard its gradients by table, as pairs (local rows, values)."""
        layout = self._layout
        if not isinstance(gradients, Mapping):
            raise TypeError(f"gradients is a {type(gradients).__name__}; it must be a mapping, with names among "
                            f"{listed(layout.rows)}")
        parts = [{} for _ in range(layout.shards)]
        for name, gradient in gradients.items():
            table = self._table(name, "gradients")
            if gradient is None:
                continue
            rows, values = self._by_rows(gradient, table, f"gradient of {shown(name)}")
            bounds = [0, len(rows)]
            if layout.shards > 1:
                rows, order, bounds = by_shard(rows, layout.shards)
                values = values[order]
            for shard, part in enumerate(parts):
                part[name] = rows[bounds[shard]:bounds[shard + 1]], values[bounds[shard]:bounds[shard + 1]]
        return parts

    def _by_rows(self, gradient, table, what):
        if not isinstance(gradient, RowGradient):
            raise TypeError(f"{what} is a {type(gradient).__name__}; it must be a RowGradient")
        form = entries(gradient, table.shape(table.n_rows), np.dtype(table.dtype), what)
        rowplan.check(what, "row", form.rows, table.n_rows)
        return form.rows, form.values


def by_shard(rows, n_shards):
    """Return the local rows of each shard, the order that brings them together, and where each shard's begin."""
    shards = (rows % n_shards).astype(np.uint16)
    order = np.argsort(shards, kind="stable")
    bounds = np.searchsorted(shards[order], np.arange(n_shards + 1))
    return rows[order] // n_shards, order, bounds


class Worker:
    """A worker of a fit: it does one step when it is told to. The step is taken by fit, in async mode by the worker."""

    def __init__(self, client, gradients_of):
        self.client, self.gradients_of = client, gradients_of

    def work(self, step):
        """Return whether there were gradients, and the report."""
        made = self.gradients_of(self.client, step, self.client.worker)
        if made is None:
            return False, None
        gradients, report = made if isinstance(made, tuple) else (made, None)
        if self.client.send(gradients) and self.client._layout.mode == "async":
            self.client.take_step()
        return True, report
