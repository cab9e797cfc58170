"""The losses of linear models and factorization machines: beside dense sums in float64, and finite differences."""

import importlib

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt import _kernels, _samples

KINDS = [("log_loss", 1), ("squared_error", 1), ("log_loss", 3)]


def problem(k=1, dim=3, dtype=np.float64, index=np.int32, n=30, n_features=12, loss="log_loss"):
    """Tables, X with columns that repeat in a row, y and weights of the samples."""
    rng = np.random.default_rng(0)
    each = rng.integers(0, 7, n)
    columns = [rng.integers(n_features - 2, size=size) for size in each]        # the last features never occur
    X = sp.csr_array((n, n_features), dtype=dtype)
    X.data = rng.standard_normal(each.sum()).astype(dtype)
    X.indices, X.indptr = np.concatenate(columns).astype(index), np.append(0, np.cumsum(each)).astype(index)
    shape = (n_features,) if k == 1 else (n_features, k)
    tables = [rng.standard_normal(size).astype(dtype) for size in (shape, (n_features, k * dim), k)]
    y = rng.standard_normal(n) if loss == "squared_error" else rng.integers(max(k, 2), size=n)
    return tables, X, y, rng.uniform(0, 2, n)


def losses_of(weights, factors, intercept, X, y, weight, loss):
    """The sum of the losses in float64, with the sum over pairs taken pair by pair."""
    weights, factors, intercept = (table.astype(np.float64) for table in (weights, factors, intercept))
    X = X.toarray().astype(np.float64)
    z = X @ weights.reshape(len(weights), -1) + intercept
    for c, vectors in enumerate(np.split(factors, z.shape[1], axis=1)):
        z[:, c] += np.einsum("bi,bj,ij->b", X, X, np.triu(vectors @ vectors.T, 1))
    if loss == "squared_error":
        return (weight * (z[:, 0] - y) ** 2 / 2).sum()
    if z.shape[1] == 1:
        return (weight * (np.logaddexp(0, z[:, 0]) - y * z[:, 0])).sum()
    return (weight * (np.log(np.exp(z).sum(axis=1)) - z[range(len(y)), y])).sum()


def dense(gradient, shape):
    if not isinstance(gradient, so.RowGradient):
        return gradient
    out = np.zeros(shape)
    np.add.at(out, gradient.rows, gradient.values)
    return out


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dim", [0, 1, 3, 8, 11])
@pytest.mark.parametrize(("loss", "k"), KINDS)
def test_the_gradients_are_the_finite_differences_of_the_sum_of_the_losses(loss, k, dim, index):
    tables, X, y, weight = problem(k, dim, index=index, loss=loss)
    weights, _, intercept = tables
    if dim:
        total, gradients = so.losses.factorization_machine(*tables, X, y, loss=loss, sample_weight=weight)
    else:
        total, (first, last) = so.losses.linear(weights, intercept, X, y, loss=loss, sample_weight=weight)
        gradients = first, None, last
    assert total == pytest.approx(losses_of(*tables, X, y, weight, loss), rel=1e-12)
    for table, gradient in zip(tables, gradients, strict=True):
        if gradient is None:
            continue
        numeric = np.empty(table.shape)
        for place in np.ndindex(table.shape):
            ends = []
            for change in (1e-6, -2e-6):
                table[place] += change
                ends.append(losses_of(*tables, X, y, weight, loss))
            table[place] += 1e-6
            numeric[place] = (ends[0] - ends[1]) / 2e-6
        assert_allclose(dense(gradient, table.shape), numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("loss", "k"), KINDS)
