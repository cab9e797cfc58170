"""Starting values by place: their distribution, and that they depend on seed, row and column alone."""

import copy
import importlib
import pickle
import tracemalloc
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import sparseopt as so
from sparseopt import _kernels

MODULES = {isa: importlib.import_module(f"sparseopt._kernels.losses_{isa}") for isa in _kernels.available}
INITS = so.init.Normal(0.5, seed=3), so.init.Uniform(-2.0, 1.5, seed=3), so.init.Constant(0.25)
DTYPES = np.float32, np.float64
LAST = 2**63 - 1


def philox(key, row, block):
    """Philox4x32-10 as in Salmon et al., 2011, section 3.3."""
    a, b, c, d = row % 2**32, row >> 32, block, 0
    low, high = key % 2**32, key >> 32
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = second >> 32 ^ b ^ low, second % 2**32, first >> 32 ^ d ^ high, first % 2**32
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return a, b, c, d


def uniform_reference(key, rows, dim, dtype):
    if dtype is np.float32:
        return np.array([[philox(key, row, j // 4)[j % 4] >> 8 for j in range(dim)] for row in rows], dtype) / 2**24
    words = [[philox(key, row, j // 2)[j % 2 * 2:][:2] for j in range(dim)] for row in rows]
    return np.array([[(high << 20 | low >> 12) / 2**52 for high, low in row] for row in words])


def drawn(module, normal, key, numbers, dim, dtype, threads=1):
    out = np.empty((len(numbers), dim), dtype)
    module.draw(normal, key, np.array(numbers), 0, 0, 1.0, 0.0, out, threads)
    return out


def test_the_generator_gives_the_known_answer_of_its_authors():
    assert philox(0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", _kernels.available)
def test_values_are_those_of_the_published_generator(isa, dtype):
    rows, key = [0, 5, LAST, 2**32 + 7, 2**32 - 1], 0x9ABCDEF012345678
    assert_array_equal(drawn(MODULES[isa], False, key, rows, 7, dtype), uniform_reference(key, rows, 7, dtype))


@pytest.mark.parametrize("isa", _kernels.available)
def test_normal_values_are_the_inverse_of_the_distribution_function(isa):
    rows, key = list(range(300)), 99
    q = uniform_reference(key, rows, 6, np.float64) - 0.5 + 2.0**-53
    expected = np.copysign(special.ndtri(0.5 - abs(q)), q)
    assert_allclose(drawn(MODULES[isa], True, key, rows, 6, np.float64), expected, rtol=1e-14)
    words = np.array([[philox(key, row, j // 4)[j % 4] for j in range(6)] for row in rows])
    q = words.astype(np.uint32).astype(np.int32) + 0.5
    expected = np.copysign(special.ndtri(0.5 - abs(q) / 2**32), q)
    assert_allclose(drawn(MODULES[isa], True, key, rows, 6, np.float32), expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "lowest", "error"), [(np.float32, 2.0**-33, 1e-6), (np.float64, 2.0**-53, 1e-14)])
def test_far_tails_of_the_normal_distribution_are_right(dtype, lowest, error):
    p = np.geomspace(lowest, 0.07, 100_001).astype(dtype)
    expected = -special.ndtri(p.astype(np.float64))
    results = {isa: np.empty_like(p) for isa in MODULES}
    for isa, module in MODULES.items():
        module.normal_tails(p, results[isa])
    for values in results.values():
        assert_array_equal(values, results["baseline"])
        assert_allclose(values, expected, rtol=error)


@pytest.mark.parametrize("normal", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_instruction_sets_and_threads_give_the_same_bits(dtype, normal):
    rows = np.random.default_rng(0).integers(0, LAST, 3000)
    expected = drawn(MODULES["baseline"], normal, 1, rows, 37, dtype)
    for module in MODULES.values():
        for threads in (1, 2, 5):
            assert_array_equal(drawn(module, normal, 1, rows, 37, dtype, threads), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("init", INITS)
def test_a_value_depends_on_its_row_and_column_alone(init, dtype):
    rng = np.random.default_rng(1)
    table = init(range(500), 13, dtype)
    assert table.dtype == dtype
    assert table.shape == (500, 13)
    assert table.flags.c_contiguous
    for rows in (rng.permutation(500), rng.integers(0, 500, 77), [], [499], range(3, 500, 7), range(499, -1, -1),
                 np.array([4, 2], np.uint8), np.array([4, 2], np.int32), np.arange(20)[::3]):
        expected = table[np.array(rows, np.int64)]
        assert_array_equal(init(rows, 13, dtype), expected)
        assert_array_equal(init(rows, 5, dtype), expected[:, :5])
        assert_array_equal(init(rows, None, dtype), expected[:, 0])
        assert init(rows, 0, dtype).shape == (len(rows), 0)


def test_shards_that_hold_every_seventh_row_have_the_rows_of_the_whole_table():
    init = so.init.Normal(1.0, seed=5)
    table = init(range(100), 4)
    for shard in range(7):
        assert_array_equal(init(range(shard, 100, 7), 4), table[shard::7])


def test_rows_of_any_number_have_values_of_their_own():
    rows = [LAST, LAST - 1, 2**32, 0, 2**31, 2**62]
    values = so.init.Normal(1.0)(rows, 64)
    assert_array_equal(so.init.Normal(1.0)(range(LAST - 1, LAST + 1), 64), values[[1, 0]])
    assert abs(np.corrcoef(values) - np.eye(6)).max() < 0.5
    assert len(np.unique(values)) == values.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_normal_values_pass_the_tests_of_the_distribution(dtype):
    z = so.init.Normal(1.0, seed=11)(range(20_000), 64, dtype)
    n = z.size
    assert stats.kstest(z.ravel(), "norm").pvalue > 0.01
    z = z.astype(np.float64)
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n)
    for bound in (3, 4, 4.5):
        expected = 2 * n * stats.norm.sf(bound)
        assert abs((abs(z) > bound).sum() - expected) < 4 * np.sqrt(expected) + 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million_uniform_values_pass_the_tests_of_the_distribution(dtype):
    u = so.init.Uniform(-1.0, 3.0, seed=11)(range(20_000), 64, dtype)
    assert stats.kstest(u.ravel(), stats.uniform(-1, 4).cdf).pvalue > 0.01
    bits = so.init.Uniform(0.0, 2.0**(24 if dtype is np.float32 else 52))(range(20_000), 64, dtype).astype(np.int64)
    for bit in range(24 if dtype is np.float32 else 52):
        assert abs((bits >> bit & 1).mean() - 0.5) < 4.5 / np.sqrt(4 * u.size)


def test_neighbouring_rows_columns_and_seeds_are_not_correlated():
    z = so.init.Normal(1.0, seed=0)(range(20_001), 65).astype(np.float64)
    near = {"row": z[1:], "column": z[:, 1:], "seed": so.init.Normal(1.0, seed=1)(range(20_001), 65),
            "list": so.init.Normal(1.0, seed=[0])(range(20_001), 65),
            "longer list": so.init.Normal(1.0, seed=[0, 0])(range(20_001), 65)}
    for name, other in near.items():
        same = z[:other.shape[0], :other.shape[1]]
        for function in (np.array, np.abs, np.square):          # dependence without correlation shows in their sizes
            found = np.corrcoef(function(same).ravel(), function(other).ravel())[0, 1]
            assert abs(found) < 4 / np.sqrt(other.size), name


def test_seeds_are_compared_by_value_and_their_length_counts():
    table = so.init.Normal(1.0, seed=[4, 2])(range(3), 3)
    for same in ((4, 2), np.array([4, 2]), [np.int32(4), np.uint8(2)]):
        assert so.init.Normal(1.0, seed=same) == so.init.Normal(1.0, seed=[4, 2])
        assert_array_equal(so.init.Normal(1.0, seed=same)(range(3), 3), table)
    firsts = [float(so.init.Normal(1.0, seed=seed)([0], None)[0])
              for seed in (5, [5], [5, 0], [5, 0, 0, 0], [5, 0, 0, 0, 0], 2**32, [0, 1], 2**200, [2, 4], [4, 2])]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_values_are_never_the_upper_bound(dtype):
    above = float(np.nextafter(dtype(1), dtype(2)))
    assert (so.init.Uniform(1.0, above)(range(1000), 100, dtype) == 1).all()
    assert (so.init.Uniform(2.0, 2.0)(range(10), 10, dtype) == 2).all()
    third = so.init.Uniform(3e5, 3e5 + 0.1)(range(10_000), 20, dtype)
    assert third.min() >= dtype(3e5)
    assert third.max() < dtype(3e5 + 0.1)


def test_scale_multiplies_the_values():
    assert_array_equal(so.init.Normal(0.25)(range(9), 9), so.init.Normal(1.0)(range(9), 9) / 4)
    assert not so.init.Normal(0)(range(9), 9).any()


@pytest.mark.parametrize("init", INITS)
def test_an_init_is_frozen_and_survives_copies(init):
    for same in (pickle.loads(pickle.dumps(init)), copy.deepcopy(init), eval(repr(init), vars(so.init).copy())):
        assert same == init
        assert hash(same) == hash(init)
        assert_array_equal(same([3], 4), init([3], 4))
    with pytest.raises(FrozenInstanceError):
        init.seed = 1


def test_a_range_of_rows_needs_no_memory_beside_the_values():
    init = so.init.Normal(1.0)
    tracemalloc.start()
    try:
        init(range(10**6), None)
        assert tracemalloc.get_traced_memory()[1] < 4.1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: so.init.Normal(-1.0), ValueError, "scale is -1.0; it must be finite and 0 or more"),
    (lambda: so.init.Normal(np.inf), ValueError, "scale is inf"),
    (lambda: so.init.Normal("1"), TypeError, "scale is '1'"),
    (lambda: so.init.Normal(1.0, seed=-1), ValueError, "seed is -1; it must be an integer of at least 0"),
    (lambda: so.init.Normal(1.0, seed=[3, -1]), ValueError, r"seed is \[3, -1\]"),
    (lambda: so.init.Normal(1.0, seed=[]), ValueError, r"seed is \[\]"),
    (lambda: so.init.Normal(1.0, seed=True), TypeError, "seed is True; it must be an integer or a sequence of"),
    (lambda: so.init.Normal(1.0, seed=None), TypeError, "seed is None"),
    (lambda: so.init.Normal(1.0, seed=1.5), TypeError, "seed is 1.5"),
    (lambda: so.init.Normal(1.0, seed="12"), TypeError, "seed is '12'"),
    (lambda: so.init.Normal(1.0, seed=[[1]]), TypeError, r"seed is \[\[1\]\]"),
    (lambda: so.init.Normal(1.0, seed=np.random.default_rng(0)), TypeError, "seed is Generator"),
    (lambda: so.init.Uniform(1.0, 0.0), ValueError, "low is 1.0 and high is 0.0; low must be at most high"),
    (lambda: so.init.Uniform(np.nan, 0.0), ValueError, "low is nan"),
    (lambda: so.init.Uniform(0.0, np.inf), ValueError, "high is inf"),
    (lambda: so.init.Constant(np.nan), ValueError, "value is nan"),
    (lambda: so.init.Constant(None), TypeError, "value is None"),
])
def test_a_bad_init_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(("arguments", "error", "message"), [
    (([-1], 4), IndexError, r"rows has -1; it must be from 0 to 2\*\*63 - 1"),
    ((range(-1, 4), 4), IndexError, "rows has -1"),
    ((range(3, -2, -1), 4), IndexError, "rows has -1"),
    ((range(LAST, LAST + 2), 4), IndexError, f"rows has {2**63}"),
    ((np.array([2**63], np.uint64), 4), IndexError, "rows has 9223372036854775808"),
    (([[1]], 4), ValueError, r"rows have shape \(1, 1\); they must have one dimension"),
    ((3, 4), ValueError, r"rows have shape \(\)"),
    (([1.0], 4), TypeError, "rows have dtype float64; they must be integers"),
    (([True], 4), TypeError, "rows have dtype bool"),
    ((np.ma.array([1]), 4), TypeError, "rows is a masked array"),
    (([1], -1), ValueError, "dim is -1; it must be an integer of at least 0"),
    (([1], 1.0), TypeError, "dim is 1.0"),
    (([1], 4, np.float16), TypeError, "dtype is float16; tables are float32 or float64"),
    ((range(2**40), 2**40), ValueError, r"must have fewer than 2\*\*60 elements"),
])
def test_a_bad_call_is_refused(init, arguments, error, message):
    with pytest.raises(error, match=message):
        init(*arguments)


@pytest.mark.parametrize(("init", "message"), [
    (so.init.Normal(1e37), "scale is 1e.37; float32 has no values so large"),
    (so.init.Uniform(-3e38, 3e38), "their difference must be finite in float32"),
    (so.init.Uniform(-1e39, 1e39), "their difference must be finite in float32"),
    (so.init.Constant(1e39), "value is 1e.39; float32 has no values so large"),
])
def test_values_that_a_dtype_cannot_hold_are_refused(init, message):
    assert np.isfinite(init([0, 1], 3, np.float64)).all()
    with pytest.raises(ValueError, match=message):
        init([0, 1], 3)


def test_rows_describe_a_table():
    rows = so.Rows(10, 3, "float64", init=so.init.Uniform(0.0, 1.0))
    assert rows == so.Rows(10, 3, np.float64, so.init.Uniform(0.0, 1.0))
    assert rows != so.Rows(10, 3, np.float64)
    assert pickle.loads(pickle.dumps(rows)) == rows
    assert rows.shape(4) == (4, 3)
    assert so.Rows(10, None).shape(4) == (4,)
    assert_array_equal(rows.start([3, 12]), rows.init(range(13), 3, np.float64)[[3, 12]])
    assert_array_equal(so.Rows(10, None).start(range(4)), np.zeros(4, np.float32))


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: so.Rows(-1, 3), ValueError, "n_rows is -1"),
    (lambda: so.Rows(1.0, 3), TypeError, "n_rows is 1.0"),
    (lambda: so.Rows(1, "3"), TypeError, "dim is '3'"),
    (lambda: so.Rows(1, 3, np.int64), TypeError, "dtype is int64"),
    (lambda: so.Rows(1, 3, init=0.1), TypeError, "init is 0.1; it must be None or a callable"),
    (lambda: so.Rows(1, 3, init=so.init.Normal), TypeError, "init is <class .*; it must be None or a callable"),
    (lambda: so.Rows(1, 3, init=lambda *_: None).start([0]), TypeError, "init returned None; it must return an array"),
    (lambda: so.Rows(1, 3, init=lambda *_: np.zeros((1, 3))).start([0]), TypeError, "init returned dtype float64"),
    (lambda: so.Rows(1, 3, init=lambda *_: so.zeros((1, 2))).start([0]), ValueError,
     r"init returned shape \(1, 2\); it must be \(1, 3\)"),
])
def test_bad_rows_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
