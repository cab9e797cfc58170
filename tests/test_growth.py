"""Tables grow and shrink and rows become new, as if each table had been made with its rows."""

import copy
import functools
import gc
import mmap
import pickle
import tempfile
from collections import defaultdict
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.testing import assert_allclose, assert_array_equal
from references import CASES, adagrad, adam, ftrl, mean_square, nadam, rmsprop, sgd
from test_whole_or_not import gradients_of, interrupted, made
from undisturbed import differences

import sparseopt as so
from sparseopt import _reserve
from sparseopt.models import GloVe, ImplicitFactorization, MatrixFactorization, SkipGram

DIM = 3


def by_number(rows, dim, dtype):
    """Numbers that depend on the places alone, and to the bit so."""
    rows = np.asarray(rows)
    shape = rows if dim is None else rows[:, None] * 31 + np.arange(dim) * 17
    return ((shape * 7 % 97 - 48) / 64).astype(dtype)


def gradient(rng, n_rows, tail, k=4):
    return so.RowGradient(rng.integers(n_rows, size=k), rng.standard_normal((k, *tail)))


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


def test_replay_has_what_torch_has_when_rows_are_added_at_the_same_steps():
    pytest.importorskip("torch", reason="compares with torch.optim")
    from test_replay import WITH_TORCH

    for name in ("SGD dampening L2", "SGD nesterov", "Adadelta", "Adagrad lr_decay", "RMSprop centered momentum",
                 "Adam", "AdamW", "AdamW amsgrad", "NAdam", "Adamax"):
        cls, theirs, hyper, bound = WITH_TORCH[name]
        exact, single = (grown_in_torch(theirs, hyper, dtype) for dtype in (np.float64, np.float32))
        wide, narrow = (grown_here(cls, hyper, dtype) for dtype in (np.float64, np.float32))
        scale = np.abs(exact).max()
        assert np.abs(wide - exact).max() < bound * scale, name
        assert np.abs(narrow - exact).max() <= 2 * np.abs(single - exact).max(), name


@pytest.mark.parametrize("case", CASES, ids=str)
def test_replay_has_what_gradients_of_all_rows_have_while_rows_come_and_become_new(case):
    """With a dense gradient at every step, and one count for all rows, no row misses a step."""
    replay, dense = (case.ours(by_number(range(4), DIM, np.float64), **case.hyper, **more)
                     for more in ({"missed": "replay"}, {"step_count": "global"}))
    for number, (n_rows, rows, values, _) in enumerate(steps_while_growing()):
        gradient = np.zeros((n_rows, DIM))
        gradient[rows] = values
        for opt in (replay, dense):
            opt.resize(0, n_rows, init=by_number)
            if number % 17 == 16:
                opt.reset(0, [number % n_rows, 0], init=by_number)
        if number % 10 == 0:
            replay.catch_up()
            assert_allclose(replay.params[0], dense.params[0], rtol=1e-8, atol=1e-10)
        replay.step(so.RowGradient(rows, values))
        dense.step(gradient)
    replay.catch_up()
    assert_allclose(replay.params[0], dense.params[0], rtol=1e-8, atol=1e-10)


def steps_while_growing():
    """Yield (rows of the table, rows of the gradient, values, factor of the rate) of each step."""
    rng, n_rows = np.random.default_rng(5), 4
    for k in range(120):
        if k in (1, 2, 20, 21, 60, 100):
            n_rows += 1 + k % 3
        rows = np.unique(rng.zipf(1.6, rng.integers(0, 3)) - 1)
        rows = rows[rows < n_rows]
        if k % 23 == 3:
            rows = np.union1d(rows, [n_rows - 1])
        factor = 0.0 if k % 10 == 3 else 0.2 + rng.random()
        yield n_rows, rows, rng.standard_normal((len(rows), DIM)).astype(np.float32), factor


