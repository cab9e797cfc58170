"""The engine "ray" of sharded tables: shards and workers in processes of their own, on this machine."""

import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sparseopt as so
from sparseopt.sharded import _ray

N_ROWS = 301


def needs_ray():
    return pytest.importorskip("ray", reason='engine "ray" needs the package ray')


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Ray runs for all tests of this module, as long as these tables are open."""
    ray = needs_ray()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("ray"))         # Ray's processes look for packages in this folder first
        tables = made()
    with tables:
        yield tables


pytestmark = pytest.mark.filterwarnings("ignore:::ray")


def rows():
    return {"item": so.Rows(N_ROWS, 5, init=so.init.Normal(0.1, seed=1)), "bias": so.Rows(70, None)}


def made(engine="ray", optimizer=lambda tables: so.Adam(tables, lr=0.01), **options):
    return so.sharded.Tables(rows(), optimizer, engine=engine, **{"shards": 2, "workers": 2, **options})


def gradients_of(client, step, worker):
    """Gradients that depend on the rows, and the process of the worker as the report."""
    rng = np.random.default_rng([step, worker])
    items, biases = rng.integers(N_ROWS, size=40), rng.integers(70, size=20)
    now = client.pull({"item": items, "bias": biases})
    return {"item": so.RowGradient(items, now["item"] + rng.normal(size=(40, 5)).astype("f")),
            "bias": so.RowGradient(biases, now["bias"] + 1)}, os.getpid()


def arrays(tables):
    optimizer = tables.optimizer()
    return {(name, key): array for name, params in optimizer.params.items()
            for key, array in {"": params, **optimizer.state[name]}.items()}


def assert_same(tables, others):
    ours, theirs = arrays(tables), arrays(others)
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=str(key))


def undisturbed(steps, **options):
    tables = made("local", **options)
    tables.fit(gradients_of, steps)
    return tables


def process_of(tables, shard):
    ray = needs_ray()
    return ray.get(tables._engine.link.actors[shard].__ray_call__.remote(lambda self: os.getpid()))


class Kill:
    """A callback that kills processes after some steps."""

    def __init__(self, at, process):
        self.at, self.process, self.steps = set(at), process, []

    def __call__(self, step, reports):
        self.steps.append(step)
        if step in self.at:
            self.at.discard(step)
            os.kill(self.process(reports), signal.SIGKILL)


@pytest.mark.parametrize("options", [
    {"combine": "none"},
    {"combine": "worker", "shards": 3, "workers": 1},
    {"optimizer": lambda tables: so.Adam(tables, missed="replay", max_grad_norm=0.5)},
], ids=str)
def test_bits_are_those_of_the_local_engine(session, options):
    with made(**options) as tables:
        tables.fit(gradients_of, 4)
        tables.fit(gradients_of, 2)         # the same worker processes
        assert tables.steps == 6
        assert_same(tables, undisturbed(6, **options))


def test_workers_run_in_processes_of_their_own(session):
    found = []
    session.fit(gradients_of, 1, callback=lambda step, reports: found.extend(reports))
    assert len({os.getpid(), *found}) == 3


def test_a_killed_shard_is_loaded_from_the_last_checkpoint(session, tmp_path):
    with made(folder=tmp_path / "tables") as tables:
        kill = Kill([5], lambda reports: process_of(tables, 1))
        tables.save()
        tables.fit(gradients_of, 7, checkpoint_every=2, callback=kill)
        assert kill.steps == [1, 2, 3, 4, 5, 5, 6, 7]
        assert_same(tables, undisturbed(7))


def test_a_killed_worker_needs_no_checkpoint(session):
    with made() as tables:
        kill = Kill([2, 4], lambda reports: reports[1])
        tables.fit(gradients_of, 6, callback=kill)
        assert kill.steps == [1, 2, 3, 4, 5, 6]
        assert_same(tables, undisturbed(6))


def test_a_killed_shard_without_a_folder_is_an_error(session):
    lost = pytest.raises(RuntimeError, match="shards 0 died, and their rows are lost: there is no folder")
    with made() as tables, lost:
        tables.fit(gradients_of, 4, callback=Kill([2], lambda reports: process_of(tables, 0)))


def test_async_goes_on_after_kills(session, tmp_path):
    with made(mode="async", staleness=1, folder=tmp_path / "tables") as tables:
        tables.save()
        kill = Kill([4, 6], lambda reports: process_of(tables, 0) if kill.at else next(filter(None, reports)))
        tables.fit(gradients_of, 8, checkpoint_every=3, callback=kill)
        assert not kill.at
        assert len(kill.steps) >= 15
        assert np.isfinite(tables.pull({"item": range(N_ROWS)})["item"]).all()


def test_a_call_that_is_repeated_is_done_once(session, monkeypatch):
    monkeypatch.setattr(_ray, "_SILENCE", 0.01)         # each call of this process seems lost

    def slow(client, step, worker):
        slow.calls = getattr(slow, "calls", 0) + 1
        time.sleep(0.1)
        return gradients_of(client, step, worker)[0], slow.calls

    reports = []
    with made() as tables:
        tables.fit(slow, 3, callback=lambda step, each: reports.append(each))
        assert reports == [[1, 1], [2, 2], [3, 3]]
        assert_same(tables, undisturbed(3))


def test_an_error_of_gradients_of_comes_as_it_is(session):
    def fails(client, step, worker):
        if step == 1 and worker == 1:
            raise KeyError("no such user")
        return gradients_of(client, step, worker)

    with made() as tables:
        with pytest.raises(KeyError, match="no such user") as caught:
            tables.fit(fails, 3)
        assert "in fails" in str(caught.value.__cause__)        # where it was raised
        tables.fit(gradients_of, 1)
        assert tables.steps == 2


def test_a_module_that_workers_cannot_import_is_named(session, monkeypatch, tmp_path):
    (tmp_path / "only_here.py").write_text("import sparseopt\n"
                                           "def optimizer(tables): return sparseopt.Adam(tables)\n"
                                           "def gradients_of(client, step, worker): return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with pytest.raises(ModuleNotFoundError, match="only_here"):
        made(optimizer=only_here.optimizer)
    with pytest.raises(Exception, match="No module named 'only_here'"):
        session.fit(only_here.gradients_of, 1)


def test_pulled_rows_are_the_callers_own(session):
    for shards in (1, 2):
        with made(shards=shards) as tables:
            items = [7, 300, 7, 0]
            pulled = tables.pull({"item": items})["item"]
            np.testing.assert_array_equal(pulled, rows()["item"].start(range(N_ROWS))[items])
            pulled[:] = 0
            assert tables.pull({"item": [7]})["item"].any()


def test_a_client_works_in_a_task_of_the_users_own(session):
    ray = needs_ray()

    @ray.remote
    def task(client):
        client.push({"item": so.RowGradient([3], np.ones((1, 5), "f"))})
        return client.pull({"item": [3]})["item"]

    with made(workers=1) as tables:
        pulled = ray.get(task.remote(tables.client()))
        np.testing.assert_array_equal(pulled, tables.pull({"item": [3]})["item"])
        assert tables.steps == 1


def test_messages_have_the_bytes_of_unique_rows_and_their_numbers(session):
    sent = []

    def counted(calls):
        answers = call(calls)
        sent.append(sum(len(pickle.dumps(one, 5)) for one in (*calls.values(), *answers.values())))
        return answers

    with so.sharded.Tables({"item": so.Rows(5000, 64)}, so.Adam, shards=2, workers=2, engine="ray") as tables:
        client = tables.client(0)
        client.pull({"item": [0]})
        call, client._link._call = client._link._call, counted
        numbers = np.random.default_rng(0).integers(5000, size=9000)
        client.pull({"item": numbers})
        client.push({"item": so.RowGradient(numbers, np.ones((9000, 64), "f"))})
    bound = len(np.unique(numbers)) * (64 * 4 + 8)
    assert len(sent) == 2
    assert bound < sent[0] < 1.1 * bound
    assert bound < sent[1] < 1.1 * bound


def test_closed_tables_leave_others_at_work(session):
    with made() as tables:
        actors = dict(tables._engine.link.actors)
    ray, ends = needs_ray(), time.monotonic() + 60

    def ask():
        while time.monotonic() < ends:          # Ray ends an actor soon, not at once
            ray.get(actors[0].do.remote(("me", secrets.token_hex(8), 0), [("is_loaded", ())]))

    with pytest.raises(ray.exceptions.RayActorError):
        ask()
    assert session.pull({"bias": [1]})["bias"].shape == (1,)


PROGRAM = """
import time
import numpy as np, sparseopt as so

