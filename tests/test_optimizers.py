"""The table of optimizers crossed with properties: dense and sparse runs against torch and NumPy."""

import warnings
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from references import CASES, Case, adam, adamax, nadam, torch_default

import sparseopt as so
from sparseopt.optimizers._rule import Column

WITH_TORCH = [case for case in CASES if case.torch]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_torch_case = pytest.mark.parametrize("case", WITH_TORCH, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def relative(a, b):
    return np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()


def start(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return so.normal(shape, dtype, seed=rng), rng


def optimizer(case, table, **more):
    # AdamW decays by default; what a test does not ask for, it does not get
    return case.ours(table, **{**case.hyper, "weight_decay": 0.0, **more})


def random_gradient(rng, n_rows, dim, dtype, index_type=np.int64):
    """A sparse gradient as (form, dense array, touched rows): unsorted, with repeats, in a random form."""
    k = int(rng.integers(0, 2 * n_rows))
    rows = rng.integers(0, n_rows, k).astype(index_type)
    values = rng.standard_normal((k, dim)).astype(dtype)
    dense = np.zeros((n_rows, dim), dtype=np.float64)
    np.add.at(dense, rows, values)
    return so.RowGradient(rows, values), dense, np.unique(rows)


@each_torch_case
@pytest.mark.parametrize("more", [{}, {"weight_decay": 0.1}, {"maximize": True, "weight_decay": 0.05}], ids=str)
def test_a_gradient_of_all_rows_gives_torchs_dense_numbers(case, more):
    more = {"weight_decay": 0.0, **more} if "weight_decay" in case.ours([np.zeros(1)]).param_groups[0] else more
    _, rng = start((1, 1), np.float64)
    w = rng.standard_normal((40, 17))
    gradients = [rng.standard_normal(w.shape) for _ in range(50)]
    exact = case.run_torch(w, gradients, np.float64, **more)

    table = w.copy()
    opt = case.ours(table, **case.hyper, **more)
    for g in gradients:
        opt.step(g)
    assert relative(table, exact) < 1e-12

    # in float32 both start from the same rounded numbers, and the float64 run does too
    w32, gradients32 = w.astype(np.float32), [g.astype(np.float32) for g in gradients]
    exact = case.run_torch(w32, gradients32, np.float64, **more)
    allowed = 2 * np.abs(case.run_torch(w32, gradients32, np.float32, **more) - exact).max()
    table = w32.copy()
    opt = case.ours(table, **case.hyper, **more)
    for g in gradients32:
        opt.step(g)
    assert np.abs(table - exact).max() <= allowed


@each_case
@pytest.mark.parametrize("more", [{}, {"weight_decay": 0.1}, {"maximize": True, "weight_decay": 0.05}], ids=str)
@pytest.mark.parametrize("dim", [1, 3, 17, 385])
def test_a_gradient_of_all_rows_gives_the_papers_numbers(case, more, dim):
    _, rng = start((1, 1), np.float64)
    w = rng.standard_normal((6, dim))
    gradients = [rng.standard_normal(w.shape) for _ in range(20)]
    table = w.copy()
    opt = optimizer(case, table, **more)
    for g in gradients:
        opt.step(g)
    assert relative(table, case.run_reference(w, gradients, **more)) < 1e-12


@each_case
@each_dtype
@pytest.mark.parametrize("dim", [1, 3, 17, 385])
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_each_row_moves_as_if_it_alone_were_trained_on_its_own_gradients(case, dtype, dim, index_type):
    table, rng = start((9, dim), dtype)
    before = table.copy()
    own = [[] for _ in table]
    opt = optimizer(case, table)
    for _ in range(15):
        gradient, dense, touched = random_gradient(rng, len(table), dim, dtype, index_type)
        opt.step(gradient)
        for row in touched:
            own[row].append(dense[row])
    tolerance = 1e-11 if dtype == np.float64 else 2e-4
    for row, gradients in enumerate(own):
        exact = case.run_reference(before[row], gradients)
        assert np.abs(table[row] - exact).max() <= tolerance * np.abs(exact).max()
        if "step" in opt.state[0]:
            assert opt.state[0]["step"][row] == len(gradients)


@each_torch_case
def test_each_row_moves_as_torchs_optimizer_moves_it_alone(case):
    table, rng = start((12, 5), np.float64)
    rows = [torch.tensor(row.copy(), requires_grad=True) for row in table]
    more = {"weight_decay": 0.02}
    with torch_default(np.float64):
        theirs = case.torch(rows, **case.hyper, **more)
        ours = case.ours(table, **case.hyper, **more)
        for _ in range(30):
            gradient, dense, touched = random_gradient(rng, len(table), 5, np.float64)
            ours.step(gradient)
            for i, row in enumerate(rows):
                row.grad = torch.tensor(dense[i]) if i in touched else None
            theirs.step()
    assert relative(table, np.stack([row.detach().numpy() for row in rows])) < 1e-12


@each_dtype
def test_adam_with_global_counts_is_torchs_sparse_adam_up_to_epsilon(dtype):
    table, rng = start((30, 8), dtype)
    parameter = torch.tensor(table.copy(), requires_grad=True)
    theirs = torch.optim.SparseAdam([parameter], lr=0.01, eps=1e-30)
    ours = so.Adam(table, lr=0.01, eps=1e-30, step_count="global")
    for _ in range(40):
        rows = rng.choice(30, size=7, replace=False)
        values = rng.standard_normal((7, 8)).astype(dtype)
        ours.step(so.RowGradient(rows, values))
        parameter.grad = torch.sparse_coo_tensor(torch.tensor(rows[None]), torch.tensor(values), size=table.shape,
                                                 check_invariants=True)
        theirs.step()
    assert relative(table, parameter.detach().numpy()) < (1e-12 if dtype == np.float64 else 1e-5)
    assert ours.state[0]["step"] == 40


@each_case
def test_with_global_counts_a_late_row_is_counted_from_the_first_step_of_its_table(case):
    table, rng = start((3, 4), np.float64)
    before = table.copy()
    gradients = [np.zeros((1, 4))] * 6 + [rng.standard_normal((1, 4))]
    opt = optimizer(case, table, step_count="global")
    for g in gradients[:-1]:
        opt.step(so.RowGradient([0], g))
    opt.step(so.RowGradient([2], gradients[-1]))
    if case.name in ("SGD", "Adagrad", "Adadelta", "Lion", "Ftrl") or "RMSprop" in case.name:
        expected = case.run_reference(before[2:], gradients[-1:])     # its rule counts nothing
        assert "step" not in opt.state[0]
    else:
        expected = case.run_reference(before[2:], gradients)    # zeros leave averages at 0: only the count differs
    assert relative(table[2:], expected) < 1e-12
    np.testing.assert_array_equal(table[1], before[1])


@each_case
@each_dtype
def test_untouched_rows_and_their_state_keep_their_bits(case, dtype):
    table, rng = start((50, 7), dtype)
    opt = optimizer(case, table, weight_decay=0.1)
    opt.step(rng.standard_normal(table.shape))
    for _ in range(5):
        gradient, _, touched = random_gradient(rng, 20, 7, dtype)
        untouched = np.setdiff1d(np.arange(50), touched)
        before = [array[untouched].tobytes() for array in (table, *opt.state[0].values())]
        opt.step(gradient)
        assert [array[untouched].tobytes() for array in (table, *opt.state[0].values())] == before


@each_case
@each_dtype
@pytest.mark.parametrize("shape", [(100, 5), (100, 1), (100,)])
@pytest.mark.parametrize("step_count", ["row", "global"])
def test_neighbours_move_as_each_of_them_alone(case, dtype, shape, step_count):
    one, rng = start(shape, dtype)
    other = one.copy()
    opts = [optimizer(case, table, step_count=step_count, num_threads=1) for table in (one, other)]
    rows = np.concatenate([np.arange(0, 37), np.arange(40, 56), [58], np.arange(60, 100)])
    for touched in (np.array([3, 20, 70]), np.arange(100), rows, rows[::2], np.arange(100), None):
        values = rng.standard_normal((100 if touched is None else len(touched), *shape[1:])).astype(dtype)
        opts[0].step(values if touched is None else so.RowGradient(touched, values))
        order = rng.permutation(len(values))
        opts[1].step(so.RowGradient(order if touched is None else touched[order], values[order]))
    assert one.tobytes() == other.tobytes()
    for name, state in opts[0].state[0].items():
        assert state.tobytes() == opts[1].state[0][name].tobytes(), name


@each_case
@pytest.mark.parametrize("dim", [1, 16, 17, 64, 385])
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_many_rows_move_as_a_few_at_a_time(case, dim, index_type):
    dtype = np.float64 if dim == 385 else np.float32
    one, rng = start((3000, dim), dtype)
    other = one.copy()
    opts = [optimizer(case, table, num_threads=1) for table in (one, other)]
    single, runs = rng.random(3000) < 0.3, np.repeat(rng.random(75) < 0.4, 40)
    for rows in (np.flatnonzero(single | runs), np.arange(3000), np.flatnonzero(single)[:257]):
        rows = rows.astype(index_type)
        values = rng.standard_normal((len(rows), dim)).astype(dtype)
        opts[0].step(so.RowGradient(rows, values))
        for at in range(0, len(rows), 97):
            opts[1].step(so.RowGradient(rows[at:at + 97], values[at:at + 97]))
    assert one.tobytes() == other.tobytes()
    for name, state in opts[0].state[0].items():
        assert state.tobytes() == opts[1].state[0][name].tobytes(), name


@each_case
def test_an_empty_gradient_changes_nothing_but_the_number_of_steps(case):
    table, rng = start((5, 3), np.float32)
    opt = optimizer(case, table, weight_decay=0.1)
    opt.step(rng.standard_normal(table.shape))
    before = [array.tobytes() for array in (table, *opt.state[0].values())]
    for empty in (sp.csr_array((5, 3)), sp.coo_array((5, 3)), so.RowGradient([], np.empty((0, 3))),
                  so.MatmulGradient(sp.csr_array((2, 5)), np.ones((2, 3))),
                  so.MatmulGradient(sp.csr_array((0, 5)), np.ones((0, 3)))):
        opt.step(empty)
    assert [array.tobytes() for array in (table, *opt.state[0].values())] == before
    assert opt.steps == 6


@each_case
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (0,)])
def test_tables_without_rows_or_columns_take_steps(case, shape):
    opt = optimizer(case, so.zeros(shape))
    opt.step(np.zeros(shape))
    if shape[0]:
        opt.step(so.RowGradient([3, 1, 1], np.empty((3, 0))))
    assert opt.steps == 1 + bool(shape[0])
    assert all(np.isfinite(array).all() for array in opt.state[0].values())


