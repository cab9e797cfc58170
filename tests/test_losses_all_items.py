"""Losses over all items: softmax and square. Gradients are those of the formula, by central differences in float64."""

import importlib

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt import _kernels
from sparseopt.models import ImplicitFactorization

N_USERS, N_ITEMS = 9, 37


def some(dim=5, dtype=np.float64, width=np.int32, seed=0, n_rows=6):
    """Tables, the users of a batch, and the pairs of these users with their weights."""
    rng = np.random.default_rng(seed)
    p, q, b = rng.normal(size=(N_USERS, dim)), rng.normal(size=(N_ITEMS, dim)), rng.normal(size=N_ITEMS)
    rows = rng.permutation(N_USERS)[:n_rows].astype(width)
    dense = rng.uniform(0.5, 2, (n_rows, N_ITEMS)) * (rng.random((n_rows, N_ITEMS)) < 0.2)
    X = sp.csr_array(dense.astype(dtype))
    X.indices, X.indptr = X.indices.astype(width), X.indptr.astype(width)
    return [table.astype(dtype) for table in (p, q, b)], rows, X


def dense(gradient, like):
    if not isinstance(gradient, so.RowGradient):
        return gradient.astype(np.float64)
    out = np.zeros(like.shape)
    np.add.at(out, gradient.rows, gradient.values.astype(np.float64))
    return out


def differentiated(loss, tables, step=1e-6):
    slopes = []
    for at, table in enumerate(tables):
        slope = np.empty(table.shape)
        for place in np.ndindex(*table.shape):
            above, below = ([one.copy() for one in tables] for _ in range(2))
            above[at][place] += step
            below[at][place] -= step
            slope[place] = (loss(*above) - loss(*below)) / (2 * step)
        slopes.append(slope)
    return slopes


def by_formula(rows, X, weight=None, decay=0.0):
    """Softmax in float64. `weight` of an item is e^(its log weight): 0 excludes the item from the sum over others."""
    weight = np.ones(X.shape[1]) if weight is None else weight

    def loss(p, q, b, decay=decay):
        total = 0.0
        for row, user in enumerate(rows):
            s, w = q @ p[user] + b, X[[row]].toarray()[0].astype(np.float64)
            others = (np.exp(s) * weight)[w == 0].sum()
            total += (w * (np.log(np.exp(s) + others) - s) + w * decay / 2 * (p[user] @ p[user] + (q**2).sum(1))).sum()
        return total
    return loss


@pytest.mark.parametrize("dim", [1, 5, 19])
@pytest.mark.parametrize("width", [np.int32, np.int64])
def test_the_gradients_of_softmax_are_those_of_its_formula(dim, width):
    tables, rows, X = some(dim, width=width)
    value, gradients = so.losses.softmax(*tables, rows, X, regularization=0.3)
    loss = by_formula(rows, X, decay=0.3)
    assert value == pytest.approx(loss(*tables, decay=0))
    for gradient, expected, table in zip(gradients, differentiated(loss, tables), tables, strict=True):
        assert_allclose(dense(gradient, table), expected, atol=1e-6)
    narrow, single = so.losses.softmax(*(t.astype(np.float32) for t in tables), rows, X, regularization=0.3)
    assert narrow == pytest.approx(value, rel=1e-5)
    for gradient, expected, table in zip(single, gradients, tables, strict=True):
        assert_allclose(dense(gradient, table), dense(expected, table), atol=2e-4)


def test_softmax_over_candidates_counts_each_by_its_weight_and_touches_no_other_item():
    tables, rows, X = some()
    candidates = np.union1d(X.indices, [3, 8, 20])
    log_weights = np.where(np.arange(len(candidates)) % 3 == 1, -np.inf, np.linspace(-1, 2, len(candidates)))
    weight = np.zeros(N_ITEMS)
    weight[candidates] = np.exp(log_weights)
    value, gradients = so.losses.softmax(*tables, rows, X, candidates, log_weights)
    loss = by_formula(rows, X, weight)
    assert value == pytest.approx(loss(*tables))
    for gradient, expected, table in zip(gradients, differentiated(loss, tables), tables, strict=True):
        assert_allclose(dense(gradient, table), expected, atol=1e-6)
    assert_array_equal(gradients[1].rows, candidates)


