"""Tables on a disk: the bits of tables in memory, whatever comes and goes, and whatever fails."""

import contextlib
import errno
import functools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp
from bits import VARIANTS
from hypothesis import given, settings
from hypothesis import strategies as st

import sparseopt as so
from sparseopt import optimizers

resource = pytest.importorskip("resource", reason="this system has no limits on the size of files")

INIT = so.init.Normal(0.1, seed=3)


def in_memory(cls, n_rows, dim, dtype=np.float32, **hyper):
    return cls(INIT(range(n_rows), dim, dtype), **hyper)


def on_disk(folder, cls, n_rows, dim, dtype=np.float32, cache_rows=12, **hyper):
    return so.DiskTable(folder, n_rows, dim, functools.partial(cls, **hyper), cache_rows=cache_rows, threads=3,
                        init=INIT, dtype=dtype)


def row_gradient(rng, n_rows, dim, dtype, k=8):
    shape = (k,) if dim is None else (k, dim)
    return so.RowGradient(rng.integers(0, n_rows, k), rng.standard_normal(shape).astype(dtype))


def saved(folder, store_or_optimizer, name="checkpoint.safetensors"):
    """The bytes of a checkpoint."""
    path = os.path.join(folder, name)
    if isinstance(store_or_optimizer, so.Optimizer):
        so.save(path, store_or_optimizer)
    else:
        store_or_optimizer.save(path)
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("step_count", ["row", "global"])
@pytest.mark.parametrize(("name", "hyper"), VARIANTS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(VARIANTS)])
def test_every_rule_has_the_bits_that_it_has_in_memory(tmp_path, name, hyper, step_count):
    cls = optimizers.OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    for dim, dtype in [(None, np.float64), (1, np.float32), (17, np.float64), (67, np.float32)]:
        n_rows, hyper = 40, {**hyper, "lr": 0.1, "step_count": step_count}
        ours = in_memory(cls, n_rows, dim, dtype, **hyper)
        with on_disk(tmp_path, cls, n_rows, dim, dtype, **hyper) as table:
            for step in range(12):
                gradient = row_gradient(rng, n_rows, dim, dtype)
                assert np.array_equal(table.pull(gradient.rows), ours.params[0][gradient.rows])
                if step % 3 == 0:
                    table.prefetch(rng.integers(0, n_rows, 5))
                table.push(gradient)
                ours.step(gradient)
            assert saved(tmp_path, table) == saved(tmp_path, ours, "other")


OPTIONS = [dict(max_grad_norm=0.5), dict(clip_value=0.3, max_row_norm=0.5), dict(max_norm=0.2), dict(maximize=True),
           dict(nonfinite="allow"), dict(lr=so.schedules.InverseTime(0.1, decay=0.1)), dict(weight_decay=0.1)]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_every_option_has_the_bits_that_it_has_in_memory(tmp_path, options):
    rng, hyper = np.random.default_rng(1), {"lr": 0.1, **options}
    ours = in_memory(so.Adam, 40, 5, **hyper)
    with on_disk(tmp_path, so.Adam, 40, 5, **hyper) as table:
        for _ in range(20):
            gradient = row_gradient(rng, 40, 5, np.float32, k=12)
            table.push(gradient)
            ours.step(gradient)
        assert saved(tmp_path, table) == saved(tmp_path, ours, "other")


