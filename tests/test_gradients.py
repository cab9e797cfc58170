"""One gradient in every form gives the same bits; so do all threads, instruction sets and memory layouts."""

import importlib
import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from references import CASES

import sparseopt as so
from sparseopt import _kernels
from sparseopt._kernels import rowplan

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
N_ROWS, DIM = 60, 5


def full_rows(rng, dtype):
    """A gradient whose touched rows have entries in all columns: dense array, and its rows and values."""
    rows = np.sort(rng.choice(N_ROWS, size=20, replace=False))
    values = rng.standard_normal((20, DIM)).astype(dtype)
    dense = np.zeros((N_ROWS, DIM), dtype)
    dense[rows] = values
    return dense, rows, values


def one_step(gradient, dtype, optimizer=so.Adam, shape=(N_ROWS, DIM), **options):
    table = so.normal(shape, dtype, seed=7)
    opt = optimizer(table, **{"lr": 0.1, "weight_decay": 0.1, **options})
    opt.step(gradient)
    return b"".join(array.tobytes() for array in (table, *opt.state[0].values()))


def selection(rows, dtype, index_type=np.int32):
    """X of a MatmulGradient that puts sample i's dY into row rows[i]."""
    n = len(rows)
    return sp.csr_array((np.ones(n, dtype), np.asarray(rows, index_type), np.arange(n + 1, dtype=index_type)),
                        shape=(n, N_ROWS))


def forms_of(dense, rows, values):
    dtype = values.dtype
    shuffled = np.random.default_rng(3).permutation(len(rows))
    csr = sp.csr_array(dense)
    forms = {name: getattr(csr, f"to{name}")() for name in ("csr", "csc", "coo", "lil", "dok")}
    forms["bsr"] = csr.tobsr(blocksize=(1, DIM))
    forms["csr matrix"] = sp.csr_matrix(dense)
    forms["coo matrix"] = sp.coo_matrix(dense)
    forms["dia"] = csr.todia()
    unsorted = csr.copy()
    for i in rows:
        part = slice(unsorted.indptr[i], unsorted.indptr[i + 1])
        unsorted.indices[part] = unsorted.indices[part][::-1].copy()
        unsorted.data[part] = unsorted.data[part][::-1].copy()
    forms["csr, unsorted columns"] = unsorted
    coo = csr.tocoo()
    order = np.random.default_rng(4).permutation(coo.nnz)
    forms["coo, unsorted"] = sp.coo_array((coo.data[order], (coo.coords[0][order], coo.coords[1][order])),
                                          shape=dense.shape)
    forms["coo, int64"] = sp.coo_array((coo.data, tuple(c.astype(np.int64) for c in coo.coords)), shape=dense.shape)
    forms["csr, int64"] = sp.csr_array((csr.data, csr.indices.astype(np.int64), csr.indptr.astype(np.int64)),
                                       shape=dense.shape)
    forms["rows"] = so.RowGradient(rows, values)
    forms["rows, int32"] = so.RowGradient(rows.astype(np.int32), values)
    forms["rows, uint8"] = so.RowGradient(rows.astype(np.uint8), values)
    forms["rows, big-endian"] = so.RowGradient(rows.astype(">i8"), values.astype(values.dtype.newbyteorder(">")))
    forms["rows, unsorted"] = so.RowGradient(rows[shuffled], values[shuffled])
    forms["rows, Fortran"] = so.RowGradient(rows, np.asfortranarray(values))
    forms["rows, of a wider array"] = so.RowGradient(rows, np.hstack([values, values])[:, :DIM])
    forms["rows, every second"] = so.RowGradient(np.repeat(rows, 2)[::2], np.repeat(values, 2, axis=0)[::2])
    forms["rows, backwards"] = so.RowGradient(rows[::-1], values[::-1])
    unaligned = np.empty(values.nbytes + 1, np.uint8)[1:].view(dtype).reshape(values.shape)
    unaligned[...] = values
    forms["rows, unaligned"] = so.RowGradient(rows, unaligned)
    frozen = rows.copy(), values.copy()
    for array in frozen:
        array.flags.writeable = False
    forms["rows, read-only"] = so.RowGradient(*frozen)
    X = selection(rows, dtype)
    for name in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia"):
        forms[f"product, {name}"] = so.MatmulGradient(getattr(X, f"to{name}")(), values)
    forms["product, int64"] = so.MatmulGradient(selection(rows, dtype, np.int64), values)
    forms["product, matrix"] = so.MatmulGradient(sp.csr_matrix(X), values)
    forms["product, unsorted"] = so.MatmulGradient(selection(rows[shuffled], dtype), values[shuffled])
    return forms


