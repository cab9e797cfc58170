"""The losses of skip-gram and CBOW: against finite differences and NumPy in float64, and the same bits always."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import sparseopt as so
from sparseopt import _kernels
from sparseopt.losses import cbow, skip_gram

OFFSETS = [0, 3, 3, 4, 9]           # the second bag is empty
both = pytest.mark.parametrize("loss", [skip_gram, cbow])


def batch(dim, dtype=np.float64, numbers=np.int64, negatives=3):
    rng = np.random.default_rng(dim)
    words, contexts = (rng.normal(0, 0.5, (n, dim)).astype(dtype) for n in (7, 8))
    inputs = rng.integers(7, size=11).astype(numbers)
    outputs = rng.integers(8, size=(5, 1 + negatives)).astype(numbers)
    outputs[2, 1] = outputs[2, 0]                           # a negative that is the word itself
    outputs[3, 1] = (outputs[3, 0] + 1) % 8                 # other negatives may repeat
    return words, contexts, inputs, outputs


def reference(loss, words, contexts, inputs, outputs, offsets):
    """The loss in NumPy, one bag after the other."""
    total = 0.0
    for bag, (t, *negatives) in zip(np.split(inputs, offsets[1:]), outputs, strict=True):
        vectors = words[bag]
        if loss is cbow:
            vectors = vectors.mean(axis=0, keepdims=True) if len(bag) else np.zeros((1, words.shape[1]))
        total += np.log1p(np.exp(-vectors @ contexts[t])).sum()
        total += sum(np.log1p(np.exp(vectors @ contexts[n])).sum() for n in negatives if n != t)
    return total


def summed(gradient, table):
    dense = np.zeros(table.shape)
    np.add.at(dense, gradient.rows, gradient.values)
    return dense


@both
@pytest.mark.parametrize("dim", [1, 3, 16, 20, 37])
@pytest.mark.parametrize("negatives", [0, 1, 3, 5])
def test_gradients_are_those_of_finite_differences(loss, dim, negatives):
    if negatives:
        tables, rest = batch(dim, negatives=negatives)[:2], (*batch(dim, negatives=negatives)[2:], OFFSETS)
    else:
        tables, rest = batch(dim)[:2], (batch(dim)[2], batch(dim)[3][:, :1], OFFSETS)
    value, gradients = loss(*tables, *rest)
    assert value == pytest.approx(reference(loss, *tables, *rest), rel=1e-12)
    for table, gradient in zip(tables, gradients, strict=True):
        expected = np.zeros(table.shape)
        for place in np.ndindex(table.shape):
            kept, ends = table[place], []
            for h in (1e-5, -1e-5):
                table[place] = kept + h
                ends.append(reference(loss, *tables, *rest))
            table[place] = kept
            expected[place] = (ends[0] - ends[1]) / 2e-5
        assert_allclose(summed(gradient, table), expected, rtol=1e-6, atol=1e-8)


@both
@pytest.mark.parametrize("numbers", [np.int32, np.int64])
@pytest.mark.parametrize("dim", [1, 15, 100, 385])
def test_float32_is_float64_rounded(loss, numbers, dim):
    single, double = batch(dim, np.float32, numbers), batch(dim)
    value, gradients = loss(*single, OFFSETS)
    expected, of = loss(*(array.astype(np.float64) for array in single[:2]), *double[2:], OFFSETS)
    assert value == pytest.approx(expected, rel=1e-5)
    for one, other in zip(gradients, of, strict=True):
        assert one.values.dtype == np.float32
        assert_array_equal(one.rows, other.rows)
        assert_allclose(one.values, other.values, rtol=1e-3, atol=1e-5)


@both
def test_without_offsets_each_input_is_a_bag(loss):
    words, contexts, inputs, outputs = batch(9)
    alone = loss(words, contexts, inputs[:5], outputs)
    bags = loss(words, contexts, inputs[:5], outputs, np.arange(5))
    assert alone[0] == bags[0]
    for one, other in zip(alone[1], bags[1], strict=True):
        assert_array_equal(one.values, other.values)


def test_bags_of_one_word_are_the_same_in_both_models():
    words, contexts, inputs, outputs = batch(30)
    one, other = (loss(words, contexts, inputs[:5], outputs) for loss in (skip_gram, cbow))
    assert one[0] == pytest.approx(other[0])
    for first, second in zip(one[1], other[1], strict=True):
        assert_allclose(first.values, second.values, rtol=1e-12)


@both
def test_scores_of_any_size_give_finite_losses_and_slopes(loss):
    words, contexts = np.array([[1e4], [-1e4]], np.float32), np.array([[1e4], [-1e4]], np.float32)
    value, gradients = loss(words, contexts, [0, 1, 0], [[0, 1], [0, 1], [1, 0]])
    assert value == pytest.approx(2 * 2e8 + 0)
    assert all(np.isfinite(gradient.values).all() for gradient in gradients)


@both
def test_a_score_of_minus_infinity_costs_a_negative_nothing(loss):
    words, contexts = np.full((1, 2), 1e30, np.float32), np.full((2, 2), 1e30, np.float32)
    contexts[1] = -1e30
    total, _ = loss(words, contexts, [0], [[0, 1]])
    assert total == pytest.approx(0, abs=1e-6)


@both
def test_an_empty_batch_has_no_loss_and_no_rows(loss):
    words, contexts, _, _ = batch(4)
    value, gradients = loss(words, contexts, [], np.empty((0, 3), int))
    assert value == 0
    assert [gradient.values.shape for gradient in gradients] == [(0, 4), (0, 4)]


def large_batch(dtype):
    rng = np.random.default_rng(5)
    tables = [rng.normal(0, 0.3, (300, 50)).astype(dtype) for _ in range(2)]
    offsets = np.sort(rng.integers(1500, size=400))
    offsets[0] = 0
    return *tables, rng.integers(300, size=1500), rng.integers(300, size=(400, 6)), offsets


def bits(result):
    value, gradients = result
    return value, *(gradient.values.tobytes() for gradient in gradients)


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_and_instruction_sets_change_no_bit(loss, dtype, monkeypatch):
    arguments, before, found = large_batch(dtype), so.get_num_threads(), set()
    for isa in _kernels.available:
        monkeypatch.setattr(_kernels, "losses", importlib.import_module(f"sparseopt._kernels.losses_{isa}"))
        for threads in (1, 2, 3):
            so.set_num_threads(threads)
            found.add(bits(loss(*arguments)))
    so.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.parametrize(("change", "error", "said"), [
    ({"words": [[1.0]]}, TypeError, "words is a list"),
    ({"contexts": np.zeros((8, 5))}, ValueError, r"contexts has shape \(8, 5\); its rows must have shape \(4,\)"),
    ({"contexts": np.zeros((8, 4), np.float32)}, ValueError, "contexts has dtype float32; it must have dtype float64"),
    ({"inputs": [0, 7, 0]}, IndexError, "inputs has row 7 at position 1; the table has 7 rows"),
    ({"inputs": [0.5, 1, 2]}, TypeError, "inputs"),
    ({"inputs": [[0]]}, ValueError, r"inputs has shape \(1, 1\)"),
    ({"outputs": [[0, -1]] * 3}, IndexError, "outputs has row -1 at position 1"),
    ({"outputs": [[0, 1]]}, ValueError, r"outputs has shape \(1, 2\); with 3 bags it must have shape \(3, 1 \+ neg"),
    ({"outputs": np.empty((3, 0), int)}, ValueError, r"outputs has shape \(3, 0\); with 3 bags"),
    ({"outputs": [0, 1, 2]}, ValueError, r"outputs has shape \(3,\)"),
    ({"offsets": [0, 2, 1]}, ValueError, "they must be sorted, begin with 0, and be at most 3"),
    ({"offsets": [1, 2, 3]}, ValueError, "offsets are"),
    ({"offsets": [0, 2, 4]}, ValueError, "offsets are"),
])
@both
def test_bad_arguments_are_named(loss, change, error, said):
    arguments = {"words": np.zeros((7, 4)), "contexts": np.zeros((8, 4)), "inputs": [0, 1, 2],
                 "outputs": [[0, 1]] * 3, "offsets": [0, 1, 2]}
    with pytest.raises(error, match=said):
        loss(**{**arguments, **change})