@each_case
@each_dtype
def test_zero_epsilon_leaves_elements_without_gradient_where_they_are(case, dtype):
    if "eps" not in case.ours(np.zeros(1, dtype)).param_groups[0]:
        pytest.skip(f"{case.name} has no eps")
    table, rng = start((4, 6), dtype)
    hyper = {**case.hyper, "eps": 0.0, "initial_accumulator_value": 0.0}
    hyper = {name: value for name, value in hyper.items() if name in case.ours(np.zeros(1, dtype)).param_groups[0]}
    zero = Case(case.name, case.ours, case.reference, case.torch, hyper, case.reference_hyper, case.coupled)
    before = table.copy()
    opt = optimizer(zero, table)
    gradients = [np.where(np.arange(6) < 3, 0.1 + rng.random(6), 0.0) for _ in range(5)]
    for g in gradients:
        opt.step(so.RowGradient([2], g[None].astype(dtype)))
    np.testing.assert_array_equal(table[2, 3:], before[2, 3:])
    if case.name != "Adadelta":     # whose steps start from sqrt(eps), here from nothing
        with np.errstate(invalid="ignore"):
            exact = zero.run_reference(before[2], [g.astype(dtype) for g in gradients])[:3]
        assert relative(table[2, :3], exact) < (1e-12 if dtype == np.float64 else 1e-5)