@each_case
@each_dtype
def test_all_forms_of_a_gradient_give_the_same_bits(case, dtype):
    forms = forms_of(*full_rows(np.random.default_rng(0), dtype))
    results = {name: one_step(form, dtype, case.ours, **{**case.hyper, "lr": 0.1}) for name, form in forms.items()}
    assert len(results) > 25
    assert {name for name, bits in results.items() if bits != results["rows"]} == set()


@each_dtype
def test_a_dense_gradient_touches_all_rows(dtype):
    dense, *_ = full_rows(np.random.default_rng(0), dtype)
    expected = one_step(so.RowGradient(np.arange(N_ROWS), dense), dtype)
    for layout in (dense, np.asfortranarray(dense), np.hstack([dense, dense])[:, :DIM]):
        assert one_step(layout, dtype) == expected


@each_dtype
def test_cells_that_are_missing_in_a_touched_row_are_zeros(dtype):
    dense = np.zeros((N_ROWS, DIM), dtype)
    dense[4, 2], dense[9, 0], dense[9, 4] = 1.5, -2, 3
    expected = one_step(so.RowGradient([4, 9], dense[[4, 9]]), dtype)
    for name in ("csr", "csc", "coo", "lil", "dok", "dia"):
        assert one_step(getattr(sp.coo_array(dense), f"to{name}")(), dtype) == expected, name


def test_an_explicit_zero_touches_its_row():
    table = np.ones((4, 3))
    gradient = sp.coo_array(([0.0], ([2], [1])), shape=table.shape)
    for form in (gradient, gradient.tocsr(), gradient.tocsc(), gradient.todok()):
        opt = so.AdamW(table, weight_decay=0.5)
        opt.step(form)
        assert opt.state[0]["step"].tolist() == [0, 0, 1, 0]


@each_dtype
def test_repeated_entries_are_summed_in_the_order_in_which_they_stand(dtype):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, N_ROWS, 500)
    values = rng.standard_normal((500, DIM)).astype(dtype)
    total = np.zeros((N_ROWS, DIM), dtype)
    np.add.at(total, rows, values)          # one by one, in order
    touched = np.unique(rows)
    expected = one_step(so.RowGradient(touched, total[touched]), dtype)
    assert one_step(so.RowGradient(rows, values), dtype) == expected
    assert one_step(so.RowGradient(rows.astype(np.int32), values), dtype) == expected
    cells = sp.coo_array((values.ravel(), (np.repeat(rows, DIM), np.tile(np.arange(DIM), 500))), shape=total.shape)
    assert one_step(cells, dtype) == expected
    assert one_step(so.MatmulGradient(selection(rows, dtype), values), dtype) == expected
    assert one_step(so.MatmulGradient(selection(rows, dtype).tocsc(), values), dtype) == expected
    assert one_step(so.MatmulGradient(selection(rows, dtype).tocoo(), values), dtype) == expected


@each_dtype
def test_a_product_gives_the_bits_of_scipys_product(dtype):
    rng = np.random.default_rng(1)
    X = sp.random_array((80, N_ROWS), density=0.1, format="csr", dtype=dtype, rng=rng)
    dY = rng.standard_normal((80, DIM)).astype(dtype)
    product = X.T @ dY
    touched = np.unique(X.indices)
    expected = one_step(so.RowGradient(touched, product[touched]), dtype)
    assert one_step(so.MatmulGradient(X, dY), dtype) == expected
    assert one_step(so.MatmulGradient(X, np.asfortranarray(dY)), dtype) == expected


def test_one_dimensional_tables_take_flat_and_column_gradients():
    dense = np.zeros(N_ROWS)
    dense[[3, 8]] = 1, 2
    expected = one_step(so.RowGradient([3, 8], [1.0, 2.0]), np.float64, shape=N_ROWS)
    X, dY = selection([3, 8], np.float64), np.array([1.0, 2.0])
    for form in (so.RowGradient([3, 8], [[1.0], [2.0]]), sp.coo_array(dense), sp.csr_array(dense[:, None]),
                 sp.csc_array(dense[:, None]), sp.coo_array(dense[:, None]), so.MatmulGradient(X, dY),
                 so.MatmulGradient(X, dY[:, None])):
        assert one_step(form, np.float64, shape=N_ROWS) == expected