def forms(rng, n_rows, dim):
    """Gradients of every form, each of at most 8 rows, with repeats."""
    rows, columns, values = rng.integers(0, n_rows, 8), rng.integers(0, dim, 8), rng.standard_normal(8)
    sparse = sp.coo_array((values, (rows, columns)), shape=(n_rows, dim))
    X = sp.coo_array((rng.standard_normal(8), (rng.integers(0, 4, 8), rows)), shape=(4, n_rows))
    dY = rng.standard_normal((4, dim))
    yield so.RowGradient(rows.astype(np.int32), rng.standard_normal((8, dim)))
    yield so.RowGradient(rows.astype(np.uint8), rng.standard_normal((8, 2 * dim))[:, ::2])
    for form in ("coo", "csr", "csc", "lil", "dok", "bsr"):
        yield sparse.asformat(form)
    for form in ("coo", "csr", "csc"):
        yield so.MatmulGradient(X.asformat(form), dY)
    yield so.RowGradient([], np.empty((0, dim)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_form_of_a_gradient_has_the_bits_that_it_has_in_memory(tmp_path, dtype):
    rng = np.random.default_rng(2)
    ours = in_memory(so.Adam, 60, 3, dtype, lr=0.1)
    with on_disk(tmp_path, so.Adam, 60, 3, dtype, lr=0.1) as table:
        for _ in range(4):
            for gradient in forms(rng, 60, 3):
                table.push(gradient)
                ours.step(gradient)
        assert saved(tmp_path, table) == saved(tmp_path, ours, "other")


def test_a_dense_gradient_is_taken_if_all_rows_have_room(tmp_path):
    ours, gradient = in_memory(so.Adam, 9, 2, lr=0.1), np.arange(18.0).reshape(9, 2)
    with on_disk(tmp_path, so.Adam, 9, 2, lr=0.1) as table:
        table.push(gradient)
        ours.step(gradient)
        assert saved(tmp_path, table) == saved(tmp_path, ours, "other")
    with (on_disk(tmp_path, so.Adam, 9, 2, lr=0.1, cache_rows=8) as table,
          pytest.raises(ValueError, match="gradient is dense and touches all 9 rows; cache_rows has room for 8")):
        table.push(gradient)


ROWS = {"user": so.Rows(30, 4, np.float64, INIT), "item": so.Rows(50, 4, np.float32, INIT), "bias": so.Rows(50, None)}


def grouped(tables):
    return so.NAdam([{"params": {"user": tables["user"], "bias": tables["bias"]}, "lr": 0.1},
                     {"params": {"item": tables["item"]}, "lr": 0.2, "momentum_decay": 0.1}], step_count="global")


def gradients_at(step, names=tuple(ROWS)):
    rng = np.random.default_rng(step)
    return {name: row_gradient(rng, ROWS[name].n_rows, ROWS[name].dim, ROWS[name].dtype) for name in names}


def started():
    return grouped({name: each.start(range(each.n_rows)) for name, each in ROWS.items()})


def test_several_tables_in_groups_have_the_bits_of_tables_in_memory(tmp_path):
    ours = started()
    cache_rows = {"user": 9, "item": 13, "bias": 1000}
    with so.DiskTables(tmp_path, ROWS, grouped, cache_rows=cache_rows, threads=2) as tables:
        for step in range(30):
            gradients = gradients_at(step, list(ROWS)[step % 2:])
            if step % 5 == 4:
                gradients = {**gradients, "item": None}
            tables.prefetch({"item": [step, step + 1]})
            rows = {name: each.rows for name, each in gradients.items() if each is not None}
            pulled = tables.pull(rows)
            assert all(np.array_equal(pulled[name], ours.params[name][rows[name]]) for name in rows)
            tables.push(gradients)
            ours.step(gradients)
        tables.metadata["epochs"] = ours.metadata["epochs"] = list(range(2000))
        tables.param_groups[1]["lr"] = ours.param_groups[1]["lr"] = 0.01
        assert saved(tmp_path, tables) == saved(tmp_path, ours, "other")
        assert saved(tmp_path, tables.optimizer()) == saved(tmp_path, ours, "other")
        assert tables.steps == 30
        assert tables.workers == 1
        assert tables.rows == ROWS


@pytest.mark.parametrize("source", ["a checkpoint of a disk", "a checkpoint of memory", "an optimizer"])
@pytest.mark.parametrize("step_count", ["row", "global"])
def test_a_run_goes_on_from_a_checkpoint_and_from_memory(tmp_path, source, step_count):
    make = functools.partial(so.NAdam, step_count=step_count)
    ours = make({name: each.start(range(each.n_rows)) for name, each in ROWS.items()})
    ours.metadata["note"], ours.param_groups[0]["lr"] = "kept", 0.3
    path = tmp_path / "start.safetensors"
    with so.DiskTables(tmp_path, ROWS, make, cache_rows=12) as tables:
        tables.load(ours)
        for step in range(700):             # beyond the counts that are worked out first
            gradients = gradients_at(step % 30, ["item"] if step > 3 else ROWS)
            ours.step(gradients)
            if step < 30:
                tables.push(gradients)
                before = saved(tmp_path, tables)
            if step == 29:
                assert before == saved(tmp_path, ours, "other")
                if source == "a checkpoint of a disk":
                    tables.save(path)
        if source == "a checkpoint of a disk":
            ours = so.load(path)
        elif source == "a checkpoint of memory":
            so.save(path, ours)
        tables.load(ours if source == "an optimizer" else path)
        for step in range(10):
            tables.push(gradients_at(step))
            ours.step(gradients_at(step))
        assert tables.metadata == {"note": "kept"}
        assert saved(tmp_path, tables) == saved(tmp_path, ours, "other")


def test_a_map_of_ids_travels_with_a_table_and_is_filled_by_a_load(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with on_disk(tmp_path, so.Adam, 40, 2, lr=0.1) as table:
        ids = table.metadata["ids"] = so.IdMap("str")
        ids.rows(["a", "b"])
        table.save(path)
        ids.rows(["c"])
        in_memory = table.optimizer()
        table.load(path)
        assert table.metadata["ids"] is ids
        assert list(ids) == list(so.load(path).metadata["ids"]) == ["a", "b"]
        assert list(in_memory.metadata["ids"]) == ["a", "b", "c"]


def test_rows_that_nobody_has_changed_start_as_in_memory(tmp_path):
    hyper = dict(lr=0.1, initial_accumulator_value=0.25)
    with on_disk(tmp_path, so.Adagrad, 1000, 3, **hyper) as table:
        assert np.array_equal(table.pull(range(990, 1000)), INIT(range(990, 1000), 3))
        for first in range(0, 1000, 10):                    # rows that were only read leave again
            table.pull(range(first, first + 10))
        opt = table.optimizer()
        assert np.array_equal(opt.params[0], INIT(range(1000), 3))
        assert (opt.state[0]["sum"] == 0.25).all()
        assert table._tables[0].reserved == 1000 * 512      # rows left, so the file is there


def test_the_file_has_no_name_and_closes_with_its_table(tmp_path):
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    with on_disk(tmp_path, so.SGD, 100, 2, lr=0.1) as table:
        for first in range(0, 100, 10):
            table.push(so.RowGradient(range(first, first + 10), np.ones((10, 2))))
        assert os.listdir(tmp_path) == []
    if before:
        assert set(os.listdir("/proc/self/fd")) == before
    table.close()
    for use in (lambda: table.pull([1]), lambda: table.steps, lambda: table.param_groups, lambda: table.metadata,
                lambda: setattr(table, "metadata", {})):
        with pytest.raises(ValueError, match="this table is closed"):
            use()


@pytest.mark.parametrize("made", [3, (1, 2, 3), ({},), [], ((), "report")])
def test_fit_refuses_what_is_no_mapping_of_gradients(tmp_path, made):
    with so.DiskTables(tmp_path, {"a": so.Rows(9, 2)}, so.SGD) as tables:
        with pytest.raises(TypeError, match=r"gradients_of returned .* at step 0; it must return a mapping"):
            tables.fit(lambda client, step, worker: made, steps=1)
        with pytest.raises(TypeError, match="gradients_of is 3; it must be a callable"):
            tables.fit(3)
        with pytest.raises(TypeError, match="callback is 3; it must be None or a callable"):
            tables.fit(lambda client, step, worker: {}, steps=1, callback=3)
        assert tables.steps == 0


# A random walk through all calls.

@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["pull", "push", "prefetch", "load", "save", "memory"]),
                          st.lists(st.integers(0, 24), max_size=7)), max_size=40), st.integers(7, 30))