@each_case
def test_one_dimensional_tables_are_tables_of_dim_one(case):
    flat, rng = start(20, np.float64)
    column = flat.copy().reshape(20, 1)
    one, other = optimizer(case, flat, weight_decay=0.01), optimizer(case, column, weight_decay=0.01)
    for _ in range(5):
        rows, values = rng.integers(0, 20, 10), rng.standard_normal(10)
        one.step(so.RowGradient(rows, values))
        other.step(so.RowGradient(rows, values[:, None]))
    assert flat.tobytes() == column.tobytes()


def test_the_learning_rate_may_be_changed_between_steps_or_follow_a_schedule():
    rates = [0.1, 0.05, 0.2, 0.0]
    tables = [np.ones((3, 2)) for _ in range(3)]
    changed, scheduled = so.Adam(tables[0], lr=rates[0]), so.Adam(tables[1], lr=lambda step: rates[step])
    parameter = torch.tensor(tables[2], requires_grad=True)
    theirs = torch.optim.Adam([parameter])
    for i, rate in enumerate(rates):
        g = np.full((3, 2), i + 1.0)
        changed.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = rate
        changed.step(g)
        scheduled.step(g)
        parameter.grad = torch.tensor(g)
        theirs.step()
    assert tables[0].tobytes() == tables[1].tobytes()
    assert relative(tables[0], parameter.detach().numpy()) < 1e-14


