"""A benchmark of each rule, its reference loop and its peers: `pytest bench`, with pytest-benchmark's options.

A group holds all contestants of one step; --benchmark-autosave and --benchmark-compare compare runs. Absolute times
vary with the machine and the hour. `sparseopt bench` measures shares and ratios in turns.
"""

import gc
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

import sparseopt as so
from sparseopt import _config, _kernels
from sparseopt._bench import peers
from sparseopt._bench.cases import AXES, Batch, Case
from sparseopt._bench.race import Race

ALL = [
    *(Case(rule=rule, threads=threads) for rule in ("SGD", "Adagrad", "RowwiseAdagrad", "Adam", "Ftrl")
      for threads in sorted({1, _config.get_num_threads()})),
    *(Case(dim=dim) for dim in (1, 8, 16, 128, 300)),
    *(Case(rows=rows) for rows in (1, 1_000, 1_000_000)),
    Case(order="random"), Case(zipf=1.05, order="random"), Case(dtype="float64"),
    *(Case(form=form, rows=1_000) for form in ("csr", "csc", "coo")),
    Case(form="matmul", rows=4096, zipf=1.05),
    *(Case(isa=isa) for isa in _kernels.available[1:]), Case(missed="replay"),
    Case(missed="replay", zipf=1.05, order="random"),
]


def title(case):
    plain = Case()
    return " ".join(str(getattr(case, axis)) if isinstance(getattr(case, axis), str)
                    else f"{axis}={getattr(case, axis)}"
                    for axis in AXES if axis == "rule" or getattr(case, axis) != getattr(plain, axis))


@pytest.mark.parametrize("tables", [1, 4])
def test_one_row_of_each_table_of_a_mapping(benchmark, tables):
    names = [f"table {i}" for i in range(tables)]
    opt = so.Adam({name: so.normal((100_000, 64), scale=0.01, seed=0) for name in names}, nonfinite="allow")
    values = np.ones((1, 64), dtype=np.float32)
    grads = itertools.cycle([{name: so.RowGradient([row], values) for name in names} for row in range(0, 100_000, 101)])
    benchmark.group = "one row of each table of a mapping"
    benchmark.pedantic(lambda: opt.step(next(grads)), rounds=20, iterations=500, warmup_rounds=4)


@pytest.mark.parametrize("n_rows", [1_000_000, 10_000_000])
@pytest.mark.parametrize("form", ["rows", "csc", "coo", "matmul"])
def test_the_same_rows_of_a_larger_table(benchmark, form, n_rows):
    # All rows are among the first million: rows spread over a larger table lie on more pages, which slows every form.
    case = Case(form=form, rows=10 if form == "matmul" else 1000)
    rng = np.random.default_rng(0)
    batches = [Batch(case, rng, rng.random((case.rows, case.dim), dtype=np.float32)) for _ in range(100)]
    opt = so.Adam(so.zeros((n_rows, case.dim)), nonfinite="allow", num_threads=1)
    for batch in batches:
        batch.case = replace(case, table=n_rows)
        opt.step(batch.gradient)
    grads = itertools.cycle(batches)
    benchmark.group = f"the same rows of a larger table: {form}"
    benchmark.pedantic(lambda: opt.step(next(grads).gradient), rounds=20, iterations=100, warmup_rounds=1)


CONTESTANTS = {
    "step": "step", "check": "check", "reference": "reference$", "in place": "reference in place",
    "torch sparse": r"torch (?!dense)", "torch dense": "torch dense",
    "fbgemm": "fbgemm", "numpy": "NumPy", "other form": "RowGradient|step on X.T", "reduced": "step on its rows",
    "indptr": "max of indptr",
}


@pytest.fixture(scope="module", params=ALL, ids=title)
def race(request):
    gc.collect()            # the one before, which lies in cycles
    race = Race(request.param)
    peers.set_threads(race.case.threads)
    race.choose_reference()
    return race


@pytest.mark.filterwarnings("default")          # of other libraries
@pytest.mark.parametrize("who", CONTESTANTS)
def test_step(race, benchmark, who):
    found = [name for name in race.contestants if re.match(CONTESTANTS[who], name)]
    if not found:
        assert who != "reference" or race.case.form not in ("rows", "dense")
        pytest.skip(f"no {who} for {title(race.case)}, or it is not installed")
    contestant = race.contestants[found[0]]
    batches = itertools.cycle(race.batches)

    def setup():
        batch = next(batches)
        if contestant.prepare:
            contestant.prepare(batch)
        return (batch,), {}

    peers.set_threads(race.case.threads)
    benchmark.group = title(race.case)
    benchmark.pedantic(contestant.step, setup=setup, rounds=2 * len(race.batches) if race.case.rows < 500_000 else 4,
                       warmup_rounds=2)
    benchmark.extra_info |= {"touched rows": race.touched, "bytes": race.bytes, "contestant": found[0],
                             "GB/s": race.bytes / benchmark.stats["median"] / 1e9,
                             "M rows/s": race.touched / benchmark.stats["median"] / 1e6}
    if who == "step":
        benchmark.extra_info["extra bytes"] = race.extra_memory()
