"""How fast a step is: beside the touch limit, beside other libraries, on the same gradients, in turns, in one process.

The touch limit is a compiled loop that only adds the gradient to the arrays which the rule reads and writes: the least that
memory has to do. `_kernels/reference.pxi` has it.

The model of the traffic, per touched row: the gradient's values read once, the row of the table and of every state array read
once and written once, the same for the row's numbers (step count, row-wise sums). What a cache line carries besides is
not counted, nor are row numbers.
"""

import gc
import importlib
import itertools
import math
import statistics
import time
import tracemalloc
from dataclasses import dataclass, fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .. import _config, _kernels, _memory
from .._files import save_picture
from ..gradients import MatmulGradient, RowGradient
from ..optimizers import OPTIMIZERS
from . import peers
from .peers import PEERS, Contestant

FORMS = "rows", "csr", "csc", "coo", "dense", "matmul"
PER_SAMPLE = 100            # nonzeros in each sample of the form "matmul"
_OUT_OF_CACHE = 320 << 20   # bytes that the batches touch together: many times what a cache holds
_MOST_BATCHES = 4096
_EARLIER = 3000             # steps taken before, where missed steps are replayed: the first hundreds cost more
# What the limit tries, in rows between prefetch and use: (ahead, near, close, together, values), as reference_loop() has them.
_DISTANCES = ((8, 4, False, 0, 0), (16, 4, False, 0, 0), (16, 8, False, 8, 0), (64, 0, False, 0, 0), (64, 0, False, 0, 64),
              (32, 8, True, 0, 16), (16, 4, True, 0, 4), (16, 4, True, 8, 4), (8, 3, True, 0, 3), (4, 2, True, 0, 2))
_IN_PLACE = 16, 4, True, 0, 0


