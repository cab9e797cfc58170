"""Click models: their gradients, beside scikit-learn and finite differences; streams; what they refuse."""

import pickle
import sys
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt import _samples, datasets, evaluation
from sparseopt.models import FactorizationMachineClassifier, FactorizationMachineRegressor, LogisticRegression

CLASSIFIERS = [LogisticRegression, FactorizationMachineClassifier]
MODELS = [*CLASSIFIERS, FactorizationMachineRegressor]


def some_rows(n=300, n_features=50, seed=0, repeats=False):
    """Random X with negative values, unsorted, with columns that repeat in a row if wanted; and y."""
    rng = np.random.default_rng(seed)
    each = rng.integers(0, min(9, n_features + 1), n)
    indices = [rng.choice(n_features // 2 if repeats else n_features, k, replace=repeats) for k in each]
    bounds = np.append(0, np.cumsum(each))
    X = sp.csr_array((rng.standard_normal(bounds[-1]), np.concatenate(indices), bounds), shape=(n, n_features))
    z = X @ rng.standard_normal(n_features)
    return X, np.where(z + rng.standard_normal(n) > 0, "yes", "no")


@pytest.fixture(scope="module")
def log():
    """A small click log, and rows of it to train and to test on."""
    log = datasets.ClickLog(n_features=2**14, fields=20, zipf=1.5, seed=3)
    train, = log.rows(60_000, chunk=60_000, seed=1)
    test, = log.rows(20_000, chunk=20_000, seed=2)
    return log, train, test


def dense_loss(model, X, y, weight, tables):
    """The loss of a model in float64 on dense arrays, pairs one by one: nothing of the linear-time form."""
    X = np.asarray(X.toarray(), np.float64)
    z = X @ tables["weights"] + tables["intercept"]
    if "factors" in tables:
        for k, factors in enumerate(np.split(tables["factors"], len(tables["intercept"]), axis=1)):
            z.T[k if z.ndim == 2 else ...] += np.einsum("bi,bj,ij->b", X, X, np.triu(factors @ factors.T, 1))
    if z.ndim == 2:
        return -(weight * np.log(np.exp(z[range(len(y)), y]) / np.exp(z).sum(axis=1))).sum()
    if isinstance(model, FactorizationMachineRegressor):
        return (weight * (z - y) ** 2 / 2).sum()
    return (weight * (np.logaddexp(0, z) - y * z)).sum()


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(("model", "n_classes"), [*((model, 2) for model in MODELS), *((m, 3) for m in CLASSIFIERS)])
def test_a_step_of_sgd_goes_along_the_finite_differences_of_the_dense_loss(model, n_classes, repeats):
    X, y = some_rows(40, 12, repeats=repeats)
    X = X.astype(np.float32)
    y = np.random.default_rng(1).standard_normal(40) if model is FactorizationMachineRegressor else y
    y = np.arange(40) % 3 if n_classes == 3 else y
    weight = np.random.default_rng(2).uniform(0, 2, 40)
    more = {} if model is LogisticRegression else {"dim": 3, "init_scale": 0.5}
    model = model(optimizer="SGD", lr=1e-2, l2=0.5, epochs=0, **more).fit(X, y, weight)
    before = {name: table.astype(np.float64) for name, table in model.optimizer_.params.items()}
    target = y if isinstance(model, FactorizationMachineRegressor) or n_classes == 3 else y == "yes"
    model.partial_fit(X, y, sample_weight=weight)
    touched = np.unique(X.indices)
    for name, table in before.items():
        expected = table.copy()
        for place in np.ndindex(table.shape):
            ends = []
            for change in (1e-5, -1e-5):
                moved = {**before, name: table.copy()}
                moved[name][place] += change
                ends.append(dense_loss(model, X, target, weight, moved))
            slope = (ends[0] - ends[1]) / 2e-5
            if name != "intercept" and place[0] in touched:
                slope += 0.5 * table[place]
            expected[place] -= 1e-2 * slope
        assert_allclose(model.optimizer_.params[name], expected, rtol=1e-4, atol=1e-5)
    assert_allclose(model.loss_curve_[0], dense_loss(model, X, target, weight, before) / weight.sum(), rtol=1e-5)


@pytest.mark.parametrize("merged", [False, True])
def test_a_batch_keeps_its_product_and_names_each_feature_once(merged):
    X, _ = some_rows(200, 1000, repeats=True)
    X = X.astype(np.float32)
    batches, order = _samples.Batches(X, merged=merged), np.random.default_rng(0).permutation(200)
    for start, stop in ((0, 120), (120, 200), (30, 31), (40, 40)):
        for numbers in (None, order, order.astype(np.int32)):
            rows = X[start:stop] if numbers is None else X[numbers[start:stop]]
            features, values, columns, bounds = batches(start, stop, numbers)
            assert_array_equal(np.sort(features), np.unique(rows.indices))
            kept = slice(bounds[-1])
            batch = sp.csr_array((values[kept], columns[kept], bounds), shape=(stop - start, len(features)))
            whole = np.zeros(rows.shape)
            whole[:, features] = batch.toarray()
            assert_allclose(whole, rows.toarray(), rtol=1e-6)
            assert bounds[-1] == (np.count_nonzero(rows.toarray()) if merged else rows.nnz)


@pytest.mark.parametrize(("part", "at", "value"), [("indices", 7, 1000), ("indices", 7, -1), ("indptr", 2, 10**6)])
def test_a_batch_of_numbers_that_were_changed_after_their_check_is_an_error(part, at, value):
    X, _ = some_rows(200, 1000)
    batches = _samples.Batches(X.astype(np.float32))
    getattr(batches.X, part)[at] = value
    with pytest.raises((IndexError, ValueError), match="X has"):
        batches(0, 10)


def test_logistic_regression_goes_where_scikit_learns_goes():
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = some_rows(2000, 30)
    reference = linear_model.LogisticRegression(C=1 / 5.0, tol=1e-8, max_iter=1000).fit(X, y)
    steps = so.schedules.Cosine(0.05, steps=600)
    ours = LogisticRegression(optimizer="Adam", lr=steps, l2=5.0, batch_size=2000, epochs=600,
                              early_stopping=False).fit(X, y)
    assert_array_equal(ours.classes_, reference.classes_)
    assert_allclose(ours.coef_, reference.coef_, atol=1e-4)
    assert_allclose(ours.intercept_, reference.intercept_, atol=1e-4)
    assert_allclose(ours.decision_function(X), reference.decision_function(X), atol=1e-3)
    assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=1e-4)
    assert_array_equal(ours.predict(X), reference.predict(X))
    assert ours.score(X, y) == reference.score(X, y)


def test_the_score_of_a_factorization_machine_is_rendles_equation_1():
    X, y = some_rows(100, 40, repeats=True)
    model = FactorizationMachineClassifier(dim=5, init_scale=0.3, epochs=3).fit(X, y)
    dense, w, V = X.toarray(), model.coef_, model.factors_.astype(np.float64)
    expected = model.intercept_[0] + dense @ w
    for i in range(40):
        for j in range(i + 1, 40):
            expected += dense[:, i] * dense[:, j] * (V[i] @ V[j])
    assert_allclose(model.decision_function(X), expected, atol=1e-4)


@pytest.mark.parametrize("optimizer", so.optimizers.OPTIMIZERS)
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_every_optimizer_learns_at_its_rate(model, optimizer, log):
    _, (X, y, _), (X_test, y_test, p) = log
    constant = evaluation.log_loss(y_test, np.full(len(p), y.mean()))
    best = evaluation.log_loss(y_test, p)
    loss = evaluation.log_loss(y_test, model(optimizer=optimizer, epochs=3).fit(X, y).predict_proba(X_test)[:, 1])
    assert loss - best < 0.45 * (constant - best)


def test_a_stream_gets_within_two_percent_of_the_true_model(log):
    log, _, (X_test, y_test, p) = log
    model = LogisticRegression(n_features=2**14, l1=1.0, shuffle=False)
    for X, y, _ in log.rows(300_000, chunk=50_000, seed=4):
        model.partial_fit(X, y)
    ours, best = evaluation.log_loss(y_test, model.predict_proba(X_test)[:, 1]), evaluation.log_loss(y_test, p)
    assert best < ours < 1.02 * best
    assert evaluation.auc(y_test, model.decision_function(X_test)) > evaluation.auc(y_test, p) - 0.015
    assert len(model.loss_curve_) == 6


def test_pairs_are_learnt_where_there_are_some():
    log = datasets.ClickLog(n_features=2**12, fields=8, zipf=1.5, dim=2, crossed=4, seed=1)
    (X, y, _), = log.rows(100_000, seed=1)
    (X_test, y_test, p), = log.rows(20_000, seed=2)
    loss = {model: evaluation.log_loss(y_test, model(epochs=3).fit(X, y).predict_proba(X_test)[:, 1])
            for model in CLASSIFIERS}
    best = evaluation.log_loss(y_test, p)
    assert loss[FactorizationMachineClassifier] - best < 0.5 * (loss[LogisticRegression] - best)


def test_l1_makes_zeros_and_spares_the_intercept():
    X, y = some_rows(1000)
    some = [np.count_nonzero(LogisticRegression(l1=l1).fit(X, y).coef_) for l1 in (0.0, 20.0, 60.0, 1e9)]
    assert some[0] == 50 > some[1] > some[2] > some[3] == 0
    assert LogisticRegression(l1=1e9).fit(X, y).intercept_ != 0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("optimizer", "l2"), [("Adam", 0.0), ("AdamW", 0.1), ("Ftrl", 0.1)])
