"""What workers do with shards: pull rows, push gradients, and lead a step to its end."""

import itertools
import math
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .._kernels import rowplan
from .._kernels.atomic import Counts
from .._text import escaped, listed, shown
from .._typing import Floats
from ..embedding import gather
from ..gradients import Gradient, entries, row_numbers

_OTHERS = "the gradients of other workers"


class Lost(RuntimeError):
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

    def __init__(self):
        self._unfinished = {}           # calls that a signal may have interrupted

    def call(self, calls):
        """Let shards do calls, all at the same time: {shard: [(method, arguments), ...]} -> {shard: results}.

        Raise Lost if shards have died, or else the first shard's error, after all have answered.
        """
        self.settle()
        return self._call(calls)

    def wait(self, calls, what):
        """As `call`, again and again until no shard has to wait for `what`. Repeated messages change nothing."""
        results = self.call(calls)
        while left := {shard: calls[shard] for shard, answers in results.items() if answers[-1] is None}:
            self.pause(what)
            results |= self.call(left)
        return results

    def call_whole(self, calls, last):
        """Call all shards, which have nothing to wait for, and then wait for one call more of each, if there is one.

        If a signal interrupts this, the next call first repeats `calls`.
        """
        self.settle()
        key = object()
        self._unfinished[key] = calls
        try:
            results = self._call(together(calls, last))
        except Exception:
            self._unfinished.pop(key, None)
            raise
        self._unfinished.pop(key, None)
        waits = {shard: last[shard] for shard, answers in results.items() if answers[-1] is None}
        if waits:
            results |= self.wait(waits, _OTHERS)
        return results

    def settle(self):
        for key, calls in list(self._unfinished.items()):
            try:
                self._call(calls)
            finally:
                self._unfinished.pop(key, None)

    def _call(self, calls):
        raise NotImplementedError

    def pause(self, what):
        """Wait a moment for another worker; raise RuntimeError if none can come."""
        raise NotImplementedError


def together(*parts):
    """Return the calls of several {shard: [(method, arguments), ...]}, one after the other for each shard."""
    parts = [part for part in parts if part is not None]
    return {shard: [call for part in parts for call in part[shard]] for shard in parts[0]}


def per_shard(calls):
    """Return one call for each shard, as `Link.call` takes them."""
    return {shard: [call] for shard, call in enumerate(calls)}


def take_step(link, about, n_shards, run, turn, workers, first=None, last=None, certain=True):
    """Take a step on all shards, or on none, with the gradients of these workers.

    `first` and `last` have one call more for each shard, before all others and after them. Unless it is `certain` that
    the gradients are there, the shards are asked before. Return {shard: results}; the last is that of `last`, or how
    many steps were taken.
    """
    message, square_sum = (run, turn, workers), None
    # A single shard itself finds what is wrong before it writes, and knows the whole norm.
    if not certain or (n_shards > 1 and about["asks"]):
        prepare = per_shard([("prepare", message)] * n_shards)
        try:
            sums = link.wait(together(first, prepare), _OTHERS)
            square_sum = sum(sums[shard][-1] for shard in range(n_shards))      # in the order of the shards
            if about["nonfinite"] != "allow" and not math.isfinite(square_sum):
                raise ValueError("the global norm of the gradients overflows; max_grad_norm cannot scale them")
        except Lost:
            raise
        except Exception:
            link.call_whole(per_shard([("drop", message)] * n_shards), None)
            raise
        first = None
    try:
        return link.call_whole(together(first, per_shard([("commit", (*message, square_sum))] * n_shards)), last)
    except Lost:
        raise
    except Exception:
        link.call_whole(per_shard([("drop", message)] * n_shards), None)
        raise


class _Calls(Counts):
    what = "client"             # in the error of a second call at the same time