@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64, np.bool_])
@each_dtype
def test_numbers_of_another_type_are_converted(dtype, given):
    values = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]])
    expected = one_step(so.RowGradient([2, 5], values.astype(dtype)), dtype)
    assert one_step(so.RowGradient([2, 5], values.astype(given)), dtype) == expected
    assert one_step(so.MatmulGradient(selection([2, 5], given), values.astype(given)), dtype) == expected
    if given not in (np.float16, np.longdouble):        # scipy has no sparse arrays of these
        dense = np.zeros((N_ROWS, DIM), given)
        dense[[2, 5]] = values
        expected = one_step(so.RowGradient(np.arange(N_ROWS), dense.astype(dtype)), dtype)
        assert one_step(dense, dtype) == expected
        one_step(sp.csr_array(dense), dtype)


@each_case
@each_dtype
@pytest.mark.parametrize(("n", "dim"), [(6000, 1), (6000, 7), (6000, 64), (600, 300)])
def test_threads_and_instruction_sets_give_the_same_bits(case, dtype, n, dim):
    # More rows than a thread takes at a time, more elements than one thread gets alone, and long rows.
    rng = np.random.default_rng(0)
    rows = rng.zipf(1.3, size=3 * n) % n
    values = rng.standard_normal((3 * n, dim)).astype(dtype)
    values[rng.random(values.shape) < 0.2] = 0
    X = sp.random_array((500, n), density=0.02, format="csr", dtype=dtype, rng=rng)
    gradients = [so.RowGradient(rows, values), so.RowGradient(np.arange(n), values[:n]),
                 so.MatmulGradient(X, rng.standard_normal((500, dim)).astype(dtype))]
    results = {}
    for isa in _kernels.available:
        cls = type("Ours", (case.ours,), {"_kernels": importlib.import_module(f"sparseopt._kernels.{isa}")})
        for threads in (1, 2, 3):
            table = so.normal((n, dim), dtype, seed=0)
            opt = cls(table, **case.hyper, max_grad_norm=5.0, weight_decay=0.01, num_threads=threads)
            for gradient in gradients:
                opt.step(gradient)
            results[isa, threads] = [array.tobytes() for array in (table, *opt.state[0].values())]
    first = next(iter(results.values()))
    assert [setting for setting, bits in results.items() if bits != first] == []


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_left_out_leave_the_bits_of_a_gradient_without_them(threads):
    n = 4000        # several blocks of rows, read ahead
    rng = np.random.default_rng(0)
    rows = rng.integers(0, n, 3 * n)
    values = rng.standard_normal((3 * n, 9))
    bad = rng.choice(n, 700, replace=False)
    values[np.isin(rows, bad) & (rng.random(3 * n) < 0.5)] = np.nan
    left_out = np.unique(rows[np.isnan(values[:, 0])])
    good = ~np.isin(rows, left_out)
    X = sp.csr_array((np.ones(3 * n), rows, np.arange(3 * n + 1)), shape=(3 * n, n))
    tables = [so.normal((n, 9), np.float64, seed=1) for _ in range(4)]
    so.Adam(tables[0], num_threads=threads).step(so.RowGradient(rows[good], values[good]))
    for table, gradient in zip(tables[1:], (so.RowGradient(rows, values), so.MatmulGradient(X, values),
                                            so.MatmulGradient(X.tocsc(), values)), strict=True):
        opt = so.Adam(table, nonfinite="skip", num_threads=threads)
        with pytest.warns(RuntimeWarning, match=f"{len(left_out)} of"):
            opt.step(gradient)
        assert opt.nonfinite_rows == len(left_out)
        assert table.tobytes() == tables[0].tobytes()


