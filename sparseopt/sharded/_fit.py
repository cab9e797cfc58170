"""How a fit goes on from step to step, and after failures.

a) All workers at work are awaited before shards or workers are replaced.
b) sync: the workers send, and then the fit takes the step. So without a dead shard no step is lost: what waits is
   dropped, and the step is done again.
c) async: each worker takes its steps itself. It begins the next one if it is at most `staleness` steps ahead.
"""

from ._client import Lost, Worker, take_step
from ._shard import UnloadedError

_MOST_FAILURES = 20             # in a row, without one step between them
FAILURES = Lost, UnloadedError


class Fit:
    """What the two modes share."""

    def __init__(self, tables, gradients_of, steps, checkpoint_every, callback):
        self.tables, self.gradients_of, self.callback = tables, gradients_of, callback
        self.checkpoint_every = checkpoint_every
        self.engine, self.every = tables._engine, range(tables.workers)
        self.first = tables.steps               # the step that the fit begins with
        self.last = None if steps is None else self.first + steps
        self.failures = 0
        self.begin()

    def begin(self):
        """Give every worker a new client."""
        self.active, self.running = set(self.every), set()
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

    def recover(self, errors):
        """Raise the first error, unless all are failures of shards or workers; then replace those."""
        for error in errors:
            if not isinstance(error, FAILURES):
                raise error
        while True:
            self.failures += 1
            if self.failures > _MOST_FAILURES:
                raise errors[0]
            try:
                self.tables._recover(errors)
                self.begin()
            except FAILURES as error:
                errors = [error]
            else:
                return

    def run(self):
        """Take all steps, and then begin a run without workers."""
        while True:
            self.take_steps()
            self.engine.end()
            try:
                self.tables._begin_run()
            except FAILURES as error:           # steps may be lost, and are taken again
                self.recover([error])
            else:
                return

    def told(self, steps, reports):
        """Tell the callback about a step, and return whether it ends the fit."""
        self.failures = 0
        return self.callback is not None and bool(self.callback(steps, reports))

    def is_due(self, steps):
        """Return whether it is time for a checkpoint."""
        return self.checkpoint_every is not None and steps % self.checkpoint_every == 0


class SyncFit(Fit):
    def take_steps(self):
        step = self.tables.steps
        while self.active and (self.last is None or step < self.last):
            try:
                results, errors = self.round(step)
                if errors:
                    failures = [error for error in errors if isinstance(error, FAILURES)]
                    self.recover(failures or errors)
                    step = self.tables.steps
                    continue
                self.active = {worker for worker, (pushed, _) in results.items() if pushed}
                if not self.active:
                    return
                step = self.take_step(tuple(sorted(self.active)))
                if self.is_due(step):
                    self.tables._save()
                if self.told(step, [results.get(worker, (False, None))[1] for worker in self.every]):
                    return
            except FAILURES as error:
                self.recover([error])
                step = self.tables.steps

    def begin(self):
        super().begin()
        self.turn = 0

    def round(self, step):
        """Let every worker send its gradients. Return the results by worker, and the errors in the workers' order."""
        for worker in sorted(self.active):
            self.start(worker, step)
        results, errors = {}, {}
        while self.running:
            worker, result, error = self.next()
            if error is None:
                results[worker] = result
            else:
                errors[worker] = error
        return results, [errors[worker] for worker in sorted(errors)]

    def take_step(self, workers):
        tables = self.tables
        taken = take_step(self.engine.link, tables._about, tables.shards, tables._run, self.turn, workers)
        self.turn += 1
        return taken[0][0]


class AsyncFit(Fit):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.next_step, self.pushes = dict.fromkeys(self.every, self.first), self.first

    def begin(self):
        super().begin()
        # The fit bounds how far workers are ahead. Shards cannot: after a failure all their counts begin at 0.
        self.tables._each("leave", self.tables._run, tuple(self.every))

    def take_steps(self):
        self.ends = self.due = False
        errors = []
        while True:
            if not (errors or self.ends or self.due):
                for worker in self.ready():
                    self.start(worker, self.next_step[worker])
            try:
                if self.running:
                    worker, result, error = self.next()
                    if error is not None:
                        errors.append(error)
                    elif result[0]:
                        self.count(worker, result[1])
                    else:
                        self.active.discard(worker)
                elif errors:
                    failures = [error for error in errors if isinstance(error, FAILURES)]
                    self.recover(failures or errors)
                    errors = []
                elif self.due:
                    self.due = False
                    self.tables._save()
                else:
                    return
            except FAILURES as error:
                errors.append(error)

    def ready(self):
        """Return the workers that may begin their next step."""
        steps = self.next_step
        slowest = min((steps[worker] for worker in self.active), default=0)
        return [worker for worker in sorted(self.active - self.running)
                if steps[worker] - slowest <= self.tables._layout.staleness
                and (self.last is None or steps[worker] < self.last)]

    def count(self, worker, report):
        self.next_step[worker] += 1
        self.pushes += 1
        self.due = self.due or self.is_due(self.pushes)
        self.ends = self.told(self.pushes, [report if one == worker else None for one in self.every]) or self.ends
