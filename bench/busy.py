"""Steps and models on several threads beside busy processes: the time of default threads over that of one thread.

    python bench/busy.py [--busy 4] [--rounds 7] [--settings default,spin,100] [--workloads 4096,100000,bpr,softmax]

Each setting has a process of its own, since OpenMP reads it as it is loaded. All processes take turns. A cell has
the median ratio of the rounds, and the smallest and largest. A model trains for half a second in a turn, on the data of
bench/epochs.py. Its time is that of 1,000 samples.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import sys
import time

import epochs

SETTINGS = {"one": {}, "default": {}, "spin": {"GOMP_SPINCOUNT": "300000"}, "passive": {"OMP_WAIT_POLICY": "passive"},
            **{turns: {"GOMP_SPINCOUNT": turns} for turns in ("100", "300", "1000", "10000")}}
LABELS = {"one": "one thread", "default": "as sparseopt sets it", "spin": "as OpenMP sets it",
          "passive": "OMP_WAIT_POLICY=passive"}
WORKLOADS = {"4096": "Adam, 4,096 rows", "100000": "Adam, 100,000 rows", **{name: name for name in epochs.MODELS}}
SECONDS = 0.2       # of steps in a turn: many times what the system lets a thread have a core for


def work(setting, connection, workloads):
    """Take orders until the other end closes: a workload to run, answered by the seconds that it took."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        os.environ.pop(name, None)
    os.environ |= SETTINGS[setting]
    import numpy as np

    import sparseopt as so
    from sparseopt.models import _base

    if setting == "one":
        so.set_num_threads(1)
    else:
        _base.one_thread = contextlib.nullcontext           # models train on one thread: see there why
    rng = np.random.default_rng(0)
    opt = so.Adam(so.zeros((1_000_000, 64)))
    gradients = {str(n): so.RowGradient(np.sort(rng.choice(1_000_000, n, replace=False)),
                                        rng.standard_normal((n, 64), np.float32)) for n in (4096, 100_000)}
    data = {name: epochs.MODELS[name][1]() for name in workloads if name in epochs.MODELS}
    connection.send(so.get_num_threads())
    try:
        while True:
            name = connection.recv()
            connection.send(trained(name, data[name]) if name in data else stepped(opt, gradients[name]))
    except EOFError:
        pass


def stepped(opt, gradient):
    """The seconds of a step."""
    steps = 0
    begin = now = time.perf_counter()
    while now - begin < SECONDS:
        opt.step(gradient)
        steps, now = steps + 1, time.perf_counter()
    return (now - begin) / steps


def trained(name, data):
    """The seconds in which a model takes 1,000 samples, after its first batch."""
    batches = []

    def callback(progress):
        progress.model.optimizer_.num_threads = None        # as many as kernels of losses use
        batches.append((progress.done, time.perf_counter()))
        return batches[-1][1] - batches[0][1] > 0.5 or progress.epoch_ends

    epochs.MODELS[name][0]().fit(*(data if isinstance(data, tuple) else (data,)), callback=callback)
    (before, begin), (after, end) = batches[0], batches[-1]
    return 1000 * (end - begin) / (after - before)


def turn():
    while True:
        pass


def main():
    def names(allowed):
        def chosen(text):
            if not set(text.split(",")) <= set(allowed):
                raise argparse.ArgumentTypeError(f"{text!r}; it must be some of {','.join(allowed)}")
            return text.split(",")
        return chosen

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=4, help="busy processes (default: 4)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--settings", type=names(SETTINGS), default=list(SETTINGS)[1:])
    parser.add_argument("--workloads", type=names(WORKLOADS), default=list(WORKLOADS))
    options = parser.parse_args()
    settings = ["one", *(name for name in options.settings if name != "one")]
    spawn = multiprocessing.get_context("spawn")
    times, workers = {}, {}
    for setting in settings:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=work, args=(setting, theirs, options.workloads), daemon=True)
        process.start()
        theirs.close()
        workers[setting] = ours, process
    threads = {setting: connection.recv() for setting, (connection, _) in workers.items()}
    for load in (0, options.busy):
        busy = [spawn.Process(target=turn, daemon=True) for _ in range(load)]
        for process in busy:
            process.start()
        for number in range(-1, options.rounds):        # the first one warms up, and counts for nothing
            for workload in options.workloads:
                for setting in settings if number % 2 else settings[::-1]:
                    connection = workers[setting][0]
                    connection.send(workload)
                    seconds = connection.recv()
                    if number >= 0:
                        times.setdefault((workload, load, setting), []).append(seconds)
        for process in busy:
            process.terminate()
    for connection, process in workers.values():
        connection.close()
        process.join()
    print(f"{threads[settings[-1]]} threads; medians of {options.rounds} rounds; quiet, and beside {options.busy} busy "
          "processes")
    print(f"{'time over that of one thread':>30}"
          + "".join(f"{WORKLOADS[name] + end:>26}" for name in options.workloads for end in (", quiet", ", busy")))
    for setting in settings:
        cells = []
        for place in itertools.product(options.workloads, (0, options.busy)):
            own, one = times[(*place, setting)], times[(*place, "one")]
            if setting == "one":
                cells.append(f"({statistics.median(own) * 1e3:.3g} ms)")
            else:
                ratios = sorted(a / b for a, b in zip(own, one, strict=True))
                cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"{LABELS.get(setting, f'GOMP_SPINCOUNT={setting}'):>30}" + "".join(f"{cell:>26}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