def test_nothing_is_copied_that_the_kernels_can_read():
    from sparseopt.gradients import entries

    rng = np.random.default_rng(0)
    rows, values = np.arange(10), rng.standard_normal((10, DIM))
    wide = rng.standard_normal((10, 2 * DIM))[:, :DIM]
    shape = (N_ROWS, DIM)
    for gradient, arrays in [
        (so.RowGradient(rows, values), {"rows": rows, "values": values}),
        (so.RowGradient(rows.astype(np.int32), wide), {"values": wide}),
        (so.RowGradient(rows, np.broadcast_to(values[0], (10, DIM))), {"values": values}),
        (rng.standard_normal(shape), {}),
    ]:
        form = entries(gradient, shape, np.dtype(np.float64), "gradient")
        for name, array in arrays.items():
            assert np.shares_memory(getattr(form, name), array)
    csr = sp.random_array(shape, density=0.1, format="csr", rng=rng)
    form = entries(csr, shape, np.dtype(np.float64), "gradient")
    for ours, theirs in [(form.values, csr.data), (form.columns, csr.indices), (form.indptr, csr.indptr)]:
        assert np.shares_memory(ours, theirs)
    X = sp.random_array((4, N_ROWS), density=0.1, format="csr", rng=rng)
    form = entries(so.MatmulGradient(X, values[:4]), shape, np.dtype(np.float64), "gradient")
    for ours, theirs in [(form.values, values), (form.rows, X.indices), (form.weights, X.data)]:
        assert np.shares_memory(ours, theirs)


def test_a_gradient_is_left_as_it_was():
    rng = np.random.default_rng(0)
    rows, values = rng.integers(0, N_ROWS, 40), rng.standard_normal((40, DIM))
    kept = rows.copy(), values.copy()
    one_step(so.RowGradient(rows, values), np.float64, maximize=True, max_grad_norm=0.1)
    np.testing.assert_array_equal(rows, kept[0])
    np.testing.assert_array_equal(values, kept[1])


def test_rows_without_repeats_that_do_not_rise_can_be_left_out():
    rng = np.random.default_rng(0)
    for n in (3, 60, 500):
        rows = rng.permutation(1000)[:n]
        values = rng.standard_normal((n, 4))
        values[rng.random(n) < 0.3, 1] = np.nan
        values[0] = np.nan
        table = so.zeros((1000, 4), np.float64)
        opt = so.SGD(table, lr=1.0, nonfinite="skip")
        with pytest.warns(RuntimeWarning, match="were left out"):
            opt.step(so.RowGradient(rows, values))
        expected = np.zeros((1000, 4))
        expected[rows] = -np.where(np.isnan(values).any(axis=1, keepdims=True), 0, values)
        np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_touched_rows_are_found_in_every_place_of_a_long_indptr(index):
    rng = np.random.default_rng(0)
    for rows in ([255], [256], [511], [599], [0, 255, 256, 511, 599],
                 *(rng.choice(600, 3, replace=False) for _ in range(50))):
        rows = np.sort(rows)
        matrix = sp.csr_array((np.ones(len(rows)), (rows, np.zeros(len(rows), int))), shape=(600, 1))
        matrix.indptr = matrix.indptr.astype(index)
        table = np.zeros((600, 1))
        so.SGD(table, lr=1.0).step(matrix)
        assert np.flatnonzero(table).tolist() == rows.tolist()


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("form", ["csr gradient", "csc X"])
def test_an_indptr_that_falls_anywhere_is_refused(form, index):
    table = np.zeros((600, 1))
    for place in (1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 256, 257, 400, 511, 512, 513, 599):
        for value in (-3, 9, 10**6, np.iinfo(index).max, np.iinfo(index).min):
            matrix = sp.csr_array((np.ones(3), ([0, 300, 599], [0, 0, 0])), shape=(600, 1))
            indptr = matrix.indptr.astype(index)
            indptr[place] = value
            matrix.indptr = indptr
            if form == "csr gradient":
                gradient = matrix
            else:
                X = sp.csc_array((1, 600))
                X.data, X.indices, X.indptr = matrix.data, matrix.indices, indptr
                gradient = so.MatmulGradient(X, np.ones((1, 1)))
            with pytest.raises(ValueError, match="has an indptr that falls at row"):
                so.SGD(table, lr=1.0).step(gradient)
    assert not table.any()


