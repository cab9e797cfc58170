"""The engine "local": shards and workers are objects of this process. It is the reference, and what tests use."""

import itertools
import os
import threading
import time
import weakref

from ._client import Link
from ._shard import Shard

_ENGINES = weakref.WeakValueDictionary()         # by process and a number
_numbers = itertools.count()


class LocalLink(Link):
    """The shards of an engine of this process."""

    remote = False

    def __init__(self, engine):
        super().__init__()
        self._engine = engine
        self._lock = threading.RLock()

    def __reduce__(self):
        return link_of, (self._engine.key,)

    def _call(self, calls):
        results, error = {}, None
        if not self._engine.shards:
            raise RuntimeError("the tables of this client are closed")
        with self._lock:
            for number, some in calls.items():
                try:
                    results[number] = self._engine.shards[number].do(some)
                except Exception as raised:
                    error = error or raised
        if error is not None:
            raise error
        return results

    def pause(self, what):
        if threading.active_count() == 1:
            raise RuntimeError(f"this call waits for {what}; no other thread of this process is there to send them")
        time.sleep(1e-4)


class LocalEngine:
    """An engine makes shards and workers, calls them, and replaces dead ones.

    | name    | does                                                                                     |
    |---------|------------------------------------------------------------------------------------------|
    | link    | is a `Link` to the shards                                                                |
    | replace | replaces shards by new ones, which hold no rows                                          |
    | begin   | takes the `Worker` of each worker for the steps that follow; replaces dead processes     |
    | start   | lets a worker do a step, and returns at once                                             |
    | next    | waits for one of the workers that were started: (worker, result, error), one of them None |
    | end     | ends the workers                                                                         |
    | close   | ends everything                                                                          |

    The errors that stand for dead shards and workers are `Lost`.
    """

    def __init__(self, layout):
        self.layout = layout
        self.shards = [Shard(number, layout) for number in range(layout.shards)]
        self.link = LocalLink(self)
        self.workers, self.started = {}, []
        self.key = os.getpid(), next(_numbers)
        _ENGINES[self.key] = self

    def replace(self, shards):
        for number in shards:
            self.shards[number] = Shard(number, self.layout)

    def begin(self, workers):
        self.workers, self.started = dict(workers), []

    def start(self, worker, step):
        self.started.append((worker, step))

    def next(self):
        worker, step = self.started.pop(0)
        try:
            return worker, self.workers[worker].work(step), None
        except Exception as error:
            return worker, None, error

    def end(self):
        self.workers, self.started = {}, []

    def close(self):
        self.end()
        self.shards = []


def link_of(key):
    """Return the link of an engine of this process, for a pickled client."""
    engine = _ENGINES.get(key)
    if engine is None or key[0] != os.getpid() or not engine.shards:
        raise RuntimeError('a client of engine "local" works only in the process of its tables, until they are closed; '
                           'engine "ray" has clients for other processes')
    return engine.link