def test_any_sequence_of_calls_has_the_bits_of_memory(tmp_path_factory, calls, cache_rows):
    folder = tmp_path_factory.mktemp("walk")
    ours = in_memory(so.Adam, 25, 2, lr=0.1)
    path = folder / "checkpoint.safetensors"
    with on_disk(folder, so.Adam, 25, 2, lr=0.1, cache_rows=cache_rows) as table:
        for call, rows in calls:
            rows = np.array(rows, np.int64)
            if call == "pull":
                assert np.array_equal(table.pull(rows), ours.params[0][rows])
            elif call == "push":
                gradient = so.RowGradient(rows, np.ones((len(rows), 2)) * (1 + rows[:, None]))
                table.push(gradient)
                ours.step(gradient)
            elif call == "prefetch":
                table.prefetch(np.concatenate([rows, rows + 1]) % 25)
            elif call == "load":
                table.load(ours if len(rows) % 2 or not path.exists() else path)
                ours = ours if len(rows) % 2 or not path.exists() else so.load(path)
            elif call == "save":
                table.save(path)
            else:
                assert np.array_equal(table.optimizer().params[0], ours.params[0])
        assert saved(folder, table) == saved(folder, ours, "other")


# Errors.

def numbers(table):
    """All that a table holds."""
    opt = table.optimizer()
    return [*(array.tobytes() for array in (opt.params[0], *opt.state[0].values())), opt.steps]


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda t: t.pull([5, 40]), IndexError, "rows has row 40 at position 1; the table has 40 rows"),
    (lambda t: t.pull([-1]), IndexError, "rows has row -1 at position 0"),
    (lambda t: t.pull([0.5]), TypeError, "rows have dtype float64; they must be integers"),
    (lambda t: t.prefetch([40]), IndexError, "rows has row 40"),
    (lambda t: t.pull(range(13)), ValueError, "rows: 13 different rows come together; cache_rows is 12: take a larger"),
    (lambda t: t.push(so.RowGradient(range(13), np.ones((13, 2)))), ValueError, "13 different rows come together"),
    (lambda t: t.push(so.RowGradient([1, 40], np.ones((2, 2)))), IndexError,
     "gradient has row 40 at position 1; the table has 40 rows"),
    (lambda t: t.push(so.RowGradient([39], [[1.0, np.nan]])), ValueError, "gradient has nan at row 39, column 1"),
    (lambda t: t.push(so.RowGradient([1], np.ones((1, 3)))), ValueError, r"the table has shape \(40, 2\)"),
    (lambda t: t.push(sp.csr_array((39, 2))), ValueError, r"gradient has shape \(39, 2\); the table has shape"),
    (lambda t: t.push(None), TypeError, "gradient is a builtins.NoneType"),
    (lambda t: t.save("/no/such/folder/file"), OSError, "No such file"),
    (lambda t: t.load("/no/such/file"), OSError, "No such file"),
    (lambda t: t.load(so.Adam(so.zeros((41, 2)))), ValueError, r"of shape \(41, 2\) and dtype float32; this table has"),
    (lambda t: t.load(so.SGD(so.zeros((40, 2)), lr=1.0)), ValueError,
     "it is of another optimizer: the state of 0 has no 'step'"),
    (lambda t: t.load(so.AdamW(so.zeros((40, 2)))), ValueError, "state_dict is of AdamW; this optimizer is Adam"),
], ids=str)
def test_a_wrong_call_changes_nothing(tmp_path, call, error, message):
    with on_disk(tmp_path, so.Adam, 40, 2, lr=0.1) as table:
        for seed in range(5):
            table.push(row_gradient(np.random.default_rng(seed), 40, 2, np.float32))
        before = numbers(table)
        with pytest.raises(error, match=message):
            call(table)
        assert numbers(table) == before


