"""missed="replay": after a catch-up, every row has the values that the dense optimizer gives."""

import copy
import importlib
import math
import os
import tempfile
import warnings
from collections import defaultdict

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from references import adam, adamax, ftrl, lion, mean_square, rmsprop, sgd, torch_default

import sparseopt as so
from sparseopt import _kernels
from sparseopt._kernels import replay
from sparseopt.optimizers import _parameter

EXACT, SUMMED = 1e-12, 1e-9         # of the table's scale, in float64: closed forms, and Adam's sum

# name: (optimizer, hyper-parameters as ours and torch take them, bound)
WITH_TORCH = {
    "SGD": (so.SGD, torch.optim.SGD, dict(lr=0.1), EXACT),
    "SGD L2": (so.SGD, torch.optim.SGD, dict(lr=0.1, weight_decay=0.02), EXACT),
    "SGD momentum": (so.SGD, torch.optim.SGD, dict(lr=0.1, momentum=0.9), EXACT),
    "SGD dampening L2": (so.SGD, torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.02), EXACT),
    "SGD nesterov": (so.SGD, torch.optim.SGD, dict(lr=0.1, momentum=0.95, nesterov=True), EXACT),
    "SGD nesterov L2": (so.SGD, torch.optim.SGD,
                        dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.02, maximize=True), EXACT),
    "Adadelta": (so.Adadelta, torch.optim.Adadelta, dict(lr=0.5), EXACT),
    "Adagrad": (so.Adagrad, torch.optim.Adagrad, dict(lr=0.1), EXACT),
    "Adagrad lr_decay": (so.Adagrad, torch.optim.Adagrad, dict(lr=0.1, lr_decay=0.01), EXACT),
    "RMSprop": (so.RMSprop, torch.optim.RMSprop, dict(lr=0.01), EXACT),
    "RMSprop centered": (so.RMSprop, torch.optim.RMSprop, dict(lr=0.01, centered=True, eps=1e-3), EXACT),
    "RMSprop momentum": (so.RMSprop, torch.optim.RMSprop, dict(lr=0.01, momentum=0.9, alpha=0.9), EXACT),
    "RMSprop centered momentum": (so.RMSprop, torch.optim.RMSprop,
                                  dict(lr=0.01, centered=True, momentum=0.9, alpha=0.9, eps=1e-3), EXACT),
    "Adam": (so.Adam, torch.optim.Adam, dict(lr=0.01), SUMMED),
    "Adam (0.9, 0.99)": (so.Adam, torch.optim.Adam, dict(lr=0.01, betas=(0.9, 0.99)), SUMMED),
    "Adam (0.5, 0.9)": (so.Adam, torch.optim.Adam, dict(lr=0.01, betas=(0.5, 0.9)), SUMMED),
    "Adam (0.9, 0.95)": (so.Adam, torch.optim.Adam, dict(lr=0.01, betas=(0.9, 0.95)), SUMMED),
    "Adam (0, 0.999)": (so.Adam, torch.optim.Adam, dict(lr=0.01, betas=(0.0, 0.999)), SUMMED),
    "Adam eps 1e-3": (so.Adam, torch.optim.Adam, dict(lr=0.01, eps=1e-3, maximize=True), SUMMED),
    "Adam eps 1": (so.Adam, torch.optim.Adam, dict(lr=0.01, eps=1.0), SUMMED),
    "Adam amsgrad": (so.Adam, torch.optim.Adam, dict(lr=0.01, amsgrad=True), SUMMED),
    "AdamW": (so.AdamW, torch.optim.AdamW, dict(lr=0.01, weight_decay=0.1), SUMMED),
    "AdamW amsgrad": (so.AdamW, torch.optim.AdamW,
                      dict(lr=0.01, weight_decay=0.1, amsgrad=True, betas=(0.9, 0.9)), SUMMED),
    "NAdam": (so.NAdam, torch.optim.NAdam, dict(lr=0.01), SUMMED),
    "NAdam decoupled": (so.NAdam, torch.optim.NAdam,
                        dict(lr=0.01, weight_decay=0.1, decoupled_weight_decay=True), SUMMED),
    "Adamax": (so.Adamax, torch.optim.Adamax, dict(lr=0.01), EXACT),
    "Adamax (0.9, 0.95) eps 1e-3": (so.Adamax, torch.optim.Adamax, dict(lr=0.01, betas=(0.9, 0.95), eps=1e-3), EXACT),
    "Adamax (0, 0.9)": (so.Adamax, torch.optim.Adamax, dict(lr=0.01, betas=(0.0, 0.9)), EXACT),
}
# name: (optimizer, reference, hyper-parameters, those of the reference, bound)
WITHOUT = {
    "RowwiseAdagrad": (so.RowwiseAdagrad, None, dict(lr=0.1), {}, EXACT),
    "RowwiseAdam": (so.RowwiseAdam, adam, dict(lr=0.01), dict(square=mean_square), SUMMED),
    "Lion": (so.Lion, lion, dict(lr=0.01), {}, EXACT),
    "Lion decay": (so.Lion, lion, dict(lr=0.01, weight_decay=0.1), {}, EXACT),
    "Lion (0, 0.9)": (so.Lion, lion, dict(lr=0.01, betas=(0.0, 0.9)), {}, EXACT),
    "Lion (0.9, 0)": (so.Lion, lion, dict(lr=0.01, betas=(0.9, 0.0)), {}, EXACT),
    "Ftrl": (so.Ftrl, ftrl, dict(lr=0.3, beta=0.5, l1=0.02, l2=0.1), {}, EXACT),
}
SHAPE = (9, 5)
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def touches(steps, seed=0):
    """Each step's (rows, values, factor of the rate): Zipf's rows, bursts, long silences; columns of 0 and 1e-9."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(steps):
        rows = np.unique(rng.zipf(1.6, rng.integers(0, 4)) - 1) if k % 1000 < 600 else np.arange(0)
        rows = rows[rows < 6]
        if k % 700 in (3, 4, 5, 6):
            rows = np.union1d(rows, [6])            # in bursts
        if k == steps // 2:
            rows = np.union1d(rows, [7])            # once; row 8 never
        values = rng.standard_normal((len(rows), SHAPE[1]))
        values[:, 0] = 0
        values[:, 1] *= 1e-9
        factor = 0.0 if k % 10 == 3 or k % 2000 > 1900 else 0.2 + rng.random()
        out.append((rows, values, factor))
    return out


def reads(k, steps):
    """The rows that are read after step k, or None."""
    return np.arange(k % 3, SHAPE[0], 3) if k % 173 == 0 else np.arange(SHAPE[0]) if k == steps - 1 else None


def replayed(cls, start, trace, hyper):
    table = start.copy()
    opt = cls(table, missed="replay", **hyper)
    seen = []
    for k, (rows, values, factor) in enumerate(trace):
        opt.param_groups[0]["lr"] = hyper["lr"] * factor
        opt.step(so.RowGradient(rows, values.astype(start.dtype)))
        read = reads(k, len(trace))
        if read is not None:
            opt.catch_up(read)
            seen.append(table[read].copy())
    return seen


def dense_torch(cls, start, trace, hyper):
    seen = []
    with torch_default(start.dtype):
        parameter = torch.tensor(start.copy(), requires_grad=True)
        parameter.grad = torch.zeros_like(parameter)
        opt = cls([parameter], **hyper)
        for k, (rows, values, factor) in enumerate(trace):
            parameter.grad.zero_()
            parameter.grad[rows] = torch.tensor(values.astype(start.dtype))
            opt.param_groups[0]["lr"] = hyper["lr"] * factor
            opt.step()
            read = reads(k, len(trace))
            if read is not None:
                seen.append(parameter.detach().numpy()[read].copy())
    return seen


def worst(seen, exact):
    largest = max(np.abs(a.astype(np.float64) - b).max() for a, b in zip(seen, exact, strict=True))
    return largest / np.abs(exact[-1]).max()


@pytest.mark.parametrize("name", WITH_TORCH)
def test_rows_that_are_caught_up_are_where_torchs_dense_run_has_them(name):
    cls, theirs, hyper, bound = WITH_TORCH[name]
    trace = [(rows, values.astype(np.float32).astype(np.float64), factor) for rows, values, factor in touches(5000)]
    start = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    exact = dense_torch(theirs, start.astype(np.float64), trace, hyper)
    assert worst(replayed(cls, start.astype(np.float64), trace, hyper), exact) < bound
    ours, torchs = replayed(cls, start, trace, hyper), dense_torch(theirs, start, trace, hyper)
    assert worst(ours, exact) <= 2 * worst(torchs, exact)


@pytest.mark.parametrize("name", WITHOUT)
def test_rows_that_are_caught_up_are_where_the_papers_dense_run_has_them(name):
    cls, rule, hyper, more, bound = WITHOUT[name]
    trace = touches(3000)
    if cls is so.Ftrl:
        trace = [(rows, values, factor or 0.1) for rows, values, factor in trace]
    w = np.random.default_rng(1).standard_normal(SHAPE)
    start, state, exact = w.copy(), defaultdict(float), []
    settings = {"decoupled" if key == "weight_decay" else key: value for key, value in {**hyper, **more}.items()}
    for k, (rows, values, factor) in enumerate(trace):
        g = np.zeros(SHAPE)
        g[rows] = values
        if rule is None:        # RowwiseAdagrad, where nothing moves without a gradient
            state["sum"] = state["sum"] + mean_square(g)
            w -= hyper["lr"] * factor * g / (np.sqrt(state["sum"]) + 1e-10)
        else:
            rule(w, g, state, k + 1, **{**settings, "lr": hyper["lr"] * factor})
        read = reads(k, len(trace))
        if read is not None:
            exact.append(w[read].copy())
    assert worst(replayed(cls, start, trace, hyper), exact) < bound
    assert worst(replayed(cls, start.astype(np.float32), trace, hyper), exact) < 1e-5


@pytest.mark.parametrize(("lr", "decay", "b2"), [(0.5, 3.0, 0.0), (1.0, 2.5, 0.9), (1.0, 1.0, 0.9)])
@pytest.mark.parametrize("missed", [1, 2, 3, 6])
def test_a_rate_times_decay_above_1_turns_what_lion_has_missed_around(lr, decay, b2, missed):
    start, value = np.array([[0.5, -0.5, 0.25]]), np.array([[1.0, -2.0, 0.0]])
    replayed, dense = start.copy(), start.copy()
    settings = dict(lr=lr, weight_decay=decay, betas=(0.9, b2))
    opt, other = so.Lion(replayed, missed="replay", **settings), so.Lion(dense, **settings)
    opt.step(so.RowGradient([0], value))
    other.step(value)
    for _ in range(missed):
        opt.step(so.RowGradient([], np.empty((0, 3))))
        other.step(np.zeros((1, 3)))
    opt.catch_up()
    np.testing.assert_allclose(replayed, dense, rtol=1e-12, atol=1e-14)


def test_a_gap_of_very_many_steps(monkeypatch):
    monkeypatch.setattr(_parameter, "_LONG", 10**9)      # a table this small would begin its history anew long before
    n = 1_000_000 if THOROUGH else 150_000
    rates = 0.01 * (1 + np.sin(np.arange(1, n + 3) / 7) ** 2)
    table = so.zeros((2, 3), np.float64) + 1.0
    opt = so.AdamW(table, lr=lambda k: rates[k], weight_decay=1e-4, missed="replay")
    nothing, g = so.RowGradient([], np.empty((0, 3))), np.array([[0.5, -2.0, 1e-6]])
    opt.step(nothing)
    opt.step(so.RowGradient([1], g))
    for _ in range(n):
        opt.step(nothing)
    assert opt.stale().tolist() == [n + 2, n]
    opt.catch_up()
    assert not opt.stale().any()

    w, m, v = np.full(3, 1.0), 0.1 * g[0], 0.001 * g[0] ** 2
    w = w * (1 - rates[0] * 1e-4) * (1 - rates[1] * 1e-4)
    w = w - rates[1] / (1 - 0.9**2) * m / (np.sqrt(v / (1 - 0.999**2)) + 1e-8)
    for t in range(3, 600):                         # after which m is nothing
        m, v = 0.9 * m, 0.999 * v
        w = w * (1 - rates[t - 1] * 1e-4) - rates[t - 1] / (1 - 0.9**t) * m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    w = w * math.prod(1 - rates[599:] * 1e-4)
    np.testing.assert_allclose(table[1], w, rtol=0, atol=1e-9)
    np.testing.assert_allclose(table[0], math.prod(1 - rates * 1e-4), rtol=1e-11)
    assert not opt.state[0]["exp_avg"].any()        # 0.9^n, and no denormals on the way


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thousands_of_different_gaps_in_one_step(dtype):
    n, rng = 3000, np.random.default_rng(0)
    start, g = rng.standard_normal((n, 2)).astype(dtype), rng.standard_normal((n, 2)).astype(dtype)
    table, w, state = start.copy(), start.astype(np.float64), defaultdict(float)
    opt = so.Adam(table, lr=0.01, missed="replay")
    for k in range(n):
        opt.step(so.RowGradient([k], g[k:k + 1]))
        dense = np.zeros((n, 2))
        dense[k] = g[k]
        adam(w, dense, state, k + 1, lr=0.01)
    opt.step(so.RowGradient(np.arange(n), g))
    adam(w, g.astype(np.float64), state, n + 1, lr=0.01)
    assert np.abs(table - w).max() < (1e-9 if dtype == np.float64 else 3e-6)


def test_what_a_row_has_missed_does_not_depend_on_threads_or_instruction_set():
    rng = np.random.default_rng(0)
    start = rng.standard_normal((5000, 17)).astype(np.float32)
    results = []
    for isa, threads in [(isa, 1) for isa in _kernels.available] + [(_kernels.isa, 2), (_kernels.isa, 5)]:
        module = importlib.import_module(f"sparseopt._kernels.{isa}")
        for cls in (so.AdamW, so.Adamax, so.Lion, so.SGD):
            table, rng = start.copy(), np.random.default_rng(1)
            more = {"momentum": 0.9} if cls is so.SGD else {}
            built = type(cls.__name__, (cls,), {"_kernels": module})
            opt = built(table, lr=0.01, missed="replay", num_threads=threads, **more)
            for _ in range(12):
                rows = rng.integers(0, 5000, 3000)
                opt.step(so.RowGradient(rows, rng.standard_normal((3000, 17)).astype(np.float32)))
            opt.catch_up(rng.integers(0, 5000, 4000))
            opt.catch_up()
            results.append((cls, table))
    for cls, table in results:
        first = next(other for kind, other in results if kind is cls)
        np.testing.assert_array_equal(table, first)


def run(opt, steps, seed, n_rows, dim, dtype=np.float32):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.zipf(1.4, 3) % n_rows
        opt.step(so.RowGradient(rows, rng.standard_normal((3, dim)).astype(dtype)))


@pytest.mark.parametrize(("cls", "hyper"), [
    (so.SGD, {}), (so.SGD, dict(weight_decay=0.1)), (so.SGD, dict(momentum=0.9)), (so.Adagrad, {}), (so.RMSprop, {}),
    (so.Adam, {}), (so.AdamW, {}), (so.NAdam, {}), (so.Adamax, {}), (so.Lion, {}), (so.Ftrl, {})], ids=str)
def test_a_resumed_run_gives_the_same_bits(cls, hyper, tmp_path):
    opt = cls({"a": so.normal((60, 3), seed=0), "b": so.normal((4, 1), np.float64, seed=1)}, lr=0.01,
              missed="replay", **hyper)
    for k in range(700):
        opt.step({"a": so.RowGradient([k % 7], np.ones((1, 3)))} | ({"b": so.RowGradient([1], [2.0])} if k % 3 else {}))
    so.save(tmp_path / "run", opt)
    again = so.load(tmp_path / "run")
    inside = cls({"a": so.zeros((60, 3)), "b": so.zeros((4, 1), np.float64)}, lr=0.01, missed="replay", **hyper)
    inside.load_state_dict(copy.deepcopy(opt.state_dict()))
    for one in (opt, again, inside):
        one.step({"a": so.RowGradient([50, 3], np.ones((2, 3))), "b": so.RowGradient([0, 1], [1.0, 2.0])})
        one.catch_up()
    for one in (again, inside):
        for name in "ab":
            np.testing.assert_array_equal(one.params[name], opt.params[name])
            for key, array in opt.state[name].items():
                np.testing.assert_array_equal(one.state[name][key], array)


def test_a_long_history_begins_anew_and_changes_nothing(monkeypatch):
    tables = []
    for long in (50, 10**9):
        monkeypatch.setattr(_parameter, "_LONG", long)
        table = so.normal((40, 3), np.float64, seed=0)
        opt = so.AdamW(table, lr=0.01, missed="replay")
        run(opt, 900, 2, 40, 3, np.float64)
        opt.catch_up()
        tables.append(table)
        start = opt._parameters[0].sweep.history.start
        assert start > 500 if long == 50 else start == 0
    np.testing.assert_allclose(tables[0], tables[1], rtol=0, atol=1e-9)


def test_hyper_parameters_may_change_on_the_way():
    w = np.random.default_rng(0).standard_normal((6, 2))
    table, state = w.copy(), defaultdict(float)
    opt = so.AdamW(table, lr=0.01, weight_decay=0.0, missed="replay")
    rng = np.random.default_rng(1)
    hyper = dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, decoupled=0.0)
    for k in range(400):
        if k == 100:
            opt.param_groups[0]["betas"] = hyper["betas"] = (0.8, 0.99)
        if k == 200:
            opt.param_groups[0]["weight_decay"] = hyper["decoupled"] = 0.3
        if k == 300:
            opt.param_groups[0]["eps"] = hyper["eps"] = 0.1
        g = np.zeros((6, 2))
        row = rng.integers(4)
        g[row] = rng.standard_normal(2)
        opt.step(so.RowGradient([row], g[[row]]))
        adam(w, g, state, k + 1, **hyper)
    opt.catch_up()
    assert np.abs(table - w).max() < 1e-9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adam amsgrad", "NAdam", "Adamax"])
def test_torchs_one_cycle_which_changes_rate_and_betas_at_every_step_is_replayed(name, dtype):
    ours, theirs, hyper, bound = WITH_TORCH[name]
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30, 4)).astype(dtype)
    with torch_default(dtype):
        parameter = torch.tensor(table.copy(), requires_grad=True)
        parameter.grad = torch.zeros_like(parameter)
        dense = theirs([parameter], **hyper)
        cycle = torch.optim.lr_scheduler.OneCycleLR(dense, max_lr=0.05, total_steps=180)
        opt = ours(table, missed="replay", **hyper)
        searches = replay.plan_of.cache_info().misses
        for k in range(240):
            opt.param_groups[0].update({key: dense.param_groups[0][key] for key in ("lr", "betas")})
            rows = np.unique(rng.integers(0, 25, 3)) if k % 7 else np.arange(0)
            values = rng.standard_normal((len(rows), 4)).astype(dtype)
            parameter.grad.zero_()
            parameter.grad[rows] = torch.tensor(values)
            opt.step(so.RowGradient(rows, values))
            dense.step()
            if k == 100:                            # in the middle of the cycle
                kept = copy.deepcopy(opt.state_dict())
                opt = ours(table, missed="replay", **hyper)
                opt.load_state_dict(kept)
            if k < 120 or 160 <= k < 219:           # between these, betas stay for a while
                cycle.step()
    opt.catch_up()
    exact = parameter.detach().numpy()
    assert np.abs(table - exact).max() < (bound if dtype == np.float64 else 2e-5) * np.abs(exact).max()
    assert replay.plan_of.cache_info().misses - searches <= 4       # a search takes as long as thousands of steps


def test_a_decay_that_is_switched_on_later_counts_from_there():
    nothing = so.RowGradient([], np.empty((0, 2)))
    table = np.ones((3, 2))
    opt = so.SGD(table, lr=0.1, missed="replay")
    opt.step(nothing)
    opt.param_groups[0]["weight_decay"] = 0.5
    for _ in range(10):
        opt.step(nothing)
    kept = copy.deepcopy(opt.state_dict())
    opt.catch_up()
    np.testing.assert_allclose(table, 0.95**10, rtol=1e-14)
    other = np.zeros((3, 2))
    again = so.SGD(other, lr=0.1, missed="replay")          # made without decay
    again.load_state_dict(kept)
    again.catch_up()
    np.testing.assert_array_equal(other, table)


def test_each_dtype_of_a_group_has_its_own_history():
    a, b, alone = np.ones((2, 1), np.float32), np.ones((2, 1)), np.ones((2, 1))
    opt = so.AdamW([a, b], lr=0.1, weight_decay=0.0, missed="replay")
    opt.step([so.RowGradient([1], np.float32([[1]])), so.RowGradient([1], [[1.0]])])
    opt.param_groups[0]["eps"] = 1.0
    opt.step([so.RowGradient([1], np.float32([[1]])), None])
    opt.param_groups[0]["eps"] = 1e-8
    same = so.AdamW(alone, lr=0.1, weight_decay=0.0, missed="replay")
    same.step(so.RowGradient([1], [[1.0]]))
    for _ in range(20):
        opt.step([None, so.RowGradient([], [])])
        same.step(so.RowGradient([], []))
    opt.catch_up()
    same.catch_up()
    np.testing.assert_array_equal(b, alone)


def test_a_row_that_was_reset_can_be_saved_and_loaded(tmp_path):
    table = np.ones((3, 2))
    opt = so.Adam(table, lr=0.1, missed="replay")
    run(opt, 5, 0, 3, 2, np.float64)
    opt.param_groups[0]["eps"] = 1e-6               # a new history, from step 5 on
    run(opt, 5, 0, 3, 2, np.float64)
    for array in opt.state[0].values():
        array[1] = 0
    so.save(tmp_path / "run", opt)
    again = so.load(tmp_path / "run")
    for one in (opt, again):
        one.catch_up()
        assert not one.stale().any()
    np.testing.assert_array_equal(again.params[0], table)


def test_a_load_that_fails_writes_nothing_even_where_all_rows_would_be_caught_up():
    table = np.ones((4, 2))
    opt = so.AdamW(table, lr=0.1, missed="replay")
    run(opt, 30, 0, 3, 2, np.float64)
    opt.param_groups[0]["eps"] = 1e-3
    before = table.copy(), opt.state[0]["step"].copy()
    with pytest.raises(KeyError, match="state_dict has no"):
        opt.load_state_dict({})
    np.testing.assert_array_equal(table, before[0])
    np.testing.assert_array_equal(opt.state[0]["step"], before[1])


def test_rows_that_lie_in_the_step_counts_are_read_before_these_are_written():
    opt = so.SGD(np.ones((8, 1)), lr=0.1, momentum=0.5, missed="replay")
    for _ in range(50):
        opt.step(so.RowGradient([], np.empty((0, 1))))
    steps = opt.state[0]["step"]
    steps[:] = [1, 2, 3, 4, 5, 6, 7, 7]
    opt.catch_up(steps[:6])
    assert steps.tolist() == [1, 50, 50, 50, 50, 50, 50, 7]


def test_adamax_near_epsilon_and_beta1_near_beta2_is_no_nan():
    for betas in [(0.9, 0.93), (0.98, 0.985)]:
        table, w, state = np.ones((2, 1)), np.ones((2, 1)), defaultdict(float)
        opt = so.Adamax(table, lr=0.1, betas=betas, eps=1e-30, missed="replay")
        for k in range(9000):
            rows = [1] if k == 0 else []
            opt.step(so.RowGradient(rows, np.full((len(rows), 1), 0.3)))
            g = np.zeros((2, 1))
            g[rows] = 0.3
            adamax(w, g, state, k + 1, lr=0.1, betas=betas, eps=1e-30)
        opt.catch_up()
        np.testing.assert_allclose(table, w, rtol=1e-10)


def test_a_table_of_one_dimension_and_parameters_that_step_by_themselves():
    a, b = so.zeros(5) + np.float32(1), so.zeros((4, 2))
    opt = so.SGD([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.25}], lr=0.1, momentum=0.5, missed="replay")
    opt.step([so.RowGradient([0], [1.0]), so.RowGradient([1], np.ones((1, 2)))])
    for _ in range(3):
        opt.step([None, so.RowGradient([2], np.ones((1, 2)))])
    stale = opt.stale()
    assert [list(x) for x in stale] == [[0, 1, 1, 1, 1], [4, 3, 0, 4]]
    assert opt.stale([[0, 1], []])[0].tolist() == [0, 1]
    opt.catch_up([[], [[1, 1], [2, 0]]])
    assert a[0] == 0.5                              # one step, none missed
    assert b[1, 0] == -0.25 * (1 + 0.5 + 0.25 + 0.125)
    assert opt.stale()[1].tolist() == [0, 0, 0, 4]
    opt.catch_up()
    assert not any(x.any() for x in opt.stale())


def test_rows_left_out_for_a_nan_miss_the_step():
    table = so.zeros((3, 1))
    opt = so.SGD(table, lr=1.0, momentum=0.5, missed="replay", nonfinite="skip")
    opt.step(so.RowGradient([0, 1], [1.0, 1.0]))
    with pytest.warns(RuntimeWarning, match="1 of 2"):
        opt.step(so.RowGradient([0, 1], [np.nan, 1.0]))
    opt.catch_up()
    assert table[:, 0].tolist() == [-1.5, -2.5, 0.0]


def test_eps_0_where_nothing_has_moved_is_no_nan():
    for cls in (so.Adam, so.NAdam, so.Adamax, so.RowwiseAdam, so.RMSprop):
        table = so.zeros((3, 2)) + np.float32(1)
        opt = cls(table, lr=0.1, eps=0.0, missed="replay")
        for k in range(500):
            opt.step(so.RowGradient([k % 2], [[0.0, 1.0]]))
        opt.catch_up()
        assert np.isfinite(table).all()
        assert (table[:, 0] == 1).all() or cls is so.RowwiseAdam


def test_what_cannot_be_replayed_says_so_at_construction():
    table = so.zeros((3, 2))
    for cls in (so.Adam, so.RowwiseAdam, so.NAdam, so.Adamax, so.RMSprop, so.Adadelta, so.Adagrad,
                so.RowwiseAdagrad, so.Ftrl):
        with pytest.raises(ValueError, match=r'weight_decay is 0\.1 with missed="replay".*AdamW'):
            cls(table, weight_decay=0.1, missed="replay")
    with pytest.raises(ValueError, match=r'betas are 0\.9 and 0\.5.*missed="skip"'):
        so.Adam(table, betas=(0.9, 0.5), missed="replay")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for betas in [(0.9, 0.815), (0.3, 0.1), (0.9, 0.0), (0.9999, 0.9999)]:
            with pytest.raises(ValueError, match="betas are"):
                so.Adam(table, betas=betas, missed="replay")
    with pytest.raises(ValueError, match=r'betas are 0\.9 and 0\.5 with missed="replay"'):
        so.Adamax(table, betas=(0.9, 0.5), missed="replay")
    opt = so.Adam(table, missed="replay")
    opt.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match=r"weight_decay is 0\.1"):
        opt.step(so.RowGradient([1], np.ones((1, 2))))
    assert not table.any()
    assert opt.steps == 0


def test_bad_rows_to_catch_up():
    opt = so.Adam({"a": so.zeros((3, 2)), "b": so.zeros((2, 2))}, missed="replay")
    for method in (opt.catch_up, opt.stale):
        with pytest.raises(IndexError, match='rows of "a" has row 3 at position 1; the table has 3 rows'):
            method({"a": [0, 3]})
        with pytest.raises(TypeError, match='rows of "a" have dtype float64'):
            method({"a": [0.5]})
        with pytest.raises(KeyError, match="rows names 'c'"):
            method({"c": [0]})
        with pytest.raises(TypeError, match="rows is a list; the parameters are a mapping"):
            method([0])
        with pytest.raises(RuntimeError, match=r'needs missed="replay"; this optimizer has missed=\'skip\''):
            getattr(so.Adam(so.zeros((3, 2))), method.__name__)()


def test_a_damaged_history_is_refused_and_nothing_written():
    opt = so.AdamW(so.zeros((30, 2)), missed="replay")
    run(opt, 400, 0, 30, 2)
    good = copy.deepcopy(opt.state_dict())
    for key, spoil in [("counts", lambda a: a + 1), ("within", lambda a: a[:-1]),
                       ("open", lambda a: a.astype(np.float32)), ("records", lambda a: a[:-4]),
                       ("counts", lambda a: -a), ("counts", lambda a: a[:2]),
                       ("counts", lambda a: np.array([a[0], a[1], a[1]])),        # the window's memory begins too late,
                       ("counts", lambda a: np.array([a[0], 1 << 40, a[2]])), ("centres", lambda a: a[:0])]:
        bad = copy.deepcopy(good)
        bad["history"][0][key] = spoil(bad["history"][0][key])
        table = so.zeros((30, 2))
        fresh = so.AdamW(table, missed="replay")
        with pytest.raises(ValueError, match="history of 0"):
            fresh.load_state_dict(bad)
        assert not table.any()
        assert fresh.steps == 0
    bad = copy.deepcopy(good)
    bad["state"][0]["step"][3] = 401
    with pytest.raises(ValueError, match="up to 401; its history ends at 400"):
        so.AdamW(so.zeros((30, 2)), missed="replay").load_state_dict(bad)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_products_are_numpys_over_many_blocks(size):
    rng = np.random.default_rng(size)
    history = replay.History(0, size)
    matrices = [np.eye(size)]
    for k in range(1500):
        m = np.eye(size) * 0.999 + rng.standard_normal((size, size)) * 0.01 * (k % 5 != 0)
        matrices.append(m)
        history.reserve()
        history.append(tuple(m.ravel()))
    for s in [0, 1, 255, 256, 257, 1023, 1024, 1025, 1400, 1499, 1500]:
        product = np.eye(size)
        for m in matrices[s + 1:]:
            product = m @ product
        np.testing.assert_allclose(history.numbers(s), product.ravel(), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.95, 0.98), (0.9, 0.999, True), (0.9, 0.95, True)])
def test_the_resolvent_is_the_sum_term_by_term(betas, dtype):
    b1, b2, amsgrad = (*betas, False)[:3]
    plan = replay.plan_of(b1, b2, amsgrad, dtype)
    bound = {np.float32: 5e-7, np.float64: 5e-10}[dtype]        # the plan's, and the rounding of float32
    eps, y = 1e-8, np.concatenate([[0], np.geomspace(1e-12, 1e5, 60)])
    history = replay.History(0, 1, (), plan, eps, dtype)
    steps = 3 * plan.window // 2
    for t in range(1, steps + 1):
        history.reserve()
        history.append((1 - 1e-4,), 0.01, 1 / (1 - b1**t), 1 - b2**t)
    for s in [1, 2, 5, 30, steps - plan.window - 1, steps - plan.window, steps - plan.window + 1, steps - 3, steps - 1]:
        t = np.arange(s + 1, steps + 1.0)
        a = 0.01 * b1 ** (t - s) / (1 - b1**t) * (1 - 1e-4) ** (steps - t)
        b = (1 if amsgrad else b2 ** ((t - s) / 2)) / np.sqrt(1 - b2**t)
        exact = (a[:, None] / (b[:, None] * y + eps)).sum(axis=0)
        keep, e, degree, *k = history.numbers(s)
        assert len(k) == degree + 1
        np.testing.assert_allclose(keep, (1 - 1e-4) ** (steps - s), rtol=1e-12)
        ours = np.polynomial.polynomial.polyval((e - y) / (e + y), k) / (y + e)
        np.testing.assert_allclose(ours, exact, rtol=bound)


SMALL = 5


@st.composite
def interleavings(draw):
    rows = st.lists(st.integers(0, SMALL - 1), max_size=4)
    longest = 25 if THOROUGH else 15
    return draw(st.lists(st.one_of(
        st.tuples(st.just("step"), rows, st.sampled_from([0.0, 0.01, 0.03])),
        st.tuples(st.just("silence"), st.integers(1, 400), st.sampled_from([0.0, 0.01])),
        st.tuples(st.just("rows"), rows), st.tuples(st.just("all")), st.tuples(st.just("resume"))), max_size=longest))


REFERENCES = {"SGD": (so.SGD, sgd, dict(momentum=0.9)), "Adam": (so.Adam, adam, {}),
              "RMSprop": (so.RMSprop, rmsprop, {}), "AdamW": (so.AdamW, adam, dict(weight_decay=0.1)),
              "Adamax": (so.Adamax, adamax, {}), "Lion": (so.Lion, lion, {})}


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=1000 if THOROUGH else 75)
@given(todo=interleavings())
def test_any_interleaving_gives_the_dense_run(name, todo):
    cls, rule, hyper = REFERENCES[name]
    w = np.random.default_rng(0).standard_normal((SMALL, 2))
    table, state, k = w.copy(), defaultdict(float), 0
    opt = cls(table, lr=0.01, missed="replay", **hyper)
    settings = {"decoupled" if key == "weight_decay" else key: value for key, value in hyper.items()}
    for what, *how in todo:
        if what in ("step", "silence"):
            opt.param_groups[0]["lr"] = how[1]
            for _ in range(1 if what == "step" else how[0]):
                k += 1
                rows = how[0] if what == "step" else []
                g = np.zeros((SMALL, 2))
                values = np.cos(np.arange(2 * len(rows)) + k).reshape(-1, 2)
                np.add.at(g, np.array(rows, int), values)
                opt.step(so.RowGradient(rows, values))
                if rule is sgd and k == 1:
                    state["b"] = np.zeros((SMALL, 2))
                rule(w, g, state, k, **{**settings, "lr": how[1]})
        elif what == "rows":
            opt.catch_up(how[0])
            if how[0]:
                np.testing.assert_allclose(table[how[0]], w[how[0]], rtol=0, atol=1e-8)
        elif what == "all":
            opt.catch_up()
            np.testing.assert_allclose(table, w, rtol=0, atol=1e-8)
        else:
            with tempfile.TemporaryDirectory() as folder:
                so.save(f"{folder}/run", opt)
                opt = so.load(f"{folder}/run")
            table = opt.params[0]
    opt.catch_up()
    np.testing.assert_allclose(table, w, rtol=0, atol=1e-8)

