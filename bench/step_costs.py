"""The cost of a step in two builds of sparseopt, in turns: on one row, on four tables, and on 100,000 rows.

    pip install --no-deps --target OLD .        # at the one commit, and NEW at the other
    python bench/step_costs.py OLD NEW [rounds, 9]

Each round starts a process for each build. A figure is the least time of a process; the table has medians over rounds.
"""

import json
import os
import statistics
import subprocess
import sys

ROWS, DIM = 1_000_000, 64


def least(call, times, repeats):
    import timeit

    call()
    return min(timeit.repeat(call, number=times, repeat=repeats)) / times * 1e6


def measured():
    """Microseconds a step of each kind, in this process."""
    import numpy as np

    import sparseopt as so

    rng = np.random.default_rng(0)
    one = so.RowGradient([5], np.ones((1, DIM), np.float32))
    tables = {name: so.normal((1000, DIM), seed=0) for name in "abcd"}
    single, several = so.Adam(tables["a"].copy()), so.Adam(tables)
    replay = so.Adam(so.normal((1000, DIM), seed=0), missed="replay")
    found = {
        "one row": least(lambda: single.step(one), 2000, 40),
        "one row of each of four tables": least(lambda: several.step(dict.fromkeys("abcd", one)), 800, 40),
        "one row, replay": least(lambda: replay.step(one), 1000, 40),
    }
    opt = so.Adam(so.normal((ROWS, DIM), seed=0))
    values = rng.standard_normal((100_000, DIM), dtype=np.float32)
    gradients = {"100,000 rows": np.sort(rng.choice(ROWS, 100_000, replace=False)),
                 "100,000 Zipf rows, unsorted": rng.zipf(1.15, 100_000) % ROWS}
    for name, rows in gradients.items():
        gradient = so.RowGradient(rows, values)
        for threads in (1, 2):
            opt.num_threads = threads
            found[f"{name}, threads {threads}"] = least(lambda gradient=gradient: opt.step(gradient), 3, 12)
    return found


def main(old, new, rounds=9):
    builds, times = {"before": old, "after": new}, {}
    for _ in range(int(rounds)):
        for build, path in builds.items():
            environment = {**os.environ, "PYTHONPATH": os.path.abspath(path)}
            run = subprocess.run([sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", __file__],
                                 env=environment, capture_output=True, text=True, check=True)
            for step, micros in json.loads(run.stdout).items():
                times.setdefault(step, {name: [] for name in builds})[build].append(micros)
    print(f"{'Adam, dim 64, float32':40}{'before, µs':>12}{'after, µs':>12}{'after / before':>16}")
    for step, each in times.items():
        before, after = (statistics.median(each[build]) for build in builds)
        ratio = statistics.median(y / x for x, y in zip(each["before"], each["after"], strict=True))
        print(f"{step:40}{before:>12,.2f}{after:>12,.2f}{ratio:>16.3f}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps(measured()))
    else:
        main(*sys.argv[1:])