def test_groups_have_hyper_parameters_of_their_own():
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((4, 3)) for _ in range(3))
    alone = [x.copy() for x in (a, b, c)]
    opt = so.AdamW([{"params": {"a": a, "b": b}, "weight_decay": 0.5},
                    {"params": {"c": c}, "lr": 0.3, "betas": (0.5, 0.8)}],
                   lr=0.1, weight_decay=0.0)
    g = rng.standard_normal((4, 3))
    opt.step({"c": g, "a": g})
    so.AdamW(alone[0], lr=0.1, weight_decay=0.5).step(g)
    so.AdamW(alone[2], lr=0.3, betas=(0.5, 0.8), weight_decay=0.0).step(g)
    for table, expected in zip((a, b, c), alone, strict=True):
        np.testing.assert_array_equal(table, expected)
    assert [list(group["params"]) for group in opt.param_groups] == [["a", "b"], ["c"]]


def test_parameters_may_be_one_array_a_mapping_a_sequence_or_groups():
    def tables():
        return np.ones((2, 2)), np.ones((3, 2))

    g, h = np.ones((2, 2)), np.ones((3, 2))
    results = []
    for structure in ("mapping", "sequence", "groups"):
        a, b = tables()
        if structure == "mapping":
            so.Adam({"a": a, "b": b}, lr=0.1).step({"b": h})
        elif structure == "sequence":
            so.Adam((a, b), lr=0.1).step([None, h])
        else:
            so.Adam([{"params": [a]}, {"params": b}], lr=0.1).step([None, h])
        results.append((a.tolist(), b.tolist()))
    a, b = tables()
    so.Adam(b, lr=0.1).step(h)
    results.append((a.tolist(), b.tolist()))
    assert all(result == results[0] for result in results)
    assert results[0][0] == np.ones((2, 2)).tolist()
    assert g.sum() == 4