def test_under_replay_the_model_is_the_one_of_dense_gradients(model, optimizer, l2):
    """Zeros stored for all features touch every row in every step: then nothing is ever missed."""
    X, y = some_rows(200, 30)
    y = (y == "yes").astype(float)
    all_touched = sp.csr_array((X.toarray().ravel(), np.tile(np.arange(30), 200), np.arange(0, 6001, 30)),
                               shape=X.shape)
    settings = dict(optimizer=optimizer, l2=l2, batch_size=7, epochs=2)
    replayed = model(missed="replay", **settings).fit(X, y)
    dense = model(**settings).fit(all_touched, y)
    skipped = model(**settings).fit(X, y)
    scores = "predict" if model is FactorizationMachineRegressor else "decision_function"
    assert_allclose(getattr(replayed, scores)(X), getattr(dense, scores)(X), atol=1e-4)
    assert_allclose(replayed.coef_, dense.coef_, atol=1e-5)
    if optimizer != "Ftrl":
        assert np.abs(skipped.coef_ - dense.coef_).max() > 1e-3


@pytest.mark.parametrize("missed", ["skip", "replay"])
@pytest.mark.parametrize("model", MODELS)
def test_resumed_training_gives_the_bits_of_training_that_never_stopped(model, missed, tmp_path):
    X, y = some_rows()
    y = (y == "yes").astype(float) if model is FactorizationMachineRegressor else y
    settings = dict(optimizer="Adam", batch_size=64, missed=missed, random_state=3)
    whole = model(epochs=4, **settings).fit(X, y)
    model(epochs=2, **settings).fit(X, y).save(tmp_path / "checkpoint", origin="here")
    resumed = model.load(tmp_path / "checkpoint")
    again = pickle.loads(pickle.dumps(resumed))
    for one in (resumed, again):
        assert one.optimizer_.metadata["origin"] == "here"
        assert one.optimizer_.num_threads == whole.optimizer_.num_threads == 1
        one.partial_fit(X, y).partial_fit(X, y)
        for name, table in whole.optimizer_.params.items():
            whole._catch_up(), one._catch_up()
            assert one.optimizer_.params[name].tobytes() == table.tobytes()
        assert one.loss_curve_ == whole.loss_curve_
        assert_array_equal(one.predict(X), whole.predict(X))


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_scored_alike_alone_and_among_others_in_any_format(model):
    X, y = some_rows(5000)
    X.sort_indices()            # so that all formats add up in the same order
    fitted = model().fit(X, y == "yes")
    scores = fitted.predict(X) if model is FactorizationMachineRegressor else fitted.decision_function(X)
    for other in (X[4321:4322], X[4321:4322].toarray(), X.tocsc()[4321:4322], sp.coo_matrix(X[4321:4322]),
                  X[4321:4322].astype(np.float32)):
        one = fitted.predict(other) if model is FactorizationMachineRegressor else fitted.decision_function(other)
        assert one == scores[4321]