def grown_here(cls, hyper, dtype):
    opt = cls(by_number(range(4), DIM, dtype), missed="replay", **hyper)
    for n_rows, rows, values, factor in steps_while_growing():
        opt.resize(0, n_rows, init=by_number)
        opt.param_groups[0]["lr"] = hyper["lr"] * factor
        opt.step(so.RowGradient(rows, values.astype(dtype)))
    opt.catch_up()
    return opt.params[0]


def grown_in_torch(theirs, hyper, dtype):
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


# Any sequence of calls, beside a model that makes each row anew.

KINDS = {
    "Adam": (so.Adam, dict(lr=0.01, betas=(0.9, 0.99)), adam, {}),
    "AdamW": (so.AdamW, dict(lr=0.01, weight_decay=0.1), adam, dict(decoupled=0.1, weight_decay=None)),
    "RowwiseAdam": (so.RowwiseAdam, dict(lr=0.01, betas=(0.9, 0.99)), adam, dict(square=mean_square)),
    "SGD": (so.SGD, dict(lr=0.1, momentum=0.9, dampening=0.3), sgd, {}),
    "RMSprop": (so.RMSprop, dict(lr=0.01, momentum=0.5), rmsprop, {}),
    "Adagrad": (so.Adagrad, dict(lr=0.1, lr_decay=0.1, initial_accumulator_value=0.3), adagrad, {}),
    "NAdam": (so.NAdam, dict(lr=0.01, betas=(0.9, 0.99), momentum_decay=0.1), nadam, {}),
    "Ftrl": (so.Ftrl, dict(lr=0.3, l1=0.02), ftrl, {}),
}


class Model:
    """A table as rows, each with a state of its own, in float64. Under replay every row takes every step."""

    def __init__(self, kind, replay, n_rows, tail, init):
        _, hyper, self.reference, more = KINDS[kind]
        self.hyper = {name: value for name, value in {**hyper, **more}.items() if value is not None}
        self.kind, self.replay, self.tail, self.count = kind, replay, tail, 0
        self.clock = defaultdict(float)         # the state of a row that no gradient touches
        self.rows = []
        self.resize(n_rows, init)

    def new_row(self, number, init):
        dim = self.tail[0] if self.tail else None
        values = init(np.array([number]), dim, np.float64)[0] if init else np.zeros(self.tail)
        state = defaultdict(float)
        if self.kind == "Adagrad":
            state["sum"] = 0.3
        if self.replay and self.kind == "NAdam":
            state["product"] = self.clock["product"]
        return [np.array(values, np.float64), state, 0]

    def resize(self, n_rows, init):
        self.rows = self.rows[:n_rows] + [self.new_row(number, init) for number in range(len(self.rows), n_rows)]

    def reset(self, numbers, init):
        for number in numbers:
            self.rows[number] = self.new_row(number, init)

    def step(self, numbers, values):
        self.count += 1
        sums = {}
        for number, value in zip(numbers, values, strict=True):
            sums[number] = sums.get(number, 0) + value
        self.reference(np.zeros(1), np.zeros(1), self.clock, self.count, **self.hyper)
        for number in range(len(self.rows)) if self.replay else sums:
            row = self.rows[number]
            row[2] += 1
            w = np.atleast_1d(row[0])           # a view, also of a number
            # Ftrl's first step is the first since the row is there.
            k = self.count if self.replay and self.kind != "Ftrl" else row[2]
            self.reference(w, np.atleast_1d(sums.get(number, np.zeros(self.tail))), row[1], k, **self.hyper)
            row[0] = w.reshape(self.tail)

    def table(self):
        return np.array([w for w, _, _ in self.rows]).reshape(len(self.rows), *self.tail)


