"""`sparseopt bench`."""

import itertools
import os
from pathlib import Path
from typing import Any

from .. import _kernels
from .._bench import peers
from .._bench.cases import AXES, FORMS, Case
from .._bench.race import measure
from .._bench.report import MEASURES, draw, numbers, report
from ..optimizers import OPTIMIZERS
from ._common import UsageError, check_picture, count, flag, list_of
from ._output import Output, add_format


def add(commands: Any) -> None:
    bench = commands.add_parser(
        "bench", help="measure the speed of a step, compared with the reference loop and with other libraries",
        description="Measure steps on random gradients. Options marked with a comma take a list, such as 1,2. Each "
                    "combination of values is a line. A line has the time, GB/s, the share of the reference loop, the "
                    "time that the check for NaN adds, the memory that a step allocates, and the times of other "
                    "libraries divided by the time of sparseopt. The reference loop is a compiled loop that only adds "
                    "the gradient to the arrays which the rule writes. All contestants take turns on the same "
                    "batches. No cache holds all of the batches, unless 4,096 batches are too few for this. The time "
                    "is without the check for NaN, which is on by default. The forms csr, csc, coo and matmul have no "
                    "reference; their only peer is sparseopt's step on the same gradient in another form.")
    bench.set_defaults(run=_bench)
    default = Case()
    axes = {
        "rule": (str, "names of optimizers, or all"), "dim": (int, "length of a row"),
        "table": (int, "number of rows of the table"),
        "rows": (int, "rows drawn per step; with matmul, samples of 100 rows; with dense, rows that are not zero"),
        "zipf": (float, "exponent of the Zipf distribution of the drawn rows; 0 draws unique rows"),
        "order": (str, "order of the rows: rising or random"),
        "form": (str, f"form of the gradient: {', '.join(FORMS)}"), "dtype": (str, "float32 or float64"),
        "threads": (int, "number of threads"), "isa": (str, f"instruction set: {', '.join(_kernels.available)}"),
        "missed": (str, "skip or replay; replay starts after 3,000 steps, and adds the step with skip and a catch_up() "
                        "of all rows"),
    }
    for name, (convert, text) in axes.items():
        bench.add_argument(flag(name), type=list_of(convert), default=[getattr(default, name)],
                           metavar={str: "NAME,", int: "N,", float: "X,"}[convert],
                           help=f"{text} (default: {getattr(default, name)})")
    bench.add_argument("--peers", type=list_of(str), default=[*peers.PEERS],
                       metavar="NAME,",
                       help=f"peers to run, if installed: {', '.join(peers.PEERS)}; or none (default: all)")
    bench.add_argument("--repeats", type=count, default=5, metavar="N", help="turns of each contestant (default: 5)")
    bench.add_argument("--picture", type=Path, metavar="FILE", help="draw the results to this file, with matplotlib")
    add_format(bench)


def _bench(options):
    if options.rule == ["all"]:
        options.rule = list(OPTIMIZERS)
    wanted = [] if options.peers == ["none"] else options.peers
    unknown = [name for name in wanted if name not in peers.PEERS]
    if unknown:
        raise UsageError(f"--peers names {unknown[0]!r}; it must name some of {', '.join(peers.PEERS)}, or be none")
    if options.picture:
        check_picture(options.picture)
    try:
        cases = [Case(**dict(zip(AXES, values, strict=True)))
                 for values in itertools.product(*(getattr(options, axis) for axis in AXES))]
    except (TypeError, ValueError) as error:
        raise UsageError(f"--{error}") from None        # the message begins with the name of the axis
    absent = [name for name in wanted if name not in peers.installed()]
    varying = [axis for axis in AXES if len(getattr(options, axis)) > 1]
    fixed = ", ".join(f"{axis} {getattr(cases[0], axis)}" for axis in AXES
                      if axis not in (*varying, "rule") and (axis, getattr(cases[0], axis)) != ("missed", "skip"))
    out = Output(options)
    head = f"{fixed}; {os.cpu_count()} cores" + (f"; not installed: {', '.join(absent)}" if absent else "")
    measured = (measure(case, wanted, options.repeats) for case in cases)
    if options.format == "json":
        out.say(head)
        results = list(measured)
        out.table([*AXES, *MEASURES], map(numbers, results))
    else:
        print(head)                     # the lines come one by one, and results are stored as they are printed
        results = report(measured, varying)
    if options.picture:
        draw(results, options.picture)
        out.say(f"drawn: {options.picture}")
    return 0