def test_wide_indices_and_integers_give_the_same_model():
    X, y = some_rows()
    X.data = np.sign(X.data)
    wide = sp.csr_array(X.shape, dtype=np.int8)
    wide.data, wide.indices, wide.indptr = X.data.astype(np.int8), X.indices.astype(np.int64), X.indptr.astype(np.int64)
    assert_array_equal(LogisticRegression().fit(X, y).coef_, LogisticRegression().fit(wide, y).coef_)


def test_hashed_features_of_scikit_learn_are_features():
    hasher = pytest.importorskip("sklearn.feature_extraction").FeatureHasher(n_features=2**18, input_type="string")
    rng = np.random.default_rng(0)
    user, site = rng.integers(50, size=(2, 4000))
    X = hasher.transform([f"user={u}", f"site={s}"] for u, s in zip(user, site, strict=True))
    assert X.data.min() < 0
    y = (user % 2 == 0) & (site % 3 > 0)
    assert LogisticRegression(epochs=20).fit(X, y).score(X, y) == 1
    assert FactorizationMachineClassifier().fit(X, y).score(X, y) > 0.99


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_the_number_of_threads_changes_no_bit(model, log):
    _, (X, y, _), _ = log
    tables = []
    for threads in (1, 2, 3):
        fitted = model(optimizer=partial(so.Ftrl, num_threads=threads), batch_size=20_000, epochs=1).fit(X, y)
        tables.append([table.tobytes() for table in fitted.optimizer_.params.values()])
    assert tables[0] == tables[1] == tables[2]