def test_the_global_norm_is_clipped_over_all_tables_after_repeats_are_summed():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 3)), rng.standard_normal((4, 2))
    expected = a.copy(), b.copy()
    rows, values, dense = [3, 1, 3], rng.standard_normal((3, 3)), rng.standard_normal((4, 2))
    summed = np.zeros((5, 3))
    np.add.at(summed, rows, values)
    norm = np.sqrt((summed**2).sum() + (dense**2).sum())
    so.SGD([a, b], lr=1.0, max_grad_norm=0.5).step([so.RowGradient(rows, values), dense])
    np.testing.assert_allclose(a, expected[0] - summed * 0.5 / norm, rtol=1e-5)
    np.testing.assert_allclose(b, expected[1] - dense * 0.5 / norm, rtol=1e-5)

    parameter = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    parameter.grad = torch.tensor(dense)
    torch.nn.utils.clip_grad_norm_([parameter], 0.5)
    clipped = np.zeros((4, 2))
    so.SGD(clipped, lr=1.0, max_grad_norm=0.5).step(dense)
    np.testing.assert_allclose(-clipped, parameter.grad.numpy(), rtol=1e-14)


def test_a_gradient_below_the_largest_norm_is_not_changed():
    table, other = np.ones((4, 2)), np.ones((4, 2))
    g = np.full((4, 2), 0.1)
    so.SGD(table, lr=1.0, max_grad_norm=10.0).step(g)
    so.SGD(other, lr=1.0).step(g)
    np.testing.assert_array_equal(table, other)


def test_a_gradient_that_lies_in_a_table_is_read_as_it_was_before_the_step():
    rng = np.random.default_rng(0)
    for threads in (1, 2):
        a, b = rng.standard_normal((3000, 20)), rng.standard_normal((3000, 20))
        old_a, old_b = a.copy(), b.copy()
        X = sp.random_array((3000, 3000), density=0.002, format="csr", rng=rng)
        opt = so.SGD({"a": a, "b": b}, lr=1.0, num_threads=threads)
        opt.step({"a": so.MatmulGradient(X, b), "b": so.RowGradient(np.arange(3000)[::-1], a)})
        np.testing.assert_allclose(a, old_a - X.T @ old_b, atol=1e-12)
        np.testing.assert_array_equal(b, old_b - old_a[::-1])


def test_index_arrays_that_lie_in_the_state_are_read_as_they_were_before_the_step():
    table, other = np.zeros((6, 2)), np.zeros((6, 2))
    opt, expected = so.Adam(table, lr=1.0), so.Adam(other, lr=1.0)
    for o in (opt, expected):
        o.state[0]["step"][:] = [1, 4, 0, 5, 0, 0]
        o.load_state_dict(o.state_dict())
    step = opt.state[0]["step"]
    opt.step(so.RowGradient(step[:2], np.ones((2, 2))))
    expected.step(so.RowGradient([1, 4], np.ones((2, 2))))
    X = sp.csr_array((np.ones(2), step[1:3].copy(), [0, 1, 2]), shape=(2, 6))
    X.indices = step[1:3]
    copied = so.MatmulGradient(X.copy(), np.ones((2, 2)))
    opt.step(so.MatmulGradient(X, np.ones((2, 2))))
    expected.step(copied)
    assert table.tobytes() == other.tobytes()
    assert step.tobytes() == expected.state[0]["step"].tobytes()


def test_weights_that_lie_in_a_table_are_read_as_they_were_before_the_step():
    table = np.arange(1.0, 7.0).reshape(6, 1)
    X = sp.csr_array((table.reshape(-1), np.arange(6)[::-1], np.arange(7)), shape=(6, 6))
    X.data = table.reshape(-1)
    so.SGD(table, lr=1.0).step(so.MatmulGradient(X, np.ones((6, 1))))
    assert table.ravel().tolist() == [-5, -3, -1, 1, 3, 5]


def test_groups_may_be_replaced_whole():
    table = np.zeros((2, 1))
    opt = so.SGD(table, lr=1.0)
    opt.param_groups[0] = {**opt.param_groups[0], "lr": 0.25}
    opt.step(np.ones((2, 1)))
    assert table.tolist() == [[-0.25], [-0.25]]