def test_float32_comes_near_float64(loss, k):
    exact = problem(k, 5, np.float64, loss=loss)
    near = problem(k, 5, np.float32, loss=loss)
    results = [so.losses.factorization_machine(*tables, X, y, loss=loss) for tables, X, y, _ in (exact, near)]
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    for table, one, other in zip(near[0], results[0][1], results[1][1], strict=True):
        assert (other.values if isinstance(other, so.RowGradient) else other).dtype == np.float32
        assert_allclose(dense(other, table.shape), dense(one, table.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("merged", [False, True])
def test_rows_are_the_samples_of_a_batch(merged):
    tables, X, y, weight = problem(1, 4)
    rows = np.array([7, 3, 3, 29])
    call = so.losses.factorization_machine if merged else so.losses.linear
    tables = tables if merged else [tables[0], tables[2]]
    loss, gradients = call(*tables, X, y, rows=rows, sample_weight=weight)
    expected, others = call(*tables, X[rows], y[rows], sample_weight=weight[rows])
    assert loss == expected
    for table, one, other in zip(tables, gradients, others, strict=True):
        assert_array_equal(dense(one, table.shape), dense(other, table.shape))
    loss, gradients = call(*tables, X, y, rows=[])
    assert loss == len(gradients[0].rows) == 0
    assert gradients[-1].tolist() == [0]


def test_many_features_get_columns_of_their_own():
    rng = np.random.default_rng(0)
    n, n_features = 5000, 2**32 - 1
    X = sp.csr_array((n, n_features), dtype=np.float32)
    X.data = rng.standard_normal(4 * n).astype(np.float32)
    X.indices, X.indptr = rng.integers(n_features, size=4 * n), np.arange(0, 4 * n + 1, 4)
    X.indices[:2] = 0, n_features - 1
    features, values, columns, bounds = _samples.Batches(X)(0, n)
    assert_array_equal(features[columns], X.indices)
    assert len(np.unique(features)) == len(features)
    assert_array_equal(values, X.data)
    assert_array_equal(bounds, X.indptr)
    with pytest.raises(ValueError, match="X has 4294967296 features; it must have at most 4294967295"):
        _samples.Batches(sp.csr_array((1, 2**32), dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("loss", "k"), KINDS)
def test_every_instruction_set_gives_the_same_bits(loss, k, dtype, monkeypatch):
    (weights, factors, intercept), X, y, weight = problem(k, 11, dtype, n=700, n_features=90, loss=loss)
    found = set()
    for isa in _kernels.available:
        monkeypatch.setattr(_kernels, "losses", importlib.import_module(f"sparseopt._kernels.losses_{isa}"))
        total, gradients = so.losses.factorization_machine(weights, factors, intercept, X, y, loss=loss,
                                                           sample_weight=weight)
        found.add((total, *((g.rows.tobytes() + g.values.tobytes()) if isinstance(g, so.RowGradient) else g.tobytes()
                            for g in gradients)))
    assert len(found) == 1


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"weights": np.zeros(12, np.int64)}, TypeError, "weights is a ndarray of shape .* and dtype int64"),
    ({"weights": np.zeros(11)}, ValueError, "X must have as many columns as weights rows"),
    ({"intercept": np.zeros(2)}, ValueError, r"intercept has shape \(2,\)"),
    ({"intercept": np.zeros(1, np.float32)}, ValueError, "intercept has dtype float32; it must have dtype float64"),
    ({"X": np.zeros((30, 12))}, TypeError, "X is a ndarray; it must be a scipy sparse array"),
    ({"y": np.zeros(29)}, ValueError, r"y has shape \(29,\); it must have shape \(30,\)"),
    ({"y": np.full(30, 2)}, ValueError, "y has 2.0; with weights of shape .* it must be an integer from 0 to 1"),
    ({"y": np.full(30, np.nan), "loss": "squared_error"}, ValueError, "y has nan; it must be finite"),
    ({"loss": "hinge"}, ValueError, "loss is 'hinge'; it must be one of 'log_loss', 'squared_error'"),
    ({"weights": np.zeros((12, 2)), "intercept": None, "loss": "squared_error"}, ValueError, "must have one dimension"),
    ({"rows": [30]}, IndexError, "rows has row 30 at position 0"),
    ({"sample_weight": np.full(30, np.inf)}, ValueError, "sample_weight has inf"),
])
def test_a_bad_argument_is_refused_by_name(change, error, message):
    tables, X, y, _ = problem()
    arguments = {"weights": tables[0], "intercept": tables[2], "X": X, "y": y} | change
    with pytest.raises(error, match=message):
        so.losses.linear(**arguments)


def test_factors_of_another_shape_are_refused():
    (weights, factors, intercept), X, y, _ = problem(3, 2)
    for wrong in (factors[:-1], factors[:, :-1], factors.astype(np.float32)):
        with pytest.raises(ValueError, match="factors has shape"):
            so.losses.factorization_machine(weights, wrong, intercept, X, y)


@pytest.mark.parametrize(("part", "at", "value"), [("indices", 3, 12), ("indices", 3, -1), ("indptr", 5, 10**6)])
def test_a_number_out_of_range_in_X_is_an_error(part, at, value):
    tables, X, y, _ = problem()
    getattr(X, part)[at] = value
    with pytest.raises((IndexError, ValueError), match="X has"):
        so.losses.linear(tables[0], tables[2], X, y)


def test_a_batch_may_repeat_rows_until_it_has_more_entries_than_X():
    tables, X, y, weight = problem()
    once, _ = so.losses.factorization_machine(*tables, X, y, sample_weight=weight, rows=[3])
    often, _ = so.losses.factorization_machine(*tables, X, y, sample_weight=weight, rows=[3] * 100)
    assert often == pytest.approx(100 * once)
    X.indptr[4] = X.nnz + 1
    with pytest.raises(ValueError, match="X has an indptr that falls"):
        so.losses.linear(tables[0], None, X, y, rows=[3] * 100)


def test_arrays_with_gaps_and_off_their_alignment_are_read_as_they_are():
    tables, X, y, _ = problem(3)
    loss, _ = so.losses.factorization_machine(*tables, X, y)
    with_gaps = [np.repeat(table, 2, axis=-1)[..., ::2] for table in tables]
    shifted = [np.frombuffer(b"." + table.tobytes(), np.uint8)[1:].view(table.dtype).reshape(table.shape)
               for table in tables]
    assert not shifted[0].flags.aligned
    for others in (with_gaps, shifted):
        assert so.losses.factorization_machine(*others, X, y)[0] == loss


@pytest.mark.parametrize(("k", "label"), [(1, 1 - 1e-12), (1, 2), (3, 3), (3, 2 + 1e-9)])
def test_a_class_is_an_integer_before_it_is_rounded(k, label):
    tables, X, y, _ = problem(k, dtype=np.float32)
    with pytest.raises(ValueError, match=f"integer from 0 to {max(k, 2) - 1}"):
        so.losses.linear(tables[0], None, X, np.append(y[:-1], label))


def test_masked_targets_and_weights_without_columns_are_refused():
    (weights, *_), X, y, _ = problem()
    with pytest.raises(TypeError, match="y is a masked array"):
        so.losses.linear(weights, None, X, np.ma.array(y, mask=y == 0))
    with pytest.raises(ValueError, match="at least one column"):
        so.losses.linear(np.empty((12, 0)), None, X, y)
