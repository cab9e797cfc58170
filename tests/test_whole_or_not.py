"""A call changes all that it is to change, or nothing, whatever signals, schedules, hooks and other threads do."""

import contextlib
import copy
import functools
import gc
import os
import pickle
import random
import signal
import threading
import warnings
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
from interrupts import interrupted

import sparseopt as so

OPTIONS = {"skip": {}, "global": {"step_count": "global"}, "replay": {"missed": "replay"}}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def gradient(seed, shape, dtype=np.float32, k=3):
    rng = np.random.default_rng(seed)
    return so.RowGradient(rng.integers(0, shape[0], k), rng.standard_normal((k, *shape[1:])).astype(dtype))


SHAPES = {"a": ((7, 3), np.float32), "b": ((5,), np.float64)}


def gradients_of(seed):
    return {name: gradient(seed, shape, dtype) for name, (shape, dtype) in SHAPES.items()}


def made(steps=3, **options):
    """An optimizer of two tables some steps on: rows differ in counts, and are behind under replay."""
    # Under replay one whose history costs little to make.
    cls = functools.partial(so.RMSprop, momentum=0.5) if options.get("missed") == "replay" else so.Adam
    opt = cls({name: so.normal(shape, dtype, seed=1) for name, (shape, dtype) in SHAPES.items()}, lr=0.1, **options)
    for seed in range(steps):
        opt.step(gradients_of(seed))
    return opt


def numbers(opt):
    """All that can be read of an optimizer without changing it."""
    arrays = [a.tobytes() for name in opt.params for a in (opt.params[name], *opt.state[name].values())]
    groups = [{**group, "params": list(group["params"])} for group in opt.param_groups]
    behind = opt.stale() if opt.missed == "replay" else {}
    behind = dict(behind.items() if isinstance(behind, dict) else enumerate(behind))
    return (b"".join(arrays), repr(groups), opt.steps, opt.nonfinite_rows, opt.metadata, opt.max_grad_norm,
            {name: rows.tolist() for name, rows in behind.items()})


def future(opt):
    """Return the numbers of the optimizer now and after more steps, which depend on counts and histories."""
    now = numbers(opt)
    opt.step(gradients_of(100))
    then = numbers(opt)
    if opt.missed == "replay":
        opt.catch_up()
    return now, then, numbers(opt)


def step(opt):
    opt.step(gradients_of(7))


def step_after_a_change(opt):
    changed(opt)
    opt.step(gradients_of(7))


def load(opt):
    opt.load_state_dict(KEPT[opt.step_count, opt.missed])


def take_over(opt):
    opt.take_over("a", step=11, **{name: np.full((7, 3), 0.25) for name in opt.state["a"] if name != "step"})


def catch_up(opt):
    opt.catch_up()


def add_group(opt):
    opt.add_param_group({"params": {"c": np.ones((4, 2)), "d": np.ones(3, np.float32)}, "lr": 0.5})


def resize(opt):
    opt.resize({"a": 9, "b": 6}, init={"a": lambda rows, dim, dtype: np.full((len(rows), dim), rows.start)})


def reset(opt):
    opt.reset({"a": [6, 0, 6], "b": [3]}, init=lambda rows, dim, dtype: rows.reshape(-1, *[1] * (dim is not None))
              * np.ones((1, dim) if dim else 1))


def changed(opt):
    opt.param_groups[0]["alpha"] = 0.8          # which needs another history


def state_dict_after_a_change(opt):
    changed(opt)
    opt.state_dict()


def kept(**options):
    other = made(steps=6, **options)
    other.param_groups[0].update(lr=0.05, eps=1e-6)
    other.max_grad_norm = 2.0
    other.metadata = {"epoch": 6}
    return copy.deepcopy(other.state_dict())


KEPT = {(options.get("step_count", "row"), options.get("missed", "skip")): kept(**options)
        for options in OPTIONS.values()}
CALLS = [("skip", call) for call in (step, load, take_over, add_group, resize, reset)]
CALLS += [("global", call) for call in (step, resize, reset)]
CALLS += [("replay", call) for call in (step, step_after_a_change, load, take_over, catch_up, add_group, resize, reset,
                                             state_dict_after_a_change)]


