"""Products with a table, against NumPy and scipy in float64, for every instruction set and number of threads."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt import _kernels
from sparseopt.embedding import Alias, bags, dots, gather, matmul

DIMS = [1, 3, 16, 17, 385]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = so.get_num_threads()
    so.set_num_threads(request.param)
    yield request.param
    so.set_num_threads(before)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_gather_is_numpys_indexing(dim, dtype, index, threads):
    table = so.normal((500, dim), dtype, seed=0)
    rows = np.random.default_rng(1).integers(500, size=(3, 1700)).astype(index)
    for shape in [(5100,), (3, 1700), (17, 100, 3), (0,), ()]:
        wanted = rows.reshape(-1)[:np.prod(shape, dtype=int)].reshape(shape)
        got = gather(table, wanted)
        assert_array_equal(got, table[wanted])
        assert got.ctypes.data % 64 == 0 or not got.size
    assert_array_equal(gather(table[:, 0].copy(), rows), table[:, 0][rows])
    assert_array_equal(gather(table[::2, ::-1], rows // 2), table[::2, ::-1][rows // 2])
    assert_array_equal(gather(table, [499, -0, 1]), table[[499, 0, 1]])


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dots_are_numpys(dim, dtype, threads):
    rng = np.random.default_rng(0)
    A, B = so.normal((50, dim), dtype, seed=1), so.normal((80, dim), dtype, seed=2)
    i, j = rng.integers(50, size=2000), rng.integers(80, size=(2000, 3)).astype(np.int32)
    precise = np.einsum("kd,ked->ke", A[i].astype(float), B[j].astype(float))
    bound = 4 * np.finfo(dtype).eps * np.einsum("kd,ked->ke", np.abs(A[i]), np.abs(B[j])) * max(1, dim / 16)
    assert (np.abs(dots(A, i, B, j) - precise) <= bound).all()
    assert_array_equal(dots(A, i, B, j[:, 1]), dots(A, i, B, j)[:, 1])
    assert_array_equal(dots(A[i], None, B[j[:, 0]], None), dots(A, i, B, j)[:, 0])
    assert_array_equal(dots(A[i], None, B[j].reshape(-1, dim), None), dots(A, i, B, j))
    assert dots(A, [], B, []).shape == (0,)
    assert dots(A, [], B, np.empty((0, 4), int)).shape == (0, 4)


@pytest.mark.parametrize("dim", [None, *DIMS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matmul_is_scipys(dim, dtype, threads):
    X = sp.random_array((700, 90), density=0.2, rng=np.random.default_rng(3)).tocsr()
    W = so.normal((90,) if dim is None else (90, dim), dtype, seed=4)
    precise = X @ W.astype(float)
    bound = 8 * np.finfo(dtype).eps * (abs(X) @ np.abs(W).astype(float))
    for form in (X, X.tocsc(), X.tocoo(), X.astype(dtype), sp.csr_matrix(X)):
        assert (np.abs(matmul(form, W) - precise) <= bound).all()
    wide = X.copy()
    wide.indices, wide.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    assert_array_equal(matmul(wide, W), matmul(X, W))
    assert matmul(X[:0], W).shape == (0, *W.shape[1:])
    assert not matmul(sp.csr_array((5, 90)), W).any()


def test_repeated_and_unsorted_columns_add_up():
    X = sp.csr_array((np.array([1.0, 2, 4]), np.array([2, 0, 2]), np.array([0, 3, 3])), shape=(2, 3))
    assert_array_equal(matmul(X, np.eye(3)), [[2, 0, 5], [0, 0, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_instruction_set_gives_the_same_bits(dtype, monkeypatch):
    rng = np.random.default_rng(5)
    A, i, j = so.normal((60, 385), dtype, seed=6), rng.integers(60, size=400), rng.integers(60, size=(400, 2))
    X = sp.random_array((300, 60), density=0.3, rng=rng).tocsr().astype(dtype)
    expected = dots(A, i, A, j), matmul(X, A), gather(A, i)
    for isa in _kernels.available:
        module = _kernels.importlib.import_module(f"sparseopt._kernels.losses_{isa}")
        for name in ("dots", "matmul", "take"):
            monkeypatch.setattr(_kernels, name, getattr(module, name))
        for ours, theirs in zip(expected, (dots(A, i, A, j), matmul(X, A), gather(A, i)), strict=True):
            assert_array_equal(ours, theirs, err_msg=isa)


def test_bags_sum_and_average_as_torchs_do():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    table, indices = so.normal((40, 5), seed=8), rng.integers(40, size=100)
    offsets = np.sort(rng.integers(101, size=30))
    offsets[0] = 0
    weights = rng.random(100, dtype=np.float32)
    functional = torch.nn.functional.embedding_bag
    arguments = torch.from_numpy(indices), torch.from_numpy(table), torch.from_numpy(offsets)
    assert_allclose(matmul(bags(indices, offsets, n_rows=40), table),
                    functional(*arguments, mode="sum").numpy(), atol=1e-5)
    assert_allclose(matmul(bags(indices, offsets, n_rows=40, mode="mean"), table),
                    functional(*arguments, mode="mean").numpy(), atol=1e-5)
    assert_allclose(matmul(bags(indices, offsets, n_rows=40, weights=weights), table),
                    functional(*arguments, mode="sum", per_sample_weights=torch.from_numpy(weights)).numpy(), atol=1e-5)


def test_a_bags_gradient_is_the_products_with_the_same_matrix():
    rng = np.random.default_rng(9)
    X = bags(rng.integers(30, size=50), np.arange(0, 50, 5), n_rows=30, weights=rng.random(50), mode="mean")
    d, table = rng.standard_normal((10, 4)), np.zeros((30, 4))
    so.SGD(table, lr=1.0).step(so.MatmulGradient(X, d))
    assert_allclose(table, -(X.toarray().T @ d), atol=1e-12)


def test_the_weighted_mean_divides_by_the_weights():
    X = bags([0, 1, 2], [0, 2], n_rows=3, weights=[1.0, 3.0, 5.0], mode="mean")
    assert_allclose(X.toarray(), [[0.25, 0.75, 0], [0, 0, 1]])


@pytest.mark.parametrize("structure", ["single", "mapping", "sequence"])
def test_rows_that_are_gathered_are_first_brought_up_to_date(structure):
    def tables():
        return {name: so.normal((20, 3), seed=seed) for seed, name in enumerate(("words", "contexts"))}

    def given(mapping):
        return {"single": mapping["contexts"], "mapping": mapping, "sequence": list(mapping.values())}[structure]

    ours, theirs = tables(), tables()
    opt = so.Adam(given(ours), lr=0.1, missed="replay")
    dense = so.Adam(given(theirs), lr=0.1)
    rng = np.random.default_rng(10)
    for _ in range(30):
        rows = rng.choice(20, 2, replace=False)
        gradient = np.zeros((20, 3), np.float32)
        gradient[rows] = rng.standard_normal((2, 3))
        opt.step(given({name: so.RowGradient(rows, gradient[rows]) for name in ours}))
        dense.step(given({name: gradient for name in ours}))
    behind = (ours["contexts"] != theirs["contexts"]).any(axis=1)
    assert behind.sum() > 10
    wanted = np.flatnonzero(behind)[[3, 0, 5]]
    assert_allclose(gather(ours["contexts"], wanted, opt=opt), theirs["contexts"][wanted], rtol=1e-4, atol=1e-6)
    others = np.setdiff1d(np.flatnonzero(behind), wanted)
    assert (ours["contexts"][others] != theirs["contexts"][others]).any(axis=1).all()
    wanted = others[:2]
    expected = (theirs["contexts"][wanted].astype(float) ** 2).sum(axis=1)
    assert_allclose(dots(ours["contexts"], wanted, ours["contexts"], wanted, opt=opt), expected, rtol=1e-4)


def test_alias_draws_by_weight():
    weights = np.random.default_rng(11).pareto(1.0, 1000)
    weights[::7] = 0
    drawn = Alias(weights).draw(1_000_000, seed=12)
    assert drawn.dtype == np.int32
    counts, expected = np.bincount(drawn, minlength=1000), weights / weights.sum() * 1_000_000
    assert not counts[::7].any()
    large = expected > 20
    chi2 = ((counts - expected)[large] ** 2 / expected[large]).sum()
    assert chi2 < large.sum() + 5 * np.sqrt(2 * large.sum())


@pytest.mark.parametrize("weights",
                         [[1.0], [1e-300, 1e-300], [0, 5, 0], [1, 1e-17, 1e17], np.ones(37), np.r_[np.ones(9), 0]])
def test_alias_never_draws_a_weight_of_zero(weights):
    drawn = Alias(weights).draw((100, 50), seed=0)
    assert drawn.shape == (100, 50)
    assert (np.asarray(weights, float)[drawn] > 0).all()


def test_alias_draws_the_same_for_the_same_seed_and_goes_on_with_a_generator():
    alias = Alias(np.arange(100))
    assert_array_equal(alias.draw(50, seed=3), alias.draw(50, seed=3))
    rng = np.random.default_rng(3)
    assert_array_equal(np.r_[alias.draw(20, rng), alias.draw(30, rng)], alias.draw(50, seed=3))


TABLE = np.zeros((10, 4), np.float32)


@pytest.mark.parametrize(("call", "error", "said"), [
    (lambda: gather(TABLE, [3, 10]), IndexError, "rows has row 10 at position 1; the table has 10 rows"),
    (lambda: gather(TABLE, [[3], [-1]]), IndexError, "rows has row -1 at position 1"),
    (lambda: gather(TABLE, [0.5]), TypeError, "rows"),
    (lambda: gather(TABLE.tolist(), [0]), TypeError, "table is a list"),
    (lambda: gather(TABLE.astype(int), [0]), TypeError, "table is a ndarray of shape .* and dtype int64"),
    (lambda: gather(TABLE, [0], opt=so.Adam(TABLE.copy())), ValueError, "opt has no such table; its tables are 0"),
    (lambda: dots(TABLE, [1], TABLE, [1, 2]), ValueError, r"i has shape \(1,\) and j has shape \(2,\)"),
    (lambda: dots(TABLE, [1], TABLE[:, :3], [1]), ValueError, "same dim and dtype"),
    (lambda: dots(TABLE, [1], TABLE.astype(float), [1]), ValueError, "same dim and dtype"),
    (lambda: dots(TABLE, [1], TABLE, [11]), IndexError, "j has row 11"),
    (lambda: dots(TABLE[:4], None, TABLE, None), ValueError, r"i has shape \(4,\) and j has shape \(10,\)"),
    (lambda: matmul(TABLE, TABLE), TypeError, "X is a ndarray; it must be a scipy sparse array"),
    (lambda: matmul(sp.csr_array((3, 9)), TABLE), ValueError, r"X has shape \(3, 9\) and W \(10, 4\)"),
    (lambda: bags([1, 2], [1], n_rows=3), ValueError, r"offsets are \[1\]; they must be sorted, begin with 0"),
    (lambda: bags([1, 2], [0, 2, 1], n_rows=3), ValueError, r"offsets are \[0, 2, 1\]; they must be sorted"),
    (lambda: bags([1, 2], [0, 3], n_rows=3), ValueError, r"offsets are \[0, 3\]; .* at most 2, the number of indices"),
    (lambda: bags([1, 3], n_rows=3), IndexError, "indices has row 3 at position 1"),
    (lambda: bags([1, 2], n_rows=3, mode="max"), ValueError, "mode is 'max'"),
    (lambda: bags([1, 2], n_rows=3, weights=[1.0]), ValueError, r"weights have shape \(1,\)"),
    (lambda: bags([1, 2], [0], n_rows=3, weights=[1.0, -1], mode="mean"), ValueError, "sum to 0"),
    (lambda: gather(TABLE, None), TypeError, "rows is None"),
    (lambda: gather(np.ma.array(TABLE), [0]), TypeError, "table is a MaskedArray"),
    (lambda: bags([[0, 1], [2, 0]], n_rows=3), ValueError, r"indices have shape \(2, 2\)"),
    (lambda: bags([0, 1], [[0], [1]], n_rows=3), ValueError, r"offsets have shape \(2, 1\)"),
    (lambda: bags([0, 1], n_rows=3, weights=[1j, 2j]), TypeError, "weights has dtype complex128"),
    (lambda: bags([0, 1], n_rows=3, weights=np.ma.array([1.0, 2.0])), TypeError, "weights is a masked array"),
    (lambda: matmul(sp.csr_array((3, 10), dtype=complex), TABLE), TypeError, "X has dtype complex128"),
    (lambda: Alias([]), ValueError, r"weights have shape \(0,\)"),
    (lambda: Alias([0.0, 0.0]), ValueError, "not all 0"),
    (lambda: Alias([1.0, -1.0]), ValueError, "0 or more"),
    (lambda: Alias([1.0, np.nan]), ValueError, "finite"),
])
def test_bad_input_is_named(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_a_malformed_csr_array_is_refused():
    X = sp.csr_array((np.ones(2, np.float32), np.array([0, 5]), np.array([0, 1, 2])), shape=(2, 10))
    X.indices[1] = 10
    with pytest.raises(IndexError, match="X has column 10 at position 1; the table has 10 columns"):
        matmul(X, TABLE)
    X.indices[1], X.indptr[1] = 5, 3
    with pytest.raises(ValueError, match="indptr that falls at row 1, from 3 to 2"):
        matmul(X, TABLE)


def test_the_parts_of_a_csr_array_must_fit_its_shape_and_may_be_of_any_integer_type():
    X = sp.csr_array(np.eye(3, 10, dtype=np.float32))
    expected = X @ TABLE
    for dtype in (np.int16, ">i4", np.uint64, ">i8"):
        other = X.copy()
        other.indices, other.indptr = X.indices.astype(dtype), X.indptr.astype(dtype)
        assert_array_equal(matmul(other, TABLE), expected)
    for indptr in (np.concatenate([X.indptr, np.full(1000, 3, np.int32)]), np.array([0, 3], np.int32),
                   np.array([], np.int32)):
        other = X.copy()
        other.indptr = indptr
        with pytest.raises(ValueError, match="X is a malformed csr array"):
            matmul(other, TABLE)
