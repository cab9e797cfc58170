"""The speed of a step in two builds of sparseopt, in turns: all rules and lengths of rows, and the price of replay.

    pip install --no-deps --target OLD .        # at the one commit, and NEW at the other
    python bench/shares.py OLD NEW [--rules SGD,Adam] [--dims 16,64] [--threads 1,2]

Each case starts a process for each build. A process times the step and the build's own reference loop in turns, and
keeps the least time of each. `of ref` is the time of the reference loop over the time of the step. The second table
has the time of a step under missed="replay" over the time of the same step under "skip", after 3,000 steps.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time

RULES = "SGD", "Adagrad", "RowwiseAdagrad", "RMSprop", "Adam", "AdamW", "Adamax", "Ftrl", "Lion"
REPLAYED = "RMSprop", "Adam", "AdamW", "NAdam", "RowwiseAdam", "Adamax", "Lion"
ROWS, TABLE, TURNS, SECONDS = 100_000, 1_000_000, 12, 0.03


def plain(rule, dim, threads):
    """The least time of a step, and of the reference loop, in seconds."""
    try:
        from sparseopt._bench.cases import Case
        from sparseopt._bench.race import Race
    except ImportError:         # a build from before these names
        from sparseopt.benchmark import Case, Race

    race = Race(Case(rule=rule, dim=dim, threads=threads, rows=ROWS, table=TABLE), [])
    loops = [name for name in race.contestants if name.startswith(("reference (", "limit ("))]
    tried = race._times(loops, 3, SECONDS)
    best = min(tried, key=lambda name: min(tried[name]))
    times = race._times(["step", best], TURNS, SECONDS)
    return {"step": min(times["step"]), "reference": min(times[best])}


def replayed(rule, threads):
    """The least time of a step on unique Zipf rows, under skip and under replay, in seconds."""
    import numpy as np

    import sparseopt as so

    rng = np.random.default_rng(0)
    weight = np.cumsum(np.arange(1, TABLE + 1, dtype=np.float64) ** -1.05)
    drawn = [np.unique(np.searchsorted(weight, rng.random(ROWS) * weight[-1])) for _ in range(6)]
    batches = [so.RowGradient(rows, rng.random((len(rows), 64), dtype=np.float32)) for rows in drawn]
    optimizers, times = {}, {"skip": [], "replay": []}
    for missed in times:
        opt = getattr(so, rule)(so.normal((TABLE, 64), scale=0.01, seed=0), num_threads=threads, nonfinite="allow",
                                missed=missed)
        for array in opt.state[0].values():
            array += 0                          # the first write maps the pages
        for _ in range(3000 if missed == "replay" else 0):
            opt.step(so.RowGradient([], np.empty((0, 64), np.float32)))
        optimizers[missed] = opt
    for _ in range(2 * TURNS):
        for missed, opt in optimizers.items():
            begin = time.perf_counter()
            for batch in batches:
                opt.step(batch)
            times[missed].append((time.perf_counter() - begin) / len(batches))
    return {missed: min(taken) for missed, taken in times.items()}


def both(options, what, *case):
    for path in (options.old, options.new):
        environment = {**os.environ, "PYTHONPATH": os.path.abspath(path)}
        run = subprocess.run([sys.executable, "-P", __file__, "--case", what, *map(str, case)], env=environment,
                             capture_output=True, text=True, check=True)
        yield json.loads(run.stdout)


def main(options):
    print(f"{'rule':15s}{'dim':>5s}{'threads':>9s}{'before, µs':>12s}{'of ref':>8s}{'after, µs':>12s}{'of ref':>8s}"
          f"{'after / before':>16s}")
    shares = []
    for threads, rule, dim in itertools.product(options.threads, options.rules, options.dims):
        old, new = both(options, "plain", rule, dim, threads)
        share = [each["reference"] / each["step"] for each in (old, new)]
        shares.append((threads, *share, new["step"] / old["step"]))
        print(f"{rule:15s}{dim:5d}{threads:9d}{old['step'] * 1e6:12,.0f}{share[0]:8.2f}{new['step'] * 1e6:12,.0f}"
              f"{share[1]:8.2f}{new['step'] / old['step']:16.2f}", flush=True)
    for threads in options.threads:
        mean = [sum(row[i] for row in shares if row[0] == threads) / sum(row[0] == threads for row in shares)
                for i in (1, 2, 3)]
        print(f"{'mean':20s}{threads:9d}{'':12s}{mean[0]:8.2f}{'':12s}{mean[1]:8.2f}{mean[2]:16.2f}")
    print(f"\n{'replay / skip':15s}{'threads':>14s}{'before':>12s}{'after':>20s}")
    for threads, rule in itertools.product(options.threads, options.replayed):
        old, new = (each["replay"] / each["skip"] for each in both(options, "replayed", rule, threads))
        print(f"{rule:15s}{threads:14d}{old:12.2f}{new:20.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        what, rule, *numbers = sys.argv[2:]
        print(json.dumps({"plain": plain, "replayed": replayed}[what](rule, *map(int, numbers))))
    else:
        parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
        parser.add_argument("old")
        parser.add_argument("new")
        defaults = {"rules": RULES, "dims": (16, 64, 128, 300), "threads": (1, 2), "replayed": REPLAYED}
        for name, values in defaults.items():
            kind = type(values[0])
            parser.add_argument(f"--{name}", default=list(values), metavar=name.upper(),
                                type=lambda text, kind=kind: [kind(part) for part in text.split(",") if part])
        main(parser.parse_args())