@pytest.mark.parametrize(("name", "call"), CALLS, ids=lambda one: one if isinstance(one, str) else one.__name__)
def test_an_interrupt_anywhere_finds_the_optimizer_as_before_or_as_after_the_call(name, call):
    options = OPTIONS[name]
    before, after, changes = made(**options), made(**options), made(**options)
    call(after)
    outcomes = [future(before), future(after)]
    if call in (step_after_a_change, state_dict_after_a_change):
        changed(changes)                        # which is the caller's own, and done before
        outcomes.append(future(changes))
    opt, found = made(**options), set()
    total = interrupted(lambda: call(opt), None)
    for at in range(1, total + 1):
        opt = made(**options)
        assert interrupted(lambda opt=opt: call(opt), at) == at
        got = future(opt)
        assert got in outcomes, f"at {at} of {total}"
        found.add(outcomes.index(got))
    assert total > 20
    assert len(found) > 1


class Alarm(Exception):
    pass


# An interrupt between the opening of a file and the block that closes it leaves it open: garbage collection warns.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of POSIX")
@each_option
def test_a_signal_at_any_moment_finds_all_tables_before_or_after_a_call(options, tmp_path):
    def strike(*_):
        nonlocal struck
        struck = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise Alarm

    def large():
        tables = {"a": so.normal((3000, 16), seed=1), "b": so.normal(5000, np.float64, seed=2)}
        return so.SGD(tables, lr=0.1, momentum=0.9, num_threads=2, **options)

    whole = {"a": gradient(1, (3000, 16), k=4000), "b": gradient(2, (5000,), np.float64, k=4000)}
    calls = [lambda opt: opt.step(whole), lambda opt: opt.step({"b": whole["b"], "a": None}),
             lambda opt: opt.state_dict(),
             lambda opt: opt.step(whole), lambda opt: opt.take_over("b", step=3, momentum_buffer=np.ones(5000)),
             lambda opt: opt.load_state_dict(first), lambda opt: opt.step(whole),
             lambda opt: so.save(tmp_path / "checkpoint", opt)]
    if options.get("missed") == "replay":
        calls[1:1] = [lambda opt: opt.step({"a": gradient(3, (3000, 16))}), lambda opt: opt.catch_up()]

    def call_on():          # a function, since Python 3.13 does not guard the end of a loop in a `try`
        nonlocal done
        while not struck:   # Python drops an exception in a destructor or a weak reference's callback
            calls[done % len(calls)](opt)
            done += 1

    opt, twin = large(), large()
    first = copy.deepcopy(opt.state_dict())
    chance, before = random.Random(0), signal.signal(signal.SIGALRM, strike)
    done = reached = strikes = 0
    try:
        while strikes < 60 or done < 2 * len(calls):
            strikes += 1
            struck = False
            try:
                # Later and later, so that the longest call comes to its end, too, on a machine however slow.
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + 4e-3 * chance.random() ** 3 * (1 + strikes // 30) ** 2)
                call_on()
            except Alarm:
                pass
            while reached < done:
                calls[reached % len(calls)](twin)
                reached += 1
            if numbers(opt) != numbers(twin):
                calls[done % len(calls)](twin)
                reached = done = done + 1
            assert numbers(opt) == numbers(twin)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# User code within a step: schedules, hooks of warnings, mappings.

FORMS = {
    # name: (gradient of rows, the array of it that says the rows), all of values 1 in a table of 6 rows, dim 2
    "RowGradient": lambda rows: so.RowGradient(rows, np.ones((3, 2))),
    "COO": lambda rows: coo(rows, np.zeros(3, rows.dtype), (6, 2)),
    "CSC": lambda rows: sp.csc_array((np.ones(3), rows, np.array([0, 3, 3], rows.dtype)), (6, 2)),
    "MatmulGradient CSR": lambda rows: so.MatmulGradient(
        sp.csr_array((np.ones(3), rows, np.array([0, 2, 3], rows.dtype)), (2, 6)), np.ones((2, 2))),
    "MatmulGradient COO": lambda rows: so.MatmulGradient(
        coo(np.array([0, 0, 1], rows.dtype), rows, (2, 6)), np.ones((2, 2))),
}
BY_INDPTR = {
    "CSR": lambda ends: sp.csr_array((np.ones(3), np.zeros(3, ends.dtype), ends), (6, 2)),
    "MatmulGradient CSC": lambda ends: so.MatmulGradient(
        sp.csc_array((np.ones(3), np.zeros(3, ends.dtype), ends), (2, 6)),
                                                         np.ones((2, 2))),
}


def coo(rows, columns, shape):
    return sp.coo_array((np.ones(3), (rows, columns)), shape)


def index_of(form):
    """The array by which a gradient says its rows."""
    if isinstance(form, so.RowGradient):
        return form.rows
    X = getattr(form, "X", form)
    if X.format == "coo":
        return X.coords[1 if X is not form else 0]
    return X.indptr if X.format == ("csc" if X is not form else "csr") else X.indices


CHANGES = [(form, make, [0, 3, 3], [1, 5, 1], [1, 600, 1]) for form, make in FORMS.items()]
CHANGES += [(form, make, [0, 1, 1, 2, 3, 3, 3], [0, 0, 0, 1, 1, 1, 3], [0, 0, 0, 1, 1, 1, 2**20])
            for form, make in BY_INDPTR.items()]


@each_option
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("form", "make", "first", "then", "beyond"), CHANGES, ids=[form for form, *_ in CHANGES])
def test_rows_that_a_schedule_refills_are_read_as_it_left_them(form, make, first, then, beyond, index, options):
    def refill(step):
        if new:
            index_of(given)[:] = new.pop()
        return 0.5

    for way in (then, beyond):
        memory = np.zeros((30, 2))
        given, new = make(np.array(first, index)), [way]
        assert index_of(given).tolist() == first
        opt = so.SGD(memory[12:18], lr=refill, momentum=0.9, **options)
        if way is beyond:
            with pytest.raises((IndexError, ValueError), match=r"600|indptr|1048576"):
                opt.step(given)
            assert not memory.any()
            assert opt.steps == 0
            continue
        opt.step(given)
        other = np.zeros((6, 2))
        so.SGD(other, lr=0.5, momentum=0.9, **options).step(make(np.array(then, index)))
        assert other.any()
        np.testing.assert_array_equal(memory[12:18], other)
        assert not memory[:12].any()
        assert not memory[18:].any()


