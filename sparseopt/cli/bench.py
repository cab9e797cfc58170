"""`sparseopt bench`."""

import itertools
import os
from pathlib import Path

from .. import _kernels
from .._bench import peers
from .._bench.cases import AXES, FORMS, Case
from .._bench.race import measure
from .._bench.report import draw, report
from ..optimizers import OPTIMIZERS
from ._common import check_picture, count, flag, list_of


def add(commands):
    bench = commands.add_parser(
        "bench", help="how fast a step is: beside the touch limit and beside other libraries",
        description="Measure steps on random gradients, a line for every combination of the values given (lists: 1,2). A line "
                    "has the time, GB/s, the share of the touch limit (a compiled loop that only adds the gradient to the "
                    "arrays which the rule writes), what the check for NaN adds, the memory that a step takes, and how many "
                    "times as long others take for the same. All take turns on the same batches, of which there are enough "
                    "that no cache holds them (at most 4,096). The time is without the check, which is on by default; forms of "
                    "cells and products have no limit, and no peers but our own step on the same gradient as rows, or as the "
                    "product.")
    bench.set_defaults(run=_bench)
    default = Case()
    axes = {
        "rule": (str, "rules: the optimizers' names, or all"), "dim": (int, "lengths of a row"),
        "table": (int, "rows of the table"),
        "rows": (int, "rows drawn a step; matmul: samples of 100 rows; dense: the rows that are not zero"),
        "zipf": (float, "exponent of Zipf's law for the draws; 0: every row once"), "order": (str, "rising or random"),
        "form": (str, f"of the gradient: {', '.join(FORMS)}"), "dtype": (str, "float32 or float64"),
        "threads": (int, "threads of a step"), "isa": (str, f"instruction sets: {', '.join(_kernels.available)}"),
        "missed": (str, "skip, or replay: after 3,000 steps; then also the same step under skip, and catch_up() of all rows"),
    }
    for name, (convert, text) in axes.items():
        bench.add_argument(flag(name), type=list_of(convert), default=[getattr(default, name)],
                           metavar={str: "NAME,", int: "N,", float: "X,"}[convert],
                           help=f"{text} (default: {getattr(default, name)})")
    bench.add_argument("--peers", type=list_of(str), default=[*peers.PEERS],
                       metavar="NAME,", help=f"who else runs, if installed: {', '.join(peers.PEERS)}; or none (default: all)")
    bench.add_argument("--repeats", type=count, default=5, metavar="N", help="turns of everybody (default: 5)")
    bench.add_argument("--picture", type=Path, metavar="FILE", help="draw it, with matplotlib")


def _bench(options):
    if options.rule == ["all"]:
        options.rule = list(OPTIMIZERS)
    wanted = [] if options.peers == ["none"] else options.peers
    unknown = [name for name in wanted if name not in peers.PEERS]
    if unknown:
        raise ValueError(f"--peers names {unknown[0]!r}; there are {', '.join(peers.PEERS)}, and none")
    if options.picture:
        check_picture(options.picture)
    cases = [Case(**dict(zip(AXES, values, strict=True)))
             for values in itertools.product(*(getattr(options, axis) for axis in AXES))]
    absent = [name for name in wanted if name not in peers.installed()]
    varying = [axis for axis in AXES if len(getattr(options, axis)) > 1]
    fixed = ", ".join(f"{axis} {getattr(cases[0], axis)}" for axis in AXES
                      if axis not in (*varying, "rule") and (axis, getattr(cases[0], axis)) != ("missed", "skip"))
    print(f"{fixed}; {os.cpu_count()} cores" + (f"; not installed: {', '.join(absent)}" if absent else ""))
    results = report((measure(case, wanted, options.repeats) for case in cases), varying)
    if options.picture:
        draw(results, options.picture)
        print(f"drawn: {options.picture}")
    return 0