def test_softmax_of_far_scores_is_finite_and_exact():
    p, q, b = np.array([[1.0]]), np.array([[1000.0], [-1000], [0]]), np.zeros(3)
    X = sp.csr_array([[0.0, 1, 0]])
    for dtype in (np.float32, np.float64):
        value, (_, dq, db) = so.losses.softmax(*(t.astype(dtype) for t in (p, q, b)), [0], X)
        assert value == 2000
        assert_array_equal(db, [1, -1, 0])
        assert_array_equal(dq[:, 0], [1, -1, 0])


def square_by_formula(rows, X, counts, alpha, decay=0.0):
    def loss(p, q, decay=decay):
        s, w = p[rows] @ q.T, X.toarray()
        return ((w * (s - 1)**2).sum() + alpha * (s**2).sum()
                + decay * ((counts[0] + alpha * len(q))[rows] @ (p[rows]**2).sum(1)
                           + (counts[1] + alpha * len(p)) @ (q**2).sum(1))) / 2
    return loss


def square_of(tables, rows, X, counts, alpha=0.4, decay=0.2, dtype=np.float64):
    p, q = (table.astype(dtype) for table in tables)
    return so.losses.square(p, q, rows, X.astype(dtype), (p.T @ p, q.T @ q), counts, alpha, decay)


@pytest.mark.parametrize("dim", [1, 5, 19])
@pytest.mark.parametrize("width", [np.int32, np.int64])
def test_the_gradients_of_the_square_loss_are_those_of_its_formula_over_all_pairs(dim, width):
    (p, q, _), rows, X = some(dim, width=width, n_rows=N_USERS)
    has = X.sum(axis=0) > 0                     # items without a pair get no gradient
    q, X = q[has], X[:, np.flatnonzero(has)]
    counts = np.zeros(N_USERS), X.sum(axis=0)
    counts[0][rows] = X.sum(axis=1)
    value, gradients = square_of((p, q), rows, X, counts)
    loss = square_by_formula(rows, X, counts, 0.4, 0.2)
    assert value == pytest.approx(loss(p, q, decay=0))
    for gradient, expected, table in zip(gradients, differentiated(loss, [p, q]), (p, q), strict=True):
        assert_allclose(dense(gradient, table), expected, atol=1e-5)
    narrow, single = square_of((p, q), rows, X, counts, dtype=np.float32)
    assert narrow == pytest.approx(value, rel=1e-4)
    for gradient, expected, table in zip(single, gradients, (p, q), strict=True):
        most = np.abs(dense(expected, table)).max()
        assert_allclose(dense(gradient, table), dense(expected, table), atol=1e-5 * most)


def test_the_batches_of_an_epoch_add_up_to_the_whole_square_loss():
    (p, q, _), rows, X = some(n_rows=N_USERS)
    counts = np.zeros(N_USERS), X.sum(axis=0)
    counts[0][rows] = X.sum(axis=1)
    whole = square_of((p, q), rows, X, counts)
    parts = [square_of((p, q), rows[part], X[part], counts) for part in (slice(0, 2), slice(2, 7), slice(7, 9))]
    assert whole[0] == pytest.approx(sum(part[0] for part in parts))
    for at, table in enumerate((p, q)):
        assert_allclose(dense(whole[1][at], table), sum(dense(part[1][at], table) for part in parts))