@contextlib.contextmanager
def hook(run):
    """Run something of the user's at the warning of rows left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_, **__: run()
        yield


def index_arrays(form):
    if isinstance(form, so.RowGradient):
        return [form.rows]
    X = getattr(form, "X", form)
    return list(X.coords) if X.format == "coo" else [X.indices, X.indptr]


@each_option
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize(("form", "make", "first"), [change[:3] for change in CHANGES],
                         ids=[form for form, *_ in CHANGES])
def test_indices_that_a_hook_refills_while_a_step_is_prepared_have_no_effect(
        form, make, first, index, threads, options):
    memory, other, given = np.zeros((30, 2)), np.zeros((6, 2)), make(np.array(first, index))
    bad = np.full((6, 1), np.nan)
    hyper = dict(lr=1.0, momentum=0.5, nonfinite="skip", num_threads=threads, **options)
    opt, filled = so.SGD({"a": np.zeros((6, 1)), "b": memory[12:18]}, **hyper), []

    def refill():
        filled.append(form)
        for array in index_arrays(given):
            array.fill(10**6)

    # The plans of all tables are made before the first warning.
    with hook(refill):
        opt.step({"a": bad, "b": given})
    assert filled == [form]
    so.SGD(other, **hyper).step(make(np.array(first, index)))
    assert other.any()
    np.testing.assert_array_equal(memory[12:18], other)
    assert np.count_nonzero(memory) == np.count_nonzero(other)
    assert opt.nonfinite_rows == 6


@each_option
@pytest.mark.parametrize("of", ["b", "a"])
def test_a_table_that_a_hook_resizes_stops_the_step_for_all_tables(of, options):
    tables = {"a": np.ones((6, 1)), "b": np.ones((6, 1))}
    opt = so.SGD(tables, lr=1.0, momentum=0.5, nonfinite="skip", **options)
    bad = np.full((6, 1), 1.0)
    bad[2] = np.nan
    with (hook(lambda: tables[of].resize((100_000, 1), refcheck=False)),
          pytest.raises(ValueError, match=f'the table of "{of}" has changed its shape')):
        opt.step({"a": np.ones((6, 1)), "b": bad})
    assert (tables["a"][:6] == 1).all()
    assert (tables["b"][:6] == 1).all()
    assert opt.steps == opt.nonfinite_rows == 0
    assert not any(array.any() for state in opt.state.values() for array in state.values())


@each_option
@pytest.mark.parametrize("size", [0, 1, 10**6])
@pytest.mark.parametrize("form", ["rows", "product", "weights"])
def test_values_that_a_hook_resizes_stop_the_step_before_it_writes(form, size, options):
    values = np.ones((4, 2) if form != "weights" else 4)
    values[1] = np.nan
    if form == "rows":
        given = so.RowGradient([4, 0, 2, 1], values)
    else:
        X = sp.coo_array((np.ones(4), (np.arange(4), np.array([4, 0, 2, 1]))), (4, 6))
        if form == "weights":
            X.data = values
        given = so.MatmulGradient(X, values if form == "product" else np.ones((4, 2)))
    table, first = np.zeros((6, 2)), np.zeros((2, 1))
    opt = so.SGD([first, table], lr=1.0, momentum=0.5, nonfinite="skip", **options)
    before = numbers(opt)
    with (hook(lambda: values.resize((size, *values.shape[1:]), refcheck=False)),
          pytest.raises(ValueError, match="values have changed their memory or length")):
        opt.step([np.ones((2, 1)), given])
    assert numbers(opt) == before
    opt.step([np.ones((2, 1)), None])
    assert opt.steps == 1


WITHIN = {
    "step": lambda opt, _: opt.step(gradients_of(1)), "load_state_dict": lambda opt, _: opt.load_state_dict({}),
    "save": lambda opt, path: so.save(path, opt), "state_dict": lambda opt, _: opt.state_dict(),
    "take_over": lambda opt, _: opt.take_over("a", step=1), "deepcopy": lambda opt, _: copy.deepcopy(opt),
    "pickle": lambda opt, _: pickle.dumps(opt), "catch_up": lambda opt, _: opt.catch_up(),
    "resize": lambda opt, _: opt.resize("a", 9), "reset": lambda opt, _: opt.reset("a", [1]),
    "add_param_group": lambda opt, _: add_group(opt)}


@each_option
@pytest.mark.parametrize("where", ["schedule", "hook", "mapping"])
@pytest.mark.parametrize("name", WITHIN)
def test_user_code_within_a_step_that_uses_the_optimizer_is_told_so_and_the_step_writes_nothing(name, where,
                                                                                                options, tmp_path):
    if name == "catch_up" and "missed" not in options:
        return
    opt, path = made(nonfinite="skip", **options), tmp_path / "file"
    before, given, runs = numbers(opt), gradients_of(5), []

    def again(*_):
        runs.append(name)
        WITHIN[name](opt, path)
        return 0.1

    class Busy(dict):
        def items(self):
            again()
            return super().items()

    if where == "mapping":
        given = Busy(given)
    elif where == "hook":
        given["a"].values[0] = np.nan
    else:
        opt.param_groups[0]["lr"] = again
    with hook(again), pytest.raises(RuntimeError, match="at work in another call"):
        opt.step(given)
    assert runs == [name]
    opt.param_groups[0]["lr"] = 0.1
    assert numbers(opt) == before
    assert not os.listdir(tmp_path)
    opt.step(gradients_of(6))
    assert opt.steps == before[2] + 1


@each_option
@pytest.mark.parametrize("call", ["step", "catch_up", "stale"])
def test_a_mapping_that_gives_a_name_twice_is_refused(call, options):
    class Twice(dict):
        def items(self):
            return [pair for pair in super().items() for _ in range(2)]

    if call != "step" and "missed" not in options:
        return
    opt = made(**options)
    before = numbers(opt)
    with pytest.raises(ValueError, match="names 'a' twice"):
        getattr(opt, call)(Twice(a=gradients_of(1)["a"] if call == "step" else [1]))
    assert numbers(opt) == before


# Arrays that are no longer what they were when the optimizer was made.

ENTRIES = {**WITHIN, "stale": lambda opt, _: opt.stale(), "load_state_dict": lambda opt, _: load(opt)}


def resized(size):
    return lambda array: array.resize((size, *array.shape[1:]), refcheck=False)


def assigned(**attributes):
    def change(array):
        for name, value in attributes.items():
            setattr(array, name, value)
    return change


def unwriteable(array):
    array.flags.writeable = False


MOVES = {"larger": resized(50_000), "smaller": resized(2), "of another dtype": assigned(dtype=np.int32),
         "of another shape": assigned(shape=(3, 7)), "of other strides": assigned(strides=(0, 4)),
         "read-only": unwriteable}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")       # NumPy's, of such assignments
@pytest.mark.parametrize("missed", ["skip", "replay"])
@pytest.mark.parametrize(("where", "move"),
                         [("table", move) for move in MOVES] + [("state", move) for move in [*MOVES][2:]])
@pytest.mark.parametrize("name", ENTRIES)
def test_no_call_uses_a_table_or_state_that_has_become_another_array(name, move, where, missed, tmp_path):
    if missed == "skip" and name in ("catch_up", "stale"):
        return
    table = np.ones((7, 3), np.float32)
    cls = so.RMSprop if missed == "replay" else so.Adam
    opt = cls({"b": np.ones(5), "a": table}, lr=0.1, missed=missed)
    opt.step(gradients_of(3))
    opt.step({"b": gradients_of(4)["b"]})
    array = table if where == "table" else [*opt.state["a"].values()][-1]
    before = [a.tobytes() for n in opt.params for a in (opt.params[n], *opt.state[n].values()) if a is not array]
    old, steps = array.tobytes(), opt.steps
    MOVES[move](array)
    held = array.tobytes()
    with pytest.raises(ValueError, match=f'the {where} of "a" has (changed|become)'):
        ENTRIES[name](opt, tmp_path / "file")
    assert [a.tobytes() for n in opt.params
            for a in (opt.params[n], *opt.state[n].values()) if a is not array] == before
    assert array.tobytes() == held
    assert opt.steps == steps
    assert not os.listdir(tmp_path)
    if move == "read-only":
        array.flags.writeable = True
        assert array.tobytes() == old
        opt.step(gradients_of(5))
        assert opt.steps == steps + 1


@pytest.mark.parametrize("missed", ["skip", "replay"])
def test_a_table_resized_and_back_is_refused_unless_it_is_where_it_was(missed):
    table = np.zeros((7, 3), np.float32)
    opt, place = so.RMSprop({"a": table}, lr=0.1, missed=missed), table.ctypes.data
    table.resize((1_000_000, 3), refcheck=False)
    between = np.zeros(60, np.uint8)            # takes the place of the old memory, or of some like it
    table.resize((7, 3), refcheck=False)
    if table.ctypes.data != place:
        with pytest.raises(ValueError, match='the table of "a" has changed its memory'):
            opt.step({"a": np.ones((7, 3), np.float32)})
        assert not table.any()
        assert opt.steps == 0
    else:
        opt.step({"a": np.ones((7, 3), np.float32)})
        np.testing.assert_allclose(table, -1, rtol=1e-6)
    assert not between.any()


# Threads.


class Held:
    """A schedule that stands in a step of another thread until it is let go."""

    def __init__(self):
        self.within, self.go = threading.Event(), threading.Event()

    def __call__(self, step):
        self.within.set()
        assert self.go.wait(60)
        return 0.1


@each_option
@pytest.mark.parametrize("name", WITHIN)
def test_a_call_of_another_thread_during_a_step_is_an_error_and_the_step_goes_on(name, options, tmp_path):
    if name == "catch_up" and "missed" not in options:
        return
    opt, twin, schedule = made(**options), made(**options), Held()
    opt.param_groups[0]["lr"] = schedule
    thread = threading.Thread(target=opt.step, args=(gradients_of(4),))
    thread.start()
    try:
        assert schedule.within.wait(60)
        with pytest.raises(RuntimeError, match="at work in another call"):
            WITHIN[name](opt, tmp_path / "file")
    finally:
        schedule.go.set()
        thread.join()
    assert not os.listdir(tmp_path)
    opt.param_groups[0]["lr"] = 0.1
    twin.step(gradients_of(4))
    assert future(opt) == future(twin)


@each_option
def test_of_two_threads_that_step_each_call_counts_or_is_an_error(options):
    shape = (2000, 16)
    opt = so.SGD(so.zeros(shape, np.float64), lr=1.0, momentum=0.5, num_threads=1, **options)
    start, refused, stepped = threading.Barrier(2), [], []

    def work():
        start.wait(60)
        for _ in range(50):
            try:
                opt.step(np.ones(shape))
                stepped.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opt.steps == len(stepped)
    assert len(stepped) + len(refused) == 100
    assert all("at work" in message for message in refused)
    w = b = 0.0
    for k in range(len(stepped)):
        b = 0.5 * b + 1 if k else 1.0
        w -= b
    np.testing.assert_allclose(opt.params[0], w, rtol=1e-12)


def test_an_optimizer_that_is_dropped_frees_its_tables_at_once():
    opt = so.Adam(so.zeros((10, 2)), missed="replay")
    opt.step(so.RowGradient([1], [[1.0, 1.0]]))
    gone = weakref.ref(opt)
    gc.disable()
    try:
        del opt
        assert gone() is None
    finally:
        gc.enable()


def test_groups_that_were_added_or_taken_away_are_no_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    opt = so.SGD([{"params": {"a": so.zeros((2, 1))}}, {"params": {"b": so.zeros((2, 1))}}])
    so.save(path, opt)
    before = path.read_bytes()
    taken = opt.param_groups.pop()
    with pytest.raises(ValueError, match="param_groups has other groups"):
        so.save(path, opt)
    opt.param_groups.append(dict(taken, params={"b": so.zeros((2, 1))}))
    with pytest.raises(ValueError, match="param_groups has other groups"):
        so.save(path, opt)
    assert path.read_bytes() == before
