"""scikit-learn's own checks of estimators, and models as parts of its tools. None of the checks is expected to fail."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone, is_classifier, is_regressor
from sklearn.feature_extraction import FeatureHasher
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparseopt.models import FactorizationMachineClassifier, FactorizationMachineRegressor, LogisticRegression

# The checks train on some hundred samples, which is one batch: a regressor's weights need more epochs.
ESTIMATORS = [LogisticRegression(), LogisticRegression(optimizer="Adam", missed="replay"),
              FactorizationMachineClassifier(), FactorizationMachineRegressor(epochs=100)]

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
    assert not get_tags(LogisticRegression()).classifier_tags.multi_class
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