@pytest.mark.parametrize("loss", ["softmax", "square"])
def test_an_empty_batch_has_no_loss_and_no_gradient(loss):
    (p, q, b), _, _ = some()
    X = sp.csr_array((0, N_ITEMS))
    value, gradients = (so.losses.softmax(p, q, b, [], X) if loss == "softmax" else
                        so.losses.square(p, q, [], X, (p.T @ p, q.T @ q), (np.ones(N_USERS), np.ones(N_ITEMS))))
    assert value == 0
    assert not any(dense(gradient, table).any() for gradient, table in zip(gradients, (p, q, b), strict=False))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_softmax_have_the_same_bits_for_any_number_of_threads(dtype):
    rng = np.random.default_rng(0)
    scores, X = rng.normal(size=(70, 3001)).astype(dtype), sp.random_array((70, 3001), density=0.01, rng=rng).tocsr()
    weights, bias = X.data.astype(dtype), rng.normal(size=3001).astype(dtype)

    def out(threads):
        slopes, losses = scores.copy(), np.empty(70)
        _kernels.losses.softmax_rows(slopes, bias, bias, X.indptr, X.indices, weights, np.empty_like(weights), losses,
                                     threads)
        return slopes, losses

    for one, two in zip(out(1), out(2), strict=True):
        assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_softmax_have_the_same_bits_on_every_instruction_set(dtype):
    rng = np.random.default_rng(0)
    scores, X = rng.normal(size=(9, 1003)).astype(dtype), sp.random_array((9, 1003), density=0.03, rng=rng).tocsr()
    weights, bias = X.data.astype(dtype), np.linspace(-200, 200, 1003).astype(dtype)
    found = set()
    for isa in _kernels.available:
        slopes, losses = scores.copy(), np.empty(9)
        importlib.import_module(f"sparseopt._kernels.losses_{isa}").softmax_rows(
            slopes, bias, bias, X.indptr, X.indices, weights, weights.copy(), losses, 1)
        found.add(slopes.tobytes() + losses.tobytes())
    assert len(found) == 1


def test_a_gramian_is_brought_up_to_date_from_the_rows_that_change():
    rng = np.random.default_rng(0)
    table, rows = rng.normal(size=(20, 4)), [3, 7, 8]
    gramian, before = table.T @ table, table[rows]
    table[rows] = rng.normal(size=(3, 4))
    so.losses.square_gramian(gramian, before, table[rows])
    assert_allclose(gramian, table.T @ table)


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"rows": [0, 1]}, ValueError, "X has shape"), ({"rows": [99] * 6}, IndexError, "rows"),
    ({"X": np.ones((6, N_ITEMS))}, TypeError, "X is a ndarray"), ({"regularization": -1}, ValueError, "regularization"),
    ({"item_bias": np.zeros(3)}, ValueError, "item_bias has 3 numbers"),
    ({"items": np.ones((N_ITEMS, 2))}, ValueError, "items has shape"),
    ({"log_weights": np.ones(3)}, ValueError, "candidates is None"),
    ({"candidates": [2, 1]}, ValueError, "increasing order"), ({"candidates": [1, 2]}, ValueError, "all items of X"),
    ({"candidates": range(N_ITEMS), "log_weights": np.ones(3)}, ValueError, "log_weights has shape"),
    ({"X": -sp.eye_array(6, N_ITEMS, format="csr")}, ValueError, "weight -1"),
])
def test_wrong_arguments_of_softmax_are_named(change, error, message):
    (p, q, b), rows, X = some()
    with pytest.raises(error, match=message):
        so.losses.softmax(**{"users": p, "items": q, "item_bias": b, "rows": rows, "X": X} | change)


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"gramians": np.eye(5)}, TypeError, "gramians is"), ({"counts": ([1.0], [1.0])}, ValueError, r"counts\[0\]"),
    ({"gramians": (np.eye(4), np.eye(5))}, ValueError, r"gramians\[0\] has shape"),
    ({"unobserved_weight": -1}, ValueError, "unobserved_weight is -1"), ({"X": None}, TypeError, "X is a NoneType"),
])
def test_wrong_arguments_of_the_square_loss_are_named(change, error, message):
    (p, q, _), rows, X = some()
    right = {"users": p, "items": q, "rows": rows, "X": X, "gramians": (p.T @ p, q.T @ q),
             "counts": (np.ones(N_USERS), np.ones(N_ITEMS))}
    with pytest.raises(error, match=message):
        so.losses.square(**right | change)


