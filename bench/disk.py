"""A table on a disk beside memory maps of table and state, in the same memory; its bits, its hits, and kills.

    python bench/disk.py [--rows 8_000_000] [--dim 64] [--memory 2_000_000_000] [--steps 1000] [--batch 20_000]
        [--threads 16] [--kills 10] [--folder FOLDER] [--parts maps,disk,memory,hits,kills]

Each part runs in a process of its own. The parts `maps` and `disk` run in a control group with this much memory, which
counts the system's cache of files too. That needs the right to make one: without it, a limit bounds the private memory
alone, and the output says so. A step pulls the rows of a batch, and updates them by Adam. The ranks of rows follow
Zipf's law, and rows of neighbouring ranks are far apart in the table. The file of records takes 1,024 bytes a row at
dim 64, and the maps take 772; they stand on the disk one after the other.

| part   | what it prints                                                                                            |
|--------|-----------------------------------------------------------------------------------------------------------|
| maps   | rows/s of memory maps: as they are, with MADV_RANDOM, and with MADV_WILLNEED for the pages of a batch too |
| disk   | rows/s of so.DiskTable, its resident memory, and a checksum of the rows that the steps have touched       |
| memory | the same checksum of a run in memory, with the touched rows alone                                         |
| hits   | CPU ms of a step on a table whose rows all stand in the cache, and of a step in memory, by turns          |
| kills  | how many runs were killed at random moments, and how many of their checkpoints had the bits of memory     |
"""

import argparse
import contextlib
import hashlib
import json
import math
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

import sparseopt as so
from sparseopt import _memory
from sparseopt.embedding import gather

SPREAD = 2_654_435_761          # neighbouring ranks are so many rows apart
WARM = 40                       # steps of the maps before a measurement: then the system's cache has the rows in use
SECONDS = 10                    # that each kind of map is measured
INIT = so.init.Normal(0.01, seed=0)
adam = {"lr": 1e-3}


def batch(n_rows, size, step):
    """The rows of a step: ranks by Zipf's law, P(rank) about 1 / rank."""
    ranks = np.exp(np.random.default_rng(step).random(size) * math.log(n_rows)).astype(np.int64)
    return np.minimum(ranks, n_rows - 1) * SPREAD % n_rows


def touched_rows(options):
    """The rows of all steps, in order."""
    touched = np.zeros(options.rows, np.bool_)
    for step in range(options.steps):
        touched[batch(options.rows, options.batch, step)] = True
    return np.flatnonzero(touched)


def gradient(rows, values):
    """A gradient that depends on the weights, so that one wrong bit spreads."""
    return so.RowGradient(rows, 0.1 * values + 0.01)


