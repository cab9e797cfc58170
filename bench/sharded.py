"""Sharded tables beside one process: the time of a step, the bytes that are sent, and runs whose processes are killed.

    python bench/sharded.py [--engines local ray] [--shards N] [--workers N] [--rows N] [--dim D] [--batches N ...]
                            [--steps N] [--rounds N]
    python bench/sharded.py --kills N [--modes sync async]
    python bench/sharded.py --estimate

A step: workers pull the rows of a batch from the shards and push gradients of them, and Adam takes the step. One
process gathers the same rows and takes the same step. Each engine takes its turn in each round, and a time is the least
of all rounds.

With --kills, shards and workers are killed at random moments, so many times in each mode.
With --estimate, what a step costs on 100 machines is computed from what is measured here.
"""

import argparse
import os
import pickle
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import sparseopt as so

SHARDS = WORKERS = 2            # unless --shards and --workers say another number


class Gradients:
    """What the workers of a fit call: it pulls the rows of a batch, and returns gradients that were made before."""

    def __init__(self, n_rows, dim, batch, n_batches=8):
        rng = np.random.default_rng(0)
        self.rows = rng.integers(n_rows, size=(n_batches, WORKERS, batch // WORKERS))
        self.values = rng.standard_normal((batch // WORKERS, dim), np.float32)

    def __call__(self, client, step, worker):
        rows = self.rows[step % len(self.rows), worker]
        client.pull({"item": rows})
        return {"item": so.RowGradient(rows, self.values)}


def adam(tables):
    return so.Adam(tables, lr=1e-3)


def made(engine, n_rows, dim, **options):
    return so.sharded.Tables({"item": so.Rows(n_rows, dim)}, adam, shards=SHARDS, workers=WORKERS, engine=engine,
                             **options)


class OneProcess:
    """The same steps in one process."""

    def __init__(self, n_rows, dim):
        self.table = so.zeros((n_rows, dim))
        self.optimizer = adam({"item": self.table})

    def fit(self, gradients, steps, callback):
        values = np.concatenate([gradients.values] * WORKERS)
        for step in range(steps):
            rows = gradients.rows[step % len(gradients.rows)].ravel()
            so.embedding.gather(self.table, rows, opt=self.optimizer)
            self.optimizer.step({"item": so.RowGradient(rows, values)})
            callback(step, None)

    def close(self):
        pass


def step_time(where, gradients, steps):
    """The milliseconds of a step, without the first one: it has the start of the workers."""
    ends = []
    where.fit(gradients, steps + 1, callback=lambda step, reports: ends.append(time.perf_counter()))
    return 1000 * (ends[-1] - ends[0]) / steps


def times(options):
    places = {"one process": OneProcess(options.rows, options.dim)}
    try:
        places |= {engine: made(engine, options.rows, options.dim) for engine in options.engines}
        print(f"{options.rows:,} rows × {options.dim} with Adam, {SHARDS} shards, {WORKERS} workers, "
              f"one thread in each process")
        print(f"{'rows a step':>14}" + "".join(f"{name + ' ms':>16}" for name in places)
              + "".join(f"{name + ', times':>16}" for name in options.engines) + f"{'bytes, times':>16}")
        for batch in options.batches:
            gradients, found = Gradients(options.rows, options.dim, batch), {name: [] for name in places}
            for _ in range(options.rounds):
                for name, place in places.items():
                    found[name].append(step_time(place, gradients, options.steps))
            one, *others = least = [min(each) for each in found.values()]
            sent = f"{sent_bytes(gradients, options):16.3f}" if "ray" in options.engines else f"{'–':>16}"
            print(f"{batch:14,}" + "".join(f"{each:16.2f}" for each in least)
                  + "".join(f"{each / one:16.2f}" for each in others) + sent, flush=True)
        print('"bytes" is what one worker sends and gets for a pull and a push, beside twice (row + 8) × unique rows.')
    finally:
        for place in places.values():
            place.close()


def sent_bytes(gradients, options):
    """What a worker sends and gets for a pull and a push, as a multiple of twice (row + 8) bytes a unique row."""
    with made("ray", options.rows, options.dim) as tables:
        client, sent = tables.client(0), []
        link, call = client._link, client._link._call

        def counted(calls):
            answers = call(calls)
            sent.extend(len(pickle.dumps(one, 5)) for one in (*calls.values(), *answers.values()))
            return answers

        client._now()
        link._call = counted
        rows = gradients.rows[0, 0]
        client.pull({"item": rows})
        client.push({"item": so.RowGradient(rows, gradients.values)})
    return sum(sent) / (2 * len(np.unique(rows)) * (4 * options.dim + 8))


# Kills.

def actors():
    """The process numbers of the actors of shards and workers that this process has started."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat, name = (path / "stat").read_text(), (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:         # it has ended
            continue
        parents[int(path.name)], names[int(path.name)] = int(stat.rpartition(")")[2].split()[1]), name

    def is_ours(number):
        while number > 1:
            number = parents.get(number, 0)
            if number == os.getpid():
                return True
        return False

    return [number for number, name in names.items() if name.startswith(("ray::Shard", "ray::Worker"))
            and is_ours(number)]


class Kills:
    """The callback of a fit, which kills a random shard or worker at random moments, `n` times."""

    def __init__(self, n, seed=0):
        self.left, self.rng, self.killed, self.timer = n, random.Random(seed), [], None
        self.after = 0

    def __call__(self, step, reports):
        if self.left and (self.timer is None or not self.timer.is_alive()):
            # Most moments are within a step, some within the seconds in which a dead shard is replaced.
            self.timer = threading.Timer(self.rng.choice((0.03, 0.03, 3)) * self.rng.random(), self.kill)
            self.timer.start()
        self.after += not self.left
        return self.after > 20

    def kill(self):
        if found := actors():
            number = self.rng.choice(sorted(found))
            try:
                self.killed.append(Path(f"/proc/{number}/cmdline").read_bytes().split(b".")[0].decode())
                os.kill(number, signal.SIGKILL)
                self.left -= 1
            except OSError:
                pass


def kills(options):
    gradients = Gradients(10_000, 16, 2_000)
    with tempfile.TemporaryDirectory() as folder:
        for mode in options.modes:
            calls, start = Kills(options.kills), time.perf_counter()
            with made("ray", 10_000, 16, mode=mode, folder=f"{folder}/{mode}") as tables:
                tables.save()
                tables.fit(gradients, checkpoint_every=5, callback=calls)
                disturbed = tables.optimizer()
            seconds = time.perf_counter() - start
            shards = sum("Shard" in name for name in calls.killed)
            print(f"{mode}: {shards} shards and {len(calls.killed) - shards} workers killed, {disturbed.steps:,} steps "
                  f"in {seconds:.0f} s", flush=True)
            if mode == "sync":
                with made("local", 10_000, 16) as tables:
                    tables.fit(gradients, disturbed.steps)
                    undisturbed = tables.optimizer()
                same = all(np.array_equal(ours, theirs) for ours, theirs in
                           zip(arrays(disturbed), arrays(undisturbed), strict=True))
                print("sync: the rows and their state are", "those" if same else "NOT THOSE",
                      "of a run without kills, to the bit")


def arrays(optimizer):
    return [optimizer.params["item"], *optimizer.state["item"].values()]


# The estimate.

def least(call, times=30):
    """The least seconds of a call."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


def estimate(options):
    import ray

    n_rows, machines, batch, dim = 10**9, 100, 100_000, 64
    with made("ray", 1000, dim):
        class Nothing:
            def take(self, array=None):
                return None

        first, second = actors = [ray.remote(num_cpus=0)(Nothing).remote() for _ in range(2)]
        ray.get([actor.take.remote() for actor in actors])
        empty = least(lambda: ray.get(first.take.remote()), 200)
        many = least(lambda: ray.get([actors[i % 2].take.remote() for i in range(200)])) / 200
        big = np.ones(16 << 18, np.float32)
        megabyte = (least(lambda: ray.get(second.take.remote(big))) - empty) / (big.nbytes / 1e6)
    local = 2_000_000
    table = so.zeros((local, dim))
    optimizer = adam({"item": table})
    rng = np.random.default_rng(0)
    batches = [np.sort(rng.choice(local, batch, replace=False)) for _ in range(8)]
    values, turn = rng.standard_normal((batch, dim), np.float32), iter(range(10**6))
    pulled = least(lambda: so.embedding.gather(table, batches[next(turn) % 8])) / batch
    stepped = least(lambda: optimizer.step({"item": so.RowGradient(batches[next(turn) % 8], values)})) / batch

    print("Measured here, the least of many:")
    print(f"  a  an empty call of an actor                            {empty * 1e6:8.0f} µs")
    print(f"  b  one of 200 empty calls sent together                 {many * 1e6:8.0f} µs")
    print(f"  c  a megabyte more in a call, within a machine          {megabyte * 1e6:8.0f} µs")
    print(f"  d  a row pulled from a table of {local:,}                {pulled * 1e9:8.0f} ns")
    print(f"  e  a row's step of Adam in that table                  {stepped * 1e9:8.0f} ns")
    print(f"\n{n_rows:,} rows × {dim} with Adam, {machines} machines with a shard and a worker each, "
          f"{batch:,} unique rows a step and worker:")
    row, own = 4 * dim + 8, n_rows / machines
    state = sum(each.itemsize * each[0].size for each in arrays(optimizer))
    moved = 2 * batch * row
    parts = {
        "calls of a worker, answers of a shard": (2 * machines * many, f"2 × {machines} × b"),
        "calls of the process of the tables": (2 * machines * many, f"2 × {machines} × b"),
        "bytes into and out of Ray": (moved / 1e6 * megabyte, f"{moved / 1e6:.1f} × c"),
        "rows that a shard pulls": (batch * pulled, f"{batch:,} × d"),
        "rows of a shard's step": (batch * stepped, f"{batch:,} × e"),
    }
    print(f"  memory of a shard: {own:,.0f} rows × {state} bytes = {own * state / 1e9:.1f} GB")
    print(f"  bytes a step and worker: 2 × {batch:,} × ({4 * dim} + 8) = {moved / 1e6:.1f} MB")
    print(f"  calls a step: 2 × {machines} of each worker, 2 × {machines} of the process of the tables")
    for name, (seconds, how) in parts.items():
        print(f"  {name:38}{how:>22}{seconds * 1e3:10.1f} ms")
    rest = sum(seconds for seconds, _ in parts.values())
    for rate in (1, 10):
        wire = moved / (rate * 1e9)
        print(f"  network of {rate:2} GB/s: {wire * 1e3:.1f} ms; with all of the above, one after the other, "
              f"{(wire + rest) * 1e3:.0f} ms a step")


def main():
    global SHARDS, WORKERS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    for name, default in (("shards", 2), ("workers", 2), ("rows", 1_000_000), ("dim", 64),
                          ("steps", 20), ("rounds", 7), ("kills", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--modes", nargs="+", default=["sync", "async"], choices=["sync", "async"])
    parser.add_argument("--estimate", action="store_true")
    options = parser.parse_args()
    SHARDS, WORKERS = options.shards, options.workers
    so.set_num_threads(1)
    if options.kills:
        kills(options)
    elif options.estimate:
        estimate(options)
    else:
        times(options)


if __name__ == "__main__":
    main()