def pairs(seed=0):
    """Users like every other item, and have turned to some of these. The last user and the last item have no pair."""
    rng = np.random.default_rng(seed)
    likes = np.arange(60)[:, None] % 2 == np.arange(40) % 2
    X = (likes & (rng.random(likes.shape) < 0.3)).astype(np.float32)
    X[-1] = X[:, -1] = 0
    return sp.csr_array(X)


def test_the_square_loss_of_a_model_falls_to_what_alternating_least_squares_finds():
    X, alpha, decay = pairs(), 0.5, 0.003
    model = ImplicitFactorization("square", dim=4, epochs=200, unobserved_weight=alpha, regularization=decay,
                                  random_state=1).fit(X)
    counts = [X.sum(axis=1), X.sum(axis=0)]
    loss = square_by_formula(np.arange(60), X, counts, alpha, decay)
    p, q = (model.optimizer_.params[name].astype(np.float64) for name in ("users", "items"))
    found = loss(p, q)
    for _ in range(30):
        for a, b, Y, count in ((p, q, X, counts[0]), (q, p, X.T.tocsr(), counts[1])):
            for row in range(len(a)):
                own = b[Y[[row]].indices]
                A = alpha * b.T @ b + own.T @ own + decay * (count[row] + alpha * len(b)) * np.eye(4)
                a[row] = np.linalg.solve(A, own.sum(axis=0))
    assert found == pytest.approx(loss(p, q), rel=0.02)
    assert not model.optimizer_.params["item_bias"].any()
    assert not model.optimizer_.params["items"][-1].any()
    assert not model.optimizer_.params["users"][-1].any()
    assert model.loss_curve_[-1] * X.nnz == pytest.approx(square_by_formula(np.arange(60), X, counts, alpha)(
        *(model.optimizer_.params[name] for name in ("users", "items"))), rel=0.01)


def test_someone_new_gets_the_vector_with_the_least_square_loss():
    X = pairs()
    model = ImplicitFactorization("square", dim=4, regularization=0.01).fit(X)
    q = model.optimizer_.params["items"].astype(np.float64)
    items, scores = model.recommend_for([2, 6], n=3, weights=[1, 2])
    w = np.zeros(40)
    w[[2, 6]] = 1, 2
    A = q.T @ (q * (0.5 + w)[:, None]) + 0.01 * (3 + 0.5 * 40) * np.eye(4)
    expected = q @ np.linalg.solve(A, w @ q)
    expected[[2, 6]] = -np.inf
    assert_array_equal(items, np.argsort(-expected)[:3])
    assert_allclose(scores, np.sort(expected)[::-1][:3], rtol=1e-4)


@pytest.mark.parametrize(("loss", "name", "value"), [
    ("square", "negatives", 3), ("square", "popularity", 0.5), ("softmax", "unobserved_weight", 0.5),
    ("bpr", "unobserved_weight", 0.5)])
def test_a_parameter_of_another_loss_is_refused(loss, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value} and loss is '{loss}', which has no such parameter"):
        ImplicitFactorization(loss, **{name: value}).fit(pairs())


@pytest.mark.parametrize(("loss", "regularization"), [("softmax", 5.0), ("square", 1.0)])
def test_a_regularization_that_leaves_nothing_of_the_vectors_gives_a_warning(loss, regularization):
    with pytest.warns(UserWarning, match="regularization is .*, which is too much"):
        ImplicitFactorization(loss, regularization=regularization, epochs=40).fit(pairs())


def test_a_small_data_set_gets_at_least_eight_steps_an_epoch():
    done = []
    ImplicitFactorization(dim=2, epochs=1).fit(pairs(), callback=lambda progress: done.append(progress.done))
    assert len(done) == 8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_is_finite_where_the_items_of_a_user_are_far_apart(dtype):
    q = np.array([[3000], [0], [-3000], [10], [-10]], dtype)
    X = sp.csr_array(np.array([[1, 1, 1, 0, 0]], dtype))
    loss, (dp, dq, db) = so.losses.softmax(np.ones((1, 1), dtype), q, np.zeros(5, dtype), [0], X)
    assert loss == pytest.approx(10 + 3010, rel=1e-5)
    assert_allclose(db, [0, -1, -1, 2, 0], atol=1e-4)
    assert_allclose(dq[:, 0], [0, -1, -1, 2, 0], atol=1e-4)
    assert dp.values[0, 0] == pytest.approx(3000 + 20, rel=1e-4)


