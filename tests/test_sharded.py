"""Sharded tables: the bits of one machine for any number of shards, and what holds when shards and workers die."""

import concurrent.futures
import copy
import json
import os
import pickle
import random
import shutil
import threading
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from interrupts import interrupted

import sparseopt as so
from sparseopt import optimizers, sharded
from sparseopt.sharded import _tables
from sparseopt.sharded._client import Lost
from sparseopt.sharded._local import LocalEngine, LocalLink

ROWS = {"user": so.Rows(23, 3, init=so.init.Normal(0.1, seed=1)),
        "item": so.Rows(8, None, np.float64, init=so.init.Uniform(-0.1, 0.1, seed=2))}
SHARDS = 1, 2, 7, 101
STEPS = 4
OPTIONS = {"skip": {}, "global": {"step_count": "global"}, "replay": {"missed": "replay"}}
HYPER = {"SGD": {"lr": 0.1, "momentum": 0.9}, "RMSprop": {"momentum": 0.5, "centered": True}}


def gradient(rng, rows, k=9):
    """Rows with repeats. The first rows get most of them."""
    numbers = (rows.n_rows * rng.random(k) ** 3).astype(np.int64)
    return so.RowGradient(numbers, rng.standard_normal(rows.shape(k)).astype(rows.dtype))


def drawn(seed, workers, steps=STEPS):
    """Gradients by step and worker. Some steps do not touch all tables."""
    rng = np.random.default_rng(seed)
    return [[{name: gradient(rng, rows) for name, rows in ROWS.items() if rng.random() < 0.8 or worker == 0}
             for worker in range(workers)] for _ in range(steps)]


def concatenated(gradients):
    """The gradients of all workers as one machine takes them."""
    parts = {name: [each[name] for each in gradients if name in each] for name in ROWS}
    return {name: so.RowGradient(np.concatenate([one.rows for one in some]),
                                 np.concatenate([one.values for one in some])) for name, some in parts.items() if some}


def in_memory(make, rows=ROWS):
    return make({name: one.start(range(one.n_rows)) for name, one in rows.items()})


def adam(tables):
    return so.Adam(tables, lr=0.1)


def pulled(step):
    return {"user": [step % 23, 22, step % 23], "item": np.array([7, step % 8])}


def of(gradients):
    """A gradients_of that gives these gradients, and reports the step."""
    def gradients_of(client, step, worker):
        if step >= len(gradients):
            return None
        client.pull(pulled(step))
        return gradients[step][worker], (step, worker)
    return gradients_of


def assert_same(ours, theirs, **but):
    """All numbers of two optimizers are the same, to the bit."""
    assert list(ours.params) == list(theirs.params)
    for name, table in theirs.params.items():
        assert ours.params[name].tobytes() == table.tobytes(), name
        assert ours.state[name].keys() == theirs.state[name].keys()
        for key, array in theirs.state[name].items():
            assert ours.state[name][key].tobytes() == array.tobytes(), (name, key)
            assert ours.state[name][key].dtype == array.dtype
    assert ours.steps == theirs.steps
    assert ours.nonfinite_rows == theirs.nonfinite_rows
    if theirs.missed == "replay":
        assert_same_history(ours, theirs)


def assert_same_history(ours, theirs):
    ours, theirs = ours.state_dict()["history"], theirs.state_dict()["history"]
    for name, arrays in theirs.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(ours[name][key], array)


def one_machine(make, gradients, catch_up=True):
    opt = in_memory(make)
    for step, some in enumerate(gradients):
        if catch_up and opt.missed == "replay":
            opt.catch_up({name: np.unique(rows) for name, rows in pulled(step).items()})
        opt.step(concatenated(some))
    return opt


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_any_number_of_shards_has_the_bits_of_one_machine(name, options):
    def make(tables):
        schedule = so.schedules.Exponential(0.05, 0.9)
        return optimizers.OPTIMIZERS[name](tables, **{"lr": schedule, **HYPER.get(name, {}), **options})

    for workers in (1, 4):
        gradients = drawn(workers, workers)
        expected = one_machine(make, gradients)
        by_worker = []
        for shards in SHARDS:
            with sharded.Tables(ROWS, make, shards=shards, workers=workers, combine="none") as tables:
                tables.fit(of(gradients))
                assert tables.steps == STEPS
                assert_same(tables.optimizer(), expected)
                for one, values in tables.pull({"user": range(23), "item": [3, 3]}).items():
                    opt = copy.deepcopy(expected)
                    if opt.missed == "replay":
                        opt.catch_up()
                    np.testing.assert_array_equal(values, opt.params[one][range(23) if one == "user" else [3, 3]])
            if workers > 1:
                with sharded.Tables(ROWS, make, shards=shards, workers=workers, combine="worker") as tables:
                    tables.fit(of(gradients))
                    by_worker.append(tables.optimizer())
                assert_same(by_worker[-1], by_worker[0])
                np.testing.assert_allclose(by_worker[0].params["user"], expected.params["user"], rtol=1e-3, atol=1e-5)


FORMS = {
    "rows": lambda rng: so.RowGradient(rng.integers(0, 23, 9), rng.standard_normal((9, 3), np.float32)),
    "dense": lambda rng: rng.standard_normal((23, 3), np.float32),
    "csr": lambda rng: sp.random_array((23, 3), density=0.4, format="csr", dtype=np.float32, rng=rng),
    "coo": lambda rng: sp.coo_array((rng.standard_normal(30, np.float32),
                                     (rng.integers(0, 23, 30), rng.integers(0, 3, 30))), shape=(23, 3)),
    "product": lambda rng: so.MatmulGradient(sp.random_array((6, 23), density=0.3, format="csr", rng=rng),
                                             rng.standard_normal((6, 3), np.float32)),
}