class Growth(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.kept = None

    @initialize(kind=st.sampled_from(list(KINDS)), structure=st.sampled_from(["single", "mapping", "sequence"]),
                missed=st.sampled_from(["skip", "replay"]), n_rows=st.integers(0, 6),
                tail=st.sampled_from([(), (1,), (3,)]), reserved=st.booleans())
    def begin(self, kind, structure, missed, n_rows, tail, reserved):
        self.kind, self.structure, self.replays = kind, structure, missed == "replay"
        names = {"single": [0], "mapping": ["user", "item"], "sequence": [0, 1]}[structure]
        self.init = dict.fromkeys(names, by_number if reserved else None)
        tables = {name: so.reserve((9, *tail), np.float64, n_rows=n_rows, init=by_number) if reserved
                  else np.zeros((n_rows, *tail)) for name in names}
        cls, hyper, *_ = KINDS[kind]
        self.opt = cls(self.shaped(tables), **hyper, missed=missed)
        self.models = {name: Model(kind, self.replays, n_rows, tail, self.init[name]) for name in names}

    def shaped(self, given):
        if self.structure == "single":
            return given.get(0)
        return given if self.structure == "mapping" else [given.get(name) for name in (0, 1)]

    def names(self, data):
        return sorted(data.draw(st.sets(st.sampled_from(list(self.models)), min_size=1)))

    def numbers(self, data, name):
        n_rows = len(self.models[name].rows)
        return data.draw(st.lists(st.integers(0, n_rows - 1), max_size=5)) if n_rows else []

    @rule(data=st.data(), seed=st.integers(0, 99))
    def step(self, data, seed):
        given = {}
        for name in self.names(data):
            numbers = self.numbers(data, name)
            values = np.random.default_rng(seed).standard_normal((len(numbers), *self.models[name].tail))
            given[name] = so.RowGradient(np.array(numbers, np.int64), values)
            self.models[name].step(numbers, values)
        self.opt.step(self.shaped(given))

    @rule(data=st.data(), own=st.booleans(), together=st.booleans())
    def resize(self, data, own, together):
        sizes = {name: data.draw(st.integers(0, 12)) for name in self.names(data)}
        init = by_number if own else None
        before = {name: (table, table.copy(), self.opt.state[name].get("step")) for name, table
                  in self.opt.params.items()}
        if together:
            tables = self.opt.resize(sizes, init=init if len(sizes) == 1 else dict.fromkeys(sizes, init))
        else:
            tables = {name: self.opt.resize(name, n_rows, init) for name, n_rows in sizes.items()}
        for name, n_rows in sizes.items():
            self.models[name].resize(n_rows, init or self.init[name])
            old, values, _ = before[name]
            assert tables[name] is self.opt.params[name]
            n_rows = min(n_rows, len(old))
            assert tables[name][:n_rows].tobytes() == values[:n_rows].tobytes() == old[:n_rows].tobytes()
            group = next(group["params"] for group in self.opt.param_groups if name in group["params"])
            assert group[name] is tables[name]

    @rule(data=st.data(), own=st.booleans(), together=st.booleans())
    def reset(self, data, own, together):
        rows = {name: self.numbers(data, name) for name in self.names(data)}
        init = by_number if own else None
        if together:
            self.opt.reset(rows, init=init)
        else:
            for name, numbers in rows.items():
                self.opt.reset(name, np.array(numbers, np.int32), init)
        for name, numbers in rows.items():
            self.models[name].reset(numbers, init or self.init[name])

    @precondition(lambda self: self.replays)
    @rule(data=st.data())
    def catch_up(self, data):
        rows = {name: self.numbers(data, name) for name in self.models}
        self.opt.catch_up(self.shaped(rows))
        for name, numbers in rows.items():
            model = self.models[name].table()
            assert_allclose(self.opt.params[name][numbers], model[numbers], rtol=1e-8, atol=1e-10)

    @rule(way=st.sampled_from(["file", "pickle", "copy"]))
    def go_on_elsewhere(self, way):
        before = self.opt
        if way == "file":
            with tempfile.TemporaryDirectory() as folder:
                so.save(Path(folder) / "checkpoint", self.opt)
                self.opt = so.load(Path(folder) / "checkpoint")
        else:
            self.opt = pickle.loads(pickle.dumps(before)) if way == "pickle" else copy.deepcopy(before)
        assert not differences(self.opt.state_dict(), before.state_dict())
        if way != "copy":
            self.init = dict.fromkeys(self.init)

    @rule()
    def keep(self):
        self.kept = copy.deepcopy((self.opt.state_dict(), self.models))

    @precondition(lambda self: self.kept)
    @rule()
    def go_back(self):
        state, models = copy.deepcopy(self.kept)
        if all(table.shape == state["params"][name].shape for name, table in self.opt.params.items()):
            self.opt.load_state_dict(state)
            self.models = models
        else:
            before = copy.deepcopy(self.opt.state_dict())
            with pytest.raises(ValueError, match="of shape"):
                self.opt.load_state_dict(state)
            assert not differences(self.opt.state_dict(), before)

    @invariant()
    def each_row_is_where_its_own_steps_have_led_it(self):
        opt = self.opt
        if self.replays:
            opt = copy.deepcopy(opt)
            opt.catch_up()
        for name, table in opt.params.items():
            assert_allclose(table, self.models[name].table(), rtol=1e-8, atol=1e-10)
            for array in opt.state[name].values():
                assert array.ndim == 0 or len(array) == len(table)


Growth.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
TestRowsComeAndGoAndBecomeNew = Growth.TestCase


# Memory.

@pytest.mark.parametrize("cls", [so.Adam, so.RowwiseAdam, so.NAdam, so.SGD])
@pytest.mark.parametrize("shape", [(1_000_000, 16), (400, 3)], ids=["pages", "small"])
def test_within_its_capacity_a_table_and_its_state_stay_where_they_are(cls, shape):
    table = so.reserve(shape, n_rows=5, init=by_number)
    opt = cls(table)
    opt.step(so.RowGradient([4], np.ones((1, shape[1]))))
    places = {name: array.ctypes.data for name, array in opt.state[0].items()}
    old = opt.params[0]
    for n_rows in (6, 300, 200, 400):
        larger = opt.resize(0, n_rows)
        opt.step(so.RowGradient([n_rows - 1, 4], np.ones((2, shape[1]))))
        assert larger.ctypes.data == table.ctypes.data
        assert {name: array.ctypes.data for name, array in opt.state[0].items()} == places
    assert old.shape == (5, shape[1])
    assert_array_equal(old, opt.params[0][:5])
    assert {array.ctypes.data % 64 for array in (table, *opt.state[0].values()) if array.ndim} == {0}
    if shape[0] > 400:
        apart = [array.ctypes.data % 4096 for array in (table, *opt.state[0].values()) if array.ndim == 2]
        assert len(set(apart)) == len(apart)


def test_beyond_its_capacity_a_table_moves_seldom():
    opt, places = so.Adam({"a": so.zeros((1, 2))}), []
    for n_rows in range(1, 2001):
        table = opt.resize("a", n_rows)
        if not places or places[-1] is not table.base:
            places.append(table.base)           # which keeps the memory
    assert len(places) == 11                    # 1 row and, once moved, room for 4, 10, 22, ...


def resident():
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * mmap.PAGESIZE / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's figures of memory")
@pytest.mark.parametrize("n_rows", [0, 48_000_000])
def test_room_costs_no_memory_before_rows_are_written(n_rows):
    before = resident()
    opt = so.Adam(so.reserve((48_000_000, 64), n_rows=n_rows))
    table = opt.resize(0, max(n_rows, 2000))
    opt.step(so.RowGradient(np.arange(2000), np.ones((2000, 64), np.float32)))
    assert resident() - before < 20             # MB, of 37 GB
    assert table[:2000].all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's figures of memory")
def test_rows_that_are_given_up_give_their_memory_back():
    opt = so.Adam(so.reserve((1_000_000, 64), n_rows=30_000, init=by_number))
    opt.step(so.RowGradient(np.arange(30_000), np.ones((30_000, 64), np.float32)))
    before = resident()
    opt.resize(0, 10)
    assert resident() < before - 18             # MB, of 23
    table = opt.resize(0, 30_000, init=by_number)
    assert_array_equal(table[10:], by_number(range(10, 30_000), 64, np.float32))
    assert not opt.state[0]["exp_avg"][10:].any()
    assert not opt.state[0]["step"][10:].any()


def test_an_array_that_saw_rows_given_up_cannot_spoil_rows_added_later():
    opt = so.Adam(so.reserve((100, 2), n_rows=9))
    old, state = opt.params[0], opt.state[0]["exp_avg"]
    opt.resize(0, 4)
    old[...], state[...] = 7, 7
    assert not opt.resize(0, 8)[4:].any()
    assert not opt.state[0]["exp_avg"][4:].any()


def test_a_second_optimizer_of_a_table_does_not_take_the_rows_that_the_first_added():
    table = so.reserve((100, 2), n_rows=4)
    first, second = so.SGD(table, lr=1.0), so.SGD(table, lr=1.0)
    larger = first.resize(0, 6, init=by_number)
    other = second.resize(0, 6)
    assert not np.shares_memory(larger, other)
    assert_array_equal(larger[4:], by_number(range(4, 6), 2, np.float32))
    for part in (table[:3], table[1:], table.view(np.float64), table.copy()):
        opt = so.SGD(part, lr=1.0)
        assert not np.shares_memory(opt.resize(0, 5), table)


def test_a_system_that_gives_few_addresses_gives_room_for_the_rows_alone(monkeypatch):
    real = mmap.mmap

    def scarce(number, n_bytes, **more):
        if n_bytes > limit:
            raise OSError(12, "Cannot allocate memory")
        return real(number, n_bytes, **more)

    monkeypatch.setattr(mmap, "mmap", scarce)
    limit = 20_000_000
    opt = so.SGD({"a": so.zeros((10_000, 64))}, lr=1.0, momentum=0.5)
    opt.step({"a": so.RowGradient([3], np.ones((1, 64)))})
    before = copy.deepcopy(opt.state_dict())
    assert opt.resize("a", 60_000).base.shape == (60_000, 64)
    assert opt.resize("a", 10_000).shape == (10_000, 64)
    assert not differences(opt.state_dict(), before)
    with pytest.raises(MemoryError, match="room for 90000 rows of 256 bytes"):
        opt.resize("a", 90_000)
    assert not differences(opt.state_dict(), before)


# Errors and interrupts.

BAD = {
    "name": (lambda opt: opt.resize("c", 9), KeyError, "name is 'c'; the names in params are 'a', 'b'"),
    "names": (lambda opt: opt.resize({"a": 9, "c": 9}), KeyError, "name is 'c'"),
    "no number": (lambda opt: opt.resize("a"), TypeError, 'n_rows of "a" is None; it must be an integer of at least 0'),
    "negative": (lambda opt: opt.resize({"a": 9, "b": -1}), ValueError, 'n_rows of "b" is -1'),
    "fraction": (lambda opt: opt.resize("a", 9.0), TypeError, r'n_rows of "a" is 9\.0'),
    "both": (lambda opt: opt.resize({"a": 9}, 9), TypeError, "n_rows is 9; where name is a mapping, it must be None"),
    "too many": (lambda opt: opt.resize("a", 2**62), ValueError, "2..60 elements"),
    "init": (lambda opt: opt.resize("a", 9, init=0.0), TypeError, r"init is 0\.0; it must be None, or a callable"),
    "class": (lambda opt: opt.resize("a", 9, init=so.init.Normal), TypeError, r"init is <class .*; it must be None"),
    "init of one": (lambda opt: opt.resize({"a": 9}, init={"a": 1}), TypeError, "init of 'a' is 1"),
    "init of another": (lambda opt: opt.resize({"a": 9}, init={"b": None}), KeyError, "init names 'b'; name has 'a'"),
    "shape of init": (lambda opt: opt.resize("a", 9, lambda *_: np.zeros(2)), ValueError,
                      r'init of "a" returned an array of shape \(2,\) and dtype float64 for 2 rows; it must return '
                      r"numbers of shape \(2, 3\)"),
    "kind of init": (lambda opt: opt.resize({"a": 9, "b": 6}, init=lambda *_: ["x"]), ValueError, 'init of "a"'),
    "init that raises": (lambda opt: opt.resize({"a": 9, "b": 6}, init={"b": lambda *_: 1 / 0}), ZeroDivisionError,
                         "by zero"),
    "init that steps": (lambda opt: opt.resize("a", 9, lambda *_: opt.step({})), RuntimeError, "at work in another"),
    "row": (lambda opt: opt.reset("a", [0, 7]), IndexError, 'rows of "a" has row 7 at position 1; the table has 7'),
    "rows": (lambda opt: opt.reset({"a": [0], "b": [-1]}), IndexError, 'rows of "b" has row -1 at position 0'),
    "no rows": (lambda opt: opt.reset("a"), TypeError, 'rows of "a"'),
    "kind of rows": (lambda opt: opt.reset("a", [0.5]), TypeError, 'rows of "a"'),
    "init of rows": (lambda opt: opt.reset({"a": [0], "b": [1]}, init={"b": lambda *_: np.zeros(2)}), ValueError,
                     'init of "b" returned an array of shape'),
}


@pytest.mark.parametrize("options", [{}, {"missed": "replay"}], ids=["skip", "replay"])
@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said_and_nothing_is_changed(call, error, message, options):
    opt, before = made(**options), made(**options)
    with pytest.raises(error, match=message):
        call(opt)
    assert not differences(opt.state_dict(), before.state_dict())
    for one in (opt, before):
        one.resize({"a": 9, "b": 6}, init=by_number)
        one.step(gradients_of(8))
    assert not differences(opt.state_dict(), before.state_dict())


def test_an_init_that_changes_the_table_in_memory_stops_the_call():
    table = np.ones((4, 2))
    opt = so.SGD({"a": table}, lr=1.0)

    def init(rows, dim, dtype):
        table.resize((100_000, 2), refcheck=False)
        return np.zeros((len(rows), dim))

    for call in (lambda: opt.resize("a", 5, init), lambda: opt.reset("a", [1], init)):
        with pytest.raises(ValueError, match='the table of "a" has changed its shape'):
            call()
    assert (table[:4] == 1).all()


def test_rows_that_an_init_changes_have_no_effect():
    opt, rows = so.SGD(so.zeros((5, 2)), lr=1.0, momentum=0.5), np.array([1, 3])
    opt.step(np.ones((5, 2)))

    def init(numbers, dim, dtype):
        numbers[...] = rows[...] = 10**6
        return np.full((2, 2), 9.0)

    opt.reset(0, rows, init)
    assert opt.params[0][:, 0].tolist() == [-1, 9, -1, 9, -1]
    assert opt.state[0]["step"].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("reserved", [False, True])
@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_after_an_interrupt_rows_come_as_new_as_without(missed, reserved):
    def begun():
        table = so.reserve((50, 2), n_rows=4) if reserved else so.zeros((4, 2))
        opt = so.Adagrad({"a": table}, lr=0.1, missed=missed, initial_accumulator_value=0.5)
        opt.step({"a": so.RowGradient([1], [[1.0, 2.0]])})
        return opt

    def call(opt):
        opt.resize("a", 9, init=by_number)

    expected = begun()
    call(expected)
    call_to_come = interrupted(lambda: call(begun()), None)
    for at in range(1, call_to_come + 1, 3):
        opt = begun()
        interrupted(lambda opt=opt: call(opt), at)
        if len(opt.params["a"]) == 4:
            call(opt)
        assert not differences(opt.state_dict(), expected.state_dict())


# Calls after a resize.

@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_groups_and_other_runs_fit_the_larger_tables(missed):
    opt = so.Adam([{"params": {"a": so.zeros((2, 2))}, "lr": 0.1}, {"params": {"b": so.zeros(2)}, "lr": 0.2}],
                  missed=missed)
    opt.step({"a": so.RowGradient([1], np.ones((1, 2))), "b": so.RowGradient([1], np.ones(1))})
    opt.resize({"a": 3, "b": 5})
    opt.add_param_group({"params": {"c": so.reserve((9, 2), n_rows=1)}, "lr": 0.3})
    opt.resize("c", 2)
    opt.take_over("a", exp_avg=np.full((3, 2), 0.5), step=1)
    opt.step({"a": so.RowGradient([2], np.ones((1, 2))), "c": so.RowGradient([1], np.ones((1, 2)))})
    assert [group["lr"] for group in opt.param_groups] == [0.1, 0.2, 0.3]
    assert opt.params["a"][2].all()
    assert opt.params["c"].any(axis=1).tolist() == [False, True]
    with pytest.raises(IndexError, match='gradient of "b" has row 5 at position 0; the table has 5 rows'):
        opt.step({"b": so.RowGradient([5], np.ones(1))})
    tables = dict(opt.params)
    with pytest.raises(ValueError, match="overlap"):
        so.SGD([tables["a"], tables["a"][:1]])


def test_micro_batches_of_the_smaller_table_are_refused():
    opt = so.SGD({"a": so.zeros((3, 2))}, lr=1.0)
    accumulator = so.training.Accumulator(opt, every=2)
    accumulator.step({"a": np.ones((3, 2))})
    opt.resize("a", 4)
    with pytest.raises(ValueError, match="shape"):
        accumulator.step({"a": np.ones((4, 2))})
    assert not opt.params["a"].any()


# Models.

def pairs(users, items, rating):
    return so.datasets.interactions({"user": list(users), "item": list(items), "rating": [4.0, 2.0, 3.0, 5.0, 1.0]},
                                    user="user", item="item", rating=rating)


TEXT, MORE_TEXT = [list("abcab"), list("bcabc")] * 3, [list("adead"), list("ebcde")] * 3


def recommender(cls, rating=None):
    def make(missed):
        return cls(dim=2, optimizer="adam", missed=missed, epochs=1).fit(pairs("aabbc", "xyxzy", rating))

    more = pairs("dadee", "xwvwx", rating)
    return make, lambda model: model.partial_fit(more)


def words(cls):
    def make(missed):
        return cls(dim=2, min_count=1, epochs=1, missed=missed, optimizer="adam").fit(TEXT)

    return make, lambda model: model.partial_fit(MORE_TEXT, grow=True)


MODELS = {"MatrixFactorization": recommender(MatrixFactorization, "rating"),
          "ImplicitFactorization": recommender(ImplicitFactorization),
          "SkipGram": words(SkipGram), "GloVe": words(GloVe)}


def known(model):
    """What a model says of its rows, and the rows, which training has no part in."""
    ids = [getattr(model, name).tolist() for name in ("user_ids_", "item_ids_") if hasattr(model, name)]
    of_words = [list(model.words_), dict(model._number)] if hasattr(model, "words_") else []
    if hasattr(model, "counts_"):
        of_words.append(model.counts_.tolist())
    rates = [repr(vars(group["lr"])) if callable(group["lr"]) else group["lr"]
             for group in model.optimizer_.param_groups]
    tables = {name: table.tolist() for name, table in model.optimizer_.params.items()}
    return ids, of_words, rates, tables, {name: {key: array.tolist() for key, array in arrays.items()}
                                          for name, arrays in model.optimizer_.state.items()}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning",
                            "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("missed", ["skip", "replay"])
@pytest.mark.parametrize("name", MODELS)
def test_an_interrupt_finds_a_model_with_its_old_rows_or_with_the_new_ones(name, missed, monkeypatch):
    make, call = MODELS[name]
    first = make(missed)
    monkeypatch.setattr(type(first), "_train", lambda *_: None)      # which would change the rows
    expected = copy.deepcopy(first)
    opt = expected.optimizer_
    call(expected)
    assert expected.optimizer_ is opt
    outcomes = [known(first), known(expected)]
    assert outcomes[0] != outcomes[1]
    total, found = interrupted(functools.partial(call, copy.deepcopy(first)), None), set()
    for at in sorted({*range(1, total, 29), *range(total - 60, total + 1)}):
        model = copy.deepcopy(first)
        interrupted(functools.partial(call, model), at)
        assert known(model) in outcomes
        found.add(outcomes.index(known(model)))
    assert found == {0, 1}
    del model
    gc.collect()                # files of interrupted calls warn here


def test_the_reserve_module_takes_what_reserve_says():
    for shape, n_rows, error, message in (((3, 2), 4, ValueError, "n_rows is 4 and the capacity is 3"),
                                          ((3, 2), -1, ValueError, "n_rows is -1"),
                                          ((3, 2, 1), 0, ValueError, "it must be .capacity, dim. or .capacity,."),
                                          ("x", 0, TypeError, "shape is 'x'")):
        with pytest.raises(error, match=message):
            so.reserve(shape, n_rows=n_rows)
    with pytest.raises(TypeError, match="init is 1; it must be None"):
        so.reserve((3, 2), init=1)
    with pytest.raises(TypeError, match="dtype is int64"):
        so.reserve((3, 2), np.int64)
    with pytest.raises(ValueError, match=r"init returned an array of shape \(1,\)"):
        so.reserve((3, 2), n_rows=2, init=lambda *_: [1])
    assert so.reserve(7, n_rows=2).shape == (2,)
    assert so.reserve((0, 4)).shape == (0, 4)
    assert so.reserve((5, 0), n_rows=2).shape == (2, 0)
    assert so.SGD(so.reserve((0, 4)), lr=1.0).resize(0, 3).shape == (3, 4)


def test_an_init_that_is_known_is_asked_for_rows_to_come_and_others_are_not():
    asked = []

    def init(rows, dim, dtype):
        asked.append(rows)
        return by_number(rows, dim, dtype)

    opt = so.SGD(so.reserve((10_000, 3), n_rows=1600, init=init), lr=1.0)
    for n_rows in range(1601, 1801):
        opt.resize(0, n_rows)
    assert [(rows.start, rows.stop) for rows in asked] == [(0, 1600), (1600, 1701), (1701, 1808)]
    opt.resize(0, 1810, init=lambda rows, dim, dtype: np.full((len(rows), dim), rows.start))
    opt.resize(0, 1700)
    expected = np.concatenate([by_number(range(1700), 3, np.float32), by_number(range(1700, 1900), 3, np.float32)])
    assert_array_equal(opt.resize(0, 1900), expected)
    assert asked[3:] == [range(1700, 1900)]

    def failing(rows, dim, dtype):
        opt.params[0].base[rows.start:rows.stop] = 7
        raise ArithmeticError

    for _ in range(2):
        with pytest.raises(ArithmeticError):
            opt.resize(0, 1950, init=failing)
    assert_array_equal(opt.resize(0, 1910)[1900:], by_number(range(1900, 1910), 3, np.float32))


def test_an_init_fills_many_rows_in_blocks_of_their_numbers(monkeypatch):
    monkeypatch.setattr(_reserve, "_BLOCK", 12)
    asked = []

    def init(rows, dim, dtype):
        asked.append(rows)
        return by_number(rows, dim, dtype)

    opt = so.SGD(so.reserve((20, 3), n_rows=9, init=init), lr=1.0)
    assert asked == [range(4), range(4, 8), range(8, 9)]
    assert_array_equal(opt.resize(0, 15), by_number(range(15), 3, np.float32))
    assert asked[3:] == [range(9, 13), range(13, 15)]
