"""How a fit goes on from step to step, and after failures.

a) All workers at work are awaited before shards or workers are replaced.
b) sync: the workers send, and then the fit takes the step. So without a dead shard no step is lost: what waits is
   dropped, and the step is done again.
c) async: each worker takes its steps itself. It begins the next one if it is at most `staleness` steps ahead.
"""

from ._client import Lost, Worker, take_step
from ._shard import UnloadedError

_MOST_FAILURES = 20             # in a row, without one step between them
_FAILURES = Lost, UnloadedError


class Fit:
    """What the two modes share."""

    def __init__(self, tables, gradients_of, steps, checkpoint_every, callback):
        self.tables, self.gradients_of, self.callback = tables, gradients_of, callback
        self.checkpoint_every = checkpoint_every
        self.engine, self.every = tables._engine, range(tables.workers)
        self.first = tables._first_step
        self.last = None if steps is None else self.first + steps
        self.failures, self.running = 0, set()

    def run(self):
        """Take all steps, and then begin a run without workers."""
        error = None
        while True:
            try:
                if error is not None:
                    self.tables._recover(error)
                self.begin()
                self.take_steps()
                self.engine.end()
                self.tables._begin_run()        # after a failure here, lost steps are taken again
                return
            except _FAILURES as failure:
                error = failure
                self.failures += 1
                if self.failures > _MOST_FAILURES:
                    raise
            while self.running:
                self.next()

    def begin(self):
        """Give every worker a new client."""
        self.active = set(self.every)
        self.engine.begin({worker: Worker(self.tables._new_client(worker, in_fit=True), self.gradients_of)
                           for worker in self.every})

    def start(self, worker, step):
        self.running.add(worker)
        self.engine.start(worker, step)

    def next(self):
        """Wait for one of the workers at work. Return it, its result and its error; one of these is None."""
        worker, result, error = self.engine.next()
        self.running.discard(worker)
        return worker, result, error

    def told(self, steps, reports):
        """Tell the callback about a step, and return whether it ends the fit."""
        self.failures = 0
        return self.callback is not None and bool(self.callback(steps, reports))

    def is_due(self, steps):
        """Return whether it is time for a checkpoint."""
        return self.checkpoint_every is not None and steps % self.checkpoint_every == 0


class SyncFit(Fit):
    def take_steps(self):
        tables, turn, step = self.tables, 0, self.tables._first_step
        while self.last is None or step < self.last:
            results = self.round(step)
            self.active = {worker for worker, (pushed, _) in results.items() if pushed}
            if not self.active:
                return
            taken = take_step(self.engine.link, tables._about, tables.shards, tables._run, turn,
                              tuple(sorted(self.active)))
            turn, step = turn + 1, taken[0][0]
            if self.is_due(step):
                tables._save()
            if self.told(step, [results.get(worker, (False, None))[1] for worker in self.every]):
                return

    def round(self, step):
        """Let every worker send its gradients. Return the results by worker."""
        for worker in sorted(self.active):
            self.start(worker, step)
        results, errors = {}, {}
        while self.running:
            worker, result, error = self.next()
            if error is None:
                results[worker] = result
            else:
                errors[worker] = error
        if errors:
            raise first_of([errors[worker] for worker in sorted(errors)])
        return results


class AsyncFit(Fit):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.next_step, self.pushes = dict.fromkeys(self.every, self.first), self.first

    def begin(self):
        super().begin()
        # The fit bounds how far workers are ahead. Shards cannot: after a failure all their counts begin at 0.
        self.tables._each("leave", self.tables._run, tuple(self.every))

    def take_steps(self):
        ends, due, errors = False, False, []
        while True:
            if not (errors or ends or due):
                for worker in self.ready():
                    self.start(worker, self.next_step[worker])
            if self.running:
                worker, result, error = self.next()
                if error is not None:
                    errors.append(error)
                elif result[0]:
                    self.next_step[worker] += 1
                    self.pushes += 1
                    due = due or self.is_due(self.pushes)
                    ends = self.told(self.pushes, [result[1] if one == worker else None for one in self.every]) or ends
                else:
                    self.active.discard(worker)
            elif errors:
                raise first_of(errors)
            elif due:
                due = False
                self.tables._save()
            else:
                return

    def ready(self):
        """Return the workers that may begin their next step."""
        steps = self.next_step
        slowest = min((steps[worker] for worker in self.active), default=0)
        return [worker for worker in sorted(self.active - self.running)
                if steps[worker] - slowest <= self.tables._layout.staleness
                and (self.last is None or steps[worker] < self.last)]


def first_of(errors):
    """Return the error that counts. If shards or workers have died, other errors may come of that."""
    failures = [error for error in errors if isinstance(error, _FAILURES)]
    if not failures:
        return errors[0]
    lost = [error for error in failures if isinstance(error, Lost)]
    return Lost(set().union(*(error.shards for error in lost)), set().union(*(error.workers for error in lost)))
