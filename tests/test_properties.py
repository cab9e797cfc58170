"""Hypothesis: any sequence of sparse gradients, in any form, moves every row as the paper's rule moves it alone."""

import concurrent.futures

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis.extra import numpy as hnp
from references import CASES

import sparseopt as so
from sparseopt import _kernels
from sparseopt._kernels import rowplan

# eighths: their sums and products are exact, so that what cancels cancels in float32 as in float64
elements = st.integers(-32, 32).map(lambda x: x / 8)


@st.composite
def gradients(draw, n_rows, dim, dtype):
    """A gradient of some form, and the dense array and touched rows that it stands for."""
    form = draw(st.sampled_from(["rows", "csr", "csc", "coo", "product", "dense"]))
    index_type = draw(st.sampled_from([np.int32, np.int64]))
    if form == "dense":
        dense = draw(hnp.arrays(dtype, (n_rows, dim), elements=elements))
        return dense, dense.astype(np.float64), np.arange(n_rows)
    k = draw(st.integers(0, 12))
    rows = draw(hnp.arrays(index_type, k, elements=st.integers(0, n_rows - 1)))
    dense = np.zeros((n_rows, dim))
    if form == "rows":
        values = draw(hnp.arrays(dtype, (k, dim), elements=elements))
        np.add.at(dense, rows, values)
        return so.RowGradient(rows, values), dense, np.unique(rows)
    data = draw(hnp.arrays(dtype, k, elements=elements))
    if form == "product":
        batch = draw(st.integers(1, 4))
        samples = draw(hnp.arrays(index_type, k, elements=st.integers(0, batch - 1)))
        dY = draw(hnp.arrays(dtype, (batch, dim), elements=elements))
        X = sp.coo_array((data, (samples, rows)), shape=(batch, n_rows))
        np.add.at(dense, rows, data[:, None].astype(np.float64) * dY[samples])
        return so.MatmulGradient(draw(st.sampled_from([X, X.tocsr(), X.tocsc()])), dY), dense, np.unique(rows)
    columns = draw(hnp.arrays(index_type, k, elements=st.integers(0, dim - 1)))
    np.add.at(dense, (rows, columns), data)
    return getattr(sp.coo_array((data, (rows, columns)), shape=(n_rows, dim)), f"to{form}")(), dense, np.unique(rows)


@given(st.data())
def test_any_sequence_of_gradients_moves_each_row_as_the_rule_moves_it_alone(data):
    case = data.draw(st.sampled_from(CASES))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    n_rows, dim = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([1, 2, 3, 16, 17, 33]))
    more = {"weight_decay": data.draw(st.sampled_from([0.0, 0.1])), "maximize": data.draw(st.booleans())}
    table = so.normal((n_rows, dim), dtype, seed=data.draw(st.integers(0, 5)))
    before = table.copy()
    opt = case.ours(table, **case.hyper, **more, num_threads=data.draw(st.sampled_from([1, 2])))
    own = [[] for _ in range(n_rows)]
    for _ in range(data.draw(st.integers(1, 6))):
        gradient, dense, touched = data.draw(gradients(n_rows, dim, dtype))
        opt.step(gradient)
        for row in touched:
            own[row].append(dense[row])
    tolerance = 1e-9 if dtype == np.float64 else 5e-3
    for row in range(n_rows):
        if not own[row]:
            assert table[row].tobytes() == before[row].tobytes()
            continue
        exact = case.run_reference(before[row], own[row], **more)
        if case.ours is so.Lion and dtype == np.float32:
            # a sum that is 0 but for rounding has either sign: each step of either sign, or none, is a right one
            assert np.abs(table[row] - exact).max() <= 2.1 * 0.01 * len(own[row])
        else:
            assert np.abs(table[row] - exact).max() <= tolerance * max(1.0, np.abs(exact).max())


def test_plans_made_by_several_threads_at_once_do_not_share_memory():
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 50_000, 20_000 + 997 * i) for i in range(4)]
    orders = [np.argsort(rows, kind="stable") for rows in drawn]

    def repeat(i):
        for _ in range(60):
            plan = rowplan.plan("gradient", 50_000, 1, drawn[i], np.ones((len(drawn[i]), 1)))
            np.testing.assert_array_equal(plan.order, orders[i])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(repeat, range(4)))


