"""scikit-learn's own checks of estimators, and models as parts of its tools. None of the checks is expected to fail."""

import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

import sklearn
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import make_blobs
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression as TheirLogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, parametrize_with_checks

from sparseopt import datasets, evaluation
from sparseopt.evaluation import TimeSplit
from sparseopt.models import (
    FactorizationMachineClassifier,
    FactorizationMachineRegressor,
    ImplicitFactorization,
    LogisticRegression,
    MatrixFactorization,
)

# The checks train on some hundred samples, which is one batch: the models need more epochs or a higher rate.
ESTIMATORS = [LogisticRegression(epochs=100), LogisticRegression(optimizer="Adam", lr=0.1, missed="replay", epochs=50),
              FactorizationMachineClassifier(optimizer="Adam", lr=0.1, epochs=50),
              FactorizationMachineRegressor(epochs=100)]

with warnings.catch_warnings():         # that they are no BaseEstimator, which would need scikit-learn to import them
    warnings.filterwarnings("ignore", "Estimator .* does not inherit", UserWarning)
    with_checks = parametrize_with_checks(ESTIMATORS)


@with_checks
def test_an_estimator_is_one_in_scikit_learns_sense(estimator, check):
    check(estimator)


def test_tags_say_what_the_models_are():
    assert is_classifier(LogisticRegression())
    assert is_classifier(FactorizationMachineClassifier())
    assert is_regressor(FactorizationMachineRegressor())
    assert get_tags(LogisticRegression()).classifier_tags.multi_class
    assert all(get_tags(estimator).input_tags.sparse and get_tags(estimator).target_tags.required
               for estimator in ESTIMATORS)


def test_a_pipeline_from_a_hasher_is_searched_and_cross_validated():
    rng = np.random.default_rng(0)
    user, site = rng.integers(20, size=(2, 1500))
    rows = [[f"user={u}", f"site={s}"] for u, s in zip(user, site, strict=True)]
    y = np.where((user % 2 == 0) & (site % 3 > 0), "click", "none")
    pipeline = make_pipeline(FeatureHasher(n_features=2**12, input_type="string"), LogisticRegression(epochs=10))
    search = GridSearchCV(pipeline, {"logisticregression__l1": [0.0, 1e6]}, cv=3, scoring="roc_auc").fit(rows, y)
    assert search.best_params_ == {"logisticregression__l1": 0.0}
    assert search.best_score_ > 0.98
    # of none: 0.64
    assert cross_val_score(clone(search.best_estimator_), rows, y, scoring="neg_log_loss").min() > -0.5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_names_of_columns_are_checked_as_scikit_learn_does(estimator):
    pytest.importorskip("pandas", reason="pandas is not installed")
    check_dataframe_column_names_consistency(type(estimator).__name__, estimator)


@pytest.mark.parametrize("centers", [2, 3, 5])
def test_logistic_regression_comes_to_the_probabilities_of_scikit_learns(centers):
    X, y = make_blobs(300, n_features=4, centers=centers, cluster_std=8, random_state=0)
    X = X / X.std(axis=0)
    ours = LogisticRegression(optimizer="Adam", lr=0.02, epochs=1500, batch_size=300, shuffle=False).fit(X, y)
    theirs = TheirLogisticRegression(C=1e10, tol=1e-8, max_iter=10_000).fit(X, y)
    assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-3)
    assert_allclose(ours.predict_log_proba(X), np.log(ours.predict_proba(X)), atol=1e-9)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.intercept_.shape == theirs.intercept_.shape
    assert ours.decision_function(X).shape == theirs.decision_function(X).shape
    assert (ours.predict(X) == theirs.predict(X)).mean() > 0.99


@pytest.mark.parametrize("model", [LogisticRegression, FactorizationMachineClassifier])
@pytest.mark.parametrize("class_weight", ["balanced", {"a": 3.0, "c": 0.25}])
def test_weights_of_classes_are_the_weights_of_samples_that_scikit_learn_computes(model, class_weight):
    X, y = make_blobs([60, 20, 90], n_features=4, random_state=0)
    y = np.array(["a", "b", "c"])[y]
    theirs = compute_sample_weight(class_weight if class_weight == "balanced" else {"b": 1.0, **class_weight}, y)
    by_class = model(class_weight=class_weight).fit(X, y)
    by_sample = model().fit(X, y, theirs)
    assert_array_equal(by_class.coef_, by_sample.coef_)
    both = model(class_weight=class_weight).fit(X, y, np.arange(170.0))
    assert_array_equal(both.coef_, model().fit(X, y, np.arange(170.0) * theirs).coef_)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_weights_of_samples_are_routed_to_the_methods_that_request_them():
    rng = np.random.default_rng(0)
    X, y, weight = rng.standard_normal((90, 3)), np.arange(90) % 3 > 0, rng.uniform(size=90)
    seen = []

    class Noted(LogisticRegression):
        def fit(self, X, y, sample_weight=None, callback=None):
            seen.append(("fit", sample_weight))
            return super().fit(X, y, sample_weight, callback)

        def score(self, X, y, sample_weight=None):
            seen.append(("score", sample_weight))
            return super().score(X, y, sample_weight)

    model = Noted().set_fit_request(sample_weight=True).set_score_request(sample_weight="w")
    cross_validate(model, X, y, cv=3, params={"sample_weight": weight, "w": 2 * weight})
    assert [name for name, _ in seen] == ["fit", "score"] * 3
    assert_array_equal(np.sort(np.concatenate([w for name, w in seen if name == "score"])), np.sort(2 * weight))
    assert [len(w) for name, w in seen if name == "fit"] == [60] * 3
    with pytest.raises(ValueError, match=r"sample_weight.* are passed.* but are not explicitly set as requested"):
        cross_validate(Noted(), X, y, params={"sample_weight": weight})
    pipeline = make_pipeline(clone(model).set_partial_fit_request(classes=True))
    assert pipeline.get_metadata_routing().consumes("fit", ["sample_weight", "callback"]) == {"sample_weight"}


