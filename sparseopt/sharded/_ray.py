"""The engine "ray": shards and workers are actors of Ray, processes that Ray spreads over the machines of a cluster.

a) Workers call shards directly. The process of the tables tells workers which step to do, and lets shards take it.
b) A connection that breaks for a while may lose a call or its answer, and Ray does not always say so. So a call without
   an answer is repeated after a while. An actor does a call once: it keeps its last result for each caller.
c) Ray does not restart actors here. A dead one is `Lost`, and the fit decides what is loaded.
"""

import itertools
import os
import secrets
import threading
import time
from collections.abc import Mapping

import numpy as np

from ._client import Link, Lost, Worker
from ._shard import Shard


def imported():
    """Return the package ray, or None if it is missing."""
    try:
        import ray
    except ImportError:
        return None
    return ray


ray = imported()
# Ray sends a result of up to so many bytes together with the answer; it puts a larger one into shared memory.
_IN_ANSWER = 1 << 20
_PATIENCE = 180         # seconds in which a cluster must find room for actors
_SILENCE = 20           # seconds until a call without an answer is repeated; each time it waits twice as long
_CALLERS = 1000         # how many callers' last results an actor keeps
_TRIES = 5              # for a worker that dies before its first step


def _dead():
    """The errors of a call that say that the actor is dead, or that its machine is."""
    errors = ray.exceptions
    return errors.RayActorError, errors.ObjectLostError, errors.OutOfMemoryError


class RayLink(Link):
    """The shards as actors. A copy in another process reaches the shards that were alive when it was made."""

    def __init__(self, actors):
        super().__init__()
        self.actors = actors
        self.name, self.numbers = secrets.token_hex(8), itertools.count()

    def __reduce__(self):
        return RayLink, (dict(self.actors),)

    def _call(self, calls):
        if not self.actors:
            raise RuntimeError("the tables of this client are closed")
        caller = self.name, threading.get_ident(), next(self.numbers)
        answers = {shard: self.actors[shard].do.remote(caller, some) for shard, some in calls.items()}
        results, dead, errors = {}, {}, []
        for shard, answer in answers.items():
            try:
                results[shard] = self._get(answer, shard, caller, calls[shard])
            except _dead() as error:
                dead[shard] = error
            except ray.exceptions.RayTaskError as error:
                errors.append(error)
        if dead:
            raise Lost(shards=dead) from next(iter(dead.values()))
        if errors:
            raise cause(errors[0])
        return results

    def _get(self, answer, shard, caller, calls):
        silence = _SILENCE
        while True:
            try:
                return ray.get(answer, timeout=silence)
            except ray.exceptions.GetTimeoutError:
                silence *= 2
            except ray.exceptions.ActorUnavailableError:        # Ray does not know yet whether it is dead
                time.sleep(0.1)
            answer = self.actors[shard].do.remote(caller, calls)

    def pause(self, what):
        time.sleep(1e-3)


def cause(error):
    """Return what a method of an actor raised. The message of `error` has its traceback."""
    if not isinstance(error.cause, Exception):
        return error
    error.cause.__cause__ = error
    return error.cause


class Process:
    """An actor, which does each call once."""

    def __init__(self):
        self.lock, self.last = threading.Lock(), {}

    def once(self, caller, method, *arguments):
        """Call a method, or return or raise what it did when the same call came before. A later call came: None."""
        *name, number = caller
        with self.lock:
            before, raised, result = self.last.pop(tuple(name), (-1, False, None))
            if number > before:
                try:
                    raised, result = False, method(*arguments)
                except Exception as error:
                    raised, result = True, error
            self.last[tuple(name)] = max(number, before), raised, result
            while len(self.last) > _CALLERS:
                self.last.pop(next(iter(self.last)))
        if raised:
            raise result
        return result


class ShardProcess(Process):
    """A shard. The layout comes pickled, so that a module missing here is an error of `start`."""

    def start(self, number, layout):
        self.shard = Shard(number, ray.cloudpickle.loads(layout))

    def do(self, caller, calls):
        return self.once(caller, self.shard.do, calls)


class WorkerProcess(Process):
    """A worker of fits."""

    run = worker = None

    def take(self, run, client, gradients_of):
        with self.lock:
            self.run, self.worker = run, Worker(client, gradients_of)

    def work(self, number, step):
        return self.once((number,), self.worker.work, step)

    def drop(self, run):
        with self.lock:
            if self.run == run:         # calls may overtake each other
                self.worker, self.last = None, {}


