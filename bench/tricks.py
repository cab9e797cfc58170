"""What each trick of the driver gains: the time of a step without the trick, over the time of a step with all tricks.

    python bench/tricks.py [--rules SGD,Adam] [--shapes 64,zipf] [--tricks l1,bursts] [--repeats 8]

All variants take turns on the same arrays in one process. A time is the least of several turns: on a virtual machine,
medians move by 20 % and the least by a few percent. A cell of +12 says that the step takes 12 % longer without the
trick. `of ref` compares with the reference loop.

The columns l1, bursts, sorting, neighbours and places switch a trick off. All other columns set other distances.
"""

import argparse
import gc
import importlib

from sparseopt import _kernels, _memory
from sparseopt._bench.cases import Case
from sparseopt._bench.peers import Contestant
from sparseopt._bench.race import Race
from sparseopt._kernels import processors

RULES = "SGD", "Adagrad", "RowwiseAdagrad", "RMSprop", "Adam", "AdamW", "Adamax", "Ftrl", "Lion"
SHAPES = {
    "16": {"dim": 16}, "64": {}, "128": {"dim": 128}, "300": {"dim": 300},
    "16x2": {"dim": 16, "threads": 2}, "64x2": {"threads": 2},
    "random": {"order": "random", "table": 4_000_000}, "zipf": {"order": "random", "zipf": 1.05},
    "all 16": {"dim": 16, "table": 200_000, "rows": 200_000}, "all 64": {"table": 200_000, "rows": 200_000},
}
NUMBERS = {
    "l1": {"l1_lines": 0}, "bursts": {"burst_lines": 0}, "sorting": {"sort_bytes": 1 << 60},
    "whole l1": {"l1_whole_rows": True, "l1_lines": 75}, "gradient": {"gradient_lines": 64},
    "l2 32": {"l2_lines": 32}, "l2 128": {"l2_lines": 128},
}
# Element-wise rules take neighbouring rows as one. A table and its states are offset in their pages.
OTHERS = "neighbours", "places"


def bound(race, trick):
    """A contestant: the optimizer of a race, bound without a trick."""
    module = importlib.import_module(f"sparseopt._kernels.{race.case.isa}")
    (parameter,) = race.opt._parameters.values()
    rule, steps = parameter.rule, parameter.state.get("step")
    arrays = [parameter.state[name] for name in rule.state + rule.row_state]
    module.processor = processors.own()._replace(**NUMBERS.get(trick, {}))
    by_elements = rule.by_elements and trick != "neighbours"
    sweep = module.Sweep(rule.name, parameter.table, arrays, steps, by_elements=by_elements)
    module.processor = processors.own()

    def step(batch):
        parameter.sweep = sweep
        race.opt.step(batch.gradient)
    return Contestant(step)


def measure(case, tricks, repeats):
    """The least time of each variant, and of the reference loop, in seconds."""
    race = Race(case, [])
    race.choose_reference()
    race.contestants = {"reference": race.contestants["reference"], "all": bound(race, "all"),
                        **{trick: bound(race, trick) for trick in tricks if trick != "places"}}
    if "places" in tricks:
        apart, _memory.APART = _memory.APART, 0
        try:
            race.contestants["places"] = bound(Race(case, []), "places")
        finally:
            _memory.APART = apart
    return {name: min(times) for name, times in race._times(race.contestants, repeats, 0.03).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--tricks", default=",".join([*NUMBERS, *OTHERS]))
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    tricks = options.tricks.split(",")
    widths = [max(6, len(trick) + 2) for trick in tricks]
    titles = "".join(f"{trick:>{width}s}" for trick, width in zip(tricks, widths, strict=True))
    print(f"{_kernels.isa}, {processors.own()}")
    print(f"{'rule':15s} {'shape':7s} {'µs':>8s} {'of ref':>7s}{titles}")
    for shape in options.shapes.split(","):
        for rule in options.rules.split(","):
            times = measure(Case(rule=rule, **SHAPES[shape]), tricks, options.repeats)
            gains = [100 * (times[trick] / times["all"] - 1) for trick in tricks]
            cells = "".join(f"{gain:>+{width}.0f}" for gain, width in zip(gains, widths, strict=True))
            print(f"{rule:15s} {shape:7s} {times['all'] * 1e6:8,.0f} {times['reference'] / times['all']:7.2f}{cells}",
                  flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