def test_an_indptr_of_extremes_does_not_pass_for_a_rising_one():
    largest = 2**31 - 1
    matrix = sp.csr_array((np.ones(3), ([0, 1, 2], [0, 1, 1])), shape=(3, 2))
    for middle in ([largest, -2], [-2, largest], [-largest - 1, largest]):
        matrix.indptr = np.array([0, *middle, 3], dtype=np.int32)
        table = so.zeros((3, 2), np.float64)
        with pytest.raises(ValueError, match="falls at row"):
            so.SGD(table, lr=1.0).step(matrix)
        assert not table.any()


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_rows_of_extremes_do_not_pass_for_rising_ones(index):
    """Differences of such row numbers overflow."""
    least, most = np.iinfo(index).min, np.iinfo(index).max
    for rows in itertools.product([least, least + 1, -1, 0, 1, 5, most - 1, most], repeat=3):
        drawn = np.array(rows, index)
        if all(0 <= row < 6 for row in rows):
            plan = rowplan.plan("gradient", 6, 1, drawn, np.ones((3, 1)))
            assert sorted(plan.rows) == sorted(set(rows))
        else:
            with pytest.raises(IndexError, match="the table has 6 rows"):
                rowplan.plan("gradient", 6, 1, drawn, np.ones((3, 1)))


def test_rows_of_a_table_that_needs_all_32_bits_are_sorted():
    rng = np.random.default_rng(0)
    for n_rows in (2**31, 2**32 - 1, 2**32, 2**32 + 1):
        rows = rng.integers(0, n_rows, 200)
        rows[:3] = n_rows - 1, 0, n_rows - 1
        plan = rowplan.plan("gradient", n_rows, 1, rows, np.ones((200, 1)))
        np.testing.assert_array_equal(plan.rows, np.unique(rows))
        assert plan.longest == 2


def test_only_rows_of_a_large_table_are_visited_in_another_order_than_their_values():
    for n_rows, visited in [(1000, [7, 3]), (2**29 + 1, [3, 7])]:
        opt = so.SGD(np.zeros((n_rows, 1), np.float32))         # pages that nobody writes to take no memory
        plan = opt._parameters[0].plan(so.RowGradient([7, 3], np.ones((2, 1))), ())
        assert plan.rows.tolist() == visited


def test_a_norm_does_not_depend_on_the_order_in_which_rows_are_visited():
    rng = np.random.default_rng(0)
    rows, values = rng.permutation(5000), rng.standard_normal((5000, 3)) ** 5
    tables = []
    for order in (slice(None), np.argsort(rows)):
        table = so.normal((5000, 3), np.float64, seed=0)
        so.SGD(table, lr=1.0, max_grad_norm=1.0).step(so.RowGradient(rows[order], values[order]))
        tables.append(table.tobytes())
    assert tables[0] == tables[1]


def test_repeated_cells_whose_sum_overflows_are_refused():
    top = np.finfo(np.float32).max
    cells = sp.csr_array((np.full(3, top, np.float32), np.array([1, 1, 0]), np.array([0, 0, 3])), shape=(2, 2))
    table = so.zeros((2, 2))
    with pytest.raises(ValueError, match="inf at row 1, column 1"):
        so.SGD(table, lr=1.0).step(cells)
    assert not table.any()


def test_a_rule_with_other_states_than_its_function_takes_is_refused():
    table = so.zeros((3, 2))
    state = np.zeros_like(table)
    for name, states in [("adam", [state]), ("lion", [state, state]), ("sgd", [state])]:
        with pytest.raises(ValueError, match=f"rule '{name}' takes . states; the optimizer names {len(states)}"):
            _kernels.Sweep(name, table, states, None)


def test_a_rule_with_more_numbers_of_a_count_than_the_kernels_keep_is_refused():
    class Wrong(so.Adam):
        def _by_count(self, group):
            return super()._by_count(group) * 3

    table = so.zeros((3, 2))
    with pytest.raises(ValueError, match="has 6 numbers that depend on the step count; it may have 4"):
        Wrong(table).step(so.RowGradient([1], [[1.0, 1.0]]))
    assert not table.any()


@each_dtype
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_instruction_sets_give_the_same_bits_of_a_nan_in_ftrl(bad, dtype):
    results = set()
    for isa in _kernels.available:
        cls = type("Ours", (so.Ftrl,), {"_kernels": importlib.import_module(f"sparseopt._kernels.{isa}")})
        table = np.linspace(-1, 1, 68).reshape(4, 17).astype(dtype)
        opt = cls(table, l1=0.1, nonfinite="allow")
        values = np.full((2, 17), bad, dtype)
        values[:, ::3] = 1
        for _ in range(3):
            opt.step(so.RowGradient([0, 2], values))
        results.add(table.tobytes() + opt.state[0]["z"].tobytes())
    assert len(results) == 1
