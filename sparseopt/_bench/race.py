"""Several contestants take the same step in turns: sparseopt's step, the reference loop and other libraries.

The reference loop, `_kernels/reference.pxi`, adds the gradient to each array that the rule reads and writes, and does
nothing else.

The traffic of a step is computed from a model:

=====================================================  ========================
data                                                   traffic
=====================================================  ========================
values of the gradient                                 read once
touched rows of the table and of each state array      read once, written once
numbers of a touched row (step count, row-wise sums)   read once, written once
row numbers, and other bytes of the same cache lines   not counted
=====================================================  ========================
"""

import gc
import importlib
import itertools
import statistics
import time
import tracemalloc
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from .. import _config, _memory
from ..gradients import RowGradient
from ..optimizers import OPTIMIZERS
from . import peers
from .cases import Batch, Case
from .peers import PEERS, Contestant

_OUT_OF_CACHE = 320 << 20   # bytes that all batches touch together: many times the size of a cache
_MOST_BATCHES = 4096
_EARLIER = 3000             # steps before a race with missed="replay": the first few hundred steps take longer
# The reference loop tries these prefetch distances, in rows: (ahead, near, close, together, values_ahead).
_DISTANCES = ((8, 4, False, 0, 0), (16, 4, False, 0, 0), (16, 8, False, 8, 0), (64, 0, False, 0, 0),
              (64, 0, False, 0, 64), (32, 8, True, 0, 16), (16, 4, True, 0, 4), (16, 4, True, 8, 4),
              (8, 3, True, 0, 3), (4, 2, True, 0, 2))
_IN_PLACE = 16, 4, True, 0, 0


class Race:
    """All contestants of a case, on the same batches: sparseopt's step, the reference loop, the installed peers."""

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
        if case.missed == "replay":     # the reference loop writes to a copy, since replay reads the steps
            self.steps = self.steps.copy()

        touched = case.table if case.form == "dense" else case.rows
        width = touched * case.dim * dtype.itemsize * (len(self.arrays) + 1)
        width += 8 * case.table if case.form == "csr" else 0
        n_batches = max(4, min(_MOST_BATCHES, _OUT_OF_CACHE // width + 1))
        # The values are positive: a sum of squares must stay positive after the reference loop adds the values.
        self.batches = [Batch(case, rng, rng.random((case.rows, case.dim), dtype=dtype) + dtype.type(0.5))
                        for _ in range(n_batches)]
        for batch in self.batches:          # a cached property must not be computed within a timed step
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
                loop = self._reference(module.reference_loop, distances)
                self.contestants[f"reference {distances}"] = Contestant(loop)
        if "forms" in wanted:
            self.contestants |= self._other_forms(module.reference_loop)
        if "forms" in wanted and case.missed == "replay":
            skip, all_rows = (self._optimizer(module, missed) for missed in ("skip", "replay"))
            self.contestants |= {
                "missed skip": Contestant(lambda batch: skip.step(batch.gradient)),
                "catch_up()": Contestant(
                    lambda batch: all_rows.catch_up(), prepare=lambda batch: all_rows.step(batch.gradient))}
        self.contestants |= peers.contestants(case, table, self.batches, wanted)

    def _optimizer(self, module, missed):
        case = self.case
        table = _memory.normal((case.table, case.dim), np.dtype(case.dtype), scale=0.01, seed=0)
        cls = type(case.rule, (OPTIMIZERS[case.rule],), {"_kernels": module})
        optimizer = cls(table, num_threads=case.threads, nonfinite="allow", missed=missed)
        for array in optimizer.state[0].values():
            array += 0          # the first write to a page takes longer, and must not be within a timed step
        if missed == "replay":
            for _ in range(_EARLIER):
                optimizer.step(RowGradient([], np.empty((0, case.dim), table.dtype)))
            optimizer.catch_up()
        return optimizer

    def _checked(self, batch):
        self.opt.nonfinite = "raise"
        self.opt.step(batch.gradient)
        self.opt.nonfinite = "allow"

    def _reference(self, loop, distances):
        def step(batch):
            rows, values, starts = batch.grouped
            loop(rows, values, starts, None, self.arrays, self.numbers, self.steps, *distances,
                  _config.threads_for(self.case.threads))
        return step

    def _scattered(self, loop):
        def step(batch):
            rows, starts, order = batch.segments
            loop(rows, batch.values, starts, order, self.arrays, self.numbers, self.steps, *_IN_PLACE,
                  _config.threads_for(self.case.threads))
        return step

    def _other_forms(self, loop):
        """Contestants that take the same gradient in another form: they show the cost of the case's form."""
        if self.case.form == "rows" and self.case.zipf and self.case.order == "random":
            return {"reference in place": Contestant(self._scattered(loop))} if self.case.missed == "skip" else {}
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

    def choose_reference(self, repeats=3, seconds=0.1):
        """Choose the fastest prefetch distances of the reference loop, and drop the times of this choice.

        The least of many noisy times is too small for a comparison, so the chosen way is timed again.
        """
        references = [name for name in self.contestants if name.startswith("reference (")]
        if references:
            tried = self._times(references, repeats, seconds)
            best = self.contestants[min(tried, key=lambda name: statistics.median(tried[name]))]
            others = {name: contestant for name, contestant in self.contestants.items() if name not in references}
            self.contestants = {"reference": best} | others

    def run(self, repeats=5, seconds=0.3):
        """Time all contestants in turns, and return a Result."""
        peers.set_threads(self.case.threads)
        self.choose_reference(repeats, seconds / 3)
        times = self._times(self.contestants, repeats, seconds)
        return Result(self.case, self.touched, self.bytes, self.extra_memory(), times)

    def _times(self, names, repeats, seconds):
        turns = {name: itertools.cycle(self.batches) for name in names}
        times = {name: [] for name in names}
        names = list(names)
        for repeat in range(repeats + 1):
            for name in names:
                taken = _seconds_a_step(self.contestants[name], turns[name], len(self.batches), seconds)
                if repeat:                          # the first repeat only warms up
                    times[name].append(taken)
            names.append(names.pop(0))              # each repeat begins with another contestant
        return times

    def extra_memory(self):
        """The largest number of bytes that a step allocates at one time."""
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
    """Run the race of a case, free its memory, and return its Result."""
    result = Race(case, wanted).run(repeats)
    gc.collect()                # a race and its contestants refer to each other
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
    """The times of a race: for each contestant the seconds of a step, one number for each repeat."""

    case: Case
    touched: float          # unique rows of a step
    bytes: float            # traffic of a step, by the model above
    extra_memory: int       # bytes that a step allocates
    times: dict

    def seconds(self, name="step"):
        return statistics.median(self.times[name])

    def ratio(self, name):
        """The time of a contestant divided by the time of sparseopt's step: the median over the repeats."""
        return statistics.median(x / y for x, y in zip(self.times[name], self.times["step"], strict=True))

    @property
    def peers(self):
        return [name for name in self.times if name not in ("step", "check", "reference")]
