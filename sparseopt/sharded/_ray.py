"""The engine "ray": shards and workers are actors of Ray, processes that Ray spreads over the machines of a cluster.

a) Workers call shards directly. The process of the tables tells workers which step to do, and lets shards take it.
b) A call of a shard that a broken connection may have lost is repeated. Shards know a message that comes twice.
c) Ray does not restart actors here. A dead one is `Lost`, and the fit decides what is loaded.
"""

import os
import time

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

    def __reduce__(self):
        return RayLink, (dict(self.actors),)

    def _call(self, calls):
        answers = {shard: self.actors[shard].do.remote(some) for shard, some in calls.items()}
        results, dead, errors = {}, {}, []
        for shard, answer in answers.items():
            try:
                results[shard] = self._get(answer, shard, calls[shard])
            except _dead() as error:
                dead[shard] = error
            except ray.exceptions.RayTaskError as error:
                errors.append(error)
        if dead:
            raise Lost(shards=dead) from next(iter(dead.values()))
        if errors:
            raise cause(errors[0])
        return results

    def _get(self, answer, shard, calls):
        while True:
            try:
                return ray.get(answer)
            except ray.exceptions.ActorUnavailableError:       # Ray does not know yet whether it is dead
                time.sleep(0.1)
                answer = self.actors[shard].do.remote(calls)

    def pause(self, what):
        time.sleep(1e-3)


def cause(error):
    """Return what a method of an actor raised. The message of `error` has its traceback."""
    if not isinstance(error.cause, Exception):
        return error
    error.cause.__cause__ = error
    return error.cause


class ShardProcess:
    """A shard, as an actor. The layout comes pickled, so that a module missing here is an error of `start`."""

    def start(self, number, layout):
        self.shard = Shard(number, ray.cloudpickle.loads(layout))

    def do(self, calls):
        return self.shard.do(calls)


class WorkerProcess:
    """A worker of fits, as an actor."""

    def take(self, client, gradients_of):
        self.worker = Worker(client, gradients_of)

    def work(self, step):
        return self.worker.work(step)

    def drop(self):
        self.worker = None


class RayEngine:
    """See `LocalEngine` for the methods."""

    def __init__(self, layout):
        if ray is None:
            raise ImportError('engine "ray" needs the package ray: pip install "sparseopt[sharded]"')
        self.bytes = _bytes(layout)
        self.pickled = ray.cloudpickle.dumps(layout)
        self.workers, self.started = {}, {}
        self.shipped = None, None               # gradients_of, and where Ray keeps it
        self.link = RayLink({})
        self.session = Session.current()
        options = {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
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
            if shard in actors:
                ray.kill(actors.pop(shard))
            actors[shard] = self.new_shard()
        started = {shard: actors[shard].start.remote(shard, self.pickled) for shard in shards}
        if dead := self._await(started, "shards"):
            raise Lost(shards=dead) from next(iter(dead.values()))

    def begin(self, workers):
        self._kill(set(self.started.values()))
        gradients_of = next(iter(workers.values())).gradients_of
        if self.shipped[0] is not gradients_of:
            self.shipped = gradients_of, ray.put(gradients_of)
        left = workers
        for _ in range(_TRIES):
            for number in left.keys() - self.workers.keys():
                self.workers[number] = self.new_worker()
            left = self._await({number: self.workers[number].take.remote(workers[number].client, self.shipped[1])
                                for number in left}, "workers")
            self._kill(left)
            if not left:
                return
        raise Lost(workers=left) from next(iter(left.values()))

    def start(self, worker, step):
        self.started[self.workers[worker].work.remote(step)] = worker

    def next(self):
        (done, *_), _ = ray.wait(list(self.started))
        worker = self.started.pop(done)
        try:
            return worker, ray.get(done), None
        except _dead():
            self._kill({worker})
            return worker, None, Lost(workers={worker})
        except ray.exceptions.RayTaskError as error:
            return worker, None, cause(error)

    def end(self):
        self._kill(set(self.started.values()))          # what they are at must not go on
        for actor in self.workers.values():
            actor.drop.remote()
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
        self.started = {answer: worker for answer, worker in self.started.items() if worker not in workers}

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
    """Return the bytes of a shard's rows and of their state."""
    empty = layout.optimizer({name: rows.start([]) for name, rows in layout.rows.items()})
    total = 0
    for name, rows in layout.rows.items():
        local = -(-rows.n_rows // layout.shards)
        arrays = [empty.params[name], *empty.state[name].values()]
        total += sum(local * array.itemsize * int(np.prod(array.shape[1:])) for array in arrays if array.ndim)
    return total
