"""Numbers at the ends of the range of a float: squares that overflow, averages that fade, counts at their bounds."""

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from references import WITHOUT_REPLAY, torch_default
from test_optimizers import each_case, each_dtype, optimizer

import sparseopt as so

MISSED = {"skip": {}, "replay": {"missed": "replay"}}
each_missed = pytest.mark.parametrize("options", MISSED.values(), ids=MISSED)
# Its square overflows; a row's sum of squares alone does; the largest of all.
LARGE = {np.float32: [1e22, 1.8e19, 3e38], np.float64: [1e200, 1.2e154, 1e308]}


@each_case
@each_dtype
@each_missed
@pytest.mark.parametrize("size", range(3))
def test_squares_that_overflow_leave_finite_tables_and_torchs_numbers(case, dtype, options, size):
    if options and case.ours.__name__ in WITHOUT_REPLAY:
        pytest.skip("refuses replay")
    large = LARGE[dtype][size]
    rng = np.random.default_rng(2)
    start = rng.standard_normal((3, 5)).astype(dtype)
    steps = [np.zeros((3, 5), dtype) for _ in range(12)]
    steps[0][0] = [large, -large, 1, 0, large]
    for k, g in enumerate(steps[1:], start=1):
        g[[1, 0, 2][k % 3 if k < 8 else 0]] = rng.standard_normal(5)
    table = start.copy()
    opt = optimizer(case, table, **options)
    for g in steps:
        rows = np.flatnonzero(g.any(axis=1))
        opt.step(so.RowGradient(rows, g[rows]))
    if options:
        opt.catch_up()
    theirs = None
    if case.torch:
        with torch_default(dtype):
            rows = [torch.tensor(row, requires_grad=True) for row in start]
            torchs = case.torch(rows, **{"weight_decay": 0.0, **case.hyper})
            for g in steps:
                for row, values in zip(rows, g, strict=True):
                    row.grad = torch.tensor(values) if options or values.any() else None
                torchs.step()
        theirs = np.stack([row.detach().numpy() for row in rows])
    # Nesterov's g + μ b of the largest number overflows itself: there torch's own result is infinite, too.
    overflows = case.name == "SGD nesterov" and size == 2
    assert np.isfinite(table).all() or overflows
    if theirs is not None:
        finite = np.isfinite(theirs)
        assert finite[1:].all()
        tolerance = 2e-4 if dtype == np.float32 else 1e-9
        np.testing.assert_allclose(table[finite], theirs[finite], rtol=tolerance, atol=tolerance)


@each_case
@each_dtype
def test_state_that_fades_under_skip_becomes_zero_and_never_subnormal(case, dtype):
    quick = {"betas": (0.5, 0.6), "rho": 0.6, "alpha": 0.6, "momentum": 0.5, "eps": 1e-3}
    known = optimizer(case, np.zeros(1)).param_groups[0]
    hyper = case.hyper | {name: value for name, value in quick.items() if known.get(name)}
    case = replace(case, hyper=hyper)
    steps = 300 if dtype == np.float32 else 1450        # beyond which 0.6^k is subnormal
    rng = np.random.default_rng(4)
    table = rng.standard_normal((4, 17)).astype(dtype)
    start = table.copy()
    first = rng.standard_normal(table.shape).astype(dtype)
    gradients = [first, *np.zeros((steps - 1, *first.shape), dtype)]
    for g in gradients[1:]:
        g[:3, 0] = rng.standard_normal(3)               # the other columns, and a whole row, have no gradient any more
    opt = optimizer(case, table)
    for g in gradients:
        opt.step(g)
    tiny = np.finfo(dtype).tiny
    for name, array in opt.state[0].items():
        if name != "step":
            size = np.abs(array)
            assert not ((size > 0) & (size < tiny)).any(), name
    fading = {"exp_avg", "momentum_buffer", "grad_avg", "square_avg", "exp_avg_sq", "acc_delta"} & set(opt.state[0])
    for name in fading:
        left = opt.state[0][name][3]
        if case.ours is so.Lion:
            np.testing.assert_array_equal(np.sign(opt.state[0][name][:, 1:]), np.sign(first[:, 1:]))
        else:
            assert not left.any(), name
    # there the reference itself underflows, and its sign becomes 0
    if case.ours is so.Lion and dtype == np.float64:
        return
    with np.errstate(under="ignore"):
        exact = case.run_reference(start, gradients)
    tolerance = 5e-5 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(table, exact, rtol=tolerance, atol=tolerance * np.abs(exact).max())


def subnormal(dtype):
    return np.array([np.finfo(dtype).tiny / 8], dtype)