def test_a_table_says_what_it_is(tmp_path):
    rows = {"item": so.Rows(30, 4), "bias": so.Rows(30, None, np.float64)}
    with so.DiskTables(tmp_path, rows, so.Adam, cache_rows={"item": 7, "bias": 50}) as tables:
        assert repr(tables) == ('DiskTables("item" (30, 4) float32, cache_rows=7, '
                                '"bias" (30,) float64, cache_rows=30; Adam)')
    assert repr(tables) == "DiskTables(closed)"
    with so.DiskTable(tmp_path, 5, 2, so.SGD, cache_rows=3) as table:
        assert repr(table) == "DiskTable((5, 2) float32, cache_rows=3; SGD)"


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda t: so.Adam(t, missed="replay"), ValueError, "missed='replay'; it must be 'skip' for a table on disk"),
    (lambda t: so.Adam(t.copy()), ValueError, "it must be one of the arrays that it was called with"),
    (lambda t: t, TypeError, "optimizer returned a ndarray; it must return an Optimizer"),
    (lambda t: so.Adam({"a": t}), ValueError, "of the tables 'a'"),
])
def test_an_optimizer_that_does_not_fit_is_refused(tmp_path, make, error, message):
    with pytest.raises(error, match=message):
        so.DiskTable(tmp_path, 10, 2, make)