class Client:
    """One worker's access to sharded tables; `Tables.client` and `fit` make it.

    It can be pickled. A pickled copy is another client, and a worker has one client. So only one of them may push.

    In sync mode, a push waits on the shards until all workers have pushed. The last of these calls takes the step. A
    pull after a push waits for that step. If no other thread or process could push, it raises RuntimeError.

    Two threads cannot call a client at once. The second call raises RuntimeError.

    Attributes
    ----------
    worker : int

    Examples
    --------
    >>> import numpy as np, sparseopt as so
    >>> tables = so.sharded.Tables({"item": so.Rows(10, None)}, lambda tables: so.SGD(tables, lr=0.5), shards=2)
    >>> client = tables.client()
    >>> client.pull({"item": [7]})["item"]
    array([0.], dtype=float32)
    >>> client.exchange({"item": so.RowGradient([7], [1.0])}, {"item": [7, 2]})["item"]
    array([-0.5,  0. ], dtype=float32)
    """

    def __init__(self, link: Any, layout: Any, about: Mapping[str, Any], run: str, worker: int,
                 in_fit: bool = False) -> None:
        self.worker: int = worker
        self._link, self._layout, self._about, self._run, self._in_fit = link, layout, about, run, in_fit
        titles = {name: f'"{escaped(name, 80)}"' for name in layout.rows}
        self._what = {name: (f"rows of {title}", f"gradient of {title}") for name, title in titles.items()}
        self._calls, self._turn = _Calls(), None
        self._token, self._sent = secrets.token_hex(8), 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Client, (self._link, self._layout, self._about, self._run, self.worker, self._in_fit)

    def pull(self, rows: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
        """Return copies of rows, after the steps of all gradients that this worker has pushed.

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
            If a shard has died, if the tables have begun another run since this client was made, or if the call would
            wait for ever.
        """
        return self._calls.alone(self._pull, rows)

    def _pull(self, rows):
        parts, back = self._split_rows(rows)
        return self._assembled(self._link.wait(self._pulls(parts, self._now()), _OTHERS), back)

    def leave(self) -> None:
        """Say that this worker takes no more steps, so that others do not wait for it in async mode.

        In sync mode every worker takes part in every step: push an empty mapping instead.

        Raises
        ------
        RuntimeError
            In sync mode.
        """
        if self._layout.mode == "sync":
            raise RuntimeError('leave is for mode="async"; in sync mode push({}) takes part with nothing')
        every = range(self._layout.shards)
        self._link.call({shard: [("leave", (self._run, (self.worker,)))] for shard in every})

    def _read(self, rows):
        """Return rows as they are now, whatever waits."""
        parts, back = self._split_rows(rows)
        return self._assembled(self._link.call(per_shard([("read", (self._run, part)) for part in parts])), back)

    def push(self, gradients: Mapping[str, Gradient | None]) -> None:
        """Send gradients for the next step. An empty mapping takes part with nothing.

        Parameters
        ----------
        gradients : mapping from str to gradient
            As in `Optimizer.step`.

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError
            If a gradient does not fit its table. Nothing has been sent then.
        ValueError
            By the call that takes the step, as `Optimizer.step`. The gradients of all workers for this step are then
            dropped, and all shards are as before.
        RuntimeError
            As `pull`; also within `fit`, which pushes what `gradients_of` returns.
        """
        self._calls.alone(self._push, gradients, None)

    def exchange(self, gradients: Mapping[str, Gradient | None],
                 next_rows: Mapping[str, npt.ArrayLike]) -> dict[str, Floats]:
        """Push gradients, and pull the rows for the next step, in as few round trips as possible.

        Parameters
        ----------
        gradients
            As in `push`.
        next_rows
            As in `pull`.

        Returns
        -------
        dict of str to array

        Raises
        ------
        TypeError, ValueError, KeyError, IndexError, RuntimeError
            As `push` and `pull`.
        """
        return self._calls.alone(self._exchange, gradients, next_rows)

    def _exchange(self, gradients, next_rows):
        parts, back = self._split_rows(next_rows)
        found = self._push(gradients, parts)
        if found is None:
            found = self._link.wait(self._pulls(parts, self._now()), _OTHERS)
        return self._assembled(found, back)

    def _push(self, gradients, next_rows):
        """Push. If this client takes the step, return what the step's last messages pulled, else None."""
        if self._in_fit:
            raise RuntimeError("push was called within fit; gradients_of returns its gradients, and fit pushes them")
        turn, pushes = self._now(), self._pushes(gradients)
        last = None if next_rows is None else self._pulls(next_rows, turn + 1)
        if self._alone:
            return self._take_own_step(turn, pushes, last)
        if not self._send(turn, pushes):
            return None
        layout = self._layout
        return take_step(self._link, self._about, layout.shards, self._run, turn, tuple(range(layout.workers)),
                         last=last, certain=False)

    def _send_all(self, gradients):
        """Send gradients to all shards. In async mode also take the step."""
        turn, pushes = self._now(), self._pushes(gradients)
        if self._layout.mode == "async":
            self._take_own_step(turn, pushes, None)
        else:
            self._send(turn, pushes)

    @property
    def _alone(self):
        """Whether a step has the gradients of one worker."""
        return self._layout.workers == 1 or self._layout.mode == "async"

    def _take_own_step(self, turn, pushes, last):
        self._turn = None           # after an exception, the shards are asked whether there was a step
        found = take_step(self._link, self._about, self._layout.shards, self._run, turn, (self.worker,), pushes, last,
                          certain=self._layout.mode == "sync")
        self._turn = turn + 1
        return found

    def _send(self, turn, pushes):
        """Send gradients, and return whether those of all workers are there."""
        complete = self._link.wait(pushes, "workers that are behind")
        self._turn = turn + 1
        return complete[0][0]

    def _pushes(self, gradients):
        parts = self._split(gradients)
        self._sent += 1             # if a signal interrupts the push, the next one replaces what was sent
        return per_shard([("push", (self._run, self._turn, self.worker, (self._token, self._sent), part))
                          for part in parts])

    def _pulls(self, parts, turn):
        return per_shard([("pull", (self._run, turn, self.worker, part)) for part in parts])

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
            what, _ = self._what[name]
            numbers = row_numbers(numbers, what)
            rowplan.check(what, "row", numbers, self._layout.rows[name].n_rows)
            back[name] = None
            if self._link.remote or self._layout.shards > 1:
                keys = self._keys(name, numbers)
                plan = rowplan.plan(what, *self._size(name), keys, np.empty((len(keys), 0), np.float32), rising=True)
                numbers, back[name] = plan.rows, plan.positions()
            for part, _, local in self._by_shard(parts, name, numbers):
                part[name] = local
        return parts, back

    def _assembled(self, found, back):
        answers = {}
        for name, positions in back.items():
            pieces = [found[shard][-1][name] for shard in range(self._layout.shards)]
            # The answers of another process are read-only memory.
            values = np.concatenate(pieces) if len(pieces) > 1 or self._link.remote else pieces[0]
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
        layout, remote, (_, what) = self._layout, self._link.remote, self._what[name]
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
        worker = self.client.worker
        made = self.gradients_of(self.client, step, worker)
        if made is None:
            return False, None
        gradients, report = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(gradients, Mapping):
            raise TypeError(f"gradients_of returned {shown(made)} for worker {worker} at step {step}; it must return a "
                            "mapping of gradients, a pair of such a mapping and a report, or None")
        self.client._send_all(gradients)
        return True, report