def stacked(form, gradients):
    if form == "rows":
        return so.RowGradient(np.concatenate([one.rows for one in gradients]),
                              np.concatenate([one.values for one in gradients]))
    if form == "dense":
        return so.RowGradient(np.tile(np.arange(23), len(gradients)), np.concatenate(gradients))
    if form == "product":
        return so.MatmulGradient(sp.vstack([one.X for one in gradients], format="csr"),
                                 np.concatenate([one.dY for one in gradients]))
    parts = [one.tocoo() for one in gradients]
    rows, columns = (np.concatenate([part.coords[axis] for part in parts]) for axis in (0, 1))
    return sp.coo_array((np.concatenate([part.data for part in parts]), (rows, columns)), shape=(23, 3))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_gradient_has_the_bits_of_one_machine(form, workers):
    rng = np.random.default_rng(0)
    gradients = [[FORMS[form](rng) for _ in range(workers)] for _ in range(3)]
    rows = {"user": ROWS["user"]}
    opt = in_memory(adam, rows)
    for some in gradients:
        opt.step({"user": stacked(form, some)})
    for shards in (1, 4):
        tables = sharded.Tables(rows, adam, shards=shards, workers=workers, combine="none")
        tables.fit(lambda client, step, worker: {"user": gradients[step][worker]}, steps=3)
        assert_same(tables.optimizer(), opt)


def test_a_worker_that_is_done_takes_part_with_nothing():
    gradients = drawn(0, 3)
    tables = sharded.Tables(ROWS, adam, shards=2, workers=3, combine="none")
    told = []
    tables.fit(lambda client, step, worker: (gradients[step][worker], worker) if step < 2 + worker else None,
               callback=lambda step, reports: told.append((step, reports)))
    assert told == [(1, [0, 1, 2]), (2, [0, 1, 2]), (3, [None, 1, 2]), (4, [None, None, 2])]
    opt = in_memory(adam)
    for step in range(4):
        opt.step(concatenated(gradients[step][max(0, step - 1):]))
    assert_same(tables.optimizer(), opt)


def test_fit_goes_on_where_the_last_one_ended_and_a_true_callback_ends_it():
    gradients = drawn(0, 2)
    tables = sharded.Tables(ROWS, adam, shards=3, workers=2, combine="none")
    seen = []

    def gradients_of(client, step, worker):
        seen.append((step, worker))
        return of(gradients)(client, step, worker)

    tables.fit(gradients_of, steps=1)
    tables.fit(gradients_of, callback=lambda step, reports: step == 3)
    assert seen == [(step, worker) for step in range(3) for worker in range(2)]
    tables.fit(gradients_of, steps=0)
    tables.fit(gradients_of)
    assert_same(tables.optimizer(), one_machine(adam, gradients))


def test_a_history_restarts_by_the_size_of_the_whole_table(monkeypatch):
    monkeypatch.setattr("sparseopt.optimizers._parameter._LONG", 4)
    rows = {"a": so.Rows(3000, 4)}

    def make(tables):
        return so.SGD(tables, lr=0.1, momentum=0.5, missed="replay")

    rng = np.random.default_rng(0)
    gradients = [so.RowGradient(rng.integers(0, 3000, 50), rng.standard_normal((50, 4), np.float32))
                 for _ in range(12)]
    opt = in_memory(make, rows)
    tables = sharded.Tables(rows, make, shards=101)
    small = make({"a": so.zeros((30, 4))})
    for one in gradients:
        opt.step({"a": one})
        small.step({"a": so.RowGradient([1], np.ones((1, 4)))})
        tables.push({"a": one})
    assert opt.state_dict()["history"]["a"]["counts"][0] == 0
    assert small.state_dict()["history"]["a"]["counts"][0] > 0          # a table of a shard's size would have restarted
    assert_same(tables.optimizer(), opt)


# On a disk.

@pytest.mark.parametrize("options", [{}, {"step_count": "global"}, {"nonfinite": "allow"}])
def test_shards_on_a_disk_have_the_bits_of_one_machine(options, tmp_path):
    def make(tables):
        return so.NAdam(tables, lr=0.1, **options)

    gradients = drawn(0, 3, steps=8)
    expected = one_machine(make, gradients)
    for shards, cache in ((1, 19), (2, 10), (7, 4)):
        folder = tmp_path / str(shards)
        with sharded.Tables(ROWS, make, shards=shards, workers=3, combine="none", disk=tmp_path, folder=folder,
                            cache_rows={"user": cache, "item": 8}) as tables:
            tables.metadata["epoch"] = 3
            tables.fit(of(gradients), steps=5,
                       callback=lambda step, reports, tables=tables: tables.pull({"user": [step, 20]}) and False)
            tables.save()
            tables.fit(of(gradients))
            assert_same(tables.optimizer(), expected)
        for then, disk in ((shards, tmp_path), (3, tmp_path), (4, None)):
            with sharded.load(folder, make, shards=then, disk=disk) as again:
                assert again.metadata == {"epoch": 3}
                again.fit(of(gradients))
                assert_same(again.optimizer(), expected)
    with sharded.Tables(ROWS, make, shards=3, disk=tmp_path) as tables:
        tables.load(expected)
        assert_same(tables.optimizer(), expected)


def test_shards_on_a_disk_take_a_step_all_or_none(tmp_path):
    gradients = drawn(0, 1)
    bad = so.RowGradient([4, 17], np.array([[1, 1, 1], [1, np.nan, 1]], np.float32))
    for options in ({}, {"nonfinite": "allow"}):
        def make(tables, options=options):
            return so.Adam(tables, lr=0.1, **options)

        with sharded.Tables(ROWS, make, shards=3, combine="none", disk=tmp_path, cache_rows=7) as tables:
            tables.fit(of(gradients), steps=2)
            before = tables.optimizer()
            assert_same(before, one_machine(make, gradients[:2]))
            with pytest.raises(ValueError, match="rows come together; cache_rows is 7"):
                tables.push({"item": so.RowGradient([1], [1.0]), "user": np.ones((23, 3), np.float32)})
            if not options:
                with pytest.raises(FloatingPointError, match="row 17, column 1"):
                    tables.push({"user": bad})
            assert_same(tables.optimizer(), before)
            tables.fit(of(gradients))
            assert_same(tables.optimizer(), one_machine(make, gradients))


def test_a_read_between_the_check_and_the_step_moves_no_gradient_to_other_rows(tmp_path):
    tables = sharded.Tables({"a": so.Rows(40, 1)}, lambda tables: so.SGD(tables, lr=1.0), disk=tmp_path, cache_rows=2)
    shard, run = tables._engine.shards[0], tables._run
    part = {"a": (np.array([3]), np.ones((1, 1), np.float32))}
    shard.do([message(tables, 0, 0, 1, part), ("prepare", (run, 0, (0,)))])
    shard.do([("read", (run, {"a": np.array([7, 8])}))])
    shard.do([("commit", (run, 0, (0,)))])
    np.testing.assert_array_equal(np.flatnonzero(tables.optimizer().params["a"]), [3])
    tables.close()


# Two phases.

