"""What each trick of the driver gains: the time of a step without the trick, over the time of a step with all tricks.

All variants take turns on the same arrays in one process. Numbers of `_kernels/processors.py` switch off some tricks.
Macros and flags switch off tricks of the compiled code. The command compiles such variants first, from the C file that
an installation from this folder leaves in build/. Run from this folder:

    python bench/tricks.py [--rules SGD,Adam] [--shapes 64,zipf] [--tricks FOUR_LINES,l1] [--repeats 8]

A time is the least of several turns: on a virtual machine, medians move by 20 % and the least by a few percent. A cell
of +12 says that the step takes 12 % longer without the trick. `of ref` compares with the reference loop.
"""

import argparse
import gc
import importlib
import importlib.util
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

from sparseopt import _kernels, _memory
from sparseopt._bench.cases import Case
from sparseopt._bench.peers import Contestant
from sparseopt._bench.race import Race
from sparseopt._kernels import processors

RULES = "SGD", "Adagrad", "RowwiseAdagrad", "RMSprop", "Adam", "AdamW", "Adamax", "Ftrl", "Lion"
SHAPES = {
    "16": {"dim": 16}, "64": {}, "128": {"dim": 128}, "300": {"dim": 300},
    "16x2": {"dim": 16, "threads": 2}, "64x2": {"threads": 2},
    "random": {"order": "random"}, "zipf": {"order": "random", "zipf": 1.05},
    "all 16": {"dim": 16, "table": 200_000, "rows": 200_000}, "all 64": {"table": 200_000, "rows": 200_000},
}
NUMBERS = {         # of the processor: what switches a trick off, or on where this processor's line has it off
    "l1": {"near": 0, "close": 0},
    "pages": {"together": 0, "of_a_line": 0, "shorter": 0},
    "always pages": {"kept": 0},
    "sorting": {"reach": 1 << 60},
    "gradient": {"values": 64},
    "whole l1": {"close": 75},
    "parts": {"part": 640, "whole": 16, "misses": 34},
    "parts of 128": {"part": 128, "misses": 22},
    "l2 far 32": {"far": 32}, "l2 far 120": {"far": 120},
}
MACROS = "FOUR_LINES", "RUNS", "LENGTHS", "SOON_ADDED", "PLAIN"
FLAGS = {"unrolling": ("-funroll-loops", "--param=max-unroll-times=2"),
         "inline growth": ("--param=inline-unit-growth=1000",)}


def compiled(trick, folder):
    """The kernels of the best instruction set, compiled without a trick."""
    flags = shlex.split(_kernels.BUILD["flags"])
    flags = [flag for flag in flags if flag not in FLAGS.get(trick, ())]
    flags += [f"-DSPARSEOPT_{trick}=0"] * (trick in MACROS)
    library = Path(folder, f"{trick}.so")
    flags += ["-shared", "-fPIC", "-fwrapv", "-w", "-DNDEBUG", "-DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION"]
    flags += [f"-I{sysconfig.get_paths()['include']}", f"-I{np.get_include()}"]
    subprocess.run(["cc", *flags, f"build/cython/sparseopt/_kernels/{_kernels.isa}.c", "-o", str(library)], check=True)
    spec = importlib.util.spec_from_file_location(f"sparseopt._kernels.{_kernels.isa}", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bound(race, module, numbers):
    """A contestant: the optimizer of a race on other kernels, or with other numbers of the processor."""
    (parameter,) = race.opt._parameters.values()
    module.processor = processors.own()._replace(**numbers)
    rule = parameter.rule
    arrays = [parameter.state[name] for name in rule.state + rule.row_state]
    steps = parameter.state.get("step")
    sweep = module.Sweep(rule.name, parameter.table, arrays, steps, by_elements=rule.by_elements)
    module.processor = processors.own()

    def step(batch):
        parameter.sweep, race.opt._apply = sweep, module.Sweep.apply
        race.opt.step(batch.gradient)
    return Contestant(step)


def measure(case, modules, repeats):
    race = Race(case, [])
    race.choose_reference()
    own = modules["as it is"]
    race.contestants = {"reference": race.contestants["reference"], **{
        trick: bound(race, module, NUMBERS.get(trick, {})) for trick, module in modules.items() if trick != "places"}}
    if "places" in modules:
        apart, _memory.APART = _memory.APART, 0
        try:
            other = Race(case, [])
        finally:
            _memory.APART = apart
        race.contestants["places"] = bound(other, own, {})
    return {name: min(taken) for name, taken in race._times(race.contestants, repeats, 0.03).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--tricks", default=",".join([*NUMBERS, *MACROS, *FLAGS, "places"]))
    parser.add_argument("--repeats", type=int, default=8)
    options = parser.parse_args()
    tricks = options.tricks.split(",")
    own = importlib.import_module(f"sparseopt._kernels.{_kernels.isa}")
    with tempfile.TemporaryDirectory() as folder:
        modules = {"as it is": own}
        modules |= {trick: compiled(trick, folder) if trick in MACROS or trick in FLAGS else own for trick in tricks}
        width = [max(7, len(trick) + 1) for trick in tricks]
        titles = "".join(f"{trick:>{w}s}" for trick, w in zip(tricks, width, strict=True))
        print(f"{'rule':15s} {'shape':7s} {'µs':>8s} {'of ref':>7s}{titles}")
        for shape in options.shapes.split(","):
            for rule in options.rules.split(","):
                times = measure(Case(rule=rule, **SHAPES[shape]), modules, options.repeats)
                base = times["as it is"]
                gains = [100 * (times[trick] / base - 1) for trick in tricks]
                cells = "".join(f"{gain:>+{w}.0f}" for gain, w in zip(gains, width, strict=True))
                print(f"{rule:15s} {shape:7s} {base * 1e6:8,.0f} {times['reference'] / base:7.2f}{cells}", flush=True)
                gc.collect()


if __name__ == "__main__":
    main()