def resident():
    """MB of private memory in use."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1e3


# Memory maps.

class Maps:
    """Stands in for the memory of a table and its state: memory maps of files in a folder."""

    def __init__(self, folder, n_rows):
        self.folder, self.n_rows, self.maps = folder, n_rows, []

    def __call__(self, shape, dtype, allocate=None, place=0):
        if not shape or shape[0] != self.n_rows:
            return np.zeros(shape, dtype)
        path = Path(self.folder) / f"map{len(self.maps)}"
        with open(path, "wb") as file:                  # zeros that take their place on the disk
            zeros = np.zeros((min(self.n_rows, 1 << 16), *shape[1:]), dtype)
            for first in range(0, self.n_rows, len(zeros)):
                file.write(zeros[:self.n_rows - first])
            os.fsync(file.fileno())
        array = np.memmap(path, dtype, "r+", shape=shape)
        self.maps.append(array)
        return np.asarray(array)


def pages(array, rows):
    """Starts and lengths of the pages with some rows of a map, neighbours together."""
    width = array.strides[0]
    numbers = np.unique(np.concatenate([rows * width // mmap.PAGESIZE, (rows * width + width - 1) // mmap.PAGESIZE]))
    ends = np.flatnonzero(np.diff(numbers, append=numbers[-1] + 2) > 1)
    starts = np.append(0, ends[:-1] + 1)
    return (numbers[starts] * mmap.PAGESIZE).tolist(), ((ends - starts + 1) * mmap.PAGESIZE).tolist()


def part_maps(options):
    maps = Maps(options.folder, options.rows)
    start = time.perf_counter()
    with mock.patch.object(_memory, "aligned", maps):
        table = maps((options.rows, options.dim), np.dtype(np.float32))
        for first in range(0, options.rows, 1 << 16):
            rows = range(first, min(options.rows, first + (1 << 16)))
            table[first:rows.stop] = INIT(rows, options.dim)
        opt = so.Adam(table, **adam)
    arrays = maps.maps
    print(f"maps of {sum(array.nbytes for array in arrays) / 1e9:.1f} GB, made in {time.perf_counter() - start:.0f} s",
          flush=True)
    steps = iter(range(10**9))

    def take(advised):
        rows = batch(options.rows, options.batch, next(steps))
        if advised:
            different = np.unique(rows)
            for array in arrays:
                raw = array._mmap
                for begin, n in zip(*pages(array, different), strict=True):
                    raw.madvise(mmap.MADV_WILLNEED, begin, min(n, len(raw) - begin))
        opt.step(gradient(rows, gather(table, rows)))

    for array in arrays:
        array._mmap.madvise(mmap.MADV_RANDOM)
    for _ in range(WARM):
        take(True)
    found = {}
    for kind, advice, advised in [("with MADV_WILLNEED", mmap.MADV_RANDOM, True),
                                  ("with MADV_RANDOM", mmap.MADV_RANDOM, False),
                                  ("as they are", mmap.MADV_NORMAL, False)]:
        for array in arrays:
            array._mmap.madvise(advice)
        start, n = time.perf_counter(), 0
        while time.perf_counter() - start < SECONDS:
            take(advised)
            n += 1
        found[kind] = n * options.batch / (time.perf_counter() - start)
        print(f"  {kind:20s} {found[kind]:10,.0f} rows/s in {n} steps", flush=True)
    return found


# The table on a disk.

def cache_rows(options):
    """As many rows as the memory holds, beside the interpreter, the places of rows and the arrays of a step."""
    rest = 350_000_000 + 4 * options.rows + 20 * options.batch * options.dim
    return int(0.97 * (options.memory - rest) / (options.dim * 12 + 4 + 18))


def fill(table):
    """Write a record of every row, as after long training."""
    ours = table._tables[0]
    for first, n, buffer in ours.chunks():
        values = [INIT(range(first, first + n), ours.rows.dim), *ours.empty(n)[1:]]
        for array in values[1:]:
            array[...] = 0
        ours.check(-ours.cache.write(first, values, buffer))
    ours.reserved = ours.n_bytes
    ours.cache.all_written()


def part_disk(options):
    slots = cache_rows(options)
    with so.DiskTable(options.folder, options.rows, options.dim, lambda table: so.Adam(table, **adam),
                      cache_rows=slots, threads=options.threads, init=INIT) as table:
        start = time.perf_counter()
        fill(table)
        print(f"records of {table._tables[0].n_bytes / 1e9:.1f} GB, written in {time.perf_counter() - start:.0f} s; "
              f"{slots:,} rows in memory", flush=True)
        marks, cpu, brought = [time.perf_counter()], time.process_time(), []
        rows = batch(options.rows, options.batch, 0)
        for step in range(options.steps):
            values = table.pull(rows)
            after = batch(options.rows, options.batch, step + 1)
            table.prefetch(after)
            table.push(gradient(rows, values))
            rows = after
            marks.append(time.perf_counter())
            brought.append(table._tables[0].cache.brought)
        cpu = time.process_time() - cpu
        rate = {name: options.batch * n / (marks[-1] - marks[-1 - n])
                for name, n in [("all steps", options.steps), ("last half", options.steps // 2)]}
        first = options.batch * WARM / (marks[2 * WARM] - marks[WARM]) if options.steps > 2 * WARM else math.nan
        late = (brought[-1] - brought[-1 - options.steps // 2]) / (options.steps // 2)
        print(f"  {'so.DiskTable':20s} {rate['last half']:10,.0f} rows/s in the last half of {options.steps} steps, "
              f"with {late:,.0f} rows a step from the disk;\n"
              f"  {rate['all steps']:,.0f} rows/s in all steps, {first:,.0f} in steps {WARM} to {2 * WARM};\n"
              f"  {cpu / options.steps * 1e3:.0f} ms of CPU a step; {resident():,.0f} MB resident, at most "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f}", flush=True)
        touched = touched_rows(options)
        digest = hashlib.blake2b(digest_size=8)
        start = time.perf_counter()
        for first_row in range(0, len(touched), options.batch):
            digest.update(table.pull(touched[first_row:first_row + options.batch]))
        print(f"  {len(touched):,} rows touched: checksum {digest.hexdigest()}, read at "
              f"{len(touched) / (time.perf_counter() - start):,.0f} rows/s", flush=True)
    return {"rate": rate["last half"], "early": first, "checksum": digest.hexdigest()}


def part_memory(options):
    touched = touched_rows(options)
    table = INIT(touched, options.dim)
    opt = so.Adam(table, **adam)
    start = time.perf_counter()
    for step in range(options.steps):
        rows = np.searchsorted(touched, batch(options.rows, options.batch, step))
        opt.step(gradient(rows, gather(table, rows)))
    seconds = time.perf_counter() - start
    digest = hashlib.blake2b(table, digest_size=8).hexdigest()
    print(f"in memory, the touched rows alone: checksum {digest}, "
          f"{options.steps * options.batch / seconds:,.0f} rows/s", flush=True)
    return {"checksum": digest}


def part_hits(options):
    n_rows, n = min(1_000_000, options.rows), 100
    ours = INIT(range(n_rows), options.dim)
    opt = so.Adam(ours, **adam)
    seconds = {"memory": [], "disk": []}
    with so.DiskTable(options.folder, n_rows, options.dim, lambda table: so.Adam(table, **adam), cache_rows=n_rows,
                      init=INIT) as table:
        for first in range(0, n_rows, 1 << 15):
            table.pull(range(first, min(n_rows, first + (1 << 15))))
        for step in range(n):
            rows = batch(n_rows, options.batch, step)
            start = time.process_time()
            opt.step(gradient(rows, gather(ours, rows)))
            seconds["memory"].append(time.process_time() - start)
            start = time.process_time()
            table.push(gradient(rows, table.pull(rows)))
            seconds["disk"].append(time.process_time() - start)
        same = np.array_equal(table.pull(range(n_rows)), ours)
    memory, disk = (np.median(seconds[kind]) * 1e3 for kind in ("memory", "disk"))
    print(f"hits alone, {n_rows:,} rows: {disk:.1f} ms of CPU a step, {memory:.1f} in memory: "
          f"{disk / memory:.2f} times; the same bits: {same}", flush=True)
    return {"times": disk / memory}


# Kills.

KILL = 50_000, 16, 2_000, 3_000         # rows, dim, rows in memory, rows of a batch


def part_train(options):
    """Train and save until somebody kills this process."""
    n_rows, dim, slots, size = KILL
    path = Path(options.folder) / "checkpoint.safetensors"
    with so.DiskTable(options.folder, n_rows, dim, lambda table: so.Adam(table, **adam), cache_rows=slots,
                      init=INIT) as table:
        if path.exists():
            table.load(path)
        print("ready", flush=True)
        while True:
            rows = batch(n_rows, size, table.steps)
            table.push(gradient(rows, table.pull(rows)))
            if table.steps % 3 == 0:
                table.save(path)


def part_kills(options):
    n_rows, dim, _, size = KILL
    path = Path(options.folder) / "checkpoint.safetensors"
    ours = so.Adam(INIT(range(n_rows), dim), **adam)
    so.save(path, ours)
    right, moments = 0, random.Random(0)
    for _ in range(options.kills):
        process = subprocess.Popen(command(options, "train"), stdout=subprocess.PIPE)
        with process:
            process.stdout.readline()
            time.sleep(moments.uniform(0, 1))
            process.send_signal(signal.SIGKILL)
        found = so.load(path)
        while ours.steps < found.steps:
            rows = batch(n_rows, size, ours.steps)
            ours.step(gradient(rows, gather(ours.params[0], rows)))
        same = np.array_equal(found.params[0], ours.params[0])
        right += same and all(np.array_equal(found.state[0][key], ours.state[0][key]) for key in ours.state[0])
    print(f"kills: {options.kills} at random moments of a run that saves every third step, {ours.steps} steps saved; "
          f"{right} checkpoints have the bits of memory", flush=True)
    return {"right": right}


# Processes in bounded memory.

@contextlib.contextmanager
def group(memory):
    """Make a control group with so much memory within that of this process. Gives its folder, or None."""
    made = None
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, kinds, name = line.split(":", 2)
        root, limit = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes") if kinds == "memory"
                       else ("/sys/fs/cgroup", "memory.max"))
        if kinds in ("", "memory") and made is None:
            folder = Path(root + name) / f"sparseopt-{os.getpid()}"
            with contextlib.suppress(OSError):
                folder.mkdir()
                try:
                    (folder / limit).write_text(str(memory), encoding="ascii")
                    made = folder
                except OSError:
                    folder.rmdir()
    try:
        yield made
    finally:
        if made is not None:
            with contextlib.suppress(OSError):
                made.rmdir()


def command(options, part):
    kept = {name: value for name, value in vars(options).items() if name not in ("parts", "part")}
    return [sys.executable, __file__, "--part", part,
            *(word for name, value in kept.items() for word in (f"--{name}", str(value)))]


def run(options, part, memory=None):
    """Run a part in a process of its own, and return what it found."""
    with group(memory) if memory else contextlib.nullcontext() as folder:
        if memory and folder is None:
            print("no control group can be made here: a limit bounds private memory alone, not the cache of files")

        def confine():
            if folder is not None:
                (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
            elif memory:
                resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            options = argparse.Namespace(**{**vars(options), "folder": place})
            process = subprocess.Popen(command(options, part), stdout=subprocess.PIPE, text=True, preexec_fn=confine)
            found = {}
            with process:
                for line in process.stdout:
                    if line.startswith("{"):
                        found = json.loads(line)
                    else:
                        print(line, end="", flush=True)
            if process.returncode:
                print(f"{part} ended with {process.returncode}")
        if folder is not None:
            most = next((folder / name for name in ("memory.max_usage_in_bytes", "memory.peak")
                         if (folder / name).exists()), None)
            if most is not None:
                print(f"  at most {int(most.read_text()) / 1e6:,.0f} MB of {memory / 1e6:,.0f} in use, cache of files "
                      "included", flush=True)
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in [("rows", 8_000_000), ("dim", 64), ("memory", 2_000_000_000), ("steps", 1000),
                        ("batch", 20_000), ("threads", 16), ("kills", 10)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--parts", default="maps,disk,memory,hits,kills")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(globals()[f"part_{options.part}"](options)))
        return
    print(f"{options.rows:,} rows, dim {options.dim}, Adam, in {options.memory / 1e9:.1f} GB of memory; "
          f"{options.batch:,} rows a step; {shutil.disk_usage(options.folder).free / 1e9:.0f} GB of disk free")
    found = {part: run(options, part, options.memory if part in ("maps", "disk") else None)
             for part in options.parts.split(",")}
    if found.get("maps") and found.get("disk"):
        for kind, rate in found["maps"].items():
            print(f"so.DiskTable beside maps {kind}: {found['disk']['rate'] / rate:.1f} times as many rows/s")
    if found.get("memory") and found.get("disk"):
        print(f"the same bits as in memory: {found['disk']['checksum'] == found['memory']['checksum']}")


if __name__ == "__main__":
    main()
