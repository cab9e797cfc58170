"""bpr and warp of sparseopt.losses, beside loops in float64 and finite differences."""

import importlib

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

import sparseopt as so
from sparseopt import _kernels
from sparseopt.losses import bpr, warp

LOSSES = {"bpr": bpr, "warp": warp}
N_USERS, N_ITEMS = 40, 30
both = pytest.mark.parametrize("name", LOSSES)


def a_batch(dtype=np.float64, wide=False, dim=5, k=150, each=4):
    """Tables, pairs with draws and weights, and the items of the users; some users have none, and none are last."""
    rng = np.random.default_rng(0)
    P, Q, b = (rng.standard_normal(shape).astype(dtype) for shape in ((N_USERS, dim), (N_ITEMS, dim), N_ITEMS))
    X = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < 0.3) & (np.arange(N_USERS) % 7 < 6)[:, None]).astype(np.float32)
    X.indptr, X.indices = (array.astype(np.int64 if wide else np.int32) for array in (X.indptr, X.indices))
    users, items = (rng.integers(n, size=k, dtype=np.int64 if wide else np.int32) for n in (N_USERS, N_ITEMS))
    negatives = rng.integers(N_ITEMS, size=(k, each), dtype=np.int64 if wide else np.int32)
    return (P, Q, b, users, items, negatives, rng.random(k).astype(dtype)), X


