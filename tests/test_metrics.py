"""Log-loss and AUC against scikit-learn and against counted pairs."""

import numpy as np
import pytest

from sparseopt import evaluation


def some_predictions(n, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(n), 2).astype(dtype)            # with ties, zeros and ones
    return rng.random(n) < p, p, rng.integers(0, 4, n).astype(float)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [10, 1000])
def test_metrics_are_scikit_learns(n, dtype, weighted):
    metrics = pytest.importorskip("sklearn.metrics")
    y, p, weight = some_predictions(n, 0, dtype)
    weight = weight if weighted else None
    assert evaluation.log_loss(y, p, weight) == pytest.approx(metrics.log_loss(y, p, sample_weight=weight), rel=1e-6)
    assert evaluation.auc(y, p, weight) == pytest.approx(metrics.roc_auc_score(y, p, sample_weight=weight), rel=1e-12)


def test_auc_is_the_share_of_pairs_in_order():
    y, p, weight = some_predictions(200, 1)
    pairs = [(weight[i] * weight[j], (p[i] > p[j]) + (p[i] == p[j]) / 2)
             for i in np.flatnonzero(y) for j in np.flatnonzero(~y)]
    expected = np.average([x for _, x in pairs], weights=[w for w, _ in pairs])
    assert evaluation.auc(y, p, weight) == pytest.approx(expected)
    assert evaluation.auc(y, -p, weight) == pytest.approx(1 - evaluation.auc(y, p, weight))


@pytest.mark.parametrize(("given", "message"), [
    (([0, 1], [0.5]), r"y has shape \(2,\) and . \(1,\)|y has shape \(2,\) and score \(1,\)"),
    (([0, 2], [0.5, 0.5]), "y has .*2.*; all of y must be 0 or 1"),
    (([0, 1], [0.5, np.nan]), "has NaN at position 1; it must have no NaN"),
    (([0, 1], [0.5, 0.5], [1, -1]), r"sample_weight has shape \(2,\) and values from -1.0 to 1.0; .* 2 finite numbers"),
    (([], []), "with n of at least 1"),
])
@pytest.mark.parametrize("metric", [evaluation.log_loss, evaluation.auc])
def test_what_no_metric_takes_is_named(metric, given, message):
    with pytest.raises(ValueError, match=message):
        metric(*given)


def test_log_loss_takes_probabilities_and_auc_both_classes():
    with pytest.raises(ValueError, match=r"p has values from -3\.0 to 0\.5; probabilities must"):
        evaluation.log_loss([0, 1], [-3, 0.5])
    with pytest.raises(ValueError, match=r"y has only one class .* it must have both"):
        evaluation.auc([1, 1], [0.1, 0.5])