@given(st.integers(1, 2**33).flatmap(lambda n: st.tuples(
    st.just(n), hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(0, n - 1)),
    st.booleans(), st.booleans())))
def test_a_row_plan_is_numpys_stable_sort(drawn):
    n_rows, rows, narrow, rising = drawn
    if narrow and n_rows < 2**31:
        rows = rows.astype(np.int32)
    values = np.ones((len(rows), 1))
    plan = rowplan.plan("gradient", n_rows, 1, rows, values, rising=rising)
    unique, counts = np.unique(rows, return_counts=True)
    assert plan.n == len(unique)
    assert plan.longest == max([1, *counts])
    if plan.n == len(rows) and (not rising or (np.diff(rows) > 0).all()):       # no repeats: visited as they stand
        np.testing.assert_array_equal(plan.rows, rows)
        assert plan.order is None
    else:
        np.testing.assert_array_equal(plan.rows, unique)
        check_order(plan, rows)


def check_order(plan, rows):
    if (np.diff(rows) >= 0).all():          # runs of the same row
        assert plan.order is None
    else:
        np.testing.assert_array_equal(plan.order, np.argsort(rows, kind="stable"))


def test_a_large_row_plan_is_numpys_stable_sort():
    rng = np.random.default_rng(0)
    for n_rows, n in [(7, 200_000), (1_000_000, 400_000), (2**31 - 1, 200_000), (2**40, 50_000), (3000, 49), (1, 1000)]:
        rows = rng.integers(0, n_rows, n, np.int64 if n_rows > 2**31 else np.int32)
        rows[-1] = rows[0]              # at least one repeat
        for threads in (1, 2, 3, 64):
            plan = rowplan.plan("gradient", n_rows, 1, rows, np.ones((n, 1)), num_threads=threads)
            np.testing.assert_array_equal(plan.rows, np.unique(rows))
            check_order(plan, rows)
    # Rows that rise but for one, which repeats the one before or falls: at the ends of what is looked at together, and
    # of the parts that threads look at.
    for n, position in [(600, 255), (600, 256), (600, 257), (600, 511), (600, 512), (600, 513), (600, 599),
                        (100_000, 33_333), (100_000, 50_000), (100_000, 50_001)]:
        for row in (position - 1, 0):
            rows = np.arange(n)
            rows[position] = row
            for threads in (1, 2, 3):
                plan = rowplan.plan("gradient", n, 1, rows, np.ones((n, 1)), num_threads=threads)
                np.testing.assert_array_equal(plan.rows, np.unique(rows))
                check_order(plan, rows)
    rows = rng.permutation(100_000)     # that repeat in the last entry alone, and in a table's last row
    rows[-1] = rows[0]
    assert rowplan.plan("gradient", 100_001, 1, rows, np.ones((100_000, 1))).n == 99_999
    assert rowplan.plan("gradient", 65, 1, np.array([64, 1, 64]), np.ones((3, 1))).n == 2
    for n_rows, threads in ((200_000, 1), (200_000, 2), (2**40, 1)):        # and without
        rows = rng.permutation(200_000)
        plan = rowplan.plan("gradient", n_rows, 1, rows, np.ones((200_000, 1)), rising=True, num_threads=threads)
        np.testing.assert_array_equal(plan.rows, np.arange(200_000))
        np.testing.assert_array_equal(plan.order, np.argsort(rows))


@pytest.mark.parametrize("n_rows", [1, 2, 7, 300, 100_000])     # some of which are the only one in a thread's part
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_rows_sorted_by_several_threads_get_the_sums_of_their_entries(n_rows, threads):
    rng = np.random.default_rng(0)
    rows = (n_rows * rng.random(500_000) ** 3).astype(np.int64)
    values = rng.integers(-4, 5, 500_000).astype(np.float64)
    table = np.zeros(n_rows)
    so.SGD(table, lr=1.0, num_threads=threads).step(so.RowGradient(rows, values))
    np.testing.assert_array_equal(table, -np.bincount(rows, values, minlength=n_rows))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_terms_put_in_order_by_several_threads_give_the_product(index, dtype, threads):
    rng = np.random.default_rng(0)
    rows, samples = rng.integers(300, size=250_000).astype(index), np.repeat(np.arange(500), 500).astype(index)
    weights, dY = rng.integers(-4, 5, 250_000).astype(dtype), rng.integers(-4, 5, (500, 3)).astype(dtype)
    X = sp.coo_array((weights, (samples, rows)), shape=(500, 300))
    X.coords = samples, rows                        # which may have been made narrower
    table = so.zeros((300, 3), dtype)
    so.SGD(table, lr=1.0, num_threads=threads).step(so.MatmulGradient(X, dY))
    np.testing.assert_array_equal(table, -(X.T @ dY))


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("n_rows", "n"),
                         [(1, 2), (3, 5), (3, 40), (300, 49), (300, 20_000), (2**40, 3000), (10**6, 400_000)])
