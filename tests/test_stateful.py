"""Any sequence of calls: one that raises leaves an optimizer as it was, and one that succeeds is the paper's rule.

Beside the optimizer stands a twin that takes only the calls which succeed: after every call the two hold the same bits.
And a model in NumPy, float64, from `references`, takes their steps too.
"""

import contextlib
import copy
import dis
import inspect
import itertools
import os
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from references import adagrad, adam, ftrl, mean_square, sgd
from test_properties import gradients
from undisturbed import PACKAGE, differences

import sparseopt as so

# name: (optimizer, hyper-parameters, reference or None, what it takes beside or in place of them)
KINDS = {
    "Adam": (so.Adam, dict(lr=0.01, betas=(0.9, 0.99)), adam, {}),
    "AdamW": (so.AdamW, dict(lr=0.01, weight_decay=0.1), adam, {}),
    "SGD momentum": (so.SGD, dict(lr=0.1, momentum=0.9), sgd, {}),
    "Adagrad": (so.Adagrad, dict(lr=0.1, lr_decay=0.1), adagrad, {}),
    "RowwiseAdagrad": (so.RowwiseAdagrad, dict(lr=0.1), adagrad, dict(square=mean_square)),
    "Lion": (so.Lion, dict(lr=0.01, weight_decay=0.1), None, {}),       # a sum that rounds to 0 has no sign to compare
    "Ftrl": (so.Ftrl, dict(lr=0.3, l1=0.02), ftrl, {}),
}
DECOUPLED = so.AdamW, so.Lion
LONG = os.environ.get("HYPOTHESIS_PROFILE", "quick") != "quick"


class Model:
    """The reference, row by row for skip, and for replay the dense run."""

    def __init__(self, tables, kind, replay):
        cls, _, self.reference, self.more = KINDS[kind]
        # Ftrl's sum of squares is without the decay
        self.decoupled, self.replay = cls in (*DECOUPLED, so.Ftrl), replay
        self.tables = {name: np.array(table, np.float64).reshape(len(table), -1) for name, table in tables.items()}
        self.states = {name: [defaultdict(float) for _ in table] for name, table in tables.items()}
        self.counts = {name: [0] * len(table) for name, table in tables.items()}

    def step(self, given, group, max_grad_norm):
        hyper = {name: value for name, value in group.items() if name in inspect.signature(self.reference).parameters}
        decay = group["weight_decay"]
        if self.decoupled:
            hyper["decoupled"], decay = decay, 0.0
        clip = 1.0
        if max_grad_norm is not None:
            norm = np.sqrt(sum(np.sum(dense**2) for dense, _ in given.values()))
            clip = min(1.0, max_grad_norm / (norm + 1e-6))
        for name, (dense, touched) in given.items():
            for row in range(len(dense)) if self.replay else touched:
                w = self.tables[name][row]
                self.counts[name][row] += 1
                self.reference(w, clip * dense[row] + decay * w, self.states[name][row], self.counts[name][row],
                               **{**hyper, **self.more})


class Interrupt:
    """KeyboardInterrupt at the n-th place in the library where Python looks for signals.

    It looks as a function begins, after a call, and as a loop turns.
    """

    looking = "RESUME", "CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE"        # beginnings of names of instructions

    def __init__(self, n):
        self.left = n
        self.codes = {}
        self.looks = {}                 # from frames to whether the instruction under way ends with a look

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= self.looks.get(frame, False)
            if self.left < 0:
                raise KeyboardInterrupt
            code = self.codes.setdefault(frame.f_code, frame.f_code.co_code)
            self.looks[frame] = dis.opname[code[frame.f_lasti]].startswith(self.looking)
        return self

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self)

    def __exit__(self, *error):
        sys.settrace(self.before)
        self.looks.clear()


