"""The functions under all losses. Each family of losses has tests of its own."""

import importlib

import numpy as np
import pytest

from sparseopt import _kernels

REFERENCE = {
    "exponential": np.exp, "logarithm": np.log,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def arguments(function, dtype):
    """Numbers over the whole range of normal results."""
    far = 87 if dtype == np.float32 else 708
    x = np.concatenate([np.linspace(-far, far, 20_001), np.linspace(-1, 1, 20_001), [0]])
    return (np.exp(x) if function == "logarithm" else x).astype(dtype)


def applied(function, x, kernels=_kernels.losses):
    out = np.empty_like(x)
    kernels.apply(function, x, out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", REFERENCE)
def test_a_function_is_right_to_a_few_units_of_the_last_place(function, dtype):
    x = arguments(function, dtype)
    expected = REFERENCE[function](x.astype(np.longdouble))
    error = np.abs(applied(function, x) - expected) / np.spacing(np.abs(expected).astype(dtype))
    assert error.max() < 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", REFERENCE)
def test_a_function_gives_the_same_bits_on_every_instruction_set(function, dtype):
    x = arguments(function, dtype)
    bits = {applied(function, x, importlib.import_module(f"sparseopt._kernels.losses_{isa}")).tobytes()
            for isa in _kernels.available}
    assert len(bits) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_beyond_its_range_a_function_stays_finite_and_a_nan_stays_a_nan(dtype):
    x = np.array([-np.inf, np.inf, -1e30, 1e30], dtype)
    smallest = float(np.finfo(dtype).tiny)
    assert applied("sigmoid", x) == pytest.approx([0, 1, 0, 1], abs=smallest)
    assert 0 < applied("exponential", x)[0] < 2 * smallest
    assert np.isfinite(applied("exponential", x)).all()
    assert applied("softplus", x)[[2, 3]] == pytest.approx([0, 1e30])
    for function in ("exponential", "softplus", "sigmoid"):
        assert np.isnan(applied(function, np.array([np.nan], dtype))).all()