def test_a_gradient_that_is_not_finite_leaves_all_shards_as_before_and_names_the_row_of_the_whole_table():
    gradients = drawn(0, 2)
    bad = so.RowGradient([4, 17], np.array([[1, 1, 1], [1, np.nan, 1]], np.float32))
    for shards in (1, 5):
        tables = sharded.Tables(ROWS, adam, shards=shards, workers=2, combine="none")
        tables.fit(of(gradients), steps=2)
        with pytest.raises(FloatingPointError, match='gradient of "user" has nan at row 17, column 1'):
            tables.fit(lambda client, step, worker: {"user": bad} if worker else gradients[step][worker])
        assert_same(tables.optimizer(), one_machine(adam, gradients[:2]))
        clients = [tables.client(worker) for worker in range(2)]
        clients[0].push(gradients[2][0])
        with pytest.raises(FloatingPointError, match="row 17"):
            clients[1].push({"user": bad})
        assert_same(tables.optimizer(), one_machine(adam, gradients[:2]))
        for client, one in zip(clients, gradients[2], strict=True):     # which go on
            client.push(one)
        assert_same(tables.optimizer(), one_machine(adam, gradients[:3]))


def test_sums_over_workers_that_overflow_leave_all_shards_as_before():
    large = so.RowGradient([17], np.full((1, 3), 3e38, np.float32))
    for combine in ("none", "worker"):
        tables = sharded.Tables(ROWS, adam, shards=5, workers=2, combine=combine)
        with pytest.raises(FloatingPointError, match='gradient of "user" has inf at row 17, column 0'):
            tables.fit(lambda client, step, worker: {"user": large, "item": so.RowGradient([1], [1.0])})
        assert_same(tables.optimizer(), in_memory(adam))


def test_rows_that_are_not_finite_are_left_out_and_counted():
    def make(tables):
        return so.Adam(tables, lr=0.1, nonfinite="skip")

    gradients = drawn(0, 2)
    gradients[1][1]["user"].values[3:6, 1] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        opt = one_machine(make, gradients)
        assert opt.nonfinite_rows > 0
        for shards in (1, 7):
            tables = sharded.Tables(ROWS, make, shards=shards, workers=2, combine="none")
            tables.fit(of(gradients))
            assert_same(tables.optimizer(), opt)


def test_max_grad_norm_scales_by_the_norm_of_all_shards():
    def make(tables):
        return so.SGD(tables, lr=0.1, max_grad_norm=0.5, clip_value=0.8)

    gradients = drawn(0, 2)
    opt = one_machine(make, gradients)
    for shards in SHARDS:
        tables = sharded.Tables(ROWS, make, shards=shards, workers=2, combine="none")
        tables.fit(of(gradients))
        ours = tables.optimizer()
        for name, table in opt.params.items():
            np.testing.assert_allclose(ours.params[name], table, rtol=2e-6, atol=1e-7)
        if shards == 1:
            assert_same(ours, opt)


def test_a_global_norm_that_overflows_leaves_all_shards_as_before():
    def make(tables):
        return so.SGD(tables, lr=0.1, max_grad_norm=0.5)

    rows = {"a": so.Rows(9, 2, np.float64)}
    for shards in (1, 3):
        tables = sharded.Tables(rows, make, shards=shards)
        with pytest.raises(ValueError, match="global norm of the gradients overflows"):
            tables.push({"a": so.RowGradient([1, 2], np.full((2, 2), 1e200))})
        assert_same(tables.optimizer(), in_memory(make, rows))


# Clients.

def test_clients_push_in_any_order_and_the_last_one_takes_the_step():
    gradients = drawn(0, 3)
    tables = sharded.Tables(ROWS, adam, shards=4, workers=3, combine="none")
    clients = [tables.client(worker) for worker in range(3)]
    for step, some in enumerate(gradients):
        order = np.random.default_rng(step).permutation(3)
        for worker in order:
            assert tables.steps == step
            clients[worker].pull(pulled(step))
            clients[worker].push(some[worker])
    assert_same(tables.optimizer(), one_machine(adam, gradients))


def test_gradients_that_wait_are_copies():
    gradients = drawn(0, 2)
    tables = sharded.Tables(ROWS, adam, shards=1, workers=2, combine="none")
    memory = np.empty((9, 3), np.float32)
    clients = [tables.client(worker) for worker in range(2)]
    for some in gradients:
        for client, one in zip(clients, some, strict=True):
            if "user" in one:
                memory[...] = one["user"].values
                one = {**one, "user": so.RowGradient(one["user"].rows, memory)}
            client.push(one)
    assert_same(tables.optimizer(), one_machine(adam, gradients))


def test_exchange_is_a_push_and_a_pull():
    gradients = [some[0] for some in drawn(0, 1)]
    for options in OPTIONS.values():
        opt = in_memory(lambda tables, options=options: so.Adam(tables, lr=0.1, **options))
        tables = sharded.Tables(ROWS, lambda tables, options=options: so.Adam(tables, lr=0.1, **options), shards=3)
        client = tables.client()
        for step, one in enumerate(gradients):
            opt.step(one)
            found = client.exchange(one, pulled(step))
            if opt.missed == "replay":
                opt.catch_up(pulled(step))
            for name, rows in pulled(step).items():
                np.testing.assert_array_equal(found[name], opt.params[name][rows])
        assert_same(tables.optimizer(), opt)


@pytest.mark.parametrize("options", [{}, {"nonfinite": "allow"}, {"max_grad_norm": 0.1}])
@pytest.mark.parametrize("shards", [1, 5])
def test_threads_wait_for_each_other(shards, options):
    def make(tables):
        return so.Adam(tables, lr=0.1, **options)

    gradients = drawn(0, 3, steps=20)
    tables = sharded.Tables(ROWS, make, shards=shards, workers=3, combine="none")
    found = [[] for _ in range(3)]

    def work(worker):
        client = tables.client(worker)
        for step, some in enumerate(gradients):
            found[worker].append(client.pull({"user": range(23)})["user"])
            if step % 2:
                client.push(some[worker])
            else:
                client.exchange(some[worker], {"item": [1]})

    in_threads(work, 3)
    twin = sharded.Tables(ROWS, make, shards=shards, workers=3, combine="none")
    for step, some in enumerate(gradients):
        for worker in range(3):
            np.testing.assert_array_equal(found[worker][step], twin.pull({"user": range(23)})["user"])
        twin.fit(of([None] * step + [some]), steps=1)
    assert_same(tables.optimizer(), twin.optimizer())


