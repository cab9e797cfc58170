"""Tables start on a cache line, random tables are reproducible and have the distribution that their function names, and
steps do not ask the system for memory again and again."""

import platform
import subprocess
import sys

import numpy as np
import pytest

import sparseopt as so

FUNCTIONS = {"empty": so.empty, "zeros": so.zeros, "normal": so.normal, "uniform": so.uniform}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@each_function
@each_dtype
@pytest.mark.parametrize("shape", [1, 7, (3, 5), (1, 1), (1000, 64), (129, 3), (2, 3, 4), (1 << 19, 2)], ids=str)
def test_an_array_starts_on_a_cache_line_and_is_ready_for_an_optimizer(function, dtype, shape):
    array = function(shape, dtype)
    assert array.ctypes.data % 64 == 0
    assert array.shape == ((shape,) if isinstance(shape, int) else shape)
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned


@each_function
def test_float32_is_the_default(function):
    assert function((3, 2)).dtype == np.float32


@each_function
@pytest.mark.parametrize("shape", [0, (0, 4), (4, 0), (0, 0)], ids=str)
def test_an_array_may_have_no_elements(function, shape):
    array = function(shape)
    assert array.shape == ((0,) if shape == 0 else shape)
    assert array.size == 0


@each_function
@pytest.mark.parametrize("shape", [[3, 2], (np.int64(3), np.int32(2))], ids=repr)
def test_a_shape_may_be_a_list_and_of_numpys_integers(function, shape):
    assert function(shape).shape == (3, 2)


@each_function
@pytest.mark.parametrize(("given", "dtype"), [("float32", np.float32), ("f8", np.float64), (float, np.float64),
                                              (np.dtype(np.float32), np.float32)], ids=str)
def test_a_dtype_may_be_given_in_numpys_ways(function, given, dtype):
    assert function(3, given).dtype == dtype


def test_arrays_do_not_share_memory():
    first, second = so.zeros(3), so.zeros(3)
    first += 1
    assert second.tolist() == [0, 0, 0]
    assert first.tolist() == [1, 1, 1]


def test_zeros_are_zeros_where_memory_was_used_before():
    so.empty((500, 64))[...] = 7
    assert not so.zeros((500, 64)).any()


@pytest.mark.parametrize("function", [so.normal, so.uniform])
@each_dtype
def test_a_seed_decides_every_bit(function, dtype):
    first = function((50, 3), dtype, seed=5)
    assert function((50, 3), dtype, seed=5).tobytes() == first.tobytes()
    assert function((50, 3), dtype, seed=np.random.SeedSequence(5)).tobytes() == first.tobytes()
    assert function((50, 3), dtype, seed=np.random.default_rng(5)).tobytes() == first.tobytes()
    assert function((50, 3), dtype, seed=6).tobytes() != first.tobytes()
    assert function((50, 3), dtype).tobytes() != function((50, 3), dtype).tobytes()


@pytest.mark.parametrize("function", [so.normal, so.uniform])
def test_a_generator_goes_on_where_it_was(function):
    rng = np.random.default_rng(5)
    first, second = function(50, seed=rng), function(50, seed=rng)
    assert first.tobytes() == function(50, seed=5).tobytes()
    assert second.tobytes() != first.tobytes()


@each_dtype
def test_normal_draws_are_numpys_times_the_scale(dtype):
    drawn = np.random.default_rng(3).standard_normal((40, 5), dtype)
    assert np.array_equal(so.normal((40, 5), dtype, seed=3), drawn)
    assert np.array_equal(so.normal((40, 5), dtype, scale=0.25, seed=3), drawn * dtype(0.25))
    assert not so.normal((40, 5), dtype, scale=0, seed=3).any()
    assert np.array_equal(so.normal((40, 5), dtype, scale=np.float64(0.25), seed=3), drawn * dtype(0.25))


@each_dtype
def test_uniform_draws_are_numpys_stretched_to_the_interval(dtype):
    drawn = np.random.default_rng(3).random((40, 5), dtype)
    assert np.array_equal(so.uniform((40, 5), dtype, seed=3), drawn * 2 - 1)
    assert np.array_equal(so.uniform((40, 5), dtype, low=0, high=4, seed=3), drawn * 4)
    assert (so.uniform(9, dtype, low=0.5, high=0.5) == 0.5).all()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (1000.0, 1001.0), (-1001.0, -1000.0), (1.0, 1.0 + 2**-20)])
@each_dtype
def test_uniform_draws_are_below_high(low, high, dtype):
    # If the interval is small for float32, rounding moves draws near `high` to `high` itself.
    array = so.uniform(200_000, dtype, low=low, high=high, seed=0)
    assert array.min() >= low
    assert array.max() < high
    assert array.max() - array.min() > 0.75 * (high - low)


STEPS = """
import resource
import numpy as np
import sparseopt as so

table = so.zeros((1_000_000, 1))
optimizer = so.SGD(table, lr=0.1, nonfinite="allow")
rng = np.random.default_rng(0)
gradients = [so.RowGradient(rng.integers(1_000_000, size=SIZE), np.ones((SIZE, 1), np.float32)) for _ in range(4)]


def step_all(times):
    for gradient in times * gradients:
        optimizer.step(gradient)


step_all(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step_all(4)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 16)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc",
                    reason="how an allocator keeps memory is measured for glibc alone")
@pytest.mark.parametrize("size", [30_000, 100_000, 500_000])
def test_what_repeated_rows_take_is_not_asked_of_the_system_in_every_step(size, tmp_path):
    done = subprocess.run([sys.executable, "-c", STEPS.replace("SIZE", str(size))], cwd=tmp_path, capture_output=True,
                          text=True, timeout=900, check=True)
    assert float(done.stdout) < 20          # page faults a step; of three arrays of as many numbers, up to 4,000
