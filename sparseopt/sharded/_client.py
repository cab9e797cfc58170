"""What workers do with shards: pull rows, push gradients, and lead a step to its end."""

import itertools
import math
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._kernels import rowplan
from .._text import listed, shown
from .._typing import Array
from ..embedding import gather
from ..gradients import Gradient, entries, row_numbers


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

    # Rows. The key of a row is its number if all shards' rows stand one after the other.

    def _split_rows(self, rows):
        """Return for each shard its local rows by table, and for each table what `_assembled` needs."""
        parts, back = [{} for _ in range(self._layout.shards)], {}
        for name, numbers in self._named(rows, "rows"):
            what = f"rows of {shown(name)}"
            numbers = row_numbers(numbers, what)
            rowplan.check(what, "row", numbers, self._layout.rows[name].n_rows)
            back[name] = None
            if self._link.remote or self._layout.shards > 1:
                keys = self._keys(name, numbers)
                plan = rowplan.plan(what, *self._size(name), keys, np.empty((len(keys), 0), np.float32), rising=True)
                numbers, back[name] = plan.rows, plan.positions()
            for part, place, local in self._by_shard(parts, name, numbers):
                part[name] = local
        return parts, back

    def _assembled(self, found, back):
        answers = {}
        for name, positions in back.items():
            pieces = [found[shard][name] for shard in range(self._layout.shards)]
            values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            answers[name] = values if positions is None else gather(values, positions)
        return answers

    def _named(self, given, what):
        """Return the pairs (name, value) of a mapping by tables; or raise."""
        tables = self._layout.rows
        if not isinstance(given, Mapping):
            raise TypeError(f"{what} is a {type(given).__name__}; it must be a mapping, with names among "
                            f"{listed(tables)}")
        for name in given:
            if name not in tables:
                raise KeyError(f"{what} names {shown(name)}; the tables are {listed(tables)}")
        return list(given.items())

    def _keys(self, name, rows):
        n_shards = self._layout.shards
        if n_shards == 1:
            return rows
        local = rows // n_shards
        return (rows - local * n_shards) * self._width(name) + local

    def _width(self, name):
        """Return how many keys a shard has."""
        return -(-self._layout.rows[name].n_rows // self._layout.shards)

    def _size(self, name):
        """Return the number of keys of a table, and its dim."""
        dim = self._layout.rows[name].dim
        return self._width(name) * self._layout.shards, 1 if dim is None else dim

    def _by_shard(self, parts, name, keys):
        """Return for each shard its part, the slice of its keys, and its local rows. Keys of a shard stand together."""
        width, n_shards = self._width(name), self._layout.shards
        if n_shards == 1:
            return [(parts[0], slice(None), keys)]
        bounds = np.searchsorted(keys // max(width, 1), np.arange(n_shards + 1))
        places = [slice(*pair) for pair in itertools.pairwise(bounds)]
        return [(part, place, keys[place] - shard * width)
                for shard, (part, place) in enumerate(zip(parts, places, strict=True))]

    # Gradients.

    def _split(self, gradients):
        """Return for each shard its gradients by table, as pairs (local rows, values)."""
        parts = [{} for _ in range(self._layout.shards)]
        for name, gradient in self._named(gradients, "gradients"):
            if gradient is not None:
                keys, values = self._by_key(name, gradient)
                for part, place, local in self._by_shard(parts, name, keys):
                    part[name] = local, values[place]
        return parts

    def _by_key(self, name, gradient):
        """Return keys in the order of the shards, and values: as they came, or summed if that changes no bit."""
        layout, remote, what = self._layout, self._link.remote, f"gradient of {shown(name)}"
        table = layout.rows[name]
        form = with_rows(entries(gradient, table.shape(table.n_rows), table.dtype, what), table.n_rows, what)
        rowplan.check(what, "row", form.rows, table.n_rows)
        keys, single = self._keys(name, form.rows), layout.workers == 1
        # The sums of the first worker are where the sums of all workers begin.
        if single or layout.combine == "worker" or self.worker == 0:
            if single and not remote and layout.shards == 1 and form.columns is None and form.sources is None:
                return keys, form.values        # the step adds the repeats
            form = form._replace(rows=keys)
            plan = rowplan.plan(what, *self._size(name), *form, rising=layout.shards > 1)
            keys, values = plan.rows, plan.sums(self._size(name)[1]).reshape(table.shape(plan.n))
        else:
            values = as_rows(form, table)
            order = np.argsort(keys // max(self._width(name), 1), kind="stable")
            keys, values = keys[order], values[order]
        if not single and not remote and np.may_share_memory(values, form.values):
            values = values.copy()              # they wait for the other workers, and the caller may reuse them
        return keys, values


def with_rows(form, n_rows, what):
    """Return entries with a row number for each."""
    if form.rows is not None:
        return form
    if form.indptr is None:
        return form._replace(rows=np.arange(n_rows))
    numbers = form.columns if form.columns is not None else form.sources
    return form._replace(rows=rowplan.expanded(what, "row", form.indptr, numbers), indptr=None)


def as_rows(form, table):
    """Return the entries' values as one row of values for each entry."""
    if form.sources is not None:
        return form.weights.reshape(-1, *[1] * (form.values.ndim - 1)) * form.values[form.sources]
    if form.columns is None:
        return form.values
    values = np.zeros(table.shape(len(form.rows)), table.dtype)
    # A sum of cells begins with 0, so none is -0.
    values.reshape(len(values), -1)[np.arange(len(values)), form.columns] = form.values + 0
    return values


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
