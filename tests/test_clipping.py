"""Bounds on gradients and on updated rows, alone and together, against torch and NumPy."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from references import CASES
from test_optimizers import each_dtype, optimizer

import sparseopt as so

N = 12


def clipped(grads, clip_value=None, max_row_norm=None, max_grad_norm=None):
    """The gradients of all tables, one a row, bounded by torch and NumPy in the order in which it is documented."""
    parameters = []
    for g in grads:
        parameter = torch.zeros(g.shape, dtype=torch.float64, requires_grad=True)
        parameter.grad = torch.tensor(np.asarray(g, np.float64))
        if clip_value is not None:
            torch.nn.utils.clip_grad_value_([parameter], clip_value)
        if max_row_norm is not None:
            for row in parameter.grad:
                norm = np.linalg.norm(row.numpy())
                row *= max_row_norm / norm if norm > max_row_norm else 1
        parameters.append(parameter)
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    return [parameter.grad.numpy() for parameter in parameters]


def projected(table, rows, max_norm):
    """As torch.nn.Embedding does before it reads rows."""
    weight = torch.tensor(table)
    torch.nn.functional.embedding(torch.tensor(rows), weight, max_norm=max_norm)
    return weight.numpy()


def coo(rng, shape, dtype, k):
    """Repeated cells included."""
    return sp.coo_array((rng.standard_normal(k).astype(dtype),
                         tuple(rng.integers(0, size, k) for size in shape)), shape)


FORMS = {
    # name: a gradient of a table (N, dim), from a generator of random numbers
    "rows": lambda rng, dim, dtype: so.RowGradient(rng.permutation(N)[:5], rng.standard_normal((5, dim)).astype(dtype)),
    "rising rows": lambda rng, dim, dtype: so.RowGradient(np.arange(2, 9), rng.standard_normal((7, dim)).astype(dtype)),
    "repeats": lambda rng, dim, dtype: so.RowGradient(rng.integers(0, N, 20),
                                                      rng.standard_normal((20, dim)).astype(dtype)),
    "dense": lambda rng, dim, dtype: rng.standard_normal((N, dim)).astype(dtype),
    "COO": lambda rng, dim, dtype: coo(rng, (N, dim), dtype, 3 * dim),
    "CSR": lambda rng, dim, dtype: coo(rng, (N, dim), dtype, 3 * dim).tocsr(),
    "CSC": lambda rng, dim, dtype: coo(rng, (N, dim), dtype, 3 * dim).tocsc(),
    **{f"product {kind}": lambda rng, dim, dtype, kind=kind:
       so.MatmulGradient(coo(rng, (6, N), dtype, 15).asformat(kind), rng.standard_normal((6, dim)).astype(dtype))
       for kind in ("coo", "csr", "csc")}}


def summed(gradient, dim):
    """The dense gradient in float64, and the rows that it touches."""
    if isinstance(gradient, so.RowGradient):
        dense = np.zeros((N, dim))
        np.add.at(dense, gradient.rows, gradient.values.astype(np.float64))
        return dense, np.unique(gradient.rows)
    if isinstance(gradient, so.MatmulGradient):
        return gradient.X.astype(np.float64).T @ gradient.dY.astype(np.float64), np.unique(gradient.X.tocoo().coords[1])
    if sp.issparse(gradient):
        return gradient.astype(np.float64).toarray(), np.unique(gradient.tocoo().coords[0])
    return gradient.astype(np.float64), np.arange(N)


BOUNDS = [{"clip_value": 0.5}, {"max_row_norm": 0.8}, {"max_norm": 0.9}, {"max_grad_norm": 0.5},
          {"clip_value": 0.7, "max_row_norm": 0.8},
          {"clip_value": 0.5, "max_row_norm": 0.8, "max_norm": 0.9, "max_grad_norm": 0.6}]
each_bound = pytest.mark.parametrize("bounds", BOUNDS, ids=lambda b: ", ".join(b))


@each_dtype
@each_bound
@pytest.mark.parametrize("dim", [1, 3, 17, 385])
@pytest.mark.parametrize("form", FORMS)
def test_bounds_are_torchs_for_every_form_of_gradient(form, dim, bounds, dtype):
    rng = np.random.default_rng(7)
    table = rng.standard_normal((N, dim)).astype(dtype)
    opt = so.SGD(table, lr=0.5, **bounds)
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    for _ in range(3):
        gradient = FORMS[form](rng, dim, dtype)
        dense, rows = summed(gradient, dim)
        before = table.copy()
        opt.step(gradient)
        [g] = clipped([dense], **{name: bound for name, bound in bounds.items() if name != "max_norm"})
        assert np.abs(g).max() < np.abs(dense).max() or "max_norm" in bounds
        exact = before.astype(np.float64) - 0.5 * g
        if "max_norm" in bounds:
            exact = projected(exact, rows, bounds["max_norm"])
        untouched = np.setdiff1d(np.arange(N), rows)
        np.testing.assert_array_equal(table[untouched], before[untouched])
        np.testing.assert_allclose(table, exact, rtol=tolerance, atol=tolerance)


@each_dtype
@pytest.mark.parametrize("case", [case for case in CASES if case.torch], ids=str)
def test_every_rule_takes_the_bounded_gradient_and_projects_what_it_wrote(case, dtype):
    rng = np.random.default_rng(8)
    start = rng.standard_normal((5, 6)).astype(dtype)
    bounds = {"clip_value": 1.0, "max_row_norm": 1.2, "max_grad_norm": 2.0}
    table = start.copy()
    opt = optimizer(case, table, max_norm=1.5, maximize=True, **bounds)
    w = torch.tensor(start.astype(np.float64), requires_grad=True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        theirs = case.torch([w], **{"weight_decay": 0.0, **case.hyper}, maximize=True)
        for _ in range(6):
            g = rng.standard_normal((5, 6)).astype(dtype)
            opt.step(g)
            w.grad = torch.tensor(clipped([g], **bounds)[0])
            theirs.step()
            w.data = torch.tensor(projected(w.detach().numpy(), np.arange(5), 1.5))
    finally:
        torch.set_default_dtype(before)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(table, w.detach().numpy(), rtol=tolerance, atol=tolerance)
    assert np.linalg.norm(table, axis=1).max() < 1.5 * (1 + tolerance)


@each_dtype
@each_bound
@pytest.mark.parametrize("dim", [1, 17, 385])
@pytest.mark.parametrize("form", ["rows", "repeats", "dense"])
def test_bounds_give_the_same_bits_with_any_number_of_threads(form, dim, bounds, dtype):
    n, results = 80_000 // dim, []
    for threads in (1, 2, 3):
        rng = np.random.default_rng(9)
        table = rng.standard_normal((n, dim)).astype(dtype)
        opt = so.Adam(table, lr=0.1, num_threads=threads, **bounds)
        for _ in range(2):
            values = rng.standard_normal((n, dim)).astype(dtype)
            rows = rng.permutation(n) if form == "rows" else rng.integers(0, n, n)
            opt.step(values if form == "dense" else so.RowGradient(rows, values))
        results.append([array.tobytes() for array in (table, *opt.state[0].values())])
    assert results[0] == results[1] == results[2]


@each_dtype
def test_numbers_within_their_bounds_keep_their_bits(dtype):
    rng = np.random.default_rng(3)
    start = rng.standard_normal((6, 5)).astype(dtype)
    tables = [start.copy(), start.copy()]
    opts = [so.Adam(tables[0], lr=0.1),
            so.Adam(tables[1], lr=0.1, clip_value=50, max_row_norm=60, max_norm=70, max_grad_norm=80)]
    for _ in range(3):
        g = rng.standard_normal((6, 5)).astype(dtype)
        for opt in opts:
            opt.step(g)
    assert tables[0].tobytes() == tables[1].tobytes()


def test_a_row_at_its_largest_norm_is_not_scaled_and_one_beyond_is_as_in_torch():
    table = np.array([[3.0, 4.0], [3.0, 4.000001], [30.0, 40.0], [30.0, 40.0]])
    expected = projected(table, np.arange(3), 5.0)
    so.SGD(table, lr=1.0, max_norm=5.0).step(so.RowGradient([0, 1, 2], np.zeros((3, 2))))
    np.testing.assert_allclose(table, expected, rtol=1e-15)
    assert table[0].tolist() == [3, 4]
    assert table[3].tolist() == [30, 40]
    # torch: max_norm / (norm + 1e-7)
    np.testing.assert_allclose(np.linalg.norm(table[2]), 50 * 5 / (50 + 1e-7), rtol=1e-14)


@pytest.mark.parametrize(("dtype", "large"), [(np.float32, 1e37), (np.float64, 1e300)])
def test_norms_whose_squares_overflow_are_right(dtype, large):
    table = np.array([[3, 4, 0], [0, 0, 0]], dtype) * dtype(large)
    opt = so.SGD(table, lr=1.0, max_row_norm=5.0, max_norm=10.0)
    opt.step(np.array([[0, 0, 0], [-3, 4, 0]], dtype) * dtype(large))
    np.testing.assert_allclose(table, [[6, 8, 0], [3, -4, 0]], rtol=1e-6)


@each_dtype
@pytest.mark.parametrize("bounds", [{"clip_value": 0.5}, {"max_row_norm": 0.5}, {"max_norm": 0.5},
                                    {"clip_value": 0.5, "max_row_norm": 0.5, "max_norm": 0.5}],
                         ids=lambda b: ", ".join(b))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_allowed_nan_stays_in_its_row_and_is_never_hidden(bad, bounds, dtype):
    g = np.ones((3, 4), dtype)
    g[1, 2] = bad
    table, other = np.zeros((3, 4), dtype), np.zeros((3, 4), dtype)
    so.SGD(table, lr=1.0, nonfinite="allow", **bounds).step(g)
    so.SGD(other, lr=1.0, **bounds).step(np.ones((3, 4), dtype))
    np.testing.assert_array_equal(table[[0, 2]], other[[0, 2]])
    if math.isinf(bad) and "clip_value" in bounds:
        assert np.isfinite(table).all()                 # as torch.nn.utils.clip_grad_value_ makes it
        assert np.sign(table[1, 2]) == -np.sign(bad)
    else:
        assert not np.isfinite(table[1, 2])
    refused = np.zeros((3, 4), dtype)
    with pytest.raises(ValueError, match="at row 1, column 2"):
        so.SGD(refused, lr=1.0, **bounds).step(g)
    assert not refused.any()


def test_groups_have_bounds_of_their_own_and_the_global_norm_is_taken_after_them():
    rng = np.random.default_rng(4)
    grads = [rng.standard_normal((4, 3)) for _ in range(3)]
    tables = [np.zeros((4, 3)) for _ in range(3)]
    opt = so.SGD([{"params": {"a": tables[0]}, "clip_value": 0.3}, {"params": {"b": tables[1]}, "max_row_norm": 0.5},
                  {"params": {"c": tables[2]}, "clip_value": None, "max_norm": 0.2}],
                 lr=1.0, clip_value=0.9, max_grad_norm=1.0)
    opt.step(dict(zip("abc", grads, strict=True)))
    own = [clipped(grads[:1], clip_value=0.3)[0], clipped(grads[1:2], clip_value=0.9, max_row_norm=0.5)[0], grads[2]]
    exact = [-g for g in clipped(own, max_grad_norm=1.0)]
    exact[2] = projected(exact[2], np.arange(4), 0.2)
    for table, expected in zip(tables, exact, strict=True):
        np.testing.assert_allclose(table, expected, rtol=1e-12)


def test_bounds_may_change_on_the_way():
    table = np.zeros((2, 2))
    opt = so.SGD(table, lr=1.0, clip_value=0.5)
    opt.step(np.full((2, 2), 3.0))
    opt.param_groups[0]["clip_value"] = None
    opt.step(np.full((2, 2), 3.0))
    opt.param_groups[0]["max_norm"] = 1.0
    opt.step(so.RowGradient([1], np.zeros((1, 2))))
    np.testing.assert_allclose(table, [[-3.5, -3.5], [-math.sqrt(0.5)] * 2], rtol=1e-7)


@each_dtype
@pytest.mark.parametrize("name", ["Adam", "NAdam", "SGD momentum", "Adagrad"])
def test_under_replay_gradients_are_bounded_as_in_the_dense_run(name, dtype):
    case = next(case for case in CASES if case.name == name)
    rng = np.random.default_rng(5)
    start = rng.standard_normal((6, 3)).astype(dtype)
    bounds = {"clip_value": 0.8, "max_row_norm": 0.9, "max_grad_norm": 1.0}
    table, dense = start.copy(), []
    opt = optimizer(case, table, missed="replay", **bounds)
    for _ in range(15):
        rows = np.unique(rng.integers(0, 6, 2))
        g = np.zeros((6, 3), dtype)
        g[rows] = rng.standard_normal((len(rows), 3))
        opt.step(so.RowGradient(rows, g[rows]))
        dense.append(clipped([g], **bounds)[0])
    opt.catch_up()
    exact = case.run_torch(start, dense, np.float64)
    tolerance = 1e-4 if dtype == np.float32 else 1e-8
    np.testing.assert_allclose(table, exact, rtol=tolerance, atol=tolerance)


@each_dtype
@pytest.mark.parametrize("cls", [so.Adagrad, so.RowwiseAdagrad, so.Ftrl, so.SGD])
def test_under_replay_rows_are_projected_where_missed_steps_move_no_weight(cls, dtype):
    rng = np.random.default_rng(6)
    start = rng.standard_normal((6, 3)).astype(dtype)
    tables = [start.copy(), start.copy()]
    opts = [cls(table, lr=0.5, max_norm=0.7, missed=missed)
            for table, missed in zip(tables, ("skip", "replay"), strict=True)]
    for _ in range(6):
        gradient = so.RowGradient(rng.integers(0, 4, 3), rng.standard_normal((3, 3)).astype(dtype))
        for opt in opts:
            opt.step(gradient)
    opts[1].catch_up()
    assert tables[0].tobytes() == tables[1].tobytes()
    norms = np.linalg.norm(tables[0], axis=1)
    assert norms[:4].max() < 0.7 + 1e-6
    assert tables[0][4:].tobytes() == start[4:].tobytes()


@pytest.mark.parametrize("cls", [so.Adam, so.AdamW, so.RowwiseAdam, so.Adamax, so.NAdam, so.Lion])
def test_under_replay_max_norm_is_refused_where_missed_steps_move_weights(cls):
    with pytest.raises(ValueError, match=r'max_norm is 2\.0 with missed="replay"'):
        cls(np.ones((3, 2)), max_norm=2, missed="replay")
    table = np.ones((3, 2))
    opt = cls(table, missed="replay")
    opt.param_groups[0]["max_norm"] = 2.0
    with pytest.raises(ValueError, match=r'max_norm is 2\.0 with missed="replay"'):
        opt.step(np.ones((3, 2)))
    assert (table == 1).all()
    assert opt.steps == 0


@pytest.mark.parametrize("name", ["clip_value", "max_row_norm", "max_norm", "max_grad_norm"])
@pytest.mark.parametrize(("value", "error"), [
    (0, ValueError), (0.0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError),
    (10**400, ValueError),
    ("1", TypeError), (True, TypeError), ([1.0], TypeError), (1j, TypeError)], ids=lambda x: str(x)[:9])
def test_a_bound_that_is_none_is_refused_by_its_name(name, value, error):
    with pytest.raises(error, match=rf"{name} is .*; it must be .*finite and above 0"):
        so.Adam(np.ones((2, 2)), **{name: value})
    table = np.ones((2, 2))
    opt = so.Adam(table)
    if name != "max_grad_norm":
        opt.param_groups[0][name] = value
    with pytest.raises(error, match=rf"{name} is "):
        opt.step(np.ones((2, 2))) if name != "max_grad_norm" else setattr(opt, name, value)
    assert (table == 1).all()
    assert opt.steps == 0