@contextlib.contextmanager
def no_memory_after(n):
    """The n-th array that anyone asks NumPy for is one too many."""
    real, left = {name: getattr(np, name) for name in ("empty", "zeros")}, n

    def counted(name):
        def allocate(*given, **named):
            nonlocal left
            left -= 1
            if left < 0:
                raise MemoryError("no memory is left")
            return real[name](*given, **named)
        return allocate

    for name in real:
        setattr(np, name, counted(name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(np, name, function)


class Calls(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.kept = None
        self.moved = False

    @initialize(data=st.data(), kind=st.sampled_from(list(KINDS)),
                structure=st.sampled_from(["single", "mapping", "sequence"]),
                missed=st.sampled_from(["skip", "replay"]), step_count=st.sampled_from(["row", "global"]),
                dtype=st.sampled_from([np.float32, np.float64]), nonfinite=st.sampled_from(["raise", "skip", "allow"]),
                max_grad_norm=st.sampled_from([None, 1.0]))
    def begin(self, data, kind, structure, missed, step_count, dtype, nonfinite, max_grad_norm):
        self.kind, self.structure, self.replays, self.dtype = kind, structure, missed == "replay", dtype
        names = {"single": [0], "mapping": ["user", "item"], "sequence": [0, 1]}[structure]
        shapes = [(data.draw(st.integers(1, 7)), data.draw(st.sampled_from([1, 3, 17]))) for _ in names]
        start = {name: np.random.default_rng(0).standard_normal(shape).astype(dtype)
                 for name, shape in zip(names, shapes, strict=True)}
        cls, hyper, reference, _ = KINDS[kind]
        self.opt, self.twin = (cls(self.shaped({name: table.copy() for name, table in start.items()}), **hyper,
                                   missed=missed, step_count=step_count, nonfinite=nonfinite,
                                   max_grad_norm=max_grad_norm)
                               for _ in range(2))
        compared = reference and dtype == np.float64 and step_count == "row"
        self.model = Model(start, kind, self.replays) if compared else None

    def shaped(self, given):
        """From names to something, in the shape of the parameters."""
        if self.structure == "single":
            return given.get(0)
        return given if self.structure == "mapping" else [given.get(name) for name in (0, 1)]

    def draw(self, data):
        """Gradients of some of the tables, at least one, by name: (gradient, dense, touched)."""
        names = list(self.opt.params)
        chosen = data.draw(st.sets(st.sampled_from(names), min_size=1))
        return {name: data.draw(gradients(*self.opt.params[name].shape, self.dtype))
                for name in names if name in chosen}

    def stepped(self, drawn):
        if self.model is not None:
            self.model.step({name: (dense, touched) for name, (_, dense, touched) in drawn.items()},
                            self.opt.param_groups[0], self.opt.max_grad_norm)

    # Calls that succeed.

    @precondition(lambda self: not self.moved)
    @rule(data=st.data())
    def step(self, data):
        drawn = self.draw(data)
        given = self.shaped({name: gradient for name, (gradient, *_) in drawn.items()})
        for opt in (self.opt, self.twin):
            opt.step(given)
        self.stepped(drawn)

    @precondition(lambda self: not self.moved and self.opt.nonfinite != "raise")
    @rule(row=st.integers(0, 9), value=st.sampled_from([np.nan, np.inf]))
    def step_with_a_row_that_is_not_finite(self, row, value):
        table = list(self.opt.params.values())[-1]
        row %= len(table)
        name = list(self.opt.params)[-1]
        gradient = so.RowGradient([row, 0], np.full((2, table.shape[1]), value, self.dtype))
        for opt in (self.opt, self.twin):
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                opt.step(self.shaped({name: gradient}))
        self.model = None

    @precondition(lambda self: not self.moved and self.replays)
    @rule(data=st.data(), all_of_them=st.booleans())
    def catch_up(self, data, all_of_them):
        rows = None
        if not all_of_them:
            rows = self.shaped({name: data.draw(st.lists(st.integers(0, len(table) - 1), max_size=4))
                                for name, table in self.opt.params.items()})
        for opt in (self.opt, self.twin):
            opt.catch_up(rows)
        if rows is None:
            assert not any(behind.any() for behind in self.by_name(self.opt.stale()).values())

    def by_name(self, shaped):
        if self.structure == "single":
            return {0: shaped}
        return shaped if self.structure == "mapping" else dict(enumerate(shaped))

    @precondition(lambda self: not self.moved)
    @rule(into_itself=st.booleans(), goes_on=st.booleans())
    def save_and_load(self, into_itself, goes_on):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint"
            so.save(path, self.opt)
            loaded = so.load(path, self.opt) if into_itself else so.load(path)
        assert not differences(loaded.state_dict(), self.twin.state_dict())
        if goes_on:
            self.opt = loaded

    @precondition(lambda self: not self.moved)
    @rule()
    def keep(self):
        self.kept = [copy.deepcopy(opt.state_dict()) for opt in (self.opt, self.twin)], copy.deepcopy(self.model)

    @precondition(lambda self: not self.moved and self.kept)
    @rule()
    def go_back(self):
        states, model = copy.deepcopy(self.kept)
        for opt, state in zip((self.opt, self.twin), states, strict=True):
            opt.load_state_dict(state)
        self.model = model

    @precondition(lambda self: not self.moved)
    @rule(name=st.sampled_from(["lr", "weight_decay", "max_grad_norm", "momentum", "betas"]), large=st.booleans())
    def change(self, name, large):
        values = {"lr": (0.05, 0.02), "weight_decay": (0.0, 0.05), "max_grad_norm": (None, 0.5), "momentum": (0.5, 0.8),
                  "betas": (0.8, 0.95)}
        value = values[name][large]
        if name == "betas":
            value = value, 0.99
        group = self.opt.param_groups[0]
        for opt in (self.opt, self.twin):
            if name == "max_grad_norm":
                opt.max_grad_norm = value
            elif name in group and not (name == "weight_decay" and self.replays
                                        and not isinstance(opt, (so.SGD, *DECOUPLED))) \
                    and not (self.kind == "Ftrl" and name == "lr"):     # whose first state depends on it
                opt.param_groups[0][name] = value

    # Calls that raise, or may.

    @precondition(lambda self: not self.moved)
    @rule(data=st.data(), fault=st.sampled_from(["row", "negative row", "shape", "form", "NaN", "warning",
                                                 "hook", "name"]))
    def step_with_one_gradient_that_is_wrong(self, data, fault):
        drawn = {name: gradient for name, (gradient, *_) in self.draw(data).items()}
        name = data.draw(st.sampled_from(list(self.opt.params)))
        table = self.opt.params[name]
        n, dim = table.shape
        hook = contextlib.nullcontext()
        nans = so.RowGradient([n - 1], np.full((1, dim), np.nan))
        if fault == "name":
            drawn = {**drawn, "nobody": nans}
            given = {"single": {0: nans}, "sequence": list(drawn.values()) + [None] * 3}.get(self.structure, drawn)
        else:
            drawn[name] = {
                "row": so.RowGradient([0, n], np.ones((2, dim))),
                "negative row": so.RowGradient([0, -1], np.ones((2, dim))),
                "shape": sp.csr_array((n + 1, dim)),
                "form": [[0.0] * dim] * n,
            }.get(fault, nans)
            given = self.shaped(drawn)
        if {"NaN": "raise", "warning": "skip", "hook": "skip"}.get(fault, self.opt.nonfinite) != self.opt.nonfinite:
            return
        if fault == "hook":
            def interrupt(*about):
                raise KeyboardInterrupt
            hook = pytest.MonkeyPatch.context()
        with warnings.catch_warnings(), hook as patch:
            if fault == "hook":
                warnings.simplefilter("always")
                patch.setattr(warnings, "showwarning", interrupt)
            else:
                warnings.simplefilter("error" if fault == "warning" else "ignore")
            with pytest.raises((TypeError, ValueError, KeyError, IndexError, RuntimeWarning, KeyboardInterrupt)):
                self.opt.step(given)

    @precondition(lambda self: not self.moved)
    @rule(data=st.data(), name=st.sampled_from(["lr", "weight_decay", "betas", "eps", "momentum",
                                                "nonsense", "missing"]),
          value=st.sampled_from([-1.0, np.nan, np.inf, "x", None, (1.5, 0.9)]))
    def step_with_a_hyper_parameter_that_is_wrong(self, data, name, value):
        group = self.opt.param_groups[0]
        if name == "nonsense" or name in group:
            before = dict(group)
            group[name] = value
        elif name == "missing":
            before = dict(group)
            del group["maximize"]
        else:
            return
        drawn = self.draw(data)
        with pytest.raises((TypeError, ValueError, KeyError)):
            self.opt.step(self.shaped({name: gradient for name, (gradient, *_) in drawn.items()}))
        group.clear()
        group.update(before)

    @precondition(lambda self: not self.moved)
    @rule(data=st.data(), late=st.integers(0, 1),
          what=st.sampled_from([ValueError("a schedule's own"), KeyboardInterrupt(), MemoryError(), -1.0,
                                np.nan, None]))
    def step_with_a_schedule_that_fails(self, data, late, what):
        group, calls = self.opt.param_groups[0], []
        before = group["lr"]

        def schedule(step):
            calls.append(step)
            if len(calls) <= late:
                return before
            if isinstance(what, BaseException):
                raise what
            return what

        group["lr"] = schedule
        drawn = self.draw(data)
        given = self.shaped({name: gradient for name, (gradient, *_) in drawn.items()})
        try:
            self.opt.step(given)
        except (ValueError, TypeError, KeyboardInterrupt, MemoryError):
            group["lr"] = before
        else:
            assert len(calls) <= late
            group["lr"] = before
            self.twin.step(given)
            self.stepped(drawn)

    @precondition(lambda self: not self.moved)
    @rule(data=st.data(), first=st.integers(0, 12), every=st.sampled_from([7, 11]),
          what=st.sampled_from(["signal", "memory"]))
    def step_that_is_interrupted(self, data, first, every, what):
        """At one place after the other, until it is done: every time it has done nothing."""
        drawn = self.draw(data)
        given = self.shaped({name: gradient for name, (gradient, *_) in drawn.items()})
        before = self.opt.steps
        for n in itertools.count(first, every):
            with (contextlib.suppress(KeyboardInterrupt, MemoryError),
                  no_memory_after(n) if what == "memory" else Interrupt(n)):
                self.opt.step(given)
            if self.opt.steps > before:
                break
            self.it_holds_the_bits_of_its_twin()
        self.twin.step(given)
        self.stepped(drawn)

    @precondition(lambda self: not self.moved and self.replays)
    @rule(first=st.integers(0, 9), every=st.sampled_from([3, 5]), what=st.sampled_from(["signal", "memory"]))
    def catch_up_that_is_interrupted(self, first, every, what):
        for n in itertools.count(first, every):         # what was done stays done: only the end is compared
            with (contextlib.suppress(KeyboardInterrupt, MemoryError),
                  no_memory_after(n) if what == "memory" else Interrupt(n)):
                self.opt.catch_up()
                break
        self.twin.catch_up()

    @precondition(lambda self: not self.moved)
    @rule(data=st.data(), row=st.sampled_from([-1, 99]))
    def catch_up_of_rows_that_are_not_there(self, data, row):
        name = data.draw(st.sampled_from(list(self.opt.params)))
        with pytest.raises(IndexError if self.replays else RuntimeError):
            self.opt.catch_up(self.shaped({**{key: [0] for key in self.opt.params}, name: [0, row]}))

    @precondition(lambda self: not self.moved and self.kept)
    @rule(fault=st.sampled_from(["optimizer", "params", "state", "param_groups", "steps", "metadata", "shape", "lr"]))
    def load_state_dict_that_is_wrong(self, fault):
        state = copy.deepcopy(self.kept[0][0])
        last = list(self.opt.params)[-1]
        if fault == "shape":
            state["params"][last] = np.zeros((99, 1), self.dtype)
        elif fault == "lr":
            state["param_groups"][0]["lr"] = -1.0
        elif fault == "steps":
            state["steps"] = -1
        else:
            del state[fault]
        with pytest.raises((TypeError, ValueError, KeyError)):
            self.opt.load_state_dict(state)

    @precondition(lambda self: not self.moved and all(table.flags.owndata for table in self.opt.params.values()))
    @rule(data=st.data(), more=st.sampled_from([-1, 1, 5000]))
    def resize_a_table(self, data, more):
        """And back again, where it may have moved: no call may read or write the memory that it has left."""
        name = data.draw(st.sampled_from(list(self.opt.params)))
        table = self.opt.params[name]
        n, dim = table.shape
        address = table.ctypes.data
        drawn = self.draw(data)
        drawn.setdefault(name, data.draw(gradients(n, dim, self.dtype)))
        given = self.shaped({name: gradient for name, (gradient, *_) in drawn.items()})
        self.moved = True
        for size in (n + more, n):
            table.resize((size, dim), refcheck=False)
            if size == n and table.ctypes.data == address:
                return
            before = [array.copy() for array in self.arrays()]
            with pytest.raises(ValueError, match=r"moved|shape|memory"):
                self.opt.step(given)
            if self.replays:
                with pytest.raises(ValueError, match=r"moved|shape|memory"):
                    self.opt.catch_up()
            for array, was in zip(self.arrays(), before, strict=True):
                assert array.tobytes() == was.tobytes()
            assert self.opt.steps == self.twin.steps

    @precondition(lambda self: self.moved)
    @rule()
    def nothing_more(self):
        """Which ends here: its table is lost."""

    def arrays(self):
        return [*self.opt.params.values(), *(array for state in self.opt.state.values() for array in state.values())]

    # Invariants after each call.

    @invariant()
    def it_holds_the_bits_of_its_twin(self):
        if not self.moved:
            assert not differences(self.opt.state_dict(), self.twin.state_dict())

    def teardown(self):
        if getattr(self, "model", None) is None or self.moved or sys.exc_info()[0] is not None:
            return
        if self.replays:
            self.opt.catch_up()
        for name, table in self.opt.params.items():
            exact = self.model.tables[name]
            assert np.abs(table - exact).max() <= 1e-8 * max(1.0, np.abs(exact).max())


Calls.TestCase.settings = settings(max_examples=10_000 if LONG else 40, stateful_step_count=30 if LONG else 15,
                                   deadline=None)
TestACallThatRaisesLeavesAnOptimizerAsItWas = Calls.TestCase