@pytest.mark.parametrize(("changed", "error", "message"), [
    (dict(folder="/no/such/folder"), OSError, "folder must be an existing folder"),
    (dict(rows={"a": 3}), TypeError, "rows has 'a': 3; it must be a mapping from names to so.Rows"),
    (dict(rows={}), TypeError, "it must be a mapping from names to so.Rows"),
    (dict(cache_rows=0), ValueError, "cache_rows is 0"),
    (dict(optimizer=3), TypeError, "optimizer is 3; it must be a callable from tables to an Optimizer"),
    (dict(cache_rows={"b": 3}), ValueError, "cache_rows has the names 'b'; the tables are 'a'"),
    (dict(threads=0), ValueError, "threads is 0"),
    (dict(threads=1000), ValueError, "threads is 1000; it must be at most 256"),
    (dict(rows={"a": so.Rows(10**14, 2)}), OSError, "the records take 51,200,000,000,000,000 bytes, and the disk has"),
])
def test_wrong_arguments_are_named(tmp_path, changed, error, message):
    arguments = {"folder": tmp_path, "rows": {"a": so.Rows(10, 2)}, "optimizer": so.Adam, **changed}
    with pytest.raises(error, match=message):
        so.DiskTables(**arguments)


def test_names_of_tables_are_checked(tmp_path):
    with so.DiskTables(tmp_path, ROWS, so.Adam, cache_rows=10) as tables:
        with pytest.raises(KeyError, match="rows names 'book'; the tables are 'user', 'item', 'bias'"):
            tables.pull({"book": [1]})
        with pytest.raises(TypeError, match="gradient is a RowGradient; it must be a mapping"):
            tables.push(so.RowGradient([1], [[1.0]]))
        with pytest.raises(IndexError, match='rows of "item" has row 50 at position 0; the table has 50 rows'):
            tables.pull({"item": [50]})
        with pytest.raises(ValueError, match='gradient of "item" has inf at row 49, column 2'):
            tables.push({"item": so.RowGradient([49], [[0, 0, np.inf, 0]])})


def test_an_init_that_fails_changes_nothing(tmp_path):
    fails = [True]

    def init(rows, dim, dtype):
        if fails[0]:
            raise ZeroDivisionError
        return INIT(rows, dim, dtype)

    with so.DiskTable(tmp_path, 40, 2, so.Adam, cache_rows=12, init=init) as table:
        for call in (lambda: table.pull([1]), lambda: table.push(so.RowGradient([1], [[1.0, 1.0]])),
                     lambda: table.save(tmp_path / "a"), table.optimizer):
            with pytest.raises(ZeroDivisionError):
                call()
        assert os.listdir(tmp_path) == []
        fails[0] = False
        assert np.array_equal(table.optimizer().params[0], INIT(range(40), 2))
        assert table.steps == 0


def test_a_step_with_rows_that_are_left_out_has_the_bits_of_memory(tmp_path):
    gradient = so.RowGradient([3, 30, 31], [[1.0, 1.0], [np.nan, 1.0], [2.0, 2.0]])
    ours = in_memory(so.Adam, 40, 2, lr=0.1, nonfinite="skip")
    with on_disk(tmp_path, so.Adam, 40, 2, lr=0.1, nonfinite="skip") as table:
        for opt in (table.push, ours.step):
            with pytest.warns(RuntimeWarning, match="1 of 3 touched rows"):
                opt(gradient)
        assert saved(tmp_path, table) == saved(tmp_path, ours, "other")


# A disk that fails. The tests put another file in the place of the table's.

