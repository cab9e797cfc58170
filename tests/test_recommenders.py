"""Matrix factorization of ratings and of implicit feedback."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt import datasets, evaluation
from sparseopt.models import ImplicitFactorization, MatrixFactorization

MOVIELENS = Path(__file__).parents[1].parent / "shared" / "data" / "movielens-latest-small" / "ratings.csv"
LOSSES = "softmax", "square", "bpr", "warp"


def taste(seed=0, n_users=60, n_items=40, share=0.3):
    """Users like every other item, and have turned to some of these."""
    rng = np.random.default_rng(seed)
    likes = np.arange(n_users)[:, None] % 2 == np.arange(n_items) % 2
    return sp.csr_array((likes & (rng.random(likes.shape) < share)).astype(np.float32))


def ratings(seed=0, n_users=60, n_items=40, share=0.3):
    rng = np.random.default_rng(seed)
    values = 3 + rng.standard_normal((n_users, 2)) @ rng.standard_normal((2, n_items))
    return sp.csr_array(values * (rng.random(values.shape) < share))


def fitted(name, **settings):
    if name == "ratings":
        return MatrixFactorization(dim=6, **settings), ratings()
    return ImplicitFactorization(loss=name, dim=6, **settings), taste()


def tables(model):
    return {name: table.copy() for name, table in model.optimizer_.params.items()}


def differentiated(loss, params, step=1e-6):
    """The gradient of a loss by central differences, in float64."""
    slopes = {}
    for name, table in params.items():
        slopes[name] = np.empty_like(table)
        for place in np.ndindex(*table.shape):
            kept = table[place]
            table[place] = kept + step
            above = loss(params)
            table[place] = kept - step
            slopes[name][place] = (above - loss(params)) / (2 * step)
            table[place] = kept
    return slopes


def spread_out(model, seed=1):
    """Larger numbers in the tables than a model starts with, so that every term of a gradient counts."""
    rng = np.random.default_rng(seed)
    for table in model.optimizer_.params.values():
        table[...] = 0.5 * rng.standard_normal(table.shape)
    return {name: table.astype(np.float64) for name, table in model.optimizer_.params.items()}


def check_one_step(model, X, loss, value=None):
    """One step of SGD on all of X moves the tables down the slope of `loss`; it reports `value`, or else `loss`."""
    params = spread_out(model)
    before = loss(params)
    slopes = differentiated(loss, params)
    start = tables(model)
    model.partial_fit(X)
    for name, table in model.optimizer_.params.items():
        expected, most = slopes[name], np.abs(slopes[name]).max()
        assert_allclose((start[name] - table) / 1e-2, expected, atol=2e-4 * max(1, most), err_msg=name)
        assert most > 0.1
    reported = before if value is None else value(params)
    assert_allclose(model.loss_curve_[-1] * X.nnz, reported, rtol=1e-4)


def by_sgd(tables):
    return so.SGD(tables, lr=1e-2)


def test_the_gradient_of_ratings_is_that_of_the_loss():
    X = ratings(n_users=7, n_items=5)
    model = MatrixFactorization(dim=3, regularization=0.3, optimizer=by_sgd, epochs=0, batch_size=10**6).fit(X)
    u, i = X.tocoo().coords
    r, mean = X.tocoo().data.astype(np.float64), X.data.mean()

    def errors(t):
        return mean + t["user_bias"][u] + t["item_bias"][i] + (t["users"][u] * t["items"][i]).sum(axis=1) - r

    def loss(t):
        decayed = sum((t[name][at]**2).sum()
                      for name, at in (("users", u), ("items", i), ("user_bias", u), ("item_bias", i)))
        return 0.5 * ((errors(t)**2).sum() + 0.3 * decayed)

    check_one_step(model, X, loss, value=lambda t: (errors(t)**2).sum())


def weighted_taste(n_items=9):
    X = taste(n_users=7, n_items=n_items)
    X.data[:] = np.random.default_rng(5).uniform(0.5, 2, X.nnz)
    return X, *X.tocoo().coords, X.data.astype(np.float64)


def test_the_gradient_of_softmax_over_all_items_is_that_of_the_loss():
    X, u, i, w = weighted_taste()
    model = ImplicitFactorization("softmax", dim=3, regularization=0.3, optimizer=by_sgd, epochs=0,
                                  batch_size=10**6).fit(X)
    theirs = X.toarray() > 0

    def decay(t):
        return 0.15 * (w * ((t["users"][u]**2).sum(axis=1) + (t["items"][i]**2).sum(axis=1))).sum()

    def loss(t):
        scores = t["users"] @ t["items"].T + t["item_bias"]
        others = (np.exp(scores) * ~theirs).sum(axis=1)
        own = np.exp(scores[u, i])
        return -(w * np.log(own / (own + others[u]))).sum() + decay(t)

    check_one_step(model, X, loss, value=lambda t: loss(t) - decay(t))


@pytest.mark.parametrize("negatives", [12, "batch"])
def test_the_gradient_of_sampled_softmax_is_that_of_the_loss_with_what_was_drawn(negatives, monkeypatch):
    X, u, i, w = weighted_taste()
    model = ImplicitFactorization("softmax", dim=3, regularization=0.0, optimizer=by_sgd, epochs=0, batch_size=10**6,
                                  negatives=negatives).fit(X)
    counts = np.bincount(X.indices, minlength=9)
    share = counts if negatives == "batch" else (counts + 1)**0.5
    share = share / share.sum()
    drawn = [X.indices]

    def noted(self, size, seed=None, draw=so.embedding.Alias.draw):
        drawn[0] = draw(self, size, seed)
        return drawn[0]

    monkeypatch.setattr(so.embedding.Alias, "draw", noted)
    if negatives == 12:
        rng = ImplicitFactorization()._rng(0)         # that of the first epoch: the order of users, then the draws
        rng.shuffle(np.flatnonzero(np.diff(X.indptr)))
        noted(so.embedding.Alias((counts + 1)**0.5), 12, rng)
    expected = drawn[0].copy()
    theirs = X.toarray() > 0

    def loss(t):
        scores = t["users"] @ t["items"].T + t["item_bias"]
        others = sum(np.where(theirs[:, j], 0, np.exp(scores[:, j])) / (len(expected) * share[j]) for j in expected)
        own = np.exp(scores[u, i])
        return -(w * np.log(own / (own + others[u]))).sum()

    check_one_step(model, X, loss)
    assert_array_equal(drawn[0], expected)


def test_sampled_softmax_takes_the_sum_over_all_others_in_the_mean():
    X = taste()
    loss = {}
    for negatives in (None, 64):
        model = ImplicitFactorization(dim=3, negatives=negatives, epochs=0,
                                      optimizer=lambda t: so.SGD(t, lr=0.0)).fit(X)
        spread_out(model)
        for _ in range(20):
            model.partial_fit(X)
        loss[negatives] = np.mean(model.loss_curve_)
    assert loss[64] == pytest.approx(loss[None], rel=0.02)


@pytest.mark.parametrize(("loss", "negatives", "popularity", "n_items"), [
    ("bpr", 1, 0.5, 9), ("bpr", 3, 0.5, 9), ("warp", 5, 0.0, 9), ("warp", 30, 0.0, 40), ("warp", 10**9, 0.0, 40)])
def test_the_gradient_of_pairs_is_that_of_the_loss_with_what_was_drawn(loss, negatives, popularity, n_items):
    X, u, i, w = weighted_taste(n_items)
    model = ImplicitFactorization(loss, dim=3, regularization=0.3, optimizer=by_sgd, epochs=0, batch_size=10**6,
                                  negatives=negatives).fit(X)
    rng = ImplicitFactorization()._rng(0)
    order = rng.permutation(X.nnz)
    tries = negatives if loss == "bpr" else min(negatives, n_items)
    each = negatives if loss == "bpr" else max(min(tries, 16), -(-tries // X.nnz))
    drawn = so.embedding.Alias((np.bincount(X.indices, minlength=n_items) + 1)**popularity).draw((X.nnz, each), rng)
    u, i, w = u[order], i[order], w[order]
    theirs = X.toarray() > 0

    def terms(t):
        """(loss, decay) of every pair with what was drawn for it, one at a time."""
        scores = t["users"] @ t["items"].T + t["item_bias"]
        for pair in range(X.nnz):
            user, item, weight = u[pair], i[pair], w[pair]
            tried = np.roll(drawn.reshape(-1), -each * pair)[:tries]     # warp goes on with those of the next pairs
            for place, j in enumerate(tried):
                if theirs[user, j]:
                    continue
                norms = sum((v**2).sum() for v in (t["users"][user], t["items"][item], t["items"][j]))
                if loss == "bpr":
                    yield (weight / negatives * np.log1p(np.exp(scores[user, j] - scores[user, item])),
                           weight / negatives * 0.15 * norms)
                elif scores[user, j] > scores[user, item] - 1:
                    rank = max((n_items - 1) // (place + 1), 1)
                    yield weight * np.log(rank) * (1 - scores[user, item] + scores[user, j]), weight * 0.15 * norms
                    break

    check_one_step(model, X, lambda t: sum(map(sum, terms(t))), value=lambda t: sum(term for term, _ in terms(t)))


@pytest.mark.parametrize("name", ["ratings", *LOSSES])
@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads(name, missed):
    before, found = so.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            so.set_num_threads(threads)
            model, X = fitted(name, optimizer="adam", missed=missed, epochs=2, batch_size=100)
            found.append({key: table.tobytes() for key, table in tables(model.fit(X)).items()})
    finally:
        so.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    other, X = fitted(name, optimizer="adam", missed=missed, epochs=2, batch_size=100, random_state=1)
    assert tables(other.fit(X))["users"].tobytes() != found[0]["users"]


@pytest.mark.parametrize("name", ["ratings", *LOSSES])
@pytest.mark.parametrize("optimizer", so.optimizers.OPTIMIZERS)
def test_every_optimizer_learns_at_its_rate(name, optimizer):
    model, X = fitted(name, optimizer=optimizer, epochs=30, batch_size=100)
    if name != "ratings":
        chosen = np.random.default_rng(2).random(X.shape) < np.geomspace(0.9, 0.01, X.shape[1])
        X = sp.csr_array(chosen).astype(np.float32)
    model.fit(X)
    assert model.loss_curve_[-1] < 0.95 * model.loss_curve_[0]


@pytest.mark.parametrize("name", ["ratings", *LOSSES])
def test_replay_is_what_the_dense_optimizer_does(name):
    """One step on the pairs of one user, then one on those of another: the first goes on by its momentum."""
    model, X = fitted(name, optimizer="adam", missed="replay", epochs=0)
    first, second = (sp.csr_array(X * (np.arange(X.shape[0]) == user)[:, None]) for user in (3, 4))
    for matrix in (first, second):
        matrix.eliminate_zeros()
    model.fit(X).partial_fit(first)
    kept = tables(model)["users"][3]
    model.partial_fit(second)
    model.recommend(0)                          # reads all items, and catches all up
    opt = model.optimizer_
    assert not opt.stale()["users"].any()
    m, v, lr = opt.state["users"]["exp_avg"][3], opt.state["users"]["exp_avg_sq"][3], opt.param_groups[0]["lr"]
    moved = lr * (m / (1 - 0.9**2)) / (np.sqrt(v / (1 - 0.999**2)) + 1e-8)
    assert_allclose(opt.params["users"][3], kept - moved, rtol=1e-4, atol=1e-7)
    assert np.abs(moved).max() > 1e-4


@pytest.mark.parametrize("name", ["ratings", *LOSSES])
@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_users_and_items_join_and_the_others_keep_their_bits(name, missed):
    model, X = fitted(name, optimizer="adam", missed=missed, epochs=3)
    model.fit(X)
    model.recommend(0)                          # catches up
    known = tables(model)
    state = {key: {k: a.copy() for k, a in s.items()} for key, s in model.optimizer_.state.items()}
    opt = model.optimizer_
    n_users, n_items = X.shape
    corner = sp.coo_array(([4.0, 5, 4], ([n_users, n_users + 1, n_users + 1], [n_items, n_items + 1, n_items])),
                          shape=(n_users + 2, n_items + 3))
    model._check_settings(corner)
    model._grow(model._rows(*corner.shape), {})
    assert model.optimizer_ is opt
    for key, table in known.items():
        assert_array_equal(model.optimizer_.params[key][:len(table)], table)
        for k, array in state[key].items():
            assert_array_equal(model.optimizer_.state[key][k][:len(array)], array)
    model.partial_fit(corner)
    assert model._shape == corner.shape
    if missed == "skip":                        # no pair has them, and no step touches them
        assert_array_equal(model.optimizer_.params["users"][:n_users], known["users"])
    items, scores = model.recommend(n_users + 1, n=5)
    assert np.isfinite(scores).all()
    assert items.max() < n_items + 3


def test_a_grown_model_learns_what_newcomers_like():
    X = taste(n_users=100)
    model = ImplicitFactorization(dim=8).fit(X[:80])
    for _ in range(10):
        model.partial_fit(X)
    items, _ = model.recommend(np.arange(80, 100), n=5, seen=X)
    assert (items % 2 == np.arange(80, 100)[:, None] % 2).mean() > 0.95


@pytest.mark.parametrize("loss", LOSSES)
def test_recommendations_are_what_users_like_and_have_not_seen(loss):
    X = taste(n_users=100)
    model = ImplicitFactorization(loss, dim=8, epochs=40, batch_size=200).fit(X)
    items, scores = model.recommend(np.arange(100), n=5, seen=X)
    assert (items % 2 == np.arange(100)[:, None] % 2).mean() > 0.95
    assert not X.toarray()[np.arange(100)[:, None], items].any()
    assert_allclose(scores[7], model.predict(np.full(5, 7), items[7]), rtol=1e-4, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    one, its_scores = model.recommend(7, n=5, seen=X)
    assert_array_equal(one, items[7])
    assert_allclose(its_scores, scores[7], rtol=1e-5)
    alike, cosines = model.similar_items(4, n=5)
    assert (alike % 2 == 0).all()
    assert 4 not in alike
    assert cosines[0] <= 1.0001


def test_a_user_who_has_seen_nearly_all_is_told_so():
    model, X = fitted("softmax")
    model.fit(X)
    seen = sp.csr_array((np.ones(38), (np.zeros(38, int), np.arange(38))), shape=X.shape)
    items, scores = model.recommend(0, n=4, seen=seen)
    assert set(items[:2]) == {38, 39}
    assert_array_equal(items[2:], -1)
    assert np.isneginf(scores[2:]).all()


def test_ratings_are_predicted_and_scored():
    X = ratings(n_users=200, share=0.4)
    held_out = np.random.default_rng(1).random(X.nnz) < 0.1
    coo = X.tocoo()
    train, test = (sp.coo_array((coo.data[part], (coo.coords[0][part], coo.coords[1][part])), shape=X.shape)
                   for part in (~held_out, held_out))
    model = MatrixFactorization(dim=4, regularization=0.02, epochs=60, batch_size=64).fit(train)
    error = model.predict(*test.coords) - test.data
    assert_allclose(model.score(test), -np.sqrt((error**2).mean()), rtol=1e-6)
    assert -model.score(test) < 0.5 * test.data.std()
    items, scores = model.recommend(3, n=3)
    assert_allclose(scores, model.predict([3, 3, 3], items), rtol=1e-4)


def test_a_stored_zero_is_a_rating_and_no_interaction():
    X = sp.csr_array((np.array([5.0, 0, 5, 0]), ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 3))
    model = MatrixFactorization(dim=2, regularization=0.0, epochs=500, lr=0.05).fit(X)
    assert_allclose(model.predict([0, 0, 1, 1], [0, 1, 0, 1]), X.data, atol=0.1)
    model = ImplicitFactorization(dim=2, epochs=1, batch_size=4)
    seen = []
    model.fit(X, callback=lambda progress: seen.append((progress.done, progress.total)))
    assert seen == [(2, 2)]


@pytest.mark.parametrize("name", ["ratings", *LOSSES])
@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_resumed_training_gives_the_bits_of_training_that_never_stopped(name, missed, tmp_path):
    whole, X = fitted(name, optimizer="adam", missed=missed, epochs=4)
    whole.fit(X)
    half, _ = fitted(name, optimizer="adam", missed=missed, epochs=2)
    half.fit(X).save(tmp_path / "checkpoint")
    again = type(half).load(tmp_path / "checkpoint").partial_fit(X).partial_fit(X)
    for model in (whole, again):
        model.recommend(0)
    for key, table in tables(whole).items():
        assert_array_equal(tables(again)[key], table)
    assert again.loss_curve_ == whole.loss_curve_
    assert again.optimizer_.num_threads == whole.optimizer_.num_threads == 1
    assert again.recommend(3, n=4)[0].tolist() == whole.recommend(3, n=4)[0].tolist()


def test_a_callback_can_end_the_training():
    model, X = fitted("bpr", batch_size=50)
    model.fit(X, callback=lambda progress: progress.epoch == 1)
    assert len(model.loss_curve_) == 2


@pytest.mark.parametrize(("settings", "X", "error", "message"), [
    ({}, np.ones((3, 3)), TypeError, "X is a ndarray"),
    ({}, sp.csr_array([[1.0, -2]]), ValueError, "from -2.0 to 1.0"),
    ({}, sp.csr_array([[1.0, np.nan]]), ValueError, "must be finite and 0 or more"),
    ({}, sp.csr_array((3, 3)), ValueError, "no positive entries"),
    ({"loss": "hinge"}, None, ValueError, "loss is 'hinge'; it must be one of 'softmax', 'square', 'bpr', 'warp'"),
    ({"dim": 0}, None, ValueError, "dim is 0"),
    ({"loss": "bpr", "negatives": "batch"}, None, ValueError, "negatives is 'batch'"),
    ({"negatives": 0}, None, ValueError, "negatives is 0; it must be an integer of at least 1"),
    ({"popularity": 0.5}, None, ValueError, "softmax draws none of the 40 items; popularity must be None"),
    ({"popularity": 0.5, "negatives": "batch"}, None, ValueError, "popularity must be None"),
    ({"loss": "bpr", "popularity": -1}, None, ValueError, "popularity is -1"),
    ({"regularization": -0.1}, None, ValueError, "regularization is -0.1"),
    ({"weight_decay": np.inf}, None, ValueError, "weight_decay is inf"),
    ({"optimizer": so.Adam, "weight_decay": 0.1}, None, ValueError, "weight_decay must be 0"),
    ({"optimizer": so.Adam, "lr": 0.1}, None, ValueError, "lr must be None"),
    ({"optimizer": "adam", "weight_decay": 0.1, "missed": "replay"}, None, ValueError,
     "weight_decay is 0.1 with missed"),
    ({"missed": "dense"}, None, ValueError, "missed is 'dense'"),
    ({"optimizer": "Adan"}, None, ValueError, "optimizer is 'Adan'"),
])
def test_what_is_wrong_is_named_and_the_model_stays_as_it_was(settings, X, error, message):
    model, right = fitted("softmax", epochs=1)
    model.fit(right)
    kept, optimizer = tables(model), model.optimizer_
    model.set_params(**settings)
    with pytest.raises(error, match=message):
        model.fit(right if X is None else X)
    assert model.optimizer_ is optimizer
    for name, table in kept.items():
        assert_array_equal(optimizer.params[name], table)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda m, X: m.partial_fit(X[:10]), ValueError, r"X has shape \(10, 40\); the model knows 60 users and 40 items"),
    (lambda m, X: m.recommend(60), IndexError, "users has row|users has user 60"),
    (lambda m, X: m.recommend([0.5]), TypeError, "users have dtype float64"),
    (lambda m, X: m.recommend(0, n=41), ValueError, "n is 41; it must be an integer from 1 to 40"),
    (lambda m, X: m.recommend(0, seen=X[:3]), TypeError, r"seen is a csr_array of shape \(3, 40\)"),
    (lambda m, X: m.similar_items(40), IndexError, "40"),
    (lambda m, X: m.similar_items([1, 2]), TypeError, "item is an array"),
    (lambda m, X: m.similar_items(1, n=40), ValueError, "n is 40"),
    (lambda m, X: m.predict([1, 2], [1]), ValueError, "users has 2 numbers and items has 1"),
])
@pytest.mark.parametrize("name", ["ratings", "softmax"])
def test_a_wrong_question_is_named(name, call, error, message):
    model, X = fitted(name, epochs=1)
    model.fit(X)
    with pytest.raises(error, match=message):
        call(model, X)


def test_ratings_of_someone_new_are_predicted_by_the_solution_of_the_normal_equations():
    model, X = fitted("ratings", regularization=0.3, epochs=5)
    model.fit(X)
    assert_allclose([model.mean_, model.std_], [X.data.mean(), X.data.std()], atol=1e-5)
    items, given = np.array([4, 30, 7, 9]), np.array([5.0, 1.0, 3.5, 4.0])
    A = np.column_stack([tables(model)["items"][items], np.ones(4)]).astype(float)
    for ratings, b in ((given, given), (None, np.full(4, model.mean_ + model.std_))):
        right = A.T @ (b - model.mean_ - tables(model)["item_bias"][items])
        x = np.linalg.solve(A.T @ A + 0.3 * 4 * np.eye(7), right)
        expected = model.mean_ + x[6] + tables(model)["item_bias"] + tables(model)["items"] @ x[:6]
        expected[items] = -np.inf
        found, scores = model.recommend_for(items, 40, ratings)
        assert set(found[36:]) == {-1}
        assert np.isneginf(scores[36:]).all()
        assert_allclose(scores[:36], np.sort(expected)[::-1][:36], atol=1e-5)
        assert_allclose(expected[found[:36]], scores[:36], atol=1e-5)


@pytest.mark.parametrize("loss", ["softmax", "bpr", "warp"])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_the_vector_of_someone_new_is_the_best_for_the_softmax_over_all_items(loss, weights):
    model, X = fitted(loss, regularization=0.3, epochs=5)
    model.fit(X)
    items, (Q, bias) = np.array([4, 30, 7]), (tables(model)[name].astype(float) for name in ("items", "item_bias"))
    w = np.ones(3) if weights is None else np.array(weights)

    def lost(params):
        scores = Q @ params["p"] + bias
        others = np.exp(np.delete(scores, items)).sum()
        return -sum(w[k] * np.log(np.exp(scores[i]) / (np.exp(scores[i]) + others)) for k, i in enumerate(items)) + (
            0.15 * w.sum() * params["p"] @ params["p"])

    found, scores = model.recommend_for(items, 37, weights)
    assert not set(found) & set(items)
    p = np.linalg.lstsq(Q[found], scores - bias[found], rcond=None)[0]          # the vector that the scores come from
    assert_allclose(Q[found] @ p + bias[found], scores, atol=1e-4)
    at_best, at_zero = (np.abs(differentiated(lost, {"p": one})["p"]).max() for one in (p, np.zeros(6)))
    assert at_best < 0.01 * at_zero             # the loss is convex
    assert (np.diff(scores) <= 0).all()


def test_someone_new_is_recommended_what_people_with_the_same_items_like():
    X = taste(n_users=200)
    model = ImplicitFactorization(dim=8, missed="replay").fit(X)
    before = {name: table.copy() for name, table in model.optimizer_.params.items()}
    for parity in (0, 1):
        assert (model.recommend_for([parity, 6 + parity, 20 + parity], 8)[0] % 2 == parity).all()
    for name, table in tables(model).items():
        assert_array_equal(before[name], table)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda m: m.recommend_for([]), ValueError, "items is empty; it must have at least one item"),
    (lambda m: m.recommend_for([3, 3]), ValueError, "items has 3 twice"),
    (lambda m: m.recommend_for([40]), IndexError, "items has .*40"),
    (lambda m: m.recommend_for([0.5]), TypeError, "items have dtype float64"),
    (lambda m: m.recommend_for([1, 2], 41), ValueError, "n is 41; it must be an integer from 1 to 40"),
    (lambda m: m.recommend_for([1, 2], 3, [1.0]), ValueError, "(weights|ratings) is .*; it must be None or 2 finite"),
    (lambda m: m.recommend_for([1, 2], 3, [1, np.nan]), ValueError, "(weights|ratings) is .*; it must be None or 2"),
    (lambda m: m.fit(taste(), np.ones(60)), TypeError, "callback is a ndarray; .* A recommender has no y"),
    (lambda m: m.partial_fit(taste(), np.ones(60)), TypeError, "callback is a ndarray; it must be None or callable"),
    (lambda m: m.fit(np.array([["ann", "tea"]])), TypeError, "must be Ratings, or a .*datasets.interactions"),
])
@pytest.mark.parametrize("name", ["ratings", "softmax"])
def test_a_wrong_question_about_someone_new_is_named(name, call, error, message):
    model, X = fitted(name, epochs=1)
    model.fit(X)
    with pytest.raises(error, match=message):
        call(model)


def test_weights_of_someone_new_are_above_zero():
    with pytest.raises(ValueError, match=r"weights has 0\.0; weights must be above 0"):
        ImplicitFactorization(dim=2, epochs=1).fit(taste()).recommend_for([1, 2], weights=[0, 1])


def test_two_ratings_of_a_pair_are_refused():
    X = sp.coo_array(([2.0, 3.0, 4.0, 1.0, 5.0], ([0, 1, 0, 1, 0], [1, 0, 1, 1, 1])), shape=(2, 2))
    once = sp.csr_array([[0, 2.0], [3, 1]])
    model = MatrixFactorization(dim=2, epochs=1).fit(once)
    as_csr = sp.csr_array((2, 2))
    as_csr.indptr, as_csr.indices = np.array([0, 3, 5]), np.array([1, 1, 1, 0, 1])
    as_csr.data = np.array([2, 4, 5, 3, 1.0])
    for twice in (X, as_csr):
        for call in (MatrixFactorization().fit, model.partial_fit, model.score):
            with pytest.raises(ValueError,
                               match=r"X has 2 entries that repeat a pair .* at row 0, column 1; a pair must"):
                call(twice)


def test_the_weights_of_a_pair_with_several_entries_add_up():
    several = sp.coo_array((np.array([1, 2, 1, 1.0]), ([0, 0, 1, 0], [1, 1, 0, 1])), shape=(2, 3))
    once = sp.csr_array([[0, 4.0, 0], [1, 0, 0]])
    one, other = (ImplicitFactorization(dim=2, epochs=3).fit(X).optimizer_.params for X in (several, once))
    assert (one["items"] == other["items"]).all()
    model = ImplicitFactorization(dim=2, epochs=1).fit(once)
    assert (model.recommend([0, 1], 3, seen=several)[0] == model.recommend([0, 1], 3, seen=once)[0]).all()


def test_ratings_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match="X has nan at row 1, column 0"):
        MatrixFactorization().fit(sp.csr_array([[1.0, 2], [np.nan, 0]]))
    with pytest.raises(ValueError, match="no stored entries"):
        MatrixFactorization().fit(sp.csr_array((2, 2)))


@pytest.mark.parametrize("model", [MatrixFactorization(), ImplicitFactorization()])
def test_a_model_that_is_not_fitted_says_so(model):
    with pytest.raises(ValueError, match="is not fitted yet"):
        model.recommend(0)
    with pytest.raises(ValueError, match="is not fitted yet"):
        model.predict([0], [0])


@pytest.fixture(scope="module")
def movielens():
    if not MOVIELENS.exists():
        pytest.skip(f"{MOVIELENS} is not there: ml-latest-small of grouplens.org/datasets/movielens")
    return datasets.read_ratings(MOVIELENS)


def test_films_that_users_will_like_are_found(movielens):
    liked = movielens.where(movielens.values >= 4)
    train, test = (liked.matrix(part) for part in evaluation.train_test_split_by_time(liked.users, liked.times))
    assert (*train.shape, train.nnz, test.nnz) == (609, 6298, 39105, 9475)
    for matrix in (train, test):
        matrix.data[:] = 1
    popular = np.tile(np.asarray(train.sum(axis=0), dtype=float), (609, 1))
    popular[np.repeat(np.arange(609), np.diff(train.indptr)), train.indices] = -np.inf
    baseline = evaluation.ranking_metrics(np.argsort(-popular, axis=1, kind="stable")[:, :10], test)["ndcg"]
    assert baseline == pytest.approx(0.060, abs=0.002)
    found = evaluation.evaluate(ImplicitFactorization(dim=64).fit(train), train, test)
    assert found["ndcg"] > 1.4 * baseline


def test_ratings_of_films_are_predicted_better_than_by_biases(movielens):
    order = np.random.default_rng(0).permutation(len(movielens))
    train, test = movielens.matrix(order[20_000:]), movielens.matrix(order[:20_000])
    by_means = np.sqrt(np.mean((test.data - train.data.mean())**2))
    model = MatrixFactorization(dim=32, epochs=15).fit(train)
    assert -model.score(test) < 0.88
    assert -model.score(test) < 0.86 * by_means


# Ratings with ids.

def with_ids(X, kind="text", seed=3):
    """The pairs of a matrix as Ratings, in random order: user 7 is "user 007" or 1007, and item 5 "item 005" or 505."""
    X = X.tocoo()
    order = np.random.default_rng(seed).permutation(X.nnz)
    user, item = ((lambda u: f"user {u:03}", lambda i: f"item {i:03}") if kind == "text" else
                  (lambda u: int(u) + 1000, lambda i: int(i) + 500))
    columns = {"u": [user(u) for u in X.coords[0][order]], "i": [item(i) for i in X.coords[1][order]],
               "v": X.data[order].astype(float), "t": order}
    return datasets.interactions(columns, "u", "i", "v", "t"), user, item


def dense(X):
    """A matrix without the rows and columns that have no entries, as Ratings number users and items."""
    X = sp.csr_array(X)
    return X[np.flatnonzero(np.diff(X.indptr))][:, np.flatnonzero(np.diff(X.tocsc().indptr))]


@pytest.mark.parametrize("kind", ["text", "integer"])
@pytest.mark.parametrize("name", ["ratings", *LOSSES])
def test_a_model_that_knows_ids_takes_and_answers_ids(name, kind, tmp_path):
    model, X = fitted(name, epochs=3)
    X = dense(X)
    pairs, user, item = with_ids(X, kind)
    of_ids, of_numbers = model.fit(pairs), fitted(name, epochs=3)[0].fit(pairs.matrix())
    assert_array_equal(of_ids.optimizer_.params["items"], of_numbers.optimizer_.params["items"])
    of_ids.save(tmp_path / "checkpoint")
    loaded = type(model).load(tmp_path / "checkpoint")
    none = None if kind == "text" else -1
    for one in (of_ids, loaded):
        users = [user(u) for u in (7, 3)]
        for seen, plain in ((None, None), (pairs, pairs.matrix()), (pairs.matrix(), pairs.matrix())):
            numbers, expected = of_numbers.recommend([7, 3], n=X.shape[1], seen=plain)
            items, scores = one.recommend(users, n=X.shape[1], seen=seen)
            assert items.tolist() == [[item(i) if i >= 0 else none for i in row] for row in numbers]
            assert_array_equal(scores, expected)
        assert one.recommend(user(7), n=2)[0].tolist() == items_of(of_numbers.recommend(7, n=2), item)
        assert one.similar_items(item(5), n=3)[0].tolist() == items_of(of_numbers.similar_items(5, n=3), item)
        assert one.recommend_for([item(1), item(4)], n=4)[0].tolist() == items_of(of_numbers.recommend_for([1, 4], n=4),
                                                                                  item)
        assert_array_equal(one.predict(users, [item(2), item(9)]), of_numbers.predict([7, 3], [2, 9]))


def items_of(found, item):
    return [item(i) for i in found[0]]


@pytest.mark.parametrize("name", ["ratings", *LOSSES])
def test_new_ids_join_whatever_the_order_of_the_ids(name):
    model, X = fitted(name, epochs=2)
    X = dense(X)
    pairs, _, _ = with_ids(X)
    model.fit(pairs)
    known = tables(model)
    more = datasets.Ratings(                    # the new ids come first
        np.append(pairs.users + 1, [0, 0]), np.append(pairs.items + 1, [0, 1]),
        np.append(pairs.values, [pairs.values[0]] * 2), None, np.array(["a newcomer", *pairs.user_ids], object),
        np.array(["a new item", *pairs.item_ids], object))
    model.partial_fit(more)
    assert model.user_ids_.tolist() == [*pairs.user_ids, "a newcomer"]
    assert model.item_ids_.tolist() == [*pairs.item_ids, "a new item"]
    assert len(model.optimizer_.params["users"]) == X.shape[0] + 1
    by_numbers = fitted(name, epochs=2)[0].fit(pairs.matrix())
    users, items = (more.users - 1) % (X.shape[0] + 1), (more.items - 1) % (X.shape[1] + 1)     # here they come last
    by_numbers.partial_fit(sp.coo_array((more.values, (users, items)), shape=(X.shape[0] + 1, X.shape[1] + 1)).tocsr())
    for key, table in tables(by_numbers).items():
        assert_allclose(model.optimizer_.params[key], table, atol=1e-6)
    assert np.abs(model.optimizer_.params["items"][:-1] - known["items"]).max() > 0
    assert "a new item" in model.recommend("a newcomer", n=X.shape[1] + 1)[0]


def test_ids_that_are_integers_become_texts_when_texts_join():
    model = ImplicitFactorization(dim=2, epochs=1)
    model.fit(datasets.interactions({"u": [7, 9], "i": [1, 2]}, "u", "i"))
    model.partial_fit(datasets.interactions({"u": ["7", "ann"], "i": [1, 2]}, "u", "i"))
    assert model.user_ids_.tolist() == ["7", "9", "ann"]
    assert model.item_ids_.tolist() == [1, 2]


def test_a_matrix_makes_a_model_forget_ids():
    pairs, _, _ = with_ids(dense(taste()))
    model = ImplicitFactorization(dim=2, epochs=1).fit(pairs).partial_fit(pairs.matrix())
    assert model.recommend("user 003", n=1)[0].tolist()[0].startswith("item")
    model.fit(pairs.matrix())
    assert not hasattr(model, "user_ids_")
    assert model.recommend(3, n=1)[0].dtype == np.int64


PAIRS = datasets.interactions({"u": ["a", "b", "a", "b"], "i": [1, 2, 2, 3], "t": [1, 2, 3, 4]}, "u", "i", time="t")
STARS = datasets.interactions({"u": ["a", "b"], "i": [1, 2], "r": [1.0, 5.0]}, "u", "i", "r")


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: m.recommend(0), "users has 0 at position 0, which is no user that the model knows; .* such as 'a'"),
    (lambda m: m.recommend(["a", "zoe"]), "users has 'zoe' at position 1, which is no user that the model knows"),
    (lambda m: m.recommend([True]), "users has True at position 0"),
    (lambda m: m.similar_items(7), "item has 7 at position 0, which is no item that the model knows; .* such as 1"),
    (lambda m: m.similar_items("1"), "item has '1' at position 0"),
    (lambda m: m.recommend_for([2, 2]), "items has 2 twice; it must have at least one item, and each item once"),
    (lambda m: m.predict(["a"], [9]), "items has 9 at position 0"),
    (lambda m: m.partial_fit(sp.csr_array(np.ones((3, 3)))), "new ones in a matrix have no ids. X must be Ratings"),
    (lambda m: m.fit(PAIRS[np.array([0, 2])]), "X has no pair of 1 of its 2 new users, the first is 'b'; .*TimeSplit"),
    (lambda m: m.partial_fit(datasets.interactions({"u": ["a", "zoe"], "i": [1, 2]}, "u", "i")[:1]),
     "X has no pair of 1 of its 1 new users, the first is 'zoe'"),
    (lambda m: m.fit(PAIRS[:0]), "X has no ratings; it must have at least one"),
    (lambda m: m.fit(STARS), r"X has ratings from 1 to 5, of which low ones may mean dislike; X.chosen\(\) has"),
    (lambda m: m.partial_fit(STARS), "X has ratings from 1 to 5"),
    (lambda m: MatrixFactorization().fit(PAIRS), "X has counts, such as numbers of plays, and not ratings"),
    (lambda m: MatrixFactorization(epochs=1).fit(STARS.matrix()).partial_fit(STARS), "knows no ids; X must be a mat"),
    (lambda m: m.score(datasets.interactions({"u": ["zoe"], "i": [1]}, "u", "i")),
     "X has 1 ratings of users or items that the model does not know, the first at position 0: user 'zoe', item 1"),
    (lambda m: MatrixFactorization(epochs=1).fit(STARS).score(PAIRS[:1]), "X has counts"),
    (lambda m: evaluation.evaluate(m, PAIRS, datasets.interactions({"u": ["zoe"], "i": [1]}, "u", "i")),
     "test has 1 ratings of users or items that the model does not know"),
])
def test_what_a_model_with_ids_does_not_know_is_named(call, message):
    model = ImplicitFactorization(dim=2, epochs=1).fit(PAIRS)
    before = tables(model)
    with pytest.raises(ValueError, match=message):
        call(model)
    for name, table in before.items():
        assert_array_equal(model.optimizer_.params[name], table)
    assert model.user_ids_.tolist() == ["a", "b"]


@pytest.mark.parametrize("by_ids", [True, False])
def test_the_score_of_choices_is_ndcg_of_what_was_not_trained_on(by_ids, tmp_path):
    pairs, _, _ = with_ids(dense(taste(share=0.6)))
    train, test = next(evaluation.TimeSplit().split(pairs))
    train, test = (pairs[part] if by_ids else pairs.matrix(part) for part in (train, test))
    model = ImplicitFactorization(dim=8).fit(train)
    expected = evaluation.evaluate(model, train, test)["ndcg"]
    assert expected > 0.1
    assert model.score(test) == model.score(test, seen=train) == expected
    assert model.score(test, seen=pairs if by_ids else pairs.matrix()) == 0      # then none of the test is recommended
    model.save(tmp_path / "checkpoint")
    loaded = ImplicitFactorization.load(tmp_path / "checkpoint")
    assert loaded.score(test, seen=train) == expected
    with pytest.raises(ValueError, match="seen is None, and the model comes from a file"):
        loaded.score(test)
    with pytest.raises(TypeError, match=r"y is array\(.*; it must be None"):
        model.score(test, np.ones(3))
    assert loaded.partial_fit(train).score(test) == evaluation.evaluate(loaded, train, test)["ndcg"]


def test_the_score_of_users_without_training_is_refused():
    X = taste()
    halves = [sp.csr_array(X * part) for part in (np.arange(60)[:, None] < 30, np.arange(60)[:, None] >= 30)]
    for half in halves:
        half.eliminate_zeros()
    with pytest.raises(ValueError, match=r"X has pairs of 30 users without pairs in the training, the first is 30; "):
        ImplicitFactorization(dim=2, epochs=1).fit(halves[0]).score(halves[1])
    with pytest.raises(ValueError, match=r"X has shape \(30, 40\); .* A split of the rows of a matrix cuts users"):
        ImplicitFactorization(dim=2, epochs=1).fit(X).score(X[:30])


def test_ratings_that_may_mean_dislike_are_not_scored_as_liked_pairs():
    bought = datasets.interactions({"u": [1, 1, 2, 2], "i": [1, 2, 2, 3]}, "u", "i")
    rated = datasets.interactions({"u": [1, 2], "i": [3, 1], "r": [5, 1]}, "u", "i", "r")
    model = ImplicitFactorization(dim=2, epochs=1).fit(bought)
    with pytest.raises(ValueError, match=r"X has ratings from 1 to 5, of which low ones may mean dislike; X.chosen"):
        model.score(rated)
    assert model.score(rated.chosen()) >= 0


def test_an_empty_list_selects_no_ratings():
    bought = datasets.interactions({"u": [1, 1], "i": [1, 2]}, "u", "i")
    assert len(bought[[]]) == 0
    assert bought[[]].shape == (0,)


@pytest.mark.parametrize(("changes", "error", "says"), [
    (dict(user_ids=np.array([5, 5])), ValueError, "user_ids of X are .*each must come once"),
    (dict(item_ids=np.array(["a", "a"], object)), ValueError, "item_ids of X are .*each must come once"),
    (dict(user_ids=np.array([7, 9], np.uint64)), TypeError, "user_ids of X are .*an array of int64"),
    (dict(item_ids=[10, 20]), TypeError, "item_ids of X are .*an array of int64"),
    (dict(users=np.array([0, 0, 2])), ValueError, "users of X have numbers from 0 to 2; there are 2 user_ids"),
])
@pytest.mark.parametrize("model", [ImplicitFactorization, MatrixFactorization])
def test_ratings_made_by_hand_are_checked(model, changes, error, says):
    parts = dict(users=np.array([0, 0, 1]), items=np.array([0, 1, 1]), values=np.ones(3), times=None,
                 user_ids=np.array([7, 9]), item_ids=np.array([10, 20]))
    with pytest.raises(error, match=says):
        model(dim=2, epochs=1).fit(datasets.Ratings(**parts | changes))


def test_ratings_are_shown_in_one_line():
    ratings = datasets.Ratings(users=np.array([0, 0, 1]), items=np.array([0, 1, 1]), values=np.ones(3), times=None,
                               user_ids=np.array([7, 9]), item_ids=np.array([10, 20]))
    assert repr(ratings) == "Ratings(3 ratings, 2 users, 2 items)"