def in_threads(work, workers):
    errors = []

    def run(worker):
        try:
            work(worker)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(worker,), daemon=True) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


def test_a_call_that_would_wait_for_ever_says_so(monkeypatch):
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    tables = sharded.Tables(ROWS, adam, shards=2, workers=2)
    client = tables.client(0)
    client.push({"item": so.RowGradient([1], [1.0])})
    with pytest.raises(RuntimeError, match="waits for the gradients of other workers; no other thread"):
        client.pull({"item": [1]})
    tables.client(1).push({})
    assert client.pull({"item": [1]})["item"] != ROWS["item"].start([1])


def test_async_pushes_are_steps_of_their_own_and_no_worker_runs_far_ahead():
    tables = sharded.Tables(ROWS, adam, shards=3, workers=3, mode="async", staleness=2)
    gradients, at, most = drawn(0, 3, steps=30), [0, 0, 0], [0]

    def work(worker):
        client = tables.client(worker)
        for some in gradients:
            client.pull({"item": [1]})
            most[0] = max(most[0], at[worker] - min(at))
            client.push(some[worker])
            at[worker] += 1

    in_threads(work, 3)
    assert tables.steps == 90
    assert most[0] <= 3             # the counts here are raised a moment after the shards' own
    told = []
    tables.fit(lambda client, step, worker: (gradients[step - 90][worker], step) if step < 92 + worker else None,
               callback=lambda steps, reports: told.append((steps, reports)))
    assert tables.steps == 90 + 2 + 3 + 4 == told[-1][0]
    assert told[:3] == [(91, [90, None, None]), (92, [None, 90, None]), (93, [None, None, 90])]
    assert np.isfinite(tables.optimizer().params["user"]).all()


def test_nobody_waits_for_a_worker_that_has_left():
    tables = sharded.Tables(ROWS, adam, shards=3, workers=2, mode="async")
    one, other = tables.client(0), tables.client(1)
    other.push({})
    other.leave()
    for _ in range(4):
        one.exchange({"item": so.RowGradient([1], [1.0])}, {"item": [1]})
    assert tables.steps == 5
    with pytest.raises(RuntimeError, match=r'leave is for mode="async"; in sync mode push\({}\) takes part'):
        sharded.Tables(ROWS, adam).client().leave()


def test_one_worker_in_async_mode_has_the_bits_of_one_machine():
    gradients = drawn(0, 1)
    for options in ({}, {"missed": "replay"}, {"nonfinite": "allow"}):
        tables = sharded.Tables(ROWS, lambda tables, options=options: so.Adam(tables, lr=0.1, **options), shards=4,
                                mode="async")
        tables.fit(of(gradients))
        assert_same(tables.optimizer(), one_machine(lambda tables, o=options: so.Adam(tables, lr=0.1, **o), gradients))


def test_a_client_is_pickled_within_its_process():
    tables = sharded.Tables(ROWS, adam, shards=2)
    client = pickle.loads(pickle.dumps(tables.client()))
    client.push({"item": so.RowGradient([1], [1.0])})
    assert tables.steps == 1
    lost = pickle.dumps(client)
    tables.close()
    del tables, client
    with pytest.raises(RuntimeError, match='engine "local" works only in the process of its tables'):
        pickle.loads(lost)


# Messages.

def message(tables, worker, turn, number, part, client="one"):
    return ("push", (tables._run, turn, worker, (client, number), part))


def test_a_message_that_comes_again_or_late_changes_nothing():
    tables = sharded.Tables(ROWS, adam, shards=1, workers=2, combine="none")
    shard = tables._engine.shards[0]
    part = {"user": (np.array([1]), np.ones((1, 3), np.float32))}
    first, second = message(tables, 0, 0, 1, part), message(tables, 1, 0, 1, part, "two")
    assert shard.do([first, first, second, first]) == [False, False, True, True]
    commit = ("commit", (tables._run, 0, (0, 1)))
    assert shard.do([commit, commit, first, second, commit]) == [1, 1, False, False, 1]
    opt = in_memory(adam)
    opt.step({"user": so.RowGradient([1, 1], np.ones((2, 3)))})
    assert_same(tables.optimizer(), opt)
    assert not shard.waiting
    with pytest.raises(RuntimeError, match="worker 0 has already pushed its gradients of this step, through another"):
        shard.do([message(tables, 0, 0, 1, part, "three")])


def test_messages_of_another_run_are_refused():
    tables = sharded.Tables(ROWS, adam, shards=2, workers=1)
    client = tables.client()
    tables.fit(of(drawn(0, 1)), steps=1)
    before = tables.optimizer()
    for call in (lambda: client.pull({"item": [1]}), lambda: client.push({"item": so.RowGradient([1], [1.0])})):
        with pytest.raises(RuntimeError, match="has begun another run since this client was made"):
            call()
    assert_same(tables.optimizer(), before)


def test_a_shard_without_rows_refuses_all():
    tables = sharded.Tables(ROWS, adam, shards=2)
    client = tables.client()
    tables._engine.replace([1])
    for call in (lambda: client.pull({"item": [1]}), lambda: client.push({"item": so.RowGradient([1], [1.0])}),
                 lambda: tables.pull({"item": [1]}), tables.optimizer):
        with pytest.raises(RuntimeError, match="shard 1 was started again and holds no rows"):
            call()
    with pytest.raises(RuntimeError, match=r"shards 1 died, and their rows are lost: there is no folder"):
        tables.restore()


def test_a_push_within_fit_is_refused():
    tables = sharded.Tables(ROWS, adam)
    with pytest.raises(RuntimeError, match="push was called within fit"):
        tables.fit(lambda client, step, worker: client.push({}))


# Checkpoints.