@dataclass(frozen=True)
class Case:
    """What is measured: one point on every axis.

    `rows` counts draws from the table's rows: unique ones, or, with an exponent `zipf`, Zipf's, the row number being the rank.
    In the form "matmul" it is the number of samples, each with 100 draws.
    """

    rule: str = "Adam"
    dim: int = 64
    table: int = 1_000_000
    rows: int = 100_000
    zipf: float = 0.0
    order: str = "rising"           # or "random"
    form: str = "rows"
    dtype: str = "float32"
    threads: int = 1
    isa: str = _kernels.isa
    missed: str = "skip"            # or "replay"

    def __post_init__(self):
        allowed = {"rule": tuple(OPTIMIZERS), "order": ("rising", "random"), "form": FORMS,
                   "dtype": ("float32", "float64"), "isa": tuple(_kernels.available), "missed": ("skip", "replay")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}")
        for name in ("dim", "table", "rows", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        _config.check_num_threads("threads", self.threads)
        if not 0 <= self.zipf < math.inf:
            raise ValueError(f"zipf is {self.zipf}; it must be 0 (unique rows) or more")
        if not self.zipf and self.rows > self.table and self.form != "matmul":
            raise ValueError(f"rows is {self.rows}; unique rows are at most as many as the table has, {self.table}")


class Batch:
    """One gradient, in whatever form a contestant takes it."""

    def __init__(self, case, rng, values):
        self.case = case
        n = case.rows * PER_SAMPLE if case.form == "matmul" else case.rows
        if case.zipf:
            self.drawn = _zipf(case.table, case.zipf, n, rng)
        elif case.form == "matmul":
            self.drawn = rng.integers(case.table, size=n)
        else:
            self.drawn = rng.choice(case.table, n, replace=False)
        if case.order == "rising" and case.form != "matmul":
            self.drawn.sort()
        self.values = values

    @cached_property
    def gradient(self):
        """As the case's form says."""
        case, shape = self.case, (self.case.table, self.case.dim)
        if case.form == "rows":
            return RowGradient(self.drawn, self.values)
        if case.form == "matmul":
            indptr = np.arange(0, len(self.drawn) + 1, PER_SAMPLE)
            ones = np.ones(len(self.drawn), dtype=self.values.dtype)
            return MatmulGradient(sp.csr_array((ones, self.drawn, indptr), shape=(case.rows, case.table)), self.values)
        if case.form == "dense":
            dense = np.zeros(shape, dtype=self.values.dtype)
            np.add.at(dense, self.drawn, self.values)
            return dense
        columns = np.tile(np.arange(case.dim), len(self.drawn))
        cells = sp.coo_array((self.values.reshape(-1), (np.repeat(self.drawn, case.dim), columns)), shape=shape)
        return cells.asformat(case.form)

    @cached_property
    def unique(self):
        """The rows touched, rising."""
        return np.unique(self.drawn)

    @cached_property
    def grouped(self):
        """What the limit adds: the rows touched, the values in their order, and where each row's values begin.

        Unique rows in random order stay in it.
        """
        if self.case.form == "dense":
            return None, self.gradient, None
        if not self.case.zipf:
            return self.drawn, self.values, None
        rows, starts, order = self.segments
        return rows, self.values[order], starts

    @cached_property
    def segments(self):
        """The rows touched, rising, where each one's entries begin, and the order of the entries."""
        order = np.argsort(self.drawn, kind="stable")
        rows, starts = np.unique(self.drawn[order], return_index=True)
        return rows, np.append(starts, len(order)), order


def _zipf(n_rows, exponent, size, rng):
    weight = np.cumsum(np.arange(1, n_rows + 1, dtype=np.float64) ** -exponent)
    return np.searchsorted(weight, rng.random(size) * weight[-1])


class Race:
    """All that take the same steps on the same batches: ours, the limit, and the peers that are installed."""

    def __init__(self, case, wanted=PEERS):
        self.case = case
        rng = np.random.default_rng(0)
        dtype = np.dtype(case.dtype)
        module = importlib.import_module(f"sparseopt._kernels.{case.isa}")
        self.opt = self._optimizer(module, case.missed)
        table, state = self.opt.params[0], self.opt.state[0]
        self.arrays = [table, *(array for array in state.values() if array.ndim == 2)]
        self.numbers = [array for name, array in state.items() if array.ndim == 1 and name != "step"]
        self.steps = state.get("step")
        if case.missed == "replay":     # which says where rows are, so the limit writes to another
            self.steps = self.steps.copy()

        touched = case.table if case.form == "dense" else case.rows
        width = touched * case.dim * dtype.itemsize * (len(self.arrays) + 1) + (8 * case.table if case.form == "csr" else 0)
        n_batches = max(4, min(_MOST_BATCHES, _OUT_OF_CACHE // width + 1))
        # Positive, so that what the limit adds to a sum of squares leaves it one.
        self.batches = [Batch(case, rng, rng.random((case.rows, case.dim), dtype=dtype) + dtype.type(0.5))
                        for _ in range(n_batches)]
        for batch in self.batches:          # now, and not within the first step that takes it
            batch.gradient  # noqa: B018
            if case.form in ("rows", "dense"):
                batch.grouped  # noqa: B018
        self.touched = statistics.mean(case.table if case.form == "dense" else len(b.unique) for b in self.batches)
        entries = case.table if case.form == "dense" else case.rows
        once = 2 * (len(self.arrays) * case.dim * dtype.itemsize + len(self.numbers) * dtype.itemsize
                    + (0 if self.steps is None else 4))
        self.bytes = self.touched * once + entries * case.dim * dtype.itemsize

        self.contestants = {"step": Contestant(lambda batch: self.opt.step(batch.gradient))}
        self.contestants["check"] = Contestant(self._checked)
        if case.form in ("rows", "dense"):
            for distances in _DISTANCES:
                self.contestants[f"limit {distances}"] = Contestant(self._limit(module.reference_loop, distances))
        if "forms" in wanted:
            self.contestants |= self._other_forms(module.reference_loop)
        if "forms" in wanted and case.missed == "replay":
            skip, all_rows = (self._optimizer(module, missed) for missed in ("skip", "replay"))
            self.contestants |= {
                "missed skip": Contestant(lambda batch: skip.step(batch.gradient)),
                "catch_up()": Contestant(lambda batch: all_rows.catch_up(), lambda batch: all_rows.step(batch.gradient))}
        self.contestants |= peers.contestants(case, table, self.batches, wanted)

    def _optimizer(self, module, missed):
        case = self.case
        table = _memory.normal((case.table, case.dim), np.dtype(case.dtype), scale=0.01, seed=0)
        chosen, _kernels.Sweep = _kernels.Sweep, module.Sweep
        try:
            optimizer = OPTIMIZERS[case.rule](table, num_threads=case.threads, nonfinite="allow", missed=missed)
        finally:
            _kernels.Sweep = chosen
        for array in optimizer.state[0].values():       # pages come to be when they are first written: not within a step
            array += 0
        if missed == "replay":
            for _ in range(_EARLIER):
                optimizer.step(RowGradient([], np.empty((0, case.dim), table.dtype)))
            optimizer.catch_up()
        return optimizer

    def _checked(self, batch):
        self.opt.nonfinite = "raise"
        self.opt.step(batch.gradient)
        self.opt.nonfinite = "allow"

    def _limit(self, touch, distances):
        def step(batch):
            rows, values, starts = batch.grouped
            touch(rows, values, starts, None, self.arrays, self.numbers, self.steps, *distances,
                  _config.threads_for(self.case.threads))
        return step

    def _scattered(self, touch):
        def step(batch):
            rows, starts, order = batch.segments
            touch(rows, batch.values, starts, order, self.arrays, self.numbers, self.steps, *_IN_PLACE,
                  _config.threads_for(self.case.threads))
        return step

    def _other_forms(self, touch):
        """The same gradient in other hands: what a form costs over the plainest way to the same rows."""
        if self.case.form == "rows" and self.case.zipf and self.case.order == "random":
            return {"limit in place": Contestant(self._scattered(touch))} if self.case.missed == "skip" else {}
        if self.case.form == "matmul":
            return {"step on X.T @ dY": Contestant(lambda batch: self.opt.step(_product(batch))),
                    "step on its rows": Contestant(lambda batch: self.opt.step(_reduced(batch)))}
        if self.case.form in ("csr", "csc", "coo"):
            as_rows = {id(batch): RowGradient(batch.drawn, batch.values) for batch in self.batches}
            others = {"RowGradient": Contestant(lambda batch: self.opt.step(as_rows[id(batch)]))}
            if self.case.form == "csr":
                others["max of indptr"] = Contestant(lambda batch: batch.gradient.indptr.max())
            return others
        return {}

    def choose_limit(self, repeats=3, seconds=0.1):
        """Find the best way of the limit, in rounds of its own: of many noisy times the least is too small to compare with."""
        limits = [name for name in self.contestants if name.startswith("limit (")]
        if limits:
            tried = self._times(limits, repeats, seconds)
            best = self.contestants[min(tried, key=lambda name: statistics.median(tried[name]))]
            others = {name: contestant for name, contestant in self.contestants.items() if name not in limits}
            self.contestants = {"limit": best} | others

    def run(self, repeats=5, seconds=0.3):
        """Time everybody in turns; returns a Result."""
        peers.set_threads(self.case.threads)
        self.choose_limit(repeats, seconds / 3)
        times = self._times(self.contestants, repeats, seconds)
        return Result(self.case, self.touched, self.bytes, self.extra_memory(), times)

    def _times(self, names, repeats, seconds):
        turns = {name: itertools.cycle(self.batches) for name in names}
        times = {name: [] for name in names}
        names = list(names)
        for repeat in range(repeats + 1):
            for name in names:
                taken = _seconds_a_step(self.contestants[name], turns[name], len(self.batches), seconds)
                if repeat:                          # the first one only warms up
                    times[name].append(taken)
            names.append(names.pop(0))              # nobody always begins
        return times

    def extra_memory(self):
        """The most bytes that are in use at any moment of a step beyond those before it."""
        batch = self.batches[0]
        self.opt.step(batch.gradient)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            self.opt.step(batch.gradient)
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()


def measure(case, wanted=PEERS, repeats=5):
    """Run the race of a case, and leave no memory behind; returns its Result."""
    result = Race(case, wanted).run(repeats)
    gc.collect()                # contestants hold their race, and it them
    return result


def _product(batch):
    return batch.gradient.X.T @ batch.values


def _reduced(batch):
    X = batch.gradient.X
    rows, column = np.unique(X.indices, return_inverse=True)
    narrow = sp.csr_array((X.data, column, X.indptr), shape=(X.shape[0], len(rows)))
    return RowGradient(rows, narrow.T @ batch.values)


def _seconds_a_step(contestant, turns, most, seconds):
    total, steps = 0.0, 0
    while steps < most and (total < seconds or not steps):
        batch = next(turns)
        if contestant.prepare:
            contestant.prepare(batch)
        begin = time.perf_counter()
        contestant.step(batch)
        total += time.perf_counter() - begin
        steps += 1
    return total / steps


class Result(NamedTuple):
    """Seconds a step of every contestant, one number a repeat, with what was measured."""

    case: Case
    touched: float          # unique rows a step
    bytes: float            # that a step moves, by the model above
    extra_memory: int
    times: dict

    def seconds(self, name="step"):
        return statistics.median(self.times[name])

    def ratio(self, name):
        """How many times as long as the step it takes: the median of the ratios within a repeat."""
        return statistics.median(x / y for x, y in zip(self.times[name], self.times["step"], strict=True))

    @property
    def peers(self):
        return [name for name in self.times if name not in ("step", "check", "limit")]


AXES = [field.name for field in fields(Case)]


def report(results, varying=(), write=print):
    """Write a table of results, a line as each comes, with the axes that vary; returns them as a list."""
    done, columns = [], None
    for result in results:
        done.append(result)
        seconds = result.seconds()
        axes = {axis: getattr(result.case, axis) for axis in varying if axis != "rule"}
        cells = {"rule": f"{result.case.rule:<14}"} | axes | {
            "µs/step": f"{seconds * 1e6:,.1f}", "ns/row": f"{seconds / result.touched * 1e9:,.1f}",
            "GB/s": f"{result.bytes / seconds / 1e9:.1f}",
            "of limit": f"{result.ratio('limit'):.2f}" if "limit" in result.times else "-",
            "check": f"{(result.ratio('check') - 1) * 100:+.0f} %", "extra MB": f"{result.extra_memory / 1e6:.3f}"}
        cells |= {name: f"{result.ratio(name):.3g}x" for name in result.peers}
        if columns != list(cells):
            columns = list(cells)
            write("  ".join(f"{name:>{_width(name)}}" for name in columns))
        write("  ".join(f"{cells[name]!s:>{_width(name)}}" for name in columns))
    return done


def _width(name):
    return max(len(name), {"rule": 14, "table": 8, "isa": 8, "µs/step": 9}.get(name, 7))


_LABELS = {"rows": "rows drawn a step", "table": "rows of the table", "dim": "numbers in a row"}


def draw(results, path):
    """A picture of results: time a step over the one number that varies, or, where none does, the share of the limit."""
    from matplotlib.figure import Figure

    varying = [axis for axis in AXES if len({getattr(r.case, axis) for r in results}) > 1]
    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if len(varying) == 1 and not isinstance(getattr(results[0].case, varying[0]), str):
        axis = varying[0]
        results = sorted(results, key=lambda r: getattr(r.case, axis))
        for name in dict.fromkeys(name for r in results for name in ("step", "limit", *r.peers) if name in r.times):
            have = [r for r in results if name in r.times]
            x, y = [getattr(r.case, axis) for r in have], [r.seconds(name) * 1e3 for r in have]
            style = {"linestyle": "--", "color": "0.5"} if name == "limit" else {}
            label = {"step": f"sparseopt {results[0].case.rule}", "limit": "touch limit"}.get(name, name)
            axes.plot(x, y, label=label, marker="o", markersize=4, **style)
        axes.set(xscale="log" if getattr(results[0].case, axis) > 0 else "linear", yscale="log", xlabel=_LABELS.get(axis, axis),
                 ylabel="ms a step")
        axes.legend()
    else:
        labels = [" ".join(str(getattr(r.case, axis)) for axis in varying) or r.case.rule for r in results]
        limited = all("limit" in r.times for r in results)
        bars = axes.barh(labels, [r.ratio("limit") if limited else r.seconds() * 1e3 for r in results])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        if limited:
            axes.axvline(1, color="0.5", linestyle="--")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(xlabel="share of the touch limit" if limited else "ms a step")
    fixed = {axis: getattr(results[0].case, axis) for axis in AXES if axis not in varying}
    axes.set_title(", ".join(f"{axis} {value:,}" if isinstance(value, int) else f"{axis} {value}"
                             for axis, value in fixed.items() if axis != "zipf" or value), fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, path)