def gradients_of(client, step, worker):
    time.sleep(60 if step else 0)
    return {"item": so.RowGradient([step], np.ones((1, 4), "f"))}

with so.sharded.Tables({"item": so.Rows(100, 4)}, lambda tables: so.SGD(tables, lr=1.0), shards=2, workers=2,
                       engine="ray") as tables:
    try:
        tables.fit(gradients_of, callback=lambda step, reports: print("a step", flush=True))
    except KeyboardInterrupt:
        # Both workers' gradients of the first step are there, and the tables still work.
        print("interrupted", tables.steps, tables.pull({"item": [0]})["item"][0, 0])
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_no_process_behind(tmp_path):
    needs_ray()
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True,
                               # A shell starts background jobs, and what they start, with Ctrl-C ignored.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert program.stdout.readline() == "a step\n", program.communicate()
    assert len(of_session(program.pid)) > 4
    time.sleep(0.5)
    os.killpg(program.pid, signal.SIGINT)           # as a terminal does
    printed, errors = program.communicate(timeout=60)
    assert printed == "interrupted 1 -2.0\n", errors
    ends = time.monotonic() + 20
    while of_session(program.pid) and time.monotonic() < ends:
        time.sleep(0.1)
    assert not of_session(program.pid)


def of_session(number):
    """The commands of a session's processes that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == number and state != "Z":
                found.append((path / "cmdline").read_text())
        except OSError:             # it has ended
            pass
    return found


def test_the_error_of_a_missing_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(_ray, "ray", _ray.imported())
    with pytest.raises(ImportError, match=r'engine "ray" needs the package ray: pip install "sparseopt\[sharded\]"'):
        made()