def test_what_is_not_touched_is_not_written():
    X, y = some_rows(100, 50)
    model = FactorizationMachineClassifier(n_features=10**6, optimizer="AdamW").fit(X, y)
    start = FactorizationMachineClassifier(n_features=10**6, epochs=0).fit(X, y)
    assert_array_equal(model.factors_[50:], start.factors_[50:])
    assert not model.coef_[50:].any()
    assert model.n_features_in_ == 10**6


def test_a_callback_sees_every_batch_and_can_end_training():
    X, y = some_rows(100)
    seen = []
    model = LogisticRegression(batch_size=30, epochs=3).fit(X, y, callback=seen.append)
    assert [(report.epoch, report.done, report.total) for report in seen[:5]] == [
        (0, 30, 100), (0, 60, 100), (0, 90, 100), (0, 100, 100), (1, 30, 100)]
    assert [report.loss for report in seen if report.epoch_ends] == model.loss_curve_
    stopped = LogisticRegression(batch_size=30, epochs=3).fit(X, y, callback=lambda report: report.done == 60)
    assert stopped.loss_curve_ == [seen[1].loss]


def test_without_an_intercept_there_is_none_whatever_is_set_later():
    X, y = some_rows(100)
    model = LogisticRegression(fit_intercept=False).fit(X, y)
    assert model.intercept_ == 0
    assert_allclose(model.decision_function(X), X @ model.coef_[0], atol=1e-5)
    model.set_params(fit_intercept=True).partial_fit(X, y)
    assert model.intercept_ == 0
    assert model.decision_function(sp.csr_array((1, 50))) == 0


def test_weights_of_samples_count_them():
    X, y = some_rows(100)
    times = np.random.default_rng(0).integers(0, 4, 100)
    weighted = LogisticRegression(epochs=3, batch_size=1000).fit(X, y, times)
    repeated = LogisticRegression(epochs=3, batch_size=1000).fit(X[np.repeat(range(100), times)], np.repeat(y, times))
    assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-5, atol=1e-6)
    assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-6)


X, Y = some_rows(6, 4)
BROKEN = sp.csr_array((np.ones(2), np.array([0, 1]), np.array([0, 1, 2])), shape=(2, 4))
BROKEN.indices[1] = 7


@pytest.mark.parametrize("model", [*CLASSIFIERS, FactorizationMachineRegressor])
def test_a_score_takes_weights_that_count(model):
    y = Y == "yes"
    fitted = model().fit(X, y)
    assert fitted.score(X, y, [1, 2, 0, 3, 0, 0]) == pytest.approx(
        fitted.score(X[[0, 1, 1, 3, 3, 3]], y[[0, 1, 1, 3, 3, 3]]))
    with pytest.raises(ValueError, match="sample_weight is zero"):
        fitted.score(X, y, [0] * 6)


def test_r2_of_targets_that_are_all_alike_is_finite():
    fitted = FactorizationMachineRegressor().fit(X, np.ones(6))
    for y in (2.0, 0.1, 0.7):
        assert fitted.score(X, np.full(6, y)) == 0
    assert fitted.score(X, [0.1, 0.1, 0.1, 0.1, 0.1, 9], [1, 2, 3, 4, 5, 0]) == 0
    assert fitted.score(X[:1], fitted.predict(X[:1])) == 1


