"""The cost of a step in two builds of sparseopt, in turns: on one row, on four tables, and on 100,000 rows.

    pip install --no-deps --target OLD .        # at the one commit, and NEW at the other
    python bench/step_costs.py OLD NEW [rounds, 9]
    python bench/step_costs.py --changes OLD NEW [rounds, 9]

With --changes: on one row, while a hyper-parameter changes at every step. Each round starts a process for each build.
A figure is the least time of a process; the table has medians over rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import time

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


def changing():
    """Microseconds a step on one row, while hyper-parameters change at every step, in this process."""
    import numpy as np

    import sparseopt as so

    gradient = so.RowGradient([0], np.ones((1, DIM), np.float32))
    found = {}
    for name in ("Adam", "NAdam", "Adamax"):
        for step_count in ("row", "global"):
            for count in (10, 1_000, 11_000, 100_000):
                for change in ("nothing", "eps", "lr", "schedule", "beta1", "both betas", "beta1, eps"):
                    opt = getattr(so, name)(so.zeros((1, DIM)), step_count=step_count)
                    if change == "schedule":
                        opt.param_groups[0]["lr"] = lambda step: 1e-3 / (1 + step)
                    opt.take_over(0, step=count)
                    found[f"{name}, {step_count}, step {count:,}: {change}"] = least_changing(opt, gradient, change)
    return found


def least_changing(opt, gradient, change):
    """The least time of 64 steps, in microseconds a step; each step has hyper-parameters that no step before had."""
    group, best, step, begun = opt.param_groups[0], float("inf"), 0, time.perf_counter()
    while step == 0 or time.perf_counter() - begun < 0.02:
        before = time.perf_counter()
        for _ in range(64):
            step += 1
            if "eps" in change:
                group["eps"] = 1e-8 * (1 + step)
            if change == "lr":
                group["lr"] = 1e-3 / (1 + step)
            if "beta1" in change:
                group["betas"] = 0.95 - 0.1 / (1 + step), 0.999
            if change == "both betas":
                group["betas"] = 0.95 - 0.1 / (1 + step), 0.999 - 0.01 / (1 + step)
            opt.step(gradient)
        best = min(best, (time.perf_counter() - before) / 64)
    return best * 1e6


def main(what, old, new, rounds=9):
    builds, times = {"before": old, "after": new}, {}
    for _ in range(int(rounds)):
        for build, path in builds.items():
            environment = {**os.environ, "PYTHONPATH": os.path.abspath(path)}
            run = subprocess.run([sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", __file__, what],
                                 env=environment, capture_output=True, text=True, check=True)
            for step, micros in json.loads(run.stdout).items():
                times.setdefault(step, {name: [] for name in builds})[build].append(micros)
    title = "one row of dim 64, float32: what changes" if what == "--changes" else "Adam, dim 64, float32"
    print(f"{title:44}{'before, µs':>12}{'after, µs':>12}{'after / before':>16}")
    for step, each in times.items():
        before, after = (statistics.median(each[build]) for build in builds)
        ratio = statistics.median(y / x for x, y in zip(each["before"], each["after"], strict=True))
        print(f"{step:44}{before:>12,.2f}{after:>12,.2f}{ratio:>16.3f}")


if __name__ == "__main__":
    given = sys.argv[1:]
    kind = given.pop(0) if given[:1] in (["--changes"], ["--steps"]) else "--steps"
    if given:
        main(kind, *given)
    else:
        print(json.dumps(changing() if kind == "--changes" else measured()))
