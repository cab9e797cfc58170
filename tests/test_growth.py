"""Tables grow and shrink and rows become new, as if each table had been made with its rows."""


import numpy as np
import pytest
from numpy.testing import assert_array_equal
from references import CASES
from undisturbed import differences

import sparseopt as so

DIM = 3


def by_number(rows, dim, dtype):
    """Numbers that depend on the places alone, and to the bit so."""
    rows = np.asarray(rows)
    shape = rows if dim is None else rows[:, None] * 31 + np.arange(dim) * 17
    return ((shape * 7 % 97 - 48) / 64).astype(dtype)


def gradient(rng, n_rows, tail, k=4):
    return so.RowGradient(rng.integers(n_rows, size=k), rng.standard_normal((k, *tail)))


def places(opt):
    return {name: (table.ctypes.data, {key: array.ctypes.data for key, array in opt.state[name].items()})
            for name, table in opt.params.items()}


def bits(opt):
    return {name: (table.tobytes(), {key: array.tobytes() for key, array in opt.state[name].items()})
            for name, table in opt.params.items()}


@pytest.mark.parametrize("step_count", ["row", "global"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_grown_run_has_the_bits_of_one_that_had_all_rows_from_the_start(case, dtype, step_count):
    def begun(table):
        weight_decay = 0.01 if case.name != "Ftrl" else 0.0
        return case.ours({"table": table}, **case.hyper, weight_decay=weight_decay, step_count=step_count)

    whole = begun(by_number(range(50), DIM, dtype))
    grown = [begun(by_number(range(10), DIM, dtype)), begun(so.reserve((60, DIM), dtype, n_rows=10, init=by_number))]
    sizes = [10, 10, 11, 12, 13, 30, 31, 50]
    for number, n_rows in enumerate(sizes):
        rng = np.random.default_rng(number)
        for opt in grown:
            assert len(opt.resize("table", n_rows, init=by_number)) == n_rows
        given = {"table": gradient(rng, n_rows, (DIM,))}
        for opt in (whole, *grown):
            opt.step(given)
    for opt in grown:
        assert not differences(opt.state_dict(), whole.state_dict())


def test_tables_of_one_dimension_grow_by_number_too():
    opt = so.Adagrad([so.zeros(2), so.reserve(9, n_rows=2)], lr=0.1, initial_accumulator_value=0.5)
    opt.step([np.ones(2), np.ones(2)])
    for n_rows in (3, 4, 7):
        tables = opt.resize({0: n_rows, 1: n_rows}, init=by_number)
    for name in (0, 1):
        assert tables[name] is opt.params[name]
        assert_array_equal(tables[name][2:], by_number(range(2, 7), None, np.float32))
        assert_array_equal(opt.state[name]["sum"], [1.5] * 2 + [0.5] * 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_replay_has_what_torch_has_when_rows_are_added_at_the_same_steps(dtype):
    pytest.importorskip("torch", reason="compares with torch.optim")
    from test_replay import WITH_TORCH

    for name, (cls, theirs, hyper, bound) in WITH_TORCH.items():
        ours, exact, single = (run(cls, theirs, hyper, dtype) for run, dtype in
                               ((grown_here, dtype), (grown_in_torch, np.float64), (grown_in_torch, dtype)))
        scale = np.abs(exact).max()
        difference = np.abs(ours.astype(np.float64) - exact).max() / scale
        if dtype == np.float64:
            assert difference < bound, name
        else:
            assert difference <= 2 * np.abs(single - exact).max() / scale, name


def steps_while_growing():
    """Yield (rows of the table, rows of the gradient, values, factor of the rate) of each step."""
    rng, n_rows = np.random.default_rng(5), 4
    for k in range(700):
        if k in (1, 2, 50, 51, 52, 300, 301, 600):
            n_rows += 1 + k % 3
        rows = np.unique(rng.zipf(1.6, rng.integers(0, 3)) - 1)
        rows = rows[rows < n_rows]
        if k % 97 == 3:
            rows = np.union1d(rows, [n_rows - 1])
        factor = 0.0 if k % 10 == 3 else 0.2 + rng.random()
        yield n_rows, rows, rng.standard_normal((len(rows), DIM)).astype(np.float32), factor


def grown_here(cls, _, hyper, dtype):
    opt = cls(by_number(range(4), DIM, dtype), missed="replay", **hyper)
    for n_rows, rows, values, factor in steps_while_growing():
        opt.resize(0, n_rows, init=by_number)
        opt.param_groups[0]["lr"] = hyper["lr"] * factor
        opt.step(so.RowGradient(rows, values.astype(dtype)))
    opt.catch_up()
    return opt.params[0]


def grown_in_torch(_, theirs, hyper, dtype):
    import torch
    from references import torch_default

    with torch_default(dtype):
        parameter = torch.tensor(by_number(range(4), DIM, dtype), requires_grad=True)
        opt = theirs([parameter], **hyper)
        for n_rows, rows, values, factor in steps_while_growing():
            if n_rows > len(parameter):
                more = torch.tensor(by_number(range(len(parameter), n_rows), DIM, dtype))
                state = opt.state[parameter]
                parameter = torch.cat([parameter.detach(), more]).requires_grad_()
                opt = theirs([parameter], **hyper)
                opt.state[parameter] = {
                    key: torch.cat([value, torch.zeros_like(more)]) if torch.is_tensor(value) and value.ndim else value
                    for key, value in state.items()}
            parameter.grad = torch.zeros_like(parameter)
            parameter.grad[rows] = torch.tensor(values.astype(dtype))
            opt.param_groups[0]["lr"] = hyper["lr"] * factor
            opt.step()
    return parameter.detach().numpy()