@contextlib.contextmanager
def instead(table, path, flags):
    descriptor = table._tables[0].cache.file
    kept, other = os.dup(descriptor), os.open(path or f"/proc/self/fd/{descriptor}", flags)
    os.dup2(other, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(other)


FAILING = {"a full disk": ("/dev/full", os.O_WRONLY, [errno.ENOSPC, errno.EBADF]),
           "a file that ends": (os.devnull, os.O_RDONLY, [errno.EIO, errno.EBADF]),
           "no reads": (None, os.O_WRONLY, [errno.EBADF]), "no writes": (None, os.O_RDONLY, [errno.EBADF])}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/full, and no paths of open files")
@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize("ahead", [False, True], ids=["pull", "prefetch"])
def test_a_disk_that_fails_raises_and_no_row_is_lost(tmp_path, failing, ahead):
    path, flags, codes = FAILING[failing]
    rng = np.random.default_rng(4)
    ours = in_memory(so.Adam, 60, 2, lr=0.1)
    with on_disk(tmp_path, so.Adam, 60, 2, lr=0.1) as table:
        for step in range(40):
            gradient = row_gradient(rng, 60, 2, np.float32)
            if step % 4 == 3:
                with instead(table, path, flags):
                    if ahead:
                        table.prefetch((gradient.rows + 1) % 60)
                        time.sleep(0.001)
                    raised = None
                    for first in (step, 47 - step):         # one of them is not in memory
                        try:
                            table.pull(range(first, first + 12))
                        except OSError as error:
                            raised = error
                    assert raised.errno in codes
                    assert "records of rows could not be" in str(raised)
            table.push(gradient)
            ours.step(gradient)
        assert saved(tmp_path, table) == saved(tmp_path, ours, "other")


def test_a_disk_that_refuses_some_writes_raises_and_no_row_is_lost(tmp_path):
    rng = np.random.default_rng(5)
    ours = in_memory(so.Adam, 60, 2, lr=0.1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    n_failed = 0
    with on_disk(tmp_path, so.Adam, 60, 2, lr=0.1) as table:
        for step in range(120):
            gradient, raised = row_gradient(rng, 60, 2, np.float32), None
            # Records behind this byte are not written, after the file has got its size.
            limit = before[0] if step < 20 or step % 4 == 0 else 512 * 30
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                table.push(gradient)
            except OSError as error:
                raised = error
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            if raised is None:
                ours.step(gradient)
            else:
                assert raised.errno == errno.EFBIG
                n_failed += 1
        assert n_failed > 5
        assert saved(tmp_path, table) == saved(tmp_path, ours, "other")


def test_a_damaged_checkpoint_changes_nothing(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with on_disk(tmp_path, so.Adam, 40, 2, lr=0.1) as table:
        table.push(so.RowGradient([1, 2], np.ones((2, 2))))
        before = numbers(table)
        whole = bytearray(saved(tmp_path, table))
        for at in range(0, len(whole), 97):
            damaged = whole.copy()
            damaged[at] ^= 16
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"checkpoint\.safetensors: "):
                table.load(path)
        assert numbers(table) == before


def test_a_state_that_diverged_is_not_saved(tmp_path):
    with on_disk(tmp_path, so.Adam, 40, 2, lr=0.1, nonfinite="allow") as table:
        table.push(so.RowGradient([1], [[np.nan, 1.0]]))
        table.save(tmp_path / "allowed")
        table._optimizer.nonfinite = "raise"
        with pytest.raises(so._checks.NonfiniteError, match="the state of '0' has a NaN in 'exp_avg'"):
            table.save(tmp_path / "refused")
        assert os.listdir(tmp_path) == ["allowed"]


# Signals, threads, processes.

# An exception just after a file was opened leaves it to the garbage collector, which closes it with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_at_any_line_leaves_the_table_before_or_after(tmp_path):
    """As a signal handler that raises: Python runs it between any two lines of disk.py."""
    class Signal(BaseException):
        pass

    def after(n, calls):
        """Make calls in which the n-th line of disk.py raises. Return whether they got so far."""
        left = [n]

        def trace(frame, event, argument):
            if not frame.f_code.co_filename.endswith("disk.py"):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] < 0:
                    sys.settrace(None)
                    raise Signal
            return trace

        sys.settrace(trace)
        try:
            for call, *arguments in calls:
                call(*arguments)
        except Signal:
            return True
        finally:
            sys.settrace(None)
        return False

    ours, step, interrupted = in_memory(so.Adam, 40, 2, lr=0.1), 0, 0
    path = tmp_path / "checkpoint.safetensors"
    with on_disk(tmp_path, so.Adam, 40, 2, lr=0.1) as table:
        for n in [*range(0, 120), *range(120, 700, 7)]:
            rows = np.arange(n, n + 9) * 7 % 40
            gradient = so.RowGradient(rows, np.full((9, 2), 1 + n % 5))
            table.save(path)
            calls = [(table.load, path), (table.prefetch, (rows + 3) % 40), (table.pull, rows), (table.push, gradient),
                     (table.save, path)]
            interrupted += after(n, calls[n % 2:])          # a load takes many lines
            if table.steps > step:
                ours.step(gradient)
            step = table.steps
            assert table.steps == ours.steps
            assert np.array_equal(table.pull(rows), ours.params[0][rows])
            if n % 10 == 0:
                assert saved(tmp_path, table) == saved(tmp_path, ours, "other")
        assert saved(tmp_path, table) == saved(tmp_path, ours, "other")
        assert interrupted > 100


def test_two_threads_at_once_raise(tmp_path):
    inside, go_on, raised = threading.Event(), threading.Event(), []

    def init(rows, dim, dtype):
        inside.set()
        go_on.wait(10)
        return INIT(rows, dim, dtype)

    with so.DiskTable(tmp_path, 40, 2, so.Adam, cache_rows=12, init=init) as table:
        other = threading.Thread(target=table.pull, args=([1],))
        other.start()
        inside.wait(10)
        for call in (lambda: table.pull([2]), lambda: table.push(so.RowGradient([2], [[1.0, 1.0]])), table.optimizer,
                     table.close):
            with pytest.raises(RuntimeError, match="this table is at work in another call"):
                call()
            raised.append(1)
        go_on.set()
        other.join()
        assert len(raised) == 4
        assert np.array_equal(table.pull([1, 2]), INIT([1, 2], 2))


def test_a_forked_process_cannot_use_the_table(tmp_path):
    with on_disk(tmp_path, so.Adam, 40, 2, lr=0.1) as table:
        table.push(so.RowGradient(range(10), np.ones((10, 2))))
        table.prefetch(range(20, 32))               # threads are at work, which the child does not have
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    table.pull([1])
                except RuntimeError as error:
                    code = 0 if "a forked process cannot use it" in str(error) else 2
                table.close()
                del table
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(table.pull(range(20, 32)), INIT(range(20, 32), 2))


def test_a_table_that_is_dropped_while_rows_are_on_their_way_ends_quietly(tmp_path):
    for _ in range(20):
        table = on_disk(tmp_path, so.Adam, 400, 2, lr=0.1)
        table.push(so.RowGradient(range(12), np.ones((12, 2))))
        table.prefetch(range(100, 112))
        del table


KILLED = textwrap.dedent("""
    import sys, numpy as np, sparseopt as so
    folder, path = sys.argv[1:]
    with so.DiskTable(folder, 500, 3, lambda table: so.Adam(table, lr=0.1), cache_rows=40, threads=3,
                      init=so.init.Normal(0.1, seed=3)) as table:
        for step in range(10**9):
            rng = np.random.default_rng(step)
            table.push(so.RowGradient(rng.integers(0, 500, 20), rng.standard_normal((20, 3))))
            if step % 5 == 0:
                table.metadata["step"] = step
                table.save(path)
                if step == 0:
                    print("ready", flush=True)
""")


def test_after_a_kill_at_any_moment_the_last_save_loads(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    for seed in range(5):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(path)], cwd=tmp_path,
                                   stdout=subprocess.PIPE)
        with process:
            process.stdout.readline()
            time.sleep(random.Random(seed).uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
        found = so.load(path)
        ours = in_memory(so.Adam, 500, 3, lr=0.1)
        for step in range(found.metadata["step"] + 1):
            rng = np.random.default_rng(step)
            ours.step(so.RowGradient(rng.integers(0, 500, 20), rng.standard_normal((20, 3))))
        ours.metadata["step"] = found.metadata["step"]
        assert saved(tmp_path, found) == saved(tmp_path, ours, "other")
    with on_disk(tmp_path, so.Adam, 500, 3, lr=0.1) as table:
        table.load(path)
        table.save(path)                    # which removes what a killed save has left
        assert sorted(os.listdir(tmp_path)) == ["checkpoint.safetensors", "other"]


# fit

def test_fit_goes_on_until_there_are_no_gradients(tmp_path):
    asked, told = [], []

    def gradients_of(client, step, worker):
        asked.append((step, worker))
        if step == 4:
            return None
        gradient = {"item": so.RowGradient([step], client.pull({"item": [step]})["item"])}
        return (gradient, f"report {step}") if step % 2 else gradient

    with so.DiskTables(tmp_path, ROWS, so.SGD, cache_rows=10) as tables:
        tables.fit(gradients_of, steps=1)
        tables.fit(gradients_of, callback=lambda step, reports: told.append((step, reports)))
        assert asked == [(step, 0) for step in range(5)]
        assert told == [(2, ["report 1"]), (3, [None]), (4, ["report 3"])]
        tables.fit(gradients_of, steps=0)
        with pytest.raises(ValueError, match="steps is -1"):
            tables.fit(gradients_of, steps=-1)
        tables.fit(lambda client, step, worker: {}, callback=lambda step, reports: step == 7)
        assert tables.steps == 7