@each_dtype
@each_missed
def test_a_step_leaves_the_arithmetic_of_every_thread_as_it_was(dtype, options):
    n, kept = 40_000, []
    small = np.full((n, 4), subnormal(dtype)[0], dtype)

    def work():
        table = so.zeros((n, 4), dtype)
        opt = so.Adam(table, num_threads=2, **options)
        for _ in range(3):
            opt.step(np.ones((n, 4), dtype))
            opt.step(so.RowGradient([3], np.ones((1, 4), dtype)))
        if options:
            opt.catch_up()
        kept.append((subnormal(dtype) * dtype(1)).item())
        # Read by the threads of the step.
        kept.append(so.embedding.dots(small, np.arange(n), np.ones((n, 4), dtype), np.arange(n)).min())

    expected = subnormal(dtype).item()
    before, _ = so.get_num_threads(), so.set_num_threads(2)
    try:
        work()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        so.set_num_threads(before)
    assert kept == [expected, 4 * expected] * 2
    assert expected > 0


# FTRL, whose weights stand in z and n, too.


class Ftrl:
    """The paper's Algorithm 1 in float64; z of a weight that is not 0 is the value that gives this weight."""

    def __init__(self, shape, beta=1.0, l1=0.0, l2=0.0, shrinkage=0.0):
        self.beta, self.l1, self.l2, self.shrinkage = beta, l1, l2, shrinkage
        self.z, self.n = np.zeros(shape), np.zeros(shape)

    def step(self, w, g, lr):
        before = self.n
        self.n = before + g**2
        if lr == 0:
            return w
        z = np.where(w == 0, np.clip(self.z, -self.l1, self.l1),
                     -w * ((self.beta + np.sqrt(before)) / lr + self.l2) - np.sign(w) * self.l1)
        sigma = (np.sqrt(self.n) - np.sqrt(before)) / lr
        self.z = z + g + 2 * self.shrinkage * w - sigma * w         # TensorFlow's l2_shrinkage_regularization_strength
        new = -(self.z - np.sign(self.z) * self.l1) / ((self.beta + np.sqrt(self.n)) / lr + self.l2)
        return np.where(np.abs(self.z) <= self.l1, 0.0, new)


@pytest.mark.parametrize(("dtype", "weight", "lr"), [(np.float32, 1e37, 0.01), (np.float32, 100.0, 1e-37),
                                                     (np.float64, 1e307, 0.01)], ids=str)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_large_weight_of_ftrl_or_a_tiny_rate_overflows_nothing(dtype, weight, lr, sign):
    w = np.full((1, 1), sign * weight, dtype)
    before = w.copy()
    so.Ftrl(w, lr=lr).step(np.ones((1, 1), dtype))
    np.testing.assert_allclose(w, before, rtol=1e-6)


def close(table, exact):
    tolerance = 1e-5 if table.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(table, exact, rtol=tolerance, atol=tolerance)


@each_dtype
@each_missed
@pytest.mark.parametrize("hyper",
                         [{}, {"l1": 0.3}, {"l2": 0.5}, {"l1": 0.1, "l2": 0.2, "beta": 0.5}, {"beta": 0.0}], ids=str)
def test_weights_of_ftrl_stay_what_they_were_set_to_until_something_moves_them(hyper, dtype, options):
    rng = np.random.default_rng(1)
    table = so.normal((5, 4), dtype, seed=2)
    opt = so.Ftrl(table, lr=0.3, **hyper, **options)
    for _ in range(6):
        opt.step(rng.standard_normal((5, 4)).astype(dtype))
        table[0], table[1, 1], table[2] = rng.standard_normal(4), 0, table[2] / 3       # written, reset, projected
        before = table.copy()
        opt.step(np.zeros((5, 4), dtype))
        np.testing.assert_array_equal(table, before)
        opt.param_groups[0]["lr"] *= 0.7
        opt.step(np.zeros((5, 4), dtype))
        np.testing.assert_array_equal(table, before)


@each_dtype
@each_missed
@pytest.mark.parametrize("shrinkage", [0.0, 0.05])
@pytest.mark.parametrize("hyper", [{}, {"l1": 0.5}, {"l2": 0.5}, {"l1": 0.2, "l2": 0.2, "beta": 0.5}], ids=str)
def test_ftrl_goes_on_from_the_weights_in_the_table_by_the_papers_rule(hyper, shrinkage, dtype, options):
    if options and shrinkage:
        with pytest.raises(ValueError, match=r"weight_decay is 0\.1 with missed"):
            so.Ftrl(np.ones(3, dtype), weight_decay=2 * shrinkage, **options)
        return
    rng = np.random.default_rng(1)
    table, paper, zeros = so.zeros((5, 4), dtype), Ftrl((5, 4), shrinkage=shrinkage, **hyper), 0
    opt = so.Ftrl(table, lr=0.3, weight_decay=2 * shrinkage, **hyper, **options)
    table[...] = rng.standard_normal((5, 4))            # after the optimizer was made
    exact = table.astype(np.float64)
    for k in range(40):
        if k == 20:
            table[1], table[2] = 0, rng.standard_normal(4)
            exact[1:3] = table[1:3]
            paper.z[1] = np.clip(paper.z[1], -paper.l1, paper.l1)
        g = rng.standard_normal((5, 4)).astype(dtype)
        opt.step(g)
        exact = paper.step(exact, g.astype(np.float64), 0.3)
        close(table, exact)
        assert not np.signbit(table[table == 0]).any()
        zeros += np.count_nonzero(exact == 0)
        np.testing.assert_array_equal(table == 0, exact == 0)
    assert (zeros > 0) == ("l1" in hyper)
    close(opt.state[0]["n"], paper.n)