@each_case
def test_an_allowed_nan_stays_to_be_seen(case):
    table, rng = start((3, 4), np.float64)
    opt = optimizer(case, table, nonfinite="allow")
    g = rng.standard_normal((3, 4))
    g[1, 2] = np.nan
    opt.step(g)
    opt.step(rng.standard_normal((3, 4)))
    assert np.isnan(table[1, 2])
    assert np.isfinite(table[[0, 2]]).all()


def test_an_allowed_nan_makes_nan_of_all_when_norms_are_clipped_as_in_torch():
    table = np.zeros((2, 2))
    so.SGD(table, lr=1.0, nonfinite="allow", max_grad_norm=0.1).step(np.array([[np.nan, 1], [100, 100]]))
    assert np.isnan(table).all()


def test_a_table_that_changed_its_shape_is_refused():
    memory = np.zeros(120)
    table = memory[:60].reshape(6, 10)
    opt = so.SGD(table, lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # NumPy deprecates it
        table.shape = (20, 3)
    with pytest.raises(ValueError, match=r"changed its shape from \(6, 10\) to \(20, 3\)"):
        opt.step(so.RowGradient([5], np.ones((1, 10))))
    assert not memory.any()


def test_rows_left_out_of_a_step_that_fails_are_not_counted():
    a, b = np.zeros((2, 1)), np.zeros((2, 1))
    opt = so.SGD([a, b], nonfinite="skip", max_grad_norm=1.0)
    with (pytest.warns(RuntimeWarning, match="1 of 2"),
          pytest.raises(ValueError, match="norm of the gradients overflows")):
        opt.step([np.array([[np.nan], [1]]), np.full((2, 1), 1e300)])
    assert opt.nonfinite_rows == 0
    assert opt.steps == 0
    assert not a.any()
    assert not b.any()


def test_counts_beyond_the_table_of_corrections_use_its_converged_end():
    table = np.zeros((2, 2))
    opt = so.Adam(table, lr=0.1)
    opt.state[0]["step"][:] = 10_000_000
    opt.load_state_dict(opt.state_dict())
    opt.step(so.RowGradient([1], np.ones((1, 2))))
    np.testing.assert_allclose(table[1], -0.1 * 0.1 / np.sqrt(0.001), rtol=1e-6)
    assert opt.state[0]["step"].tolist() == [10_000_000, 10_000_001]
    (_, by_count, *_), = opt._resolved.values()
    assert max(len(column) for column in by_count.ready[2]) < 100_000


@pytest.mark.parametrize("step_count", ["row", "global"])
def test_the_largest_count_is_kept_not_exceeded(step_count):
    opt = so.Adam(np.zeros((2, 2)), step_count=step_count)
    opt.state[0]["step"][...] = np.iinfo(np.int32).max
    opt.load_state_dict(opt.state_dict())
    opt.step(np.ones((2, 2)))
    assert (opt.state[0]["step"] == np.iinfo(np.int32).max).all()


def test_hyper_parameters_changed_in_a_group_count_from_the_next_step():
    table, other = np.zeros((2, 2)), np.zeros((2, 2))
    opt = so.Adam(table, lr=0.1)
    opt.step(np.ones((2, 2)))
    opt.param_groups[0].update(betas=[0.5, 0.6], eps=0.1, weight_decay=0.2, maximize=True)
    opt.step(np.full((2, 2), 3.0))

    parameter = torch.tensor(other, requires_grad=True)
    theirs = torch.optim.Adam([parameter], lr=0.1)
    for g in (1.0, 3.0):
        parameter.grad = torch.full((2, 2), g, dtype=torch.float64)
        theirs.step()
        theirs.param_groups[0].update(betas=(0.5, 0.6), eps=0.1, weight_decay=0.2, maximize=True)
    np.testing.assert_allclose(table, parameter.detach().numpy(), rtol=1e-14)


def test_a_memory_mapped_table_is_updated_in_its_file(tmp_path):
    table = np.memmap(tmp_path / "table", dtype=np.float32, mode="w+", shape=(10, 4))
    so.SGD(table, lr=1.0).step(so.RowGradient([3], np.ones((1, 4), np.float32)))
    table.flush()
    assert np.fromfile(tmp_path / "table", dtype=np.float32).reshape(10, 4)[3].tolist() == [-1.0] * 4


@pytest.mark.parametrize("l1", [0.0, -0.0, 0.5])
@pytest.mark.parametrize("g", [1e-45, -1e-45, 0.0, -0.0, 0.25, -0.25], ids=str)
def test_no_weight_of_ftrl_becomes_minus_zero(g, l1):
    w = so.zeros((1, 1))
    so.Ftrl(w, lr=0.1, l1=l1).step(so.RowGradient([0], np.array([[g]], np.float32)))
    assert not np.signbit(w[0, 0]) or w[0, 0] < 0


def a_cycle(step):
    """Hyper-parameters of Adam's family, others at every step."""
    turn = np.sin(step / 3)
    return dict(lr=0.01 * (2 + turn), betas=(0.9 + 0.05 * turn, 0.995 + 0.004 * turn), eps=10.0 ** (-6 + turn))


@each_dtype
@pytest.mark.parametrize("step_count", ["row", "global"])
@pytest.mark.parametrize(("cls", "rule"), [(so.Adam, adam), (so.NAdam, nadam), (so.Adamax, adamax)], ids=str)
def test_hyper_parameters_that_change_at_every_step_give_the_papers_numbers(cls, rule, step_count, dtype):
    table, rng = start((6, 3), dtype)
    exact, states, counts = table.astype(np.float64), [defaultdict(float) for _ in range(6)], np.zeros(6, int)
    opt, product = cls(table, step_count=step_count), 1.0
    for step in range(1, 1100):                     # beyond the first counts that are computed together
        changed = a_cycle(step)
        opt.param_groups[0].update(changed)
        rows = [row for row in range(6) if step < 3 or rng.random() < 0.9 ** (5 * row)]
        values = rng.standard_normal((len(rows), 3)).astype(dtype)
        opt.step(so.RowGradient(rows, values))
        for row, g in zip(rows, values.astype(np.float64), strict=True):
            counts[row] += 1
            if step_count == "global":
                states[row]["product"] = product
            rule(exact[row], g, states[row], counts[row] if step_count == "row" else step, **changed)
        product *= changed["betas"][0] * (1 - 0.5 * 0.96 ** (step * 4e-3))          # NAdam's
    assert relative(table, exact) < (1e-12 if dtype == np.float64 else 3e-5)


@pytest.mark.parametrize("step_count", ["row", "global"])
def test_of_the_numbers_that_depend_on_a_count_those_of_unchanged_hyper_parameters_are_kept(step_count):
    asked = []

    def counted(k, beta):
        asked.append((beta, len(k)))
        return 1 - beta**k

    class Counting(so.Adam):
        def _by_count(self, group):
            return tuple(Column(counted, (beta,)) for beta in group["betas"])

    table = so.zeros((2, 2))
    opt = Counting(table, betas=(0.75, 0.875), step_count=step_count)
    for step in range(60):
        opt.param_groups[0].update(eps=10.0 ** -step, betas=(0.75 + step / 1000, 0.875))
        opt.step(so.RowGradient([1], np.ones((1, 2))))
    assert [beta for beta, _ in asked] == [0.75, 0.875, *(0.75 + step / 1000 for step in range(1, 60))]
    assert max(n for _, n in asked) <= 512


def test_two_optimizers_with_the_same_betas_take_the_same_steps_in_either_order():
    def run(order):
        opts = [so.Adam(so.zeros((3, 2)), betas=betas) for betas in ((0.9, 0.99), (0.8, 0.99))]
        for i in order:
            opts[i].step(so.RowGradient([1], [[1.0, -2.0]]))
        return [opt.params[0].tobytes() for opt in opts]

    assert run([0] * 700 + [1] * 700) == run([0, 1] * 700)