def terms(name, P, Q, b, users, items, negatives, weights, X, regularization):
    """(loss, decay) of each pair with each negative that counts, one at a time."""
    own, each = X.toarray() > 0, negatives.shape[1]
    for u, i, drawn, w in zip(users, items, negatives, weights, strict=True):
        for place, j in enumerate(drawn):
            x = P[u] @ Q[i] + b[i] - P[u] @ Q[j] - b[j]
            decay = regularization / 2 * (P[u] @ P[u] + Q[i] @ Q[i] + Q[j] @ Q[j])
            if own[u, j]:
                continue
            if name == "bpr":
                yield w / each * np.logaddexp(0, -x), w / each * decay
            elif x < 1:
                yield w * np.log(max((len(Q) - 1) // (place + 1), 1)) * (1 - x), w * decay
                break


def dense(gradients, tables):
    """The gradients as arrays of the shape of the tables."""
    found = [np.zeros(table.shape) for table in tables]
    for array, gradient in zip(found, gradients, strict=True):
        np.add.at(array, gradient.rows, gradient.values)
    return found


@both
@pytest.mark.parametrize("dim", [1, 5, 16, 37])
def test_the_gradients_are_those_of_the_loss_with_its_decay(name, dim):
    """By central differences at some places of each table."""
    batch, X = a_batch(dim=dim, k=60)
    tables, rng = batch[:3], np.random.default_rng(1)
    loss, gradients = LOSSES[name](*batch, seen=X, regularization=0.3)
    assert loss == pytest.approx(sum(one for one, _ in terms(name, *batch, X, 0.3)), rel=1e-12)
    for table, found in zip(tables, dense(gradients, tables), strict=True):
        for place in zip(*(rng.integers(n, size=15) for n in table.shape), strict=True):
            ends, kept = [], table[place]
            for step in (1e-5, -1e-5):
                table[place] = kept + step
                ends.append(sum(map(sum, terms(name, *batch, X, 0.3))))
            table[place] = kept
            assert found[place] == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-6)


@both
@pytest.mark.parametrize("wide", [False, True])
def test_float32_and_both_widths_of_numbers_agree_with_float64(name, wide):
    batch, X = a_batch(np.float32, wide, dim=37)
    loss, gradients = LOSSES[name](*batch, seen=X, regularization=0.1)
    in_double = [array.astype(np.float64) if array.dtype == np.float32 else array for array in batch]
    expected, slopes = LOSSES[name](*in_double, seen=X, regularization=0.1)
    assert loss == pytest.approx(expected, rel=1e-5)
    for found, slope in zip(dense(gradients, batch[:3]), dense(slopes, batch[:3]), strict=True):
        assert_allclose(found, slope, rtol=1e-4, atol=1e-5)
    assert {gradient.values.dtype for gradient in gradients} == {np.dtype(np.float32)}


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_threads_and_any_instruction_set_give_the_same_bits(name, dtype, monkeypatch):
    batch, X = a_batch(dtype, dim=37, k=3000)
    before, found = so.get_num_threads(), set()
    try:
        for isa in _kernels.available:
            monkeypatch.setattr(so.losses.pairwise, "losses",
                                importlib.import_module(f"sparseopt._kernels.losses_{isa}"))
            for threads in (1, 2, 3):
                so.set_num_threads(threads)
                loss, gradients = LOSSES[name](*batch, seen=X, regularization=0.1)
                found.add((loss, *(part.tobytes() for one in gradients for part in (one.rows, one.values))))
    finally:
        so.set_num_threads(before)
    assert len(found) == 1


@both
def test_without_weights_each_pair_counts_once(name):
    batch, X = a_batch()
    loss, gradients = LOSSES[name](*batch[:-1], seen=X)
    expected, slopes = LOSSES[name](*batch[:-1], np.ones(150), seen=X)
    assert loss == expected
    assert all((one.values == other.values).all() for one, other in zip(gradients, slopes, strict=True))


@both
def test_every_format_of_seen_says_the_same(name):
    batch, X = a_batch()
    expected = LOSSES[name](*batch, seen=X)[0]
    for format in ("csc", "coo", "lil", "dok"):
        assert LOSSES[name](*batch, seen=X.asformat(format))[0] == expected
    assert LOSSES[name](*batch)[0] == LOSSES[name](*batch, seen=sp.csr_array(X.shape))[0] > expected


@both
def test_a_batch_without_pairs_or_without_negatives_that_count_touches_no_row(name):
    (P, Q, b, *_), X = a_batch()
    nothing = np.zeros(0, int)
    everything = sp.csr_array(np.ones(X.shape))
    for users, drawn, seen in ((nothing, np.zeros((0, 3), int), X), ([0, 1], [[2, 3], [4, 5]], everything)):
        loss, gradients = LOSSES[name](P, Q, b, users, users, drawn, seen=seen)
        assert loss == 0
        assert [(one.rows.size, one.values.size) for one in gradients] == [(0, 0)] * 3
        so.Adagrad({"P": P, "Q": Q, "b": b}, lr=0.1).step(dict(zip("PQb", gradients, strict=True)))


def test_warp_leaves_out_pairs_whose_item_is_far_ahead():
    (P, Q, b, *_), _ = a_batch()
    b[3] += 100
    loss, gradients = warp(P, Q, b, [0, 1], [3, 4], [[5, 6], [3, 7]])
    assert loss > 0
    assert [one.rows.tolist() for one in gradients] == [[1], [4, 3], [4, 3]]


def test_a_pair_with_few_draws_of_its_own_goes_on_with_those_of_the_next_pairs():
    """As the model has warp do: the same as if each pair had been given all of these draws."""
    (*tables, users, items, negatives, weights), X = a_batch()
    own, tries = (X.indptr, X.indices), 25
    long = np.array([np.roll(negatives.reshape(-1), -4 * k)[:tries] for k in range(len(users))])
    expected, slopes = warp(*tables, users, items, long, weights, seen=X, regularization=0.1)
    loss, gradients = so.losses.pairwise._pairs(*tables, users, items, negatives, weights, own, 0.1,
                                                so.losses.pairwise._log_ranks(N_ITEMS, tries, np.float64))
    assert loss == expected != warp(*tables, users, items, negatives, weights, seen=X)[0]
    for one, other in zip(gradients, slopes, strict=True):
        assert (one.rows == other.rows).all()
        assert (one.values == other.values).all()


def test_bpr_of_scores_far_apart_is_finite():
    (P, Q, b, *_), _ = a_batch(np.float32)
    b[3], b[4] = 3e4, -3e4
    loss, gradients = bpr(P, Q, b, [0, 1], [3, 4], [[4], [3]])
    assert loss == pytest.approx(6e4, rel=1e-3)
    assert all(np.isfinite(one.values).all() for one in gradients)


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"P": np.zeros((4, 3), int)}, TypeError, "P is a ndarray of shape (4, 3) and dtype int64; it must be an array"),
    ({"Q": np.zeros((6, 3), np.float32)}, ValueError, "Q has dtype float32; it must have dtype float64"),
    ({"Q": np.zeros((6, 4))}, ValueError, "Q has shape (6, 4); its rows must have shape (3,)"),
    ({"b": np.zeros(5)}, ValueError, "b has shape (5,); with Q of shape (6, 3) it must have shape (6,)"),
    ({"users": [0, 4]}, IndexError, "users has row 4 at position 1; the table has 4 rows"),
    ({"items": [0, -1]}, IndexError, "items has row -1 at position 1"),
    ({"items": [0]}, ValueError, "users has 2 numbers and items has 1; they must be pairs"),
    ({"negatives": [1, 2]}, ValueError, "negatives has shape (2,); with 2 pairs it must have shape (2, m)"),
    ({"negatives": np.zeros((2, 0), int)}, ValueError, "negatives has shape (2, 0)"),
    ({"negatives": [[1], [6]]}, IndexError, "negatives has row 6 at position 1; the table has 6 rows"),
    ({"weights": [1, np.nan]}, ValueError, "weights has nan; it must be finite in float64"),
    ({"weights": [1]}, ValueError, "weights has shape (1,); it must have shape (2,)"),
    ({"regularization": -1}, ValueError, "regularization is -1; it must be finite and 0 or more"),
    ({"seen": np.zeros((4, 6))}, TypeError, "seen is a ndarray of shape (4, 6); it must be None or a scipy sparse"),
    ({"seen": sp.csr_array((6, 4))}, TypeError, "seen is a csr_array of shape (6, 4); it must be None or a scipy"),
])
@both
def test_bad_arguments_are_refused_by_name(name, change, error, message):
    arguments = {"P": np.zeros((4, 3)), "Q": np.zeros((6, 3)), "b": np.zeros(6), "users": [0, 1], "items": [0, 1],
                 "negatives": [[1], [2]], **change}
    with pytest.raises(error) as raised:
        LOSSES[name](**arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(("indices", "indptr"), [
    ([2, 1, 0], [0, 2, 3]), ([1, 1, 0], [0, 2, 3]), ([-1, 1, 0], [0, 2, 3]), ([1, 3, 0], [0, 2, 3]),
    ([1, 2, 0], [0, 4, 3]), ([1, 2, 0], [2, 0, 3]), ([1, 2, 0], [-1, 2, 3]),
])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_row_of_seen_that_cannot_be_searched_is_refused(indices, indptr, dtype):
    seen = sp.csr_array((2, 3))
    seen.data, seen.indices, seen.indptr = np.ones(3), np.array(indices, dtype), np.array(indptr, dtype)
    with pytest.raises(ValueError, match="seen has row 0, whose columns are not in ascending order from 0 to 2"):
        bpr(np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(3), [0], [0], [[1]], seen=seen)


@both
def test_a_nan_in_a_table_shows_in_the_loss(name):
    (P, *batch), _ = a_batch(k=9)
    P[batch[2][0]] = np.nan
    loss, (dP, *_) = LOSSES[name](P, *batch)
    assert np.isnan(loss)
    assert np.isnan(dP.values).any()