@pytest.mark.parametrize(("settings", "given", "error", "message"), [
    ({}, (X, Y[:5]), ValueError, "X has 6 samples and y has 5; the numbers must be equal"),
    ({}, (X, None), ValueError, "y is None"),
    ({}, (X, Y[None]), ValueError, r"y has shape \(1, 6\)"),
    ({}, (X, [0.5, 1.5, 2.5] * 2), ValueError, "continuous"),
    ({}, (X, [1] * 6), ValueError, "only one class"),
    ({}, (X, [0, 1, np.nan] * 2), ValueError, "y has a NaN"),
    ({}, (X * np.nan, Y), ValueError, "X has nan at row 0, column"),
    ({}, (X * 1e300, Y), ValueError, "X has .*inf at row"),
    ({}, (BROKEN, [0, 1]), IndexError, "X has column 7 at position 1; the table has 4 columns"),
    ({}, (X, Y, [1, 1]), ValueError, r"sample_weight has shape \(2,\)"),
    ({}, (X, Y, [1, 1, 1, 1, 1, -1]), ValueError, "sample_weight is from -1"),
    ({}, (X, Y, [0] * 6), ValueError, "sample_weight is zero"),
    ({}, (np.ones(6), Y), ValueError, "Reshape your data"),
    ({}, (X[:0], Y[:0]), ValueError, "0 sample"),
    ({"n_features": 3}, (X, Y), ValueError, "X has 4 features"),
    ({"optimizer": "Adan"}, (X, Y), ValueError, "optimizer is 'Adan'"),
    ({"optimizer": so.Adam, "lr": 0.1}, (X, Y), ValueError, "lr must be None"),
    ({"optimizer": so.Adam, "l2": 0.1}, (X, Y), ValueError, "l2 is 0.1 and optimizer is a callable, .* l2 must be 0"),
    ({"optimizer": "Adam", "l1": 0.1}, (X, Y), ValueError, "only Ftrl"),
    ({"optimizer": "Adam", "l2": 0.1, "missed": "replay"}, (X, Y), ValueError, "weight_decay"),
    ({"l1": -1.0}, (X, Y), ValueError, "l1 is -1.0"),
    ({"epochs": 1.5}, (X, Y), ValueError, "epochs is 1.5"),
    ({"batch_size": 0}, (X, Y), ValueError, "batch_size is 0"),
    ({"shuffle": "yes"}, (X, Y), ValueError, "shuffle is 'yes'"),
    ({"missed": "dense"}, (X, Y), ValueError, "missed is 'dense'"),
    ({"random_state": -1}, (X, Y), ValueError, "random_state is -1"),
    ({"random_state": "seed"}, (X, Y), ValueError, "random_state is 'seed'"),
])
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_what_is_wrong_is_named_and_leaves_the_model_as_it_was(model, settings, given, error, message):
    fitted = model().fit(X, Y)
    before = {name: (value, np.copy(value)) for name, value in fitted.optimizer_.params.items()}
    attributes = dict(fitted.__dict__)
    fitted.set_params(**settings)
    with pytest.raises(error, match=message):
        fitted.fit(*given)
    assert {name: value for name, value in fitted.__dict__.items() if name not in settings} == {
        name: value for name, value in attributes.items() if name not in settings}
    for name, (table, copy) in before.items():
        assert fitted.optimizer_.params[name] is table
        assert_array_equal(table, copy)


class Frame:
    """A data frame, as far as NumPy and our models look at one."""

    def __init__(self, values, columns):
        self.values, self.columns = values, columns

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=object)


@pytest.mark.parametrize(("X", "error", "message"), [
    (Frame([[1, "2"], [3, "a.com"]], ["price", "site"]), ValueError, "X has 'a.com' at row 1, column 'site'"),
    ([["a.com", "Rome"], ["b.com", "Oslo"]], TypeError, "X has dtype <U5, with 'a.com' at row 0, column 0"),
    (np.array([[1, "x"], [3, 4]], dtype=object), ValueError, "X has 'x' at row 0, column 1"),
    ([{"site": "a"}, {"site": "b"}], TypeError, "X has {'site': 'a'}; it must be of numbers"),
    (np.zeros((0, 3), "U1"), TypeError, "X has dtype <U1, with None at row 0, column 0"),
    (["one text", "another"], TypeError, "X has dtype <U8, with 'one text'; it must be of numbers"),
])
def test_texts_in_x_are_named_with_what_makes_numbers_of_these(X, error, message):
    for call in (lambda: LogisticRegression().fit(X, [0, 1]), lambda: LogisticRegression().partial_fit(X, [0, 1])):
        with pytest.raises(error, match=message) as raised:
            call()
        assert "OneHotEncoder" in str(raised.value)
        assert "FeatureHasher" in str(raised.value)


@pytest.mark.parametrize(("given", "message"), [
    (dict(X=X[:, :3], y=Y), "X has 3 features, but LogisticRegression is expecting 4"),
    (dict(X=X, y=["yes", "maybe"] * 3), "y has .*'maybe'.*; the classes are .*'no'.*, .*'yes'"),
    (dict(X=X, y=Y, classes=["a", "b"]), "classes is .*'a'.*; the model has"),
    (dict(X=X, y=Y, classes=["a", "b", "c"]), "classes is 'a', 'b', 'c'; the model has 'no', 'yes'"),
    (dict(X=X, y=Y, classes=["a"]), "classes has 1 different classes; there must be at least 2"),
])
def test_a_stream_that_changes_is_refused(given, message):
    model = LogisticRegression().partial_fit(X, Y)
    before = model.coef_.copy()
    with pytest.raises(ValueError, match=message):
        model.partial_fit(**given)
    assert_array_equal(model.coef_, before)