class RayEngine:
    """See `LocalEngine` for the methods."""

    def __init__(self, layout):
        if ray is None:
            raise ImportError('engine "ray" needs the package ray: pip install "sparseopt[sharded]"')
        self.bytes = _bytes(layout)
        self.pickled = ray.cloudpickle.dumps(layout)
        self.workers = {}
        self.started = {}                       # answers: worker, number of the call, step
        self.run, self.numbers = 0, itertools.count()
        self.shipped = None, None               # gradients_of, and where Ray keeps it
        self.link = RayLink({})
        self.session = Session.current()
        # The second of the two threads of an actor takes a call that is repeated.
        options = {"num_cpus": 0, "scheduling_strategy": "SPREAD", "max_concurrency": 2}
        self.new_worker = ray.remote(**options)(WorkerProcess).remote
        if self.session.cluster:                # so many bytes of a machine's memory are taken
            options["memory"] = self.bytes
        self.new_shard = ray.remote(**options)(ShardProcess).remote
        try:
            self.replace(range(layout.shards))
        except Lost as error:
            self.close()
            raise RuntimeError("Ray cannot start shards: is this version of sparseopt installed on all machines of the "
                               "cluster?") from error.__cause__
        except BaseException:
            self.close()
            raise

    def replace(self, shards):
        actors = self.link.actors
        for shard in shards:
            old, actors[shard] = actors.get(shard), self.new_shard()
            if old is not None:
                ray.kill(old)
        started = {shard: actors[shard].start.remote(shard, self.pickled) for shard in shards}
        if dead := self._await(started, "shards"):
            raise Lost(shards=dead) from next(iter(dead.values()))

    def begin(self, workers):
        self._kill({worker for worker, _, _ in self.started.values()})
        self.run += 1
        gradients_of = next(iter(workers.values())).gradients_of
        if self.shipped[0] is not gradients_of:
            self.shipped = gradients_of, ray.put(gradients_of)
        left = workers
        for _ in range(_TRIES):
            for number in left.keys() - self.workers.keys():
                self.workers[number] = self.new_worker()
            left = self._await({number: self.workers[number].take.remote(self.run, workers[number].client,
                                                                         self.shipped[1])
                                for number in left}, "workers")
            self._kill(left)
            if not left:
                return
        raise Lost(workers=left) from next(iter(left.values()))

    def start(self, worker, step):
        self._ask(worker, next(self.numbers), step)

    def _ask(self, worker, number, step):
        self.started[self.workers[worker].work.remote(number, step)] = worker, number, step

    def next(self):
        silence, done = _SILENCE, []
        while not done:
            done, _ = ray.wait(list(self.started), timeout=silence)
            if not done:
                silence *= 2
                for asked in set(self.started.values()):
                    self._ask(*asked)
        worker, number, _ = self.started[done[0]]
        self.started = {answer: asked for answer, asked in self.started.items() if asked[1] != number}
        try:
            return worker, ray.get(done[0]), None
        except _dead():
            self._kill({worker})
            return worker, None, Lost(workers={worker})
        except ray.exceptions.RayTaskError as error:
            return worker, None, cause(error)

    def end(self):
        self._kill({worker for worker, _, _ in self.started.values()})      # what they are at must not go on
        for actor in self.workers.values():
            actor.drop.remote(self.run)
        self.shipped = None, None

    def _await(self, answers, what):
        """Wait until actors that may be new have answered. Return the numbers of dead ones, and Ray's errors."""
        _, missing = ray.wait(list(answers.values()), num_returns=len(answers), timeout=_PATIENCE)
        if missing:
            free, size = ray.available_resources().get("memory", 0) / 1e9, self.bytes / 1e9
            raise RuntimeError(f"Ray started {len(answers) - len(missing)} of {len(answers)} {what} in {_PATIENCE} s; "
                               f"a shard needs a machine with {size:.3f} GB free, and all machines together have "
                               f"{free:.3f} GB free")
        dead = {}
        for number, answer in answers.items():
            try:
                ray.get(answer)
            except _dead() as error:
                dead[number] = error
            except ray.exceptions.RayTaskError as error:
                raise cause(error) from None
        return dead

    def _kill(self, workers):
        for worker in workers:
            ray.kill(self.workers.pop(worker))
        self.started = {answer: asked for answer, asked in self.started.items() if asked[0] not in workers}

    def close(self):
        if ray.is_initialized():                # the user's program may have ended it
            self._kill(set(self.workers))
            while self.link.actors:
                ray.kill(self.link.actors.popitem()[1])
        self.session.leave()


class Session:
    """What this process knows about its connection to Ray. Engines share one, and the last one ends it."""

    now = None

    def __init__(self):
        self.engines, self.began = 0, not ray.is_initialized()
        self.cluster = not self.began or bool(os.environ.get("RAY_ADDRESS"))
        if self.began:
            local = {"include_dashboard": False, "_system_config": {"max_direct_call_object_size": _IN_ANSWER}}
            ray.init(**({} if self.cluster else {"address": "local", **local}), logging_level="ERROR")

    @classmethod
    def current(cls):
        if cls.now is None or not ray.is_initialized():
            cls.now = cls()
        cls.now.engines += 1
        return cls.now

    def leave(self):
        self.engines -= 1
        if self is Session.now and not self.engines:
            Session.now = None
            if self.began:
                ray.shutdown()


def _bytes(layout):
    """Return the bytes of memory of a shard's rows and of their state."""
    empty = layout.optimizer({name: rows.start([]) for name, rows in layout.rows.items()})
    total = 0
    for name, rows in layout.rows.items():
        local = len(range(0, rows.n_rows, layout.shards))
        if layout.disk is not None:
            cache = layout.cache_rows
            local = min(local, cache[name] if isinstance(cache, Mapping) else cache)
        arrays = [empty.params[name], *empty.state[name].values()]
        total += sum(local * array.itemsize * int(np.prod(array.shape[1:])) for array in arrays if array.ndim)
    return total