@pytest.mark.parametrize("options", [*OPTIONS.values(), {"nonfinite": "skip"}])
def test_another_number_of_shards_and_workers_goes_on_with_the_same_bits(options, tmp_path):
    def make(tables):
        return so.NAdam(tables, lr=so.schedules.Linear(0.1, end=0.01, steps=20), **options)

    gradients = drawn(0, 2)
    gradients[1][0]["user"].values[2] = np.inf if "nonfinite" in options else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected, half = one_machine(make, gradients), one_machine(make, gradients[:3])
        for number, (shards, then) in enumerate([(1, 3), (3, 1), (2, 4), (4, 6), (7, 7), (11, 30)]):
            folder = tmp_path / str(number)
            tables = sharded.Tables(ROWS, make, shards=shards, workers=2, combine="none", folder=folder)
            tables.metadata["words"] = ["a"] * 2000
            tables.fit(of(gradients), steps=3)
            assert tables.save() == folder / "000003"
            assert sorted(os.listdir(folder / "000003")) == sorted(
                ["manifest.json", *(f"shard-{shard}-of-{shards}.safetensors" for shard in range(shards))])
            again = sharded.load(folder, shards=then)
            assert again.metadata == {"words": ["a"] * 2000}
            assert (again.shards, again.workers, again.steps) == (then, 2, 3)
            assert_same(again.optimizer(), half)
            again.fit(of(gradients))
            assert_same(again.optimizer(), expected)
            more = sharded.load(folder, shards=then, workers=5, mode="async", staleness=1, combine="worker")
            assert (more.workers, more.steps) == (5, 3)


def test_a_rate_that_no_file_holds_comes_from_the_optimizer_that_is_given(tmp_path):
    def make(tables):
        return so.Adam(tables, lr=lambda step: 0.1 / (1 + step))

    gradients = drawn(0, 1)
    tables = sharded.Tables(ROWS, make, shards=2, folder=tmp_path)
    tables.fit(of(gradients), steps=3)
    tables.save()
    with pytest.raises(ValueError, match="its lr was a callable, which no file holds"):
        sharded.load(tmp_path)
    for shards in (2, 3):
        again = sharded.load(tmp_path, make, shards=shards)
        again.fit(of(gradients))
        assert_same(again.optimizer(), one_machine(make, gradients))


def test_shards_take_over_an_optimizer_in_memory():
    gradients = drawn(0, 1)
    for options in OPTIONS.values():
        def make(tables, options=options):
            return so.NAdam(tables, lr=0.1, **options)

        half = one_machine(make, gradients[:3])
        half.metadata["epoch"] = 3
        tables = sharded.Tables(ROWS, adam, shards=3)
        tables.load(half)
        assert tables.metadata == {"epoch": 3}
        assert_same(tables.optimizer(), half)
        tables.fit(of(gradients))
        assert_same(tables.optimizer(), one_machine(make, gradients))


def test_checkpoints_come_every_so_many_steps_and_old_ones_go(tmp_path):
    tables = sharded.Tables(ROWS, adam, shards=2, folder=tmp_path / "new", keep=3)
    gradients = drawn(0, 1, steps=11)
    tables.fit(of(gradients), checkpoint_every=2)
    assert sorted(os.listdir(tmp_path / "new")) == ["000006", "000008", "000010"]
    assert sharded.load(tmp_path / "new").steps == 10
    tables.save()
    tables.save()
    assert sorted(os.listdir(tmp_path / "new")) == ["000010", "000011", "000011.1"]
    with pytest.raises(ValueError, match=r"which has a checkpoint of step 11; so\.sharded\.load reads it"):
        sharded.Tables(ROWS, adam, folder=tmp_path / "new")
    waits = sharded.Tables(ROWS, adam, shards=2, workers=2, mode="async", folder=tmp_path / "async")
    waits.fit(of(drawn(0, 2)), checkpoint_every=4)
    assert sorted(os.listdir(tmp_path / "async")) == ["000004", "000008"]


def test_no_gradient_of_threads_that_push_at_once_is_lost():
    tables, refused = sharded.Tables(ROWS, adam, shards=3), []

    def push(thread):
        for _ in range(40):
            try:
                tables.push({"user": so.RowGradient([thread], np.ones((1, 3)))})
            except RuntimeError as error:
                refused.append((thread, str(error)))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(push, range(4)))
    assert tables.steps == 4 * 40 - len(refused)
    assert all(said.startswith("this client is at work in another call") for _, said in refused)
    counts = [40 - sum(one == thread for one, _ in refused) for thread in range(4)]
    assert tables.optimizer().state["user"]["step"][:4].tolist() == counts


def test_an_optimizer_in_memory_has_metadata_of_its_own():
    tables, ids = sharded.Tables(ROWS, adam, shards=2), so.IdMap()
    tables.metadata["ids"] = ids
    opt = tables.optimizer()
    ids.rows([7])
    assert len(opt.metadata["ids"]) == 0


def test_the_newest_checkpoint_is_the_one_written_last(tmp_path):
    tables = sharded.Tables(ROWS, adam, shards=2, folder=tmp_path)
    start, gradients = tables.optimizer(), drawn(0, 1)
    for number in range(6):                     # all at the same step
        tables.metadata["number"] = number
        assert tables.save().is_dir()
        assert sharded.load(tmp_path).metadata == {"number": number}
    tables.fit(of(gradients), steps=3)
    tables.save()
    tables.load(start)                          # a run with fewer steps
    tables.fit(of(gradients), steps=1, checkpoint_every=1)
    assert sharded.load(tmp_path).steps == 1
    assert sorted(os.listdir(tmp_path)) == ["000001", "000003"]