def test_a_stream_may_begin_with_one_class():
    model = LogisticRegression().partial_fit(X, ["no"] * 6, classes=["no", "yes"]).partial_fit(X, Y)
    assert model.classes_.tolist() == ["no", "yes"]
    with pytest.raises(ValueError, match="only one class"):
        LogisticRegression().partial_fit(X, ["no"] * 6)


@pytest.mark.parametrize("classes", [[0, 1], [-1, 1], ["a", "bcd"], [False, True], [2.5, 7.25]])
def test_any_two_labels_are_classes_and_survive_a_checkpoint(classes, tmp_path):
    y = np.array(classes)[(Y == "yes").astype(int)]
    model = LogisticRegression().fit(X, y)
    model.save(tmp_path / "checkpoint")
    loaded = LogisticRegression.load(tmp_path / "checkpoint")
    assert loaded.classes_.dtype == y.dtype
    assert_array_equal(loaded.predict(X), model.predict(X))
    assert set(loaded.predict(X)) <= set(classes)


@pytest.mark.parametrize("missed", ["skip", "replay"])
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_a_model_of_several_classes_is_saved_and_goes_on(model, missed, tmp_path):
    X, _ = some_rows(200)
    y = np.array(["a", "bc", "d", "e"])[np.random.default_rng(0).integers(0, 4, 200)]
    settings = dict(optimizer="Adam", missed=missed, batch_size=30)
    fitted = model(epochs=2, class_weight={"bc": 2.0}, **settings).fit(X, y)
    fitted.save(tmp_path / "checkpoint")
    loaded = model.load(tmp_path / "checkpoint")
    assert loaded.class_weight == {"bc": 2.0}
    for one in (fitted, loaded):
        one.partial_fit(X, y)
    assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert_array_equal(loaded.coef_, fitted.coef_)
    assert loaded.n_iter_ == 3
    assert_allclose(loaded.predict_proba(X).sum(axis=1), 1)
    assert_array_equal(loaded.predict(X), loaded.classes_[loaded.predict_proba(X).argmax(axis=1)])
    if model is FactorizationMachineClassifier:
        assert loaded.factors_.shape == (4, 50, 8)
        assert_array_equal(loaded.factors_[2], loaded.optimizer_.params["factors"][:, 16:24])
    stream = model(**settings).partial_fit(X[:3], y[:3], classes=["a", "bc", "d", "e"]).partial_fit(X, y)
    assert stream.coef_.shape == (4, 50)
    assert stream.decision_function(sp.csr_array((2, 50))).shape == (2, 4)


def test_weights_of_classes_whose_keys_json_would_change_are_kept(tmp_path):
    model = LogisticRegression(class_weight={0: 2.0, 1: 1.0}).fit(X, Y == "yes")
    model.save(tmp_path / "checkpoint")
    assert LogisticRegression.load(tmp_path / "checkpoint").class_weight == {0: 2.0, 1: 1.0}


def split_by_hand(y, fraction, epochs_rng):
    """The positions that are held out, class by class."""
    parts = []
    for label in np.unique(y):
        places = epochs_rng.permutation(np.flatnonzero(y == label))
        parts.append(places[:round(len(places) * fraction)])
    return np.sort(np.concatenate(parts))


@pytest.mark.parametrize(("optimizer", "missed"), [("Ftrl", "skip"), ("Adam", "replay")])
def test_training_ends_when_the_loss_of_what_is_held_out_no_longer_falls(optimizer, missed):
    X, y = some_rows(600)
    how = dict(optimizer=optimizer, missed=missed, lr=0.3, batch_size=100)
    model = LogisticRegression(epochs=60, early_stopping=True, validation_fraction=0.25, n_iter_no_change=2, tol=1e-3,
                               **how).fit(X, y)
    held_out = split_by_hand(y, 0.25, model._rng(1, 0))
    rest = np.setdiff1d(np.arange(600), held_out)
    by_hand, losses, tables = LogisticRegression(**how), [], []
    for _ in range(60):
        by_hand.partial_fit(X[rest], y[rest])
        losses.append(evaluation.log_loss(y[held_out] == "yes", by_hand.predict_proba(X[held_out])[:, 1]))
        if missed == "replay":
            by_hand.optimizer_.catch_up()
        tables.append({name: table.copy() for name, table in by_hand.optimizer_.params.items()})
        best = [min(losses[:k], default=np.inf) for k in range(len(losses))]
        gained = [loss <= before - 1e-3 for loss, before in zip(losses, best, strict=True)]
        if gained[-2:] == [False, False]:
            break
    assert 3 < model.n_iter_ == len(losses) + 1 < 60
    for name, table in tables[int(np.argmin(losses))].items():
        by_hand.optimizer_.params[name][:] = table
    by_hand.partial_fit(X[held_out], y[held_out])           # at last, what was held out teaches once
    assert_array_equal(model.coef_, by_hand.coef_)
    assert_array_equal(model.intercept_, by_hand.intercept_)
    noise = np.random.default_rng(1).standard_normal(600)
    assert 3 < FactorizationMachineRegressor(epochs=200, early_stopping=True).fit(X, noise).n_iter_ < 200