@each_dtype
@each_missed
@pytest.mark.parametrize("schedule",
                         [so.schedules.Linear(0.0, 0.5, steps=5), so.schedules.Cosine(0.5, steps=12, warmup=4),
                                      lambda step: 0.0 if step % 3 == 0 else 0.4], ids=["line", "cosine", "on and off"])
@pytest.mark.parametrize("hyper", [{}, {"l1": 0.2, "l2": 0.1}], ids=str)
def test_a_rate_of_0_moves_no_weight_of_ftrl_and_later_rates_do(hyper, schedule, dtype, options):
    rng = np.random.default_rng(1)
    table = so.normal((5, 4), dtype, seed=2)
    table[0] = 0
    exact, paper = table.astype(np.float64), Ftrl((5, 4), **hyper)
    opt = so.Ftrl(table, lr=schedule, **hyper, **options)
    for k in range(12):
        before, g = table.copy(), rng.standard_normal((5, 4)).astype(dtype)
        assert opt.current_lr() == schedule(k)
        opt.step(g)
        if schedule(k) == 0:
            np.testing.assert_array_equal(table, before)
        else:
            assert (table != before).any()
        exact = paper.step(exact, g.astype(np.float64), schedule(k))
        close(table, exact)
    assert schedule(0) == 0


@pytest.mark.parametrize("cls", [so.Adagrad, so.RowwiseAdagrad])
@each_dtype
@pytest.mark.parametrize("options", [{}, {"step_count": "global"}, {"missed": "replay"}], ids=str)
@pytest.mark.parametrize("steps", [1, 64, 65, 1_000_000, 2**31 - 4])
def test_a_decay_of_the_rate_is_right_at_any_count_and_needs_no_memory(cls, dtype, options, steps):
    table = so.zeros((3, 2), dtype)
    opt = cls(table, lr=0.5, lr_decay=1e-3, **options)
    opt.take_over(0, step=steps, sum=np.full(opt.state[0]["sum"].shape, 3.0))
    tracemalloc.start()
    opt.step(so.RowGradient([1], np.ones((1, 2), dtype)))
    opt.step(so.RowGradient([1], np.ones((1, 2), dtype)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # torch: lr / (1 + (k - 1) lr_decay) in its k-th step
    expected = -sum(0.5 / (1 + (steps + i) * 1e-3) / np.sqrt(4.0 + i) for i in range(2))
    np.testing.assert_allclose(table[1], expected, rtol=1e-6 if dtype == np.float32 else 1e-10)
    assert peak < 100_000


@pytest.mark.parametrize("cls", [so.Adagrad, so.RowwiseAdagrad])
@pytest.mark.parametrize("options", [{}, {"step_count": "global"}], ids=str)
def test_a_count_at_its_end_stays_there(cls, options):
    table = so.zeros((1, 1), np.float64)
    opt = cls(table, lr=1.0, lr_decay=1e-9, **options)
    opt.take_over(0, step=2**31 - 2)
    last = 0.0
    for n in range(1, 5):
        opt.step(np.ones((1, 1)))
        np.testing.assert_allclose(last - table.item(), 1 / (1 + (2**31 - 2) * 1e-9) / np.sqrt(n), rtol=1e-9)
        last = table.item()
    assert opt.state[0]["step"].max() == 2**31 - 1


@pytest.mark.parametrize("name", ["Adam", "NAdam", "RMSprop", "Adagrad"])
@pytest.mark.parametrize("g", [1e-18, 1e-19, 1e-20])
def test_small_gradients_without_an_epsilon_move_as_torchs(name, g):
    """Their squares are subnormal in float32: counted as 0 they would be divided by."""
    ours, theirs = getattr(so, name), getattr(torch.optim, name)
    w = np.ones((1, 3), np.float32)
    parameter = torch.tensor(w.copy(), requires_grad=True)
    opt, other = ours(w, lr=0.1, eps=0.0), theirs([parameter], lr=0.1, eps=0.0)
    for _ in range(3):
        opt.step(np.full((1, 3), g, np.float32))
        parameter.grad = torch.full((1, 3), g)
        other.step()
    np.testing.assert_allclose(w, parameter.detach().numpy(), rtol=2e-3)
