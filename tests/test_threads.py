"""How many threads there are, and who decides it: cores, quotas, the environment, forks; and how long threads wait.

Each in a fresh process where it is settled at import."""

import os
import re
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import sparseopt as so
from sparseopt import _config, _kernels, models

needs_openmp = pytest.mark.skipif(not _kernels.BUILD["openmp"], reason="this build has no OpenMP")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def python(code, folder, *arguments, **environment):
    """Run code in a process of its own, away from the sources; what it printed. The timeout is for one that hangs."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=plain | environment,
                          capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A root folder in which to write the files of a system whose process may use 16 cores."""
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    else:
        monkeypatch.setattr(os, "cpu_count", lambda: 16)

    def write(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path
    return write


def quota_v1(folder, quota, period=100_000):
    folder = f"sys/fs/cgroup/{folder}".rstrip("/")
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


V1 = "9:name=systemd:/a\n4:memory:/b\n3:cpuset:/c\n2:cpu,cpuacct:/docker/x\n1:pids:/d\n0::/e\n"


@pytest.mark.parametrize(("expected", "files"), [
    (16, {}),
    (16, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}),
    (3, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}),
    (3, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250001 100000\n"}),
    (1, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}),
    (16, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}),
    (5, {"proc/self/cgroup": "0::/a/b:c/d\n", "sys/fs/cgroup/a/b:c/d/cpu.max": "250000 50000\n"}),
    (2, {"proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n",
         "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}),
    (16, {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/b/cpu.max": "100000 100000\n"}),
    (4, {"proc/self/cgroup": "0::/seen/from/the/host\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}),
    (4, {"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}),
    (16, {"proc/self/cgroup": V1} | quota_v1("cpu,cpuacct/docker/x", -1) | quota_v1("cpu,cpuacct", -1)),
    (2, {"proc/self/cgroup": V1} | quota_v1("cpu,cpuacct/docker/x", 150_000) | quota_v1("cpu,cpuacct", -1)),
    (2, {"proc/self/cgroup": V1} | quota_v1("cpu/docker/x", 50_000, 25_000)),
    (6, {"proc/self/cgroup": V1} | quota_v1("cpu,cpuacct/docker", 600_000)
     | quota_v1("cpu,cpuacct/docker/x", 900_000)),
    (7, {"proc/self/cgroup": V1} | quota_v1("cpu", 700_000)),
    (16, {"proc/self/cgroup": V1} | quota_v1("memory/b", 100_000) | quota_v1("cpuset/c", 100_000)),
    (16, {"proc/self/cgroup": "nonsense\n\n1:cpu\n0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}),
])
def test_threads_are_the_cores_that_quotas_leave_rounded_up(expected, files, system):
    assert _config.default_threads({}, system(files)) == expected


@pytest.mark.parametrize(("said", "expected"), [
    ("1", 1), ("3", 3), ("64", 64), (" 3 ", 3), ("+3", 3), ("03", 3), ("3,2", 3), ("3 , 2,1", 3), ("5000", 1024),
    ("", 2), ("0", 2), ("-3", 2), ("3,", 2), (",3", 2), ("3,x", 2), ("3,0", 2), ("2x", 2), ("0x3", 2), ("1e1", 2),
    ("3 2", 2)])
def test_the_environments_first_number_comes_before_cores_and_nonsense_is_ignored(said, expected, system):
    root = system({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"})
    assert _config.default_threads({"OMP_NUM_THREADS": said}, root) == expected


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs a mask of cores")
def test_threads_are_at_most_the_cores_of_the_affinity_mask(tmp_path):
    code = ("import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
            "import sparseopt as so; print(so.get_num_threads())")
    assert python(code, tmp_path).stdout == "1\n"
    assert python(code, tmp_path, OMP_NUM_THREADS="3,2").stdout == "3\n"


SPINS = """
import os, sys
import sparseopt
print({name: value for name, value in os.environ.items() if name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}, flush=True)
os.execv(sys.executable, [sys.executable, "-c", "import os; print(os.environ.get('GOMP_SPINCOUNT'))"])
"""


def spins(done):
    """Return the spin counts that GNU's OpenMP reports, one for each copy of the library."""
    found = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not found:
        pytest.skip("OpenMP is not GNU's")
    return found


@needs_openmp
def test_threads_wait_in_few_turns_and_the_environment_is_as_before(tmp_path):
    done = python(SPINS, tmp_path, OMP_DISPLAY_ENV="verbose")
    assert spins(done) == [_kernels.TURNS]
    assert done.stdout == "{}\nNone\n"


@needs_openmp
@pytest.mark.parametrize(("name", "value", "expected"), [
    ("GOMP_SPINCOUNT", "77", "77"), ("OMP_WAIT_POLICY", "passive", "0"), ("KMP_BLOCKTIME", "0", None)])
def test_who_says_how_threads_wait_is_obeyed(name, value, expected, tmp_path):
    done = python(SPINS, tmp_path, OMP_DISPLAY_ENV="verbose", **{name: value})
    assert spins(done)[0] == expected or (expected is None and spins(done)[0] != _kernels.TURNS)
    assert done.stdout.splitlines()[0] == str({name: value} if expected else {})


def test_the_environment_is_as_before_where_the_import_fails(tmp_path):
    code = """
import os
try:
    import sparseopt
except ImportError:
    print(os.environ.get("GOMP_SPINCOUNT"))
"""
    assert python("import sys; sys.modules['sparseopt._memory'] = None" + code, tmp_path).stdout == "None\n"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_the_import_leaves_a_python_without_a_gil_as_it_is(tmp_path):
    code = "import sys, sparseopt; assert not sys._is_gil_enabled()"
    python("import warnings; warnings.simplefilter('error'); " + code, tmp_path)


def test_every_compiled_module_says_that_it_runs_without_a_gil():
    sources = sorted((Path(__file__).parents[1] / "sparseopt").rglob("*.pyx"))
    assert len(sources) > 5
    for path in sources:
        first, _ = path.read_text(encoding="utf-8").split("\n", 1)
        assert re.match("# cython: .*freethreading_compatible=True", first), path.name


# All that may use threads. Each entry returns bytes, the same ones whatever the number of threads.
ENTRIES = """
import faulthandler, functools, hashlib, itertools, os, pickle, signal, sys, threading
import numpy as np
import scipy.sparse as sp
import sparseopt as so
from sparseopt import evaluation, models, training
from sparseopt._bench.cases import Case
from sparseopt._bench.race import Race

n, dim = 150_000, 4         # enough that several threads look at rows, sort them, and step on them
rng = np.random.default_rng(0)
values = rng.standard_normal((n, dim)).astype(np.float32)
rising, unsorted, repeated = np.arange(n), rng.permutation(n), rng.integers(0, n, n)
ends = np.arange(0, n + 1, 2, dtype=np.int32)
samples = sp.csr_array((np.ones(n, np.float32), repeated.astype(np.int32), ends), (n // 2, n))
cells = sp.coo_array((values[:, 0].copy(), (repeated, rng.integers(0, dim, n))), (n, dim))
GRADIENTS = {
    "rows": so.RowGradient(rising, values), "unsorted rows": so.RowGradient(unsorted, values),
    "repeated rows": so.RowGradient(repeated, values), "dense": values,
    "COO": cells, "CSC": cells.tocsc(), "CSR": cells.tocsr(),
    "product": so.MatmulGradient(samples, values[:n // 2]),
    "product, CSC": so.MatmulGradient(samples.tocsc(), values[:n // 2])}
OPTIONS = {"plain": {"nonfinite": "allow"}, "checked": {}, "rows left out": {"nonfinite": "skip"},
           "clipped": {"max_grad_norm": 1.0}, "replay": {"missed": "replay"}}
pairs = sp.random_array((1000, 900), density=0.05, rng=rng, dtype=np.float32)
pairs.data += 1
features = sp.random_array((5000, 2000), density=0.01, rng=rng, dtype=np.float32).tocsr()
targets = rng.integers(0, 2, 5000)
text = [[f"w{word}" for word in rng.zipf(1.3, 20) % 300] for _ in range(300)]

def table():
    return so.normal((n, dim), seed=1)

def bytes_of(opt):
    return b"".join(array.tobytes() for name in opt.params for array in (opt.params[name], *opt.state[name].values()))

def stepped(gradient, **options):
    opt = so.Adam(table(), **options)
    opt.step(gradient)
    opt.step(gradient)
    if opt.missed == "replay":
        opt.step(so.RowGradient([0], values[:1]))
        opt.catch_up()
        opt.state_dict()
    return bytes_of(opt)

def read_under_replay():
    opt = so.Adam(table(), missed="replay")
    opt.step(GRADIENTS["rows"])
    opt.step(so.RowGradient([0], values[:1]))
    return so.embedding.gather(opt.params[0], unsorted, opt=opt).tobytes()

def accumulated():
    opt = so.Adam(table())
    adder = training.Accumulator(opt, every=3)
    for gradient in ("rows", "product", "repeated rows", "dense"):
        adder.step(GRADIENTS[gradient])
    adder.flush()
    return bytes_of(opt)

def saved():
    so.save(f"{os.getpid()}.safetensors", opt := so.Adam(table()))
    loaded = so.load(f"{os.getpid()}.safetensors")
    loaded.step(GRADIENTS["rows"])
    return bytes_of(loaded)

def touched():
    race = Race(Case(table=4000, rows=4000, dim=16, threads=2, order="rising"), [])
    for contestant in race.contestants.values():
        contestant.step(race.batches[0])
    return b"".join(array.tobytes() for array in race.arrays)

def recommended(model, optimizer):
    model.set_params(optimizer=optimizer, random_state=0, epochs=1, dim=40)
    model.fit(pairs).partial_fit(pairs)
    copy = pickle.loads(pickle.dumps(model)) if isinstance(optimizer, str) else model
    users, items = np.arange(5000) % 1000, np.arange(5000) % 900
    read = [*model.recommend(np.arange(1000), 5, seen=pairs), *model.similar_items(3, 5), copy.predict(users, items)]
    return bytes_of(model.optimizer_) + b"".join(array.tobytes() for array in read)

def supervised(model, optimizer):
    model.set_params(optimizer=optimizer, random_state=0, epochs=1, batch_size=5000)
    model.fit(features, targets)
    model.partial_fit(features, targets)
    return bytes_of(model.optimizer_) + model.predict(features).tobytes()

def words(model, X):
    model.set_params(random_state=0)
    return bytes_of(model.fit(X).partial_fit(X).optimizer_)

threads = functools.partial(so.Adam, num_threads=2)
ENTRIES = {
    **{f"step, {form}, {option}": functools.partial(stepped, gradient, **options)
       for (form, gradient), (option, options) in itertools.product(GRADIENTS.items(), OPTIONS.items())},
    "an optimizer's own threads": lambda: stepped(values, num_threads=2),
    "gather": lambda: so.embedding.gather(table(), repeated).tobytes(),
    "dots": lambda: so.embedding.dots(table(), unsorted, table(), repeated).tobytes(),
    "matmul": lambda: so.embedding.matmul(samples, table()).tobytes(),
    "gather under replay": read_under_replay, "Accumulator": accumulated, "save, load": saved, "benchmark": touched,
    **{f"MatrixFactorization, {name}":
       functools.partial(recommended, models.MatrixFactorization(batch_size=5000), optimizer)
       for name, optimizer in (("by name", "Adam"), ("own threads", threads))},
    **{f"ImplicitFactorization, {loss}":
       functools.partial(recommended, models.ImplicitFactorization(loss=loss), threads)
       for loss in ("softmax", "bpr", "warp")},
    **{type(model).__name__: functools.partial(supervised, model, threads)
       for model in (models.LogisticRegression(), models.FactorizationMachineClassifier(dim=16),
                     models.FactorizationMachineRegressor(dim=16))},
    "GloVe": lambda: words(models.GloVe(dim=20, epochs=1), sp.csr_array(pairs[:900])),
    "SkipGram": lambda: words(models.SkipGram(dim=20, epochs=1, min_count=1), text),
    "CBOW": lambda: words(models.CBOW(dim=20, epochs=1, min_count=1), text),
}
"""

FORK = ENTRIES + """
def outcome():
    results = {}
    for name, entry in ENTRIES.items():
        print(name, file=sys.stderr, flush=True)
        results[name] = hashlib.sha256(entry()).hexdigest()
    return results

def child(then=lambda: None):
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(600)           # only where it hangs: it would outlive its parent
    status = 1
    try:
        assert so.get_num_threads() == 1
        so.set_num_threads(3)
        assert so.get_num_threads() == 1
        different = [name for name, digest in outcome().items() if digest != expected[name]]
        assert not different, different
        then()
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)        # of a child that raises, too: it is not the one to go on below

def fork(*arguments):
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        child(*arguments)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the child"

def in_a_thread():
    try:
        outcome()               # it has threads of its own, that its child has not
        fork()
        ended.append(True)
    except AssertionError as error:
        print(error, file=sys.stderr)

so.set_num_threads(2)
expected, ended = outcome(), []
if sys.argv[1] == "from the main thread":
    fork()
elif sys.argv[1] == "twice":
    fork(fork)
else:
    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert ended
assert so.get_num_threads() == 2 and outcome() == expected, "the parent itself"
print(len(expected))
"""


@needs_fork
@needs_openmp
@pytest.mark.parametrize("how", ["from the main thread", "from another thread", "twice"])
def test_nothing_hangs_in_a_forked_child_and_all_has_the_same_bits(how, tmp_path):
    assert int(python(FORK, tmp_path, how).stdout) > 60


def test_a_model_trains_on_one_thread_and_so_does_blas():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="limits the threads of BLAS")

    def threads_of_blas():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    seen = []

    def callback(progress):
        seen.append((so.get_num_threads(), set(threads_of_blas())))

    X = sp.csr_array((np.random.default_rng(0).random((30, 20)) < 0.3).astype(float))
    own, blas = so.get_num_threads(), threads_of_blas()
    so.set_num_threads(2)
    try:
        models.ImplicitFactorization(dim=4, epochs=2).fit(X, callback=callback)
        assert so.get_num_threads() == 2
    finally:
        so.set_num_threads(own)
    assert threads_of_blas() == blas
    assert seen
    assert all(found == (1, {1}) for found in seen)


def test_two_models_that_train_at_once_leave_blas_as_it_was():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="limits the threads of BLAS")
    before = threadpoolctl.threadpool_info()
    X = sp.csr_array((np.random.default_rng(0).random((30, 20)) < 0.3).astype(float))
    together = threading.Barrier(2)

    def meet(progress):
        if progress.epoch == 0:
            together.wait()

    def train(epochs):
        models.ImplicitFactorization(dim=4, epochs=epochs).fit(X, callback=meet)

    workers = [threading.Thread(target=train, args=(epochs,)) for epochs in (1, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert threadpoolctl.threadpool_info() == before
