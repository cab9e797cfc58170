"""One shard: some rows of every table, with an optimizer of their own, and the gradients that wait for the next step.

a) Row r of a table is row r // S of shard r % S.
b) A turn is one push of a worker. In sync mode, all workers' pushes of a turn make one step. In async mode, each push
   makes a step. `turns` has the next turn of each worker.
c) A step takes `prepare` and `commit`. `prepare` raises what is wrong, and writes nothing. So all shards can be asked
   before the first one writes. In memory without max_grad_norm and nonfinite="raise", `commit` alone does.
d) Every message says which run it belongs to. A message that comes twice changes nothing. One of another run is
   refused. A new shard, which replaces a dead one, has no run and refuses all until `make` or `load`.
e) A method that has to wait for another worker returns None, and its caller asks again. A shard has no threads.
"""

import numpy as np

from .._kernels.atomic import adopt
from ..gradients import trusted
from . import _checkpoints, _places


class UnloadedError(RuntimeError):
    """A shard that was started again holds no rows yet."""


class Shard:
    """The rows number, number + S, number + 2 S, ... of all tables. All arguments and results can be pickled."""

    def __init__(self, number, layout):
        self.number, self.layout = number, layout
        self.run = self.place = None

    def do(self, calls):
        """Call several methods: pairs (name, arguments). Return the results, up to the first None."""
        results = []
        for name, arguments in calls:
            results.append(getattr(self, name)(*arguments))
            if results[-1] is None:
                break
        return results

    # The run.

    def make(self, run):
        """Begin a run with first values. Return what the shard says about its optimizer."""
        return self._begin(run, _places.new(self.number, self.layout))

    def load(self, run, path):
        """Begin a run with the rows of a checkpoint, whatever its number of shards."""
        return self._begin(run, _places.loaded(path, self.number, self.layout))

    def is_loaded(self):
        return self.run is not None

    def idle(self, run, steps):
        """Take steps without gradients until `steps` were taken."""
        self._check(run)
        while self.place.opt.steps < steps:
            self.place.stage({name: _places.nothing(rows) for name, rows in self.layout.rows.items()}).commit()
        return True

    def reset(self, run):
        """Begin a run with the rows as they are. Gradients that wait are dropped."""
        if self.run is None:
            raise UnloadedError(f"shard {self.number} was started again and holds no rows")
        return self._begin(run, self.place)

    def _begin(self, run, place):
        before = self.place
        new = {
            "run": run, "place": place, "offered": None, "staged": None,
            "turns": [0] * self.layout.workers,
            "waiting": {},              # by worker: its gradients by table
            "messages": {},             # by worker: the client whose push came last, and the push's number
            "left": set(),              # workers that take no more steps
        }
        adopt([], [], [(self, name, value) for name, value in new.items()])
        if before is not None and before is not place:
            before.close()
        return self.about(run)

    def about(self, run):
        self._check(run)
        opt = self.place.opt
        # Whether all shards must be asked before one of them may take a step.
        asks = opt.nonfinite == "raise" or opt.max_grad_norm is not None or self.place.moves
        return {"optimizer": type(opt).__name__, "steps": opt.steps, "nonfinite": opt.nonfinite, "asks": asks}

    def _check(self, run):
        if self.run is None:
            raise UnloadedError(f"shard {self.number} was started again and holds no rows")
        if run != self.run:
            raise RuntimeError(f"shard {self.number} has begun another run since this client was made: the tables have "
                               "been trained by fit, loaded or restarted; make a new client")

    # Messages of workers.

    def turn_of(self, run, worker):
        """Return the turn of the next push of a worker."""
        self._check(run)
        alone = self.layout.workers == 1 or self.layout.mode == "async"     # what waits then is of an interrupted push
        return self.turns[worker] + (worker in self.waiting and not alone)

    def read(self, run, rows):
        """Return rows by local number, as they are now."""
        self._check(run)
        if self.place.moves and self.staged is not None and not self.staged[2].taken:
            self.staged = None
        return self.place.read(rows)

    def pull(self, run, turn, worker, rows):
        """Return rows by local number, for a turn of a worker; None before all steps that they wait for."""
        self._check(run)
        return self.read(run, rows) if self._may_begin(turn, worker) else None

    def _may_begin(self, turn, worker):
        if self.layout.mode == "sync":
            return turn <= self.turns[worker]
        behind = [self.turns[other] for other in range(self.layout.workers) if other not in self.left]
        return turn <= self.turns[worker] and turn - min(behind, default=turn) <= self.layout.staleness

    def push(self, run, turn, worker, message, gradients):
        """Keep gradients, by name pairs (local rows, values), for the next step.

        Return whether those of all workers are here; None if the worker is too far ahead. `message` is the client that
        sends, and the number of its message. A later message for the same step replaces an earlier one.
        """
        self._check(run)
        client, number = message
        waits = turn == self.turns[worker] and worker in self.waiting
        if turn < self.turns[worker] or waits:
            before, last = self.messages[worker]
            if client != before:
                raise RuntimeError(f"worker {worker} has already pushed its gradients of this step, through another "
                                   "client; a worker has one client")
            if not waits or number <= last:
                return self._complete()             # the message came before
        elif not self._may_begin(turn, worker):
            return None
        adopt([], [], [(self, "messages", {**self.messages, worker: message}),
                       (self, "waiting", {**self.waiting, worker: gradients})])
        return self._complete()

    def _complete(self):
        return len(self.waiting) == self.layout.workers

    def leave(self, run, workers):
        """Say that nobody is to wait for these workers."""
        self._check(run)
        self.left = self.left | set(workers)
        return True

    # Steps.

    def prepare(self, run, turn, workers):
        """Check and prepare the step of these workers' gradients. Return the sum of squares; None if one is missing.

        Raises what the step would raise.
        """
        self._check(run)
        if self._taken(turn, workers):
            return 0.0
        if not all(map(self.waiting.__contains__, workers)):
            return None
        self.staged = turn, workers, self._staged(workers)
        return 0.0 if self.place.opt.max_grad_norm is None else self.staged[2].square_sum()

    def commit(self, run, turn, workers, square_sum=None):
        """Take the step of these workers' gradients, in this order. Return how many steps were taken so far.

        `square_sum` is that of all shards; None is for a single shard.
        """
        self._check(run)
        if not self._taken(turn, workers):
            if not all(map(self.waiting.__contains__, workers)):
                return None
            if self.staged is None or self.staged[:2] != (turn, workers):
                self.staged = turn, workers, self._staged(workers)
            self.staged[2].commit(square_sum)           # again after a signal, it does nothing
            self.drop(run, turn, workers)
        return self.place.opt.steps

    def drop(self, run, turn, workers):
        """End the turn of these workers, without a step if there was no `commit`. Return True."""
        self._check(run)
        if not self._taken(turn, workers):
            turns, waiting = [turn + 1] * self.layout.workers, {}
            if self.layout.mode == "async":
                turns = [turn + 1 if worker in workers else one for worker, one in enumerate(self.turns)]
                waiting = {worker: one for worker, one in self.waiting.items() if worker not in workers}
            adopt([], [], [(self, "turns", turns), (self, "waiting", waiting), (self, "staged", None)])
        return True

    def _taken(self, turn, workers):
        return self.turns[workers[0]] > turn        # in sync mode the turns of all workers end together

    def _staged(self, workers):
        parts = {}
        for worker in workers:
            for name, gradient in self.waiting[worker].items():
                parts.setdefault(name, []).append(gradient)
        # Optimizers take tables in the order of the gradients, so each worker's order must not count.
        gradients = {name: trusted(*joined(parts[name])) for name in self.layout.rows if name in parts}
        return self.place.stage(gradients)

    # The whole shard.

    def save(self, run, path, metadata):
        """Save a checkpoint of the shard, and return what the manifest says about the file."""
        self._check(run)
        self.place.opt.metadata = metadata
        self.place.save(path)
        return _checkpoints.sum_of(path)

    def kept_metadata(self, run):
        self._check(run)
        return self.place.opt.metadata

    def state(self, run):
        """Return the class, the state_dict and the structure of an optimizer with all rows of the shard."""
        self._check(run)
        return _places.state_of(self.place)

    def offer(self, run, kind, state, structure):
        """Make rows with the numbers of a state_dict, for `accept`. Until then all stays as it is."""
        self._check(run)
        self.offered = _places.taken(self.number, self.layout, kind, state, structure)
        return True

    def accept(self, run, new_run):
        """Begin a run with what `offer` made. A second call does nothing."""
        if self.run != new_run:
            self._check(run)
            self._begin(new_run, self.offered)
        return self.about(new_run)


def joined(parts):
    """Return rows and values of several gradients, one after the other."""
    if len(parts) == 1:
        return parts[0]
    rows, values = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(values)