def test_by_default_a_share_is_held_out_of_1000_samples_or_more():
    X, y = some_rows(1000)
    few, enough = (LogisticRegression(epochs=3).fit(X[:n], y[:n]) for n in (999, 1000))
    assert (few.n_iter_, enough.n_iter_) == (3, 4)
    assert LogisticRegression(epochs=3, early_stopping=False).fit(X, y).n_iter_ == 3
    assert LogisticRegression().partial_fit(X, y).n_iter_ == 1


def test_a_default_rate_follows_the_length_of_the_rows():
    X, y = some_rows(1000)
    for optimizer, power in (("Ftrl", 1), ("Adam", 1), ("SGD", 2)):
        rates = [LogisticRegression(optimizer=optimizer, epochs=1).fit(X * factor, y).optimizer_.param_groups[0]["lr"]
                 for factor in (1, 10)]
        assert rates[0] == pytest.approx(rates[1] * 10**power, rel=1e-2)
        of_intercept = [LogisticRegression(optimizer=optimizer, epochs=1).fit(X * factor, y).optimizer_.param_groups[1]
                        for factor in (1, 10)]
        assert of_intercept[0]["lr"] == pytest.approx(of_intercept[1]["lr"], rel=1e-2)
        length = np.sqrt((X * X).sum(axis=1).mean())
        assert rates[0] == pytest.approx(LogisticRegression.LEARNING_RATES[optimizer] / length**power, rel=1e-2)
    assert LogisticRegression(lr=0.3).fit(X, y).optimizer_.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(("n", "steps"), [(20, 1), (1000, 32), (5000, 100), (50_000, 100), (819_200, 200)])
def test_a_default_batch_is_a_hundredth_of_the_samples_from_32_to_4096(n, steps):
    X, y = sp.csr_array(np.ones((n, 1), np.float32)), np.arange(n) % 2
    model = LogisticRegression(epochs=1, early_stopping=False).fit(X, y)
    assert model.optimizer_.steps == steps


@pytest.mark.parametrize(("settings", "arguments", "message"), [
    ({"early_stopping": 1}, {}, "early_stopping is 1; it must be True, False or 'auto'"),
    ({"early_stopping": True, "validation_fraction": 1.0}, {}, "validation_fraction is 1.0; it must be above 0 and"),
    ({"early_stopping": True, "validation_fraction": 0.01}, {}, "validation_fraction is 0.01, which holds out 0 of 6"),
    ({"early_stopping": True, "validation_fraction": 0.4}, {"sample_weight": [1, 0, 0, 0, 0, 0]}, "is zero for all"),
    ({"n_iter_no_change": 0}, {}, "n_iter_no_change is 0"),
    ({"tol": -1.0}, {}, "tol is -1.0"),
    ({"class_weight": "even"}, {}, "class_weight is 'even'; it must be None, 'balanced', or a dict"),
    ({"class_weight": {"maybe": 1}}, {}, "class_weight has 'maybe'; the classes are 'no', 'yes'"),
    ({"class_weight": {"yes": -1}}, {}, "class_weight has -1 for 'yes'; it must be a finite number"),
    ({"class_weight": {"yes": 0, "no": 0}}, {}, "make all weights zero"),
])
def test_a_wrong_setting_of_classes_and_of_stopping_is_named_and_nothing_is_trained(settings, arguments, message):
    model = LogisticRegression(**settings)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, **arguments)
    assert not hasattr(model, "optimizer_")