def test_a_user_with_all_items_has_no_softmax_loss():
    (p, q, b), _, _ = some(dtype=np.float32)
    loss, gradients = so.losses.softmax(p, q, b, [0], sp.csr_array(np.ones((1, N_ITEMS), np.float32)))
    assert loss == 0
    assert all(not dense(gradient, table).any() for gradient, table in zip(gradients, (p, q, b), strict=True))


def test_softmax_in_blocks_of_users_is_softmax_at_once(monkeypatch):
    tables, rows, X = some()
    whole, gradients = so.losses.softmax(*tables, rows, X, regularization=0.1)
    monkeypatch.setattr("sparseopt.losses.listwise._SCORES", 4 * N_ITEMS)
    value, parts = so.losses.softmax(*tables, rows, X, regularization=0.1)
    assert value == pytest.approx(whole)
    for found, expected, table in zip(parts, gradients, tables, strict=True):
        assert_allclose(dense(found, table), dense(expected, table), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_square_loss_has_the_same_bits_on_every_instruction_set(dtype):
    (p, q, _), rows, X = some(dim=67, dtype=dtype)
    p, found = p[rows], set()
    for isa in _kernels.available:
        kernels = importlib.import_module(f"sparseopt._kernels.losses_{isa}")
        dp, dq = p @ (q.T @ q), q @ (p.T @ p)
        loss = kernels.square(p, q, X.indices, X.data, X.indptr, 0.3, np.ones(len(p), dtype), np.ones(len(q), dtype),
                              np.ones(len(q), dtype), dp, dq)
        found.add((loss, dp.tobytes(), dq.tobytes()))
    assert len(found) == 1


def test_read_only_arrays_are_read():
    rng = np.random.default_rng(0)
    P, Q, b = (rng.standard_normal(shape) for shape in ((3, 2), (4, 2), 4))
    X = sp.csr_array(np.array([[1.0, 0, 2, 0], [0, 1, 0, 0]]))
    expected = so.losses.softmax(P, Q, b, [0, 2], X)[0]
    for array in (P, Q, b, X.data, X.indices, X.indptr):
        array.flags.writeable = False
    assert so.losses.softmax(P, Q, b, [0, 2], X)[0] == expected


def test_counts_of_0_for_a_row_with_pairs_are_refused():
    P, Q, X = np.ones((3, 2)), np.ones((4, 2)), sp.csr_array(np.array([[1.0, 0, 0, 1]]))
    grams = P.T @ P, Q.T @ Q
    for name, counts in (("0", (np.zeros(3), np.ones(4))), ("1", (np.ones(3), np.array([1.0, 0, 0, 0])))):
        with pytest.raises(ValueError, match=rf"counts\[{name}\] has 0.0 for a row with pairs"):
            so.losses.square(P, Q, [1], X, grams, counts)
    so.losses.square(P, Q, [1], X, grams, (np.array([0.0, 2, 0]), np.array([1.0, 0, 0, 1])))


@pytest.mark.parametrize(("gramian", "before", "after", "error"), [
    (np.zeros((3, 3)), np.ones((1, 3)), np.ones((2, 3)), ValueError),
    (np.zeros((2, 3)), np.ones((2, 3)), np.ones((2, 3)), ValueError),
    (np.zeros((3, 3)), np.ones((2, 3), np.float32), np.ones((2, 3)), ValueError),
    (np.zeros((3, 3), int), np.ones((2, 3)), np.ones((2, 3)), TypeError),
])
def test_a_gramian_of_other_shapes_or_dtypes_is_left_as_it_is(gramian, before, after, error):
    with pytest.raises(error, match=r"gramian|before"):
        so.losses.square_gramian(gramian, before, after)
    assert not gramian.any()
