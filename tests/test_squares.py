"""Squared errors of a dot product plus biases: so.losses.squared_error and so.losses.glove."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import sparseopt as so
from sparseopt import _kernels
from sparseopt.losses import squares


def batch(dtype=np.float64, width=np.int64, dim=5, k=60, seed=0):
    """Tables of 7 and 9 rows, and samples in which most rows repeat."""
    rng = np.random.default_rng(seed)
    tables = [rng.standard_normal(shape).astype(dtype) for shape in ((7, dim), (9, dim), 7, 9)]
    i, j = rng.integers(7, size=k).astype(width), rng.integers(9, size=k).astype(width)
    return SimpleNamespace(tables=tables, i=i, j=j, targets=rng.standard_normal(k), weights=rng.random(k),
                           counts=rng.random(k) * 20 + 0.01)


def squared_error(tables, i, j, targets, weights, decay, biases=1):
    A, B, a, b = (table.astype(np.longdouble) for table in tables)
    error = (A[i] * B[j]).sum(axis=1) + a[i] + b[j] - targets
    norms = (A[i] ** 2).sum(axis=1) + (B[j] ** 2).sum(axis=1) + biases * (a[i] ** 2 + b[j] ** 2)
    return float((weights * (error**2 + decay * norms)).sum() / 2)


def glove(tables, i, j, counts, x_max, alpha, decay=0):
    return squared_error(tables, i, j, np.log(counts), np.minimum(1, (counts / x_max) ** alpha), decay, biases=0)


def dense(gradients, tables):
    sums = [np.zeros(table.shape) for table in tables]
    for sum_, gradient in zip(sums, gradients, strict=True):
        np.add.at(sum_, gradient.rows, gradient.values)
    return sums


def slopes(loss, tables, h=1e-6):
    """The gradients by central differences."""
    found = []
    for which, table in enumerate(tables):
        slope = np.zeros(table.shape)
        for place in np.ndindex(table.shape):
            ends = []
            for sign in (1, -1):
                moved = [each.copy() for each in tables]
                moved[which][place] += sign * h
                ends.append(loss(moved))
            slope[place] = (ends[0] - ends[1]) / (2 * h)
        found.append(slope)
    return found


def test_gradients_are_those_of_central_differences():
    data = batch(k=30)
    for reference, ours in [
        (lambda tables: squared_error(tables, data.i, data.j, data.targets, data.weights, 0.3),
         so.losses.squared_error(*data.tables, data.i, data.j, data.targets, data.weights, 0.3)),
        (lambda tables: squared_error(tables, data.i, data.j, data.targets, 1, 0),
         so.losses.squared_error(*data.tables, data.i, data.j, data.targets)),
        (lambda tables: glove(tables, data.i, data.j, data.counts, 10, 0.75),
         so.losses.glove(*data.tables, data.i, data.j, data.counts, x_max=10)),
        (lambda tables: glove(tables, data.i, data.j, data.counts, 10, 0.5, 0.2),
         so.losses.glove(*data.tables, data.i, data.j, data.counts, x_max=10, alpha=0.5, regularization=0.2)),
    ]:
        loss, gradients = ours
        assert_allclose(loss, reference(data.tables), rtol=1e-12)
        for found, expected in zip(dense(gradients, data.tables), slopes(reference, data.tables), strict=True):
            assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [np.int32, np.int64])
@pytest.mark.parametrize(("dim", "k"), [(1, 40), (16, 0), (33, 257), (100, 700)])
def test_a_sample_has_the_gradient_rows_of_the_formula(dtype, width, dim, k):
    data = batch(dtype, width, dim, k)
    i, j, exact = data.i, data.j, 1e-12 if dtype == np.float64 else 2e-5
    A, B, a, b = (table.astype(np.float64) for table in data.tables)
    error = (A[i] * B[j]).sum(axis=1) + a[i] + b[j] - np.log(data.counts)
    slope = np.minimum(1, (data.counts / 10) ** 0.5) * error
    loss, gradients = so.losses.glove(*data.tables, i, j, data.counts, x_max=10, alpha=0.5)
    assert_allclose(loss, (slope * error).sum() / 2, rtol=exact)
    for gradient, rows, values in zip(gradients, (i, j, i, j), (slope[:, None] * B[j], slope[:, None] * A[i], slope,
                                                                slope), strict=True):
        assert gradient.values.dtype == dtype
        assert (gradient.rows == rows).all()
        assert_allclose(gradient.values, values, rtol=10 * exact, atol=10 * exact)


def bits(loss, gradients):
    return np.float64(loss).tobytes() + b"".join(gradient.values.tobytes() for gradient in gradients)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_do_not_depend_on_threads_or_the_instruction_set(dtype, monkeypatch):
    data, found = batch(dtype, dim=37, k=4000), set()
    for isa in _kernels.available:
        monkeypatch.setattr(_kernels, "losses", importlib.import_module(f"sparseopt._kernels.losses_{isa}"))
        for threads in (1, 2, 3):
            monkeypatch.setattr(squares._config, "threads_for", lambda threads=threads: threads)
            found.add(bits(*so.losses.glove(*data.tables, data.i, data.j, data.counts))
                      + bits(*so.losses.squared_error(*data.tables, data.i, data.j, data.targets, data.weights, 0.1)))
    assert len(found) == 1


def test_counts_at_the_ends_of_their_range_have_finite_targets():
    data = batch(np.float32, k=4)
    counts = np.array([1e-45, np.finfo(np.float32).max, 1e-38, 1], np.float32)
    loss, gradients = so.losses.glove(*data.tables, data.i, data.j, counts, x_max=10)
    assert_allclose(loss, glove(data.tables, data.i, data.j, counts.astype(np.float64), 10, 0.75), rtol=1e-5)
    assert np.isfinite(gradients[0].values).all()


@pytest.mark.parametrize(("changed", "error", "message"), [
    (dict(counts=[1, 0, 1]), ValueError, "counts has 0.0; counts must be above 0"),
    (dict(counts=[1, -1, 1]), ValueError, "counts has -1.0"),
    (dict(counts=[1, np.nan, 1]), ValueError, "counts has nan; it must be finite"),
    (dict(counts=[1, 1]), ValueError, r"counts has shape \(2,\); it must have shape \(3,\)"),
    (dict(counts=["a", "b", "c"]), TypeError, "counts is .*; it must be numbers"),
    (dict(i=[0, 7, 0]), IndexError, "i has row 7 at position 1; the table has 7 rows"),
    (dict(j=[0, -1, 0]), IndexError, "j has row -1 at position 1"),
    (dict(j=[0, 1]), ValueError, "j has shape"),
    (dict(i=[0.5, 1, 1]), TypeError, "i"),
    (dict(x_max=0), ValueError, "x_max is 0.0; it must be finite and above 0"),
    (dict(alpha=np.inf), ValueError, "alpha is inf"),
    (dict(words=np.ones((7, 5), np.float32)), ValueError, "contexts has dtype float64; it must have dtype float32"),
    (dict(contexts=np.ones((9, 4))), ValueError, r"contexts has shape \(9, 4\); its rows must have shape \(5,\)"),
    (dict(word_bias=np.ones(6)), ValueError, r"word_bias has shape \(6,\) and words \(7, 5\)"),
    (dict(context_bias=np.ones((9, 1))), TypeError, "context_bias is a ndarray of shape"),
])
def test_a_wrong_argument_is_named(changed, error, message):
    names = "words", "contexts", "word_bias", "context_bias"
    good = dict(zip(names, batch().tables, strict=True), i=[0, 1, 1], j=[1, 2, 3], counts=[1, 2, 3])
    so.losses.glove(**good)
    with pytest.raises(error, match=message):
        so.losses.glove(**good | changed)


def test_weights_and_regularization_are_0_or_more():
    data = batch(k=3)
    with pytest.raises(ValueError, match=r"weights has -1\.0; weights must be 0 or more"):
        so.losses.squared_error(*data.tables, data.i, data.j, data.targets, weights=[1, -1, 1])
    with pytest.raises(ValueError, match=r"regularization is -0\.1; it must be finite and 0 or more"):
        so.losses.squared_error(*data.tables, data.i, data.j, data.targets, regularization=-0.1)