def test_rows_that_never_fall_are_summed_row_by_row(n_rows, n, index, threads):
    if n_rows > 2**31 and index == np.int32:
        pytest.skip("int32 has no such rows")
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(n_rows, size=n)).astype(index)
    rows[1] = rows[0]                                   # at least one repeat
    unique, entry = np.unique(rows, return_inverse=True)
    values = rng.integers(-4, 5, n).astype(np.float64)
    plan = rowplan.plan("gradient", n_rows, 1, rows, values, num_threads=threads)
    np.testing.assert_array_equal(plan.rows, unique)
    assert plan.order is None
    assert plan.longest == np.bincount(entry).max()
    sweep = _kernels.Sweep("sgd", np.zeros(1), [], None)
    sums = [sweep.gradient(plan, i)[0] for i in range(min(plan.n, 2000))]
    np.testing.assert_array_equal(sums, np.bincount(entry, values)[:2000])


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("form", ["coo", "csc"])
def test_cells_put_in_order_by_several_threads_give_the_dense_gradient(form, index, dtype, threads):
    rng = np.random.default_rng(0)
    rows = rng.integers(3000, size=250_000).astype(index)
    columns = np.sort(rng.integers(90, size=250_000)).astype(index)
    cells = rng.integers(-4, 5, 250_000).astype(dtype)
    if form == "coo":
        gradient = sp.coo_array((cells, (rows, columns)), shape=(3000, 90))
        gradient.coords = rows, columns
    else:
        indptr = np.searchsorted(columns, np.arange(91)).astype(index)
        gradient = sp.csc_array((cells, rows, indptr), shape=(3000, 90))        # rows neither sorted nor unique
    table, before = so.zeros((3000, 90), dtype), cells.copy()
    so.SGD(table, lr=1.0, num_threads=threads).step(gradient)
    dense = np.zeros((3000, 90), dtype)
    np.add.at(dense, (rows, columns), cells)
    np.testing.assert_array_equal(table, -dense)
    np.testing.assert_array_equal(gradient.data, before)


def test_the_order_of_the_visit_changes_no_bit_of_an_update():
    rng = np.random.default_rng(1)
    rows, values = rng.permutation(5000)[:800], rng.standard_normal((800, 7)).astype(np.float32)
    columns, samples = rng.integers(7, size=800), rng.permutation(800)
    forms = {"rows": (rows, values), "cells": (rows, values[:, 0].copy(), None, columns),
             "product": (rows, values, None, None, samples, values[:, 1].copy())}
    hyper = np.array([0.1, 1e-10], np.float32)
    left_out = np.isin(np.arange(5000), rows[:9])
    for form, entries in forms.items():
        tables = []
        for rising in (False, True):
            arrays = [so.zeros((5000, 7)), so.zeros((5000, 7))]
            plan = rowplan.plan("gradient", 5000, 7, *entries, rising=rising)
            assert np.array_equal(plan.rows, np.sort(rows)) == rising
            assert (plan.order is not None) == (rising and form == "rows")
            sweep = _kernels.Sweep("adagrad", arrays[0], arrays[1:], None)
            for part in (plan, plan.without(left_out[plan.rows])):
                sweep.apply([sweep.prepare(part, 2, (hyper, (), 1, 1, 1.0, 0.0))])
            tables.append(arrays)
        np.testing.assert_array_equal(tables[0], tables[1], err_msg=form)
        assert np.count_nonzero(tables[0][1].any(axis=1)) == 800