@pytest.mark.parametrize(("settings", "message"), [
    ({"early_stopping": True}, "early_stopping is True; partial_fit trains one epoch on all samples"),
    ({"class_weight": "balanced"}, "class_weight is 'balanced', which partial_fit does not support"),
])
def test_partial_fit_refuses_what_needs_all_samples(settings, message):
    with pytest.raises(ValueError, match=message):
        LogisticRegression(**settings).partial_fit(X, Y)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_names_of_columns_are_kept_and_another_order_is_refused(kind, tmp_path):
    frames = pytest.importorskip(kind, reason=f"{kind} is not installed")
    frame = frames.DataFrame({"price": [1.0, 2, 3, 4], "age": [1, 0, 1, 0], "size": [0.5, 0.5, 1, 1]})
    y = [0, 1, 1, 0]
    model = LogisticRegression().fit(frame, y)
    assert model.feature_names_in_.tolist() == ["price", "age", "size"]
    model.save(tmp_path / "checkpoint")
    loaded = LogisticRegression.load(tmp_path / "checkpoint")
    for one in (model, loaded, LogisticRegression().partial_fit(frame, y)):
        for call in (one.predict, one.predict_proba, one.predict_log_proba, lambda X, one=one: one.score(X, y),
                     lambda X, one=one: one.partial_fit(X, y)):
            with pytest.raises(ValueError, match="Feature names must be in the same order as they were in fit"):
                call(frame[["age", "price", "size"]])
            with pytest.raises(ValueError, match="unseen at fit time:\n- cost\nFeature names seen at fit time, yet "
                                                 "now missing:\n- price"):
                call(frame.rename({"price": "cost"}) if kind == "polars" else frame.rename(columns={"price": "cost"}))
            with pytest.warns(UserWarning, match="X does not have valid feature names, but LogisticRegression was"):
                call(np.asarray(frame))
    model.fit(np.asarray(frame), y)
    assert not hasattr(model, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but LogisticRegression was fitted without"):
        model.predict(frame)


def test_names_that_are_only_partly_texts_are_refused():
    with pytest.raises(TypeError, match=r"names are of the types \['int', 'str'\]. Feature names are only supported"):
        LogisticRegression().fit(Frame([[1, 2], [3, 4]], ["price", 7]), [0, 1])
    assert not hasattr(LogisticRegression().fit(Frame([[1, 2], [3, 4]], [7, 8]), [0, 1]), "feature_names_in_")


def test_a_notebook_shows_a_model_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.utils", None)
    assert LogisticRegression(l1=0.5)._repr_html_() == "<pre>LogisticRegression(l1=0.5)</pre>"


def test_a_model_that_is_not_fitted_says_so():
    for model in MODELS:
        with pytest.raises(ValueError, match=f"this {model.__name__} is not fitted yet"):
            model().predict(X)


def test_the_loss_of_an_infinite_score_is_infinite_or_0_and_no_nan():
    X = sp.csr_array(np.array([[1], [-1], [1], [-1]], np.float32))
    batch, weights = _samples.Batches(X)(0, 4), np.array([np.inf], np.float32)
    right = np.array([1, 0, 1, 0], np.float32)
    assert _samples.linear(batch, weights, None, _samples.LOG_LOSS, right)[0] == pytest.approx(0, abs=1e-30)
    assert _samples.linear(batch, weights, None, _samples.LOG_LOSS, 1 - right)[0] == np.inf


def test_labels_of_every_kind_of_text_and_integer_survive_a_checkpoint(tmp_path):
    X, kinds = np.eye(4), [np.array([np.int64(5), np.int64(9)] * 2, object)]
    if hasattr(np.dtypes, "StringDType"):           # not in NumPy 1
        kinds.append(np.array(["a", "b"] * 2, np.dtypes.StringDType()))
    for y in kinds:
        model = LogisticRegression(epochs=20, lr=1.0).fit(X, y)
        model.save(tmp_path / "model.npz")
        assert LogisticRegression.load(tmp_path / "model.npz").predict(X).tolist() == y.tolist()


@pytest.mark.parametrize(("settings", "y", "weight", "error", "message"), [
    ({}, np.array(["a", None, "b"], object), None, ValueError, "y has None; each label must be a class"),
    ({}, np.array([1.0, np.nan, 2.0], object), None, ValueError, "y has nan; each label must be a class"),
    ({}, np.array(["a", 1, "b"], object), None, TypeError, "y has labels of the types 'int', 'str', which have no or"),
    ({"class_weight": {(0, 1): 2.0}}, [0, 1, 0], None, ValueError, r"has \(0, 1\); the classes are 0, 1$"),
    ({}, [0, 1, 0], [1j, 1, 1], TypeError, "sample_weight has dtype complex128; it must be of numbers"),
    ({}, [0, 1, 0], ["1", "1", "1"], TypeError, "sample_weight has dtype <U1; it must be of numbers"),
])
def test_wrong_labels_and_weights_are_named(settings, y, weight, error, message):
    with pytest.raises(error, match=message):
        LogisticRegression(**settings).fit(np.eye(3), y, sample_weight=weight)


def test_names_of_columns_of_arrow_are_kept_and_another_order_is_refused():
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = arrow.table({"a": [1.0, 0.0], "b": [0.0, 1.0]})
    model = LogisticRegression(epochs=1).fit(table, [0, 1])
    assert model.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="in the same order"):
        model.predict(table.select(["b", "a"]))