def test_what_a_kill_at_any_moment_leaves_loads_at_the_last_complete_checkpoint(tmp_path, monkeypatch):
    folder, copies, copying = tmp_path / "folder", [], False

    def watched(function):
        def call(*arguments, **keywords):
            snapshot()
            result = function(*arguments, **keywords)
            snapshot()
            return result
        return call

    def snapshot():
        nonlocal copying
        if not copying:
            copying = True
            copies.append(shutil.copytree(folder, tmp_path / f"copy{len(copies)}"))
            copying = False

    gradients = drawn(0, 1)
    tables = sharded.Tables(ROWS, adam, shards=2, folder=folder, keep=1)
    tables.fit(of(gradients), steps=2)
    tables.save()
    tables.fit(of(gradients), steps=1)
    with monkeypatch.context() as patched:
        for place, name in ((os, "replace"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"), (os, "fsync")):
            patched.setattr(place, name, watched(getattr(place, name)))
        tables.save()
    assert len(copies) > 12
    steps = []
    for copied in copies:
        again = sharded.load(copied)
        steps.append(again.steps)
        assert_same(again.optimizer(), one_machine(adam, gradients[:again.steps]))
        again.save()                            # whatever else is there
        assert len(os.listdir(copied)) in (1, 2)
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}


def test_files_that_are_not_those_of_the_manifest_are_refused(tmp_path):
    tables = sharded.Tables(ROWS, adam, shards=2, folder=tmp_path)
    first = tables.save()
    tables.push({"user": so.RowGradient([1], np.ones((1, 3)))})
    path = tables.save()
    shutil.copy(first / "shard-1-of-2.safetensors", path)
    with pytest.raises(ValueError, match=r"shard-1-of-2.safetensors is not the file of its manifest"):
        sharded.load(tmp_path)
    os.unlink(path / "shard-1-of-2.safetensors")
    with pytest.raises(OSError, match="shard-1-of-2"):
        sharded.load(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    fewer = {"tables": {**manifest["tables"], "user": [3, 3, "float64"]}}
    for change in ({"format": 9}, {"files": manifest["files"][:1]}, {"shards": "two"}, {"number": "3"}, fewer,
                   {"crc32": None}, "[1", "[]", '{"format": 1}'):
        text = change if isinstance(change, str) else json.dumps({**manifest, **change})
        (path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest.json: no manifest of sharded tables"):
            sharded.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no complete checkpoint of sharded tables"):
        sharded.load(first)
    with pytest.raises(FileNotFoundError):
        sharded.load(tmp_path / "none")


# Failures.

class FragileLink(LocalLink):
    def _call(self, calls):
        results, dead, errors = {}, set(), []
        for shard, some in calls.items():
            fate = self._engine.fate()
            if fate == "before":
                self._engine.kill(shard)
            if self._engine.shards[shard] is None:
                dead.add(shard)
                continue
            try:
                results[shard] = self._engine.shards[shard].do(some)
                if fate == "twice":
                    results[shard] = self._engine.shards[shard].do(some)
            except Exception as error:
                errors.append(error)
            if fate == "after":
                self._engine.kill(shard)
                dead.add(shard)
            if fate == "empty":
                self._engine.kill(shard)
                self._engine.replace([shard])
        if dead:
            raise Lost(shards=dead)
        if errors:
            raise errors[0]
        return results


class Fragile(LocalEngine):
    """Its shards die before or after a call, or come back empty; its workers die; messages come twice."""

    chance, rate = random.Random(0), 0.0

    def __init__(self, layout):
        super().__init__(layout)
        self.link, self.deaths = FragileLink(self), 0

    def fate(self):
        return self.chance.choice(["before", "after", "empty", "twice"]) if self.chance.random() < self.rate else None

    def kill(self, shard):
        self.shards[shard], self.deaths = None, self.deaths + 1

    def next(self):
        fate = self.fate()
        if fate in ("before", "after"):
            self.deaths += 1
            worker, step = self.started.pop(0)
            if fate == "after":
                self.started.insert(0, (worker, step))
                super().next()
            return worker, None, Lost(workers={worker})
        return super().next()


@pytest.fixture
def fragile(monkeypatch):
    monkeypatch.setitem(_tables.ENGINES, "local", Fragile)
    yield Fragile
    Fragile.rate = 0.0


@pytest.mark.parametrize("options", [{}, {"missed": "replay"}, {"nonfinite": "allow"}])
def test_a_run_whose_shards_and_workers_die_has_the_bits_of_an_undisturbed_one(options, fragile, tmp_path):
    def make(tables):
        return so.Adam(tables, lr=so.schedules.Exponential(0.1, 0.95), **options)

    gradients, deaths = drawn(0, 3, steps=12), 0
    expected = one_machine(make, gradients)
    for seed in range(8):
        fragile.chance, fragile.rate = random.Random(seed), 0.0
        tables = sharded.Tables(ROWS, make, shards=4, workers=3, combine="none", folder=tmp_path / str(seed))
        fragile.rate = 0.015
        told = []

        def callback(step, reports, told=told):
            told.append(reports)
            if step == 12:                      # a shard that dies after a fit is the caller's
                fragile.rate = 0.0

        tables.fit(of(gradients), checkpoint_every=3, callback=callback)
        fragile.rate = 0.0
        assert_same(tables.optimizer(), expected)
        assert {reports[0][0] for reports in told} == set(range(12))
        assert all(reports == [(reports[0][0], worker) for worker in range(3)] for reports in told)
        deaths += tables._engine.deaths
    assert deaths > 40


def test_in_async_mode_training_goes_on_after_failures(fragile, tmp_path):
    gradients, deaths = drawn(0, 3, steps=12), 0
    for seed in range(8):
        fragile.chance, fragile.rate = random.Random(seed), 0.0
        tables = sharded.Tables(ROWS, adam, shards=4, workers=3, mode="async", staleness=1,
                                folder=tmp_path / str(seed))
        fragile.rate = 0.015
        last = []

        def callback(steps, reports, last=last):
            last += [report for report in reports if report is not None and report[0] == 11]
            if len({worker for _, worker in last}) == 3:
                fragile.rate = 0.0

        tables.fit(of(gradients), checkpoint_every=5, callback=callback)
        fragile.rate = 0.0
        deaths += tables._engine.deaths
        assert 20 < tables.steps < 60          # if all shards die at a time, all go back
        opt = tables.optimizer()
        assert all(np.isfinite(table).all() and not np.array_equal(table, ROWS[name].start(range(len(table))))
                   for name, table in opt.params.items())
    assert deaths > 25


def test_without_a_folder_a_dead_worker_costs_nothing_and_a_dead_shard_ends_the_fit(fragile):
    gradients = drawn(0, 2)
    tables = sharded.Tables(ROWS, adam, shards=3, workers=2, combine="none")
    died = []

    def gradients_of(client, step, worker):
        if worker and step == 2 and not died:
            died.append(step)
            raise Lost(workers={1})
        return of(gradients)(client, step, worker)

    tables.fit(gradients_of)
    assert died
    assert_same(tables.optimizer(), one_machine(adam, gradients))
    tables = sharded.Tables(ROWS, adam, shards=3, workers=2)
    with pytest.raises(RuntimeError, match="shards 1 died, and their rows are lost: there is no folder with"):
        tables.fit(of(gradients), callback=lambda step, reports: step == 3 and tables._engine.kill(1))
    with pytest.raises(RuntimeError, match="shards 1 died"):
        tables.restore()


def test_a_shard_that_dies_before_the_first_checkpoint_begins_with_its_starting_values(fragile, tmp_path):
    gradients = drawn(0, 1)
    tables = sharded.Tables(ROWS, adam, shards=3, folder=tmp_path)
    told = []
    tables.fit(of(gradients), callback=lambda step, reports: (
        told.append(step), len(told) == 2 and tables._engine.kill(1))[1:] == (True,))
    assert told == [1, 2, 1, 2, 3, 4]
    assert_same(tables.optimizer(), one_machine(adam, gradients))


def test_a_shard_that_dies_after_the_last_step_of_a_fit_is_trained_again(fragile, tmp_path):
    gradients = drawn(0, 2)
    for mode in ("sync", "async"):
        tables = sharded.Tables(ROWS, adam, shards=3, workers=2, combine="none", mode=mode, folder=tmp_path / mode)
        last = STEPS if mode == "sync" else 2 * STEPS
        told = []

        def callback(step, reports, tables=tables, last=last, told=told):
            told.append(step)
            if step == last and told.count(last) == 1:
                tables._engine.kill(1)

        tables.fit(of(gradients), checkpoint_every=3, callback=callback)
        assert tables.steps == last
        if mode == "sync":
            assert_same(tables.optimizer(), one_machine(adam, gradients))
            assert told == [1, 2, 3, 4, 4]


def test_a_fit_that_fails_again_and_again_ends(fragile, tmp_path):
    tables = sharded.Tables(ROWS, adam, shards=2, folder=tmp_path)
    tries = []

    def gradients_of(client, step, worker):
        tries.append(step)
        raise Lost(workers={0})

    with pytest.raises(Lost, match="workers 0 died"):
        tables.fit(gradients_of)
    assert 10 < len(tries) < 100
    assert_same(tables.optimizer(), in_memory(adam))


def test_restore_replaces_dead_shards_outside_a_fit(fragile, tmp_path):
    gradients = drawn(0, 1)
    tables = sharded.Tables(ROWS, adam, shards=3, folder=tmp_path)
    tables.fit(of(gradients), steps=2)
    tables.save()
    tables.fit(of(gradients), steps=2)
    tables._engine.kill(2)
    with pytest.raises(Lost, match="shards 2 died"):
        tables.client().pull({"user": [2]})
    with pytest.raises(Lost, match="shards 2 died"):
        tables.pull({"user": [2]})
    assert tables.restore() == 2
    tables.fit(of(gradients))
    assert_same(tables.optimizer(), one_machine(adam, gradients))


def test_a_callback_may_read_and_save_and_no_more(tmp_path):
    gradients = drawn(0, 2)
    for mode in ("sync", "async"):
        tables = sharded.Tables(ROWS, adam, shards=3, workers=2, combine="none", mode=mode, folder=tmp_path / mode)
        told = []

        def callback(step, reports, tables=tables, told=told):
            told.append(tables.steps)
            opt = tables.optimizer()
            np.testing.assert_array_equal(tables.pull({"user": range(23)})["user"], opt.params["user"])
            tables.metadata["step"] = step
            tables.save()
            assert tables.steps == step
            for call, name in ((lambda: tables.fit(of(gradients)), "fit"), (tables.client, "client"),
                               (lambda: tables.load(opt), "load"), (tables.restore, "restore"),
                               (tables.close, "close")):
                with pytest.raises(RuntimeError, match=f"{name} was called within fit; a callback may read and save"):
                    call()

        tables.fit(of(gradients), callback=callback)
        assert told == list(range(1, len(told) + 1))
        if mode == "sync":
            assert_same(tables.optimizer(), one_machine(adam, gradients))
            again = sharded.load(tmp_path / mode)
            assert again.metadata == {"step": STEPS}
            assert_same(again.optimizer(), tables.optimizer())


def test_an_error_of_the_users_ends_a_fit_and_drops_the_step():
    gradients = drawn(0, 3)

    def gradients_of(client, step, worker):
        if step == 2 and worker == 1:
            raise ZeroDivisionError("mine")
        return of(gradients)(client, step, worker)

    tables = sharded.Tables(ROWS, adam, shards=3, workers=3, combine="none")
    with pytest.raises(ZeroDivisionError, match="mine"):
        tables.fit(gradients_of)
    assert_same(tables.optimizer(), one_machine(adam, gradients[:2]))
    tables.fit(of(gradients))
    assert_same(tables.optimizer(), one_machine(adam, gradients))


# Signals.

SMALL = {"a": so.Rows(3, None)}
ONE = {"a": so.RowGradient([0, 1], np.ones(2, np.float32))}


def momentum(tables, nonfinite="raise"):
    return so.SGD(tables, lr=0.1, momentum=0.5, nonfinite=nonfinite)


def another():
    opt = in_memory(momentum, SMALL)
    opt.step(ONE)
    opt.step(ONE)
    opt.step(ONE)
    return opt


ANOTHER = another()
FOLDER = os.path.dirname(sharded.__file__)
CALLS = {
    "fit": lambda tables: tables.fit(lambda client, step, worker: ONE, steps=1),
    "push": lambda tables: tables.push(ONE),
    "load": lambda tables: tables.load(ANOTHER),
}


@pytest.mark.parametrize(("name", "nonfinite"), [("fit", "raise"), ("push", "raise"), ("push", "allow"),
                                                  ("load", "raise")])
def test_an_interrupt_anywhere_finds_all_shards_as_before_or_as_after(name, nonfinite):
    call = CALLS[name]

    def made():
        tables = sharded.Tables(SMALL, lambda tables: momentum(tables, nonfinite), shards=2)
        tables.push(ONE)
        return tables

    def numbers(tables):
        rows = tables.pull({"a": range(3)})["a"].tolist()
        state = [shard.place.opt.state["a"]["momentum_buffer"].tolist() for shard in tables._engine.shards]
        return rows, state, tables.steps

    before, after = made(), made()
    call(after)
    outcomes = [numbers(before), numbers(after)]
    before.push(ONE)
    after.push(ONE)
    futures = [numbers(before), numbers(after)]
    found = set()
    # Within a call of one optimizer, other tests interrupt.
    tables = made()
    total = interrupted(lambda: call(tables), None, FOLDER)
    for at in range(1, total + 1):
        tables = made()
        assert interrupted(lambda tables=tables: call(tables), at, FOLDER) == at
        got = numbers(tables)
        assert got in outcomes, f"at {at} of {total}"
        found.add(outcomes.index(got))
        tables.push(ONE)
        assert numbers(tables) == futures[outcomes.index(got)], f"at {at} of {total}"
    assert found == {0, 1}


# Bad input.

LAYOUTS = [
    (dict(rows={}), TypeError, "rows is {}; it must be a mapping from names to so.Rows"),
    (dict(rows={1: so.Rows(3, 2)}), TypeError, "rows has the name 1; names must be strings"),
    (dict(rows={"a": (3, 2)}), TypeError, r"rows of 'a' is \(3, 2\); it must be a so.Rows"),
    (dict(optimizer=None), TypeError, "optimizer is None; it must be a callable"),
    (dict(optimizer=lambda tables: so.SGD(tables, lr=-1)), ValueError, "lr is -1"),
    (dict(optimizer=lambda tables: 3), TypeError, "optimizer returned 3; it must return an Optimizer"),
    (dict(optimizer=lambda tables: so.Adam({"user": tables["user"]})), ValueError, "returned an optimizer of 'user'"),
    (dict(optimizer=lambda tables: so.Adam(list(tables.values()))), ValueError, "returned an optimizer of 0, 1"),
    (dict(shards=0), ValueError, "shards is 0; it must be an integer of at least 1"),
    (dict(workers=1.5), TypeError, "workers is 1.5; it must be an integer of at least 1"),
    (dict(engine="mpi"), ValueError, "engine is 'mpi'; it must be 'local' or 'ray'"),
    (dict(mode="fast"), ValueError, "mode is 'fast'; it must be 'sync' or 'async'"),
    (dict(staleness=1), ValueError, 'staleness is 1 with mode="sync"; it is for mode="async"'),
    (dict(staleness=-1, mode="async"), ValueError, "staleness is -1; it must be an integer of at least 0"),
    (dict(combine="all"), ValueError, "combine is 'all'; it must be 'none' or 'worker'"),
    (dict(cache_rows=5), ValueError, "cache_rows is 5 without disk"),
    (dict(disk="/none/such"), OSError, "folder must be an existing folder"),
    (dict(keep=0), ValueError, "keep is 0; it must be an integer of at least 1"),
    (dict(keep=3), ValueError, "keep is 3 and folder is None; without a folder"),
]


@pytest.mark.parametrize(("wrong", "error", "says"), LAYOUTS, ids=[str(number) for number in range(len(LAYOUTS))])
def test_layouts_that_cannot_be_are_refused(wrong, error, says):
    right = {"rows": ROWS, "optimizer": adam, "shards": 2}
    with pytest.raises(error, match=says):
        sharded.Tables(**{**right, **wrong})


def test_wrong_calls_are_refused_and_change_nothing(tmp_path):
    tables = sharded.Tables(ROWS, adam, shards=3, workers=2)
    client, other = tables.client(0), tables.client(1)
    ones = np.ones((1, 3))
    for call, error, says in [
        (lambda: client.pull({"users": [1]}), KeyError, "rows names 'users'; the tables are 'user', 'item'"),
        (lambda: client.pull([1]), TypeError, "rows is a list; it must be a mapping"),
        (lambda: client.pull({"user": [0, 23]}), IndexError,
         'rows of "user" has row 23 at position 1; the table has 23 rows'),
        (lambda: client.pull({"user": [-1]}), IndexError, 'rows of "user" has row -1 at position 0'),
        (lambda: client.pull({"user": [1.5]}), TypeError, 'rows of "user" have dtype float64'),
        (lambda: client.push({"item": so.RowGradient([8], [1.0])}), IndexError,
         'gradient of "item" has row 8 at position 0; the table has 8 rows'),
        (lambda: client.push({"user": so.RowGradient([1], [1.0])}), ValueError, 'gradient of "user" has values of'),
        (lambda: client.push({"user": "x"}), TypeError, 'gradient of "user" is a builtins.str'),
        (lambda: client.push({"a": None}), KeyError, "gradients names 'a'; the tables are"),
        (lambda: client.push(ones), TypeError, "gradients is a ndarray; it must be a mapping"),
        (lambda: client.exchange({}, {"user": [40]}), IndexError, 'rows of "user" has row 40'),
        (lambda: tables.push({}), RuntimeError, "push is for tables with one worker, and these have 2"),
        (lambda: tables.client(2), ValueError, "worker is 2; it must be from 0 to 1"),
        (lambda: tables.client(-1), ValueError, "worker is -1; it must be an integer of at least 0"),
        (lambda: tables.fit(None), TypeError, "gradients_of is None; it must be a callable"),
        (lambda: tables.fit(len, steps=-1), ValueError, "steps is -1; it must be an integer of at least 0"),
        (lambda: tables.fit(len, callback=3), TypeError, "callback is 3; it must be None or a callable"),
        (lambda: tables.fit(len, checkpoint_every=0), ValueError, "checkpoint_every is 0"),
        (lambda: tables.fit(len, checkpoint_every=2), ValueError, "checkpoint_every needs a folder"),
        (lambda: tables.fit(lambda client, step, worker: 3), TypeError,
         "gradients_of returned 3 for worker 0 at step 0; it must return"),
        (lambda: tables.fit(lambda client, step, worker: ({}, 3, 4)), TypeError, "gradients_of returned"),
        (tables.save, ValueError, "save needs a folder"),
        (lambda: tables.load(3), TypeError, "optimizer is a int; it must be an Optimizer"),
        (lambda: tables.load(so.Adam(so.zeros((3, 2)))), ValueError, "optimizer has the tables"),
        (lambda: tables.load(so.Adam({"user": so.zeros((22, 3)), "item": so.zeros(8, np.float64)})), ValueError,
         r"optimizer has the tables user \(22, 3\) float32"),
    ]:
        with pytest.raises(error, match=says):
            call()
    assert_same(tables.optimizer(), in_memory(adam))
    tables.client(0)
    tables.close()
    tables.close()
    for call in (tables.optimizer, lambda: tables.steps, lambda: tables.client(0), lambda: tables.pull({}),
                 lambda: other.pull({"user": [1]})):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_the_repr_says_what_the_tables_are(tmp_path):
    tables = sharded.Tables(ROWS, adam, shards=3, workers=2, mode="async", staleness=4)
    assert repr(tables) == ('Tables("user" (23, 3) float32, "item" (8,) float64; Adam; shards=3, workers=2, '
                            "engine='local', mode='async', staleness=4, combine='worker')")
    tables.close()
    assert repr(tables).endswith("; closed)")
    with sharded.Tables(ROWS, adam, shards=2, disk=tmp_path, cache_rows=9) as tables:
        assert repr(tables).endswith(f"combine='worker', disk={str(tmp_path)!r}, cache_rows=9)")