@pytest.mark.usefixtures("routing")
def test_a_request_for_what_a_method_does_not_have_is_an_error():
    with pytest.raises(TypeError, match=r"set_partial_fit_request\(\) got an unexpected keyword argument 'classes'"):
        FactorizationMachineRegressor().set_partial_fit_request(classes=True)


def test_requests_need_the_routing_that_scikit_learn_must_be_told_of():
    with pytest.raises(RuntimeError, match="only available when metadata routing is enabled"):
        LogisticRegression().set_fit_request(sample_weight=True)


def test_a_notebook_shows_a_model_as_scikit_learn_draws_it():
    html = make_pipeline(FeatureHasher(), LogisticRegression(l1=0.5))._repr_html_()
    assert "LogisticRegression(l1=0.5)" in html
    assert "sk-container" in LogisticRegression()._repr_html_()


# Recommenders. MovieLens is only for those who have it.

MOVIELENS = Path(__file__).parents[1].parent / "shared" / "data" / "movielens-latest-small" / "ratings.csv"


def bought(n_users=60, seed=0):
    """Users buy every other item, in random order; ids are texts."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), 12)
    items = np.concatenate([rng.permutation(20)[:12] * 2 + user % 2 for user in range(n_users)])
    return datasets.interactions({"u": [f"u{user:03}" for user in users], "i": [f"i{item:02}" for item in items],
                                  "t": rng.permutation(len(users))}, "u", "i", time="t")


@pytest.mark.parametrize("make", [lambda: ImplicitFactorization(dim=8), lambda: MatrixFactorization(dim=8, epochs=3)])
def test_a_recommender_is_cross_validated_by_time(make):
    pairs = bought()
    if isinstance(make(), MatrixFactorization):
        pairs = replace(pairs, values=3 + np.sin(np.arange(len(pairs))), counts=False)
    cv = TimeSplit(n_splits=3, test_size=2)
    by_hand = [make().fit(pairs[train]).score(pairs[test]) for train, test in cv.split(pairs)]
    assert np.isfinite(by_hand).all()
    assert cross_val_score(make(), pairs, cv=cv, error_score="raise").tolist() == by_hand
    found = cross_validate(make_pipeline(make()), pairs, cv=cv, return_estimator=True)
    assert found["test_score"].tolist() == by_hand
    assert found["estimator"][0][0].user_ids_[0] == "u000"


def test_a_search_picks_what_a_loop_by_hand_picks_and_answers_in_ids():
    pairs = bought()
    grid, cv = {"dim": [1, 8], "epochs": [0, 10]}, TimeSplit(n_splits=2, test_size=2)
    search = GridSearchCV(ImplicitFactorization(), grid, cv=cv, error_score="raise").fit(pairs)
    by_hand = {}
    for dim, epochs in product(*grid.values()):
        model = ImplicitFactorization(dim=dim, epochs=epochs)
        by_hand[dim, epochs] = np.mean([model.fit(pairs[train]).score(pairs[test]) for train, test in cv.split(pairs)])
    assert search.cv_results_["mean_test_score"].tolist() == list(by_hand.values())
    assert tuple(search.best_params_.values()) == max(by_hand, key=by_hand.get)
    assert search.best_params_["epochs"] == 10
    assert search.best_estimator_.recommend("u003", n=2, seen=pairs)[0].tolist()[0].startswith("i")
    with sklearn.config_context(enable_metadata_routing=True):
        assert GridSearchCV(ImplicitFactorization(), grid, cv=cv).fit(pairs).best_params_ == search.best_params_


@pytest.mark.parametrize("X", [bought(), bought().matrix()])
def test_a_split_that_cuts_users_apart_is_an_error(X):
    with pytest.raises(ValueError, match=r"cuts? users apart"):
        cross_val_score(ImplicitFactorization(epochs=1), X, error_score="raise")
    if not sp.issparse(X):                      # then no training can be done, which scikit-learn reports as an error
        with pytest.raises(ValueError, match=r"(?s)All the 5 fits failed.*cut users apart: evaluation.TimeSplit"):
            cross_val_score(ImplicitFactorization(epochs=1), X)


def test_a_search_over_films_picks_what_a_loop_by_hand_picks():
    if not MOVIELENS.exists():
        pytest.skip(f"{MOVIELENS} is not there: ml-latest-small of grouplens.org/datasets/movielens")
    liked, cv = datasets.read_ratings(MOVIELENS).chosen(), TimeSplit(test_size=0.2)
    settings = [(0.01, 4), (0.1, 4), (0.01, 1)]
    grid = [{"regularization": [a], "epochs": [b]} for a, b in settings]
    search = GridSearchCV(ImplicitFactorization("bpr", dim=8), grid, cv=cv, error_score="raise", refit=False).fit(liked)
    train, test = evaluation.train_test_split_by_time(liked.users, liked.times, 0.2)
    train, test = liked.matrix(train), liked.matrix(test)
    models = (ImplicitFactorization("bpr", dim=8, regularization=a, epochs=b).fit(train) for a, b in settings)
    by_hand = [evaluation.evaluate(model, train, test)["ndcg"] for model in models]
    assert search.cv_results_["mean_test_score"].tolist() == pytest.approx(by_hand, abs=1e-9)
    assert search.best_index_ == int(np.argmax(by_hand))
