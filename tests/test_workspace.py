"""A workspace keeps the memory of freed arrays, and gives it to the next arrays."""

import contextvars
import ctypes
import gc
import threading

import numpy as np
import pytest
import scipy.sparse as sp

import sparseopt as so
from sparseopt import embedding, models

resource = pytest.importorskip("resource", reason="page faults are counted by getrusage, which Windows lacks")


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_the_next_array_of_about_the_same_size_gets_the_memory_of_a_freed_one():
    with so.Workspace():
        first = np.empty(100_000)
        place = first.ctypes.data
        del first
        assert np.empty(99_900).ctypes.data == place
        assert np.zeros(100_001).ctypes.data == place


def test_arrays_of_a_workspace_have_the_values_that_numpy_gives_them():
    rng = np.random.default_rng(0)
    expected = [rng.standard_normal(n) for n in rng.integers(1, 5000, 300)]
    with so.Workspace(keep=50_000):             # so little that the kept memory is dropped again and again
        found, rng = [], np.random.default_rng(0)
        for n in rng.integers(1, 5000, 300):
            found.append(rng.standard_normal(n) * 2)
            found[-1] /= 2
            assert not np.zeros(n).any()
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def test_an_array_keeps_its_values_when_it_is_resized():
    with so.Workspace():
        array = np.arange(1000)
        array.resize(100_000, refcheck=False)
        assert np.array_equal(array[:1000], np.arange(1000))
        assert not array[1000:].any()
        array.resize(10, refcheck=False)
        assert np.array_equal(array, np.arange(10))


def test_arrays_outlive_their_workspace():
    with so.Workspace() as workspace:
        array = np.arange(100_000.0)
    del workspace
    gc.collect()
    assert array.sum() == 99_999 * 50_000
    array = array[::2] * 2                      # the first array is freed
    assert array.sum() == 2 * 2 * 49_999 * 25_000


def test_arrays_start_on_a_cache_line():
    with so.Workspace():
        assert all(np.empty(n, np.uint8).ctypes.data % 64 == 0 for n in (1, 10, 1000, 10_000, 10**6, 10**7))


def test_no_more_memory_is_kept_than_allowed_and_none_after_the_block():
    with so.Workspace(keep=1 << 20) as workspace:
        arrays = [np.empty(1 << 17, np.uint8) for _ in range(20)]
        while arrays:
            arrays.pop()
            assert workspace.kept <= 1 << 20
        assert workspace.kept
        np.empty(1 << 21, np.uint8)             # larger than what may be kept
    assert workspace.kept == 0
    with so.Workspace(keep=0) as workspace:
        np.empty(1000)
        assert workspace.kept == 0


def test_workspaces_nest_and_one_can_be_entered_twice():
    with so.Workspace() as outer, so.Workspace() as inner:
        np.empty(10_000)
        assert inner.kept
        assert not outer.kept
        with outer:
            np.empty(10_000)
            assert outer.kept
        assert outer.kept                       # the outer block goes on
    assert not outer.kept
    assert not inner.kept


def fail_in(workspace):
    with workspace:
        np.empty(10_000)
        raise KeyError("from the block")


def test_an_error_leaves_the_block_as_any_other_end():
    workspace = so.Workspace()
    with pytest.raises(KeyError, match="from the block"):
        fail_in(workspace)
    np.empty(10_000)
    assert not workspace.kept


def test_after_blocks_that_end_out_of_order_no_memory_is_kept():
    pytest.importorskip("numpy", minversion="2.0", reason="NumPy 1 has get_handler_name in another module")
    from numpy._core.multiarray import get_handler_name

    first, second = so.Workspace(), so.Workspace()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert get_handler_name(np.empty(1000)) == "default_allocator"


def test_other_contexts_and_threads_are_as_before():
    kept = []

    def free_an_array():
        np.empty(1 << 20)
        kept.append(workspace.kept)

    with so.Workspace() as workspace:
        contextvars.Context().run(free_an_array)
        thread = threading.Thread(target=contextvars.Context().run, args=(free_an_array,))
        thread.start()
        thread.join()
        free_an_array()
    assert kept[:2] == [0, 0]
    assert kept[2]


def test_an_array_may_be_freed_by_another_thread():
    with so.Workspace() as workspace:
        arrays = [np.empty(10_000) for _ in range(100)]
        threads = [threading.Thread(target=arrays.__delitem__, args=(slice(0, 10),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert workspace.kept == 80 * 81_920       # 80,000 bytes take a block of 1.25 · 2^16


@pytest.mark.parametrize(("keep", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (None, TypeError)])
def test_a_bad_number_of_bytes_is_refused(keep, error):
    with pytest.raises(error, match="keep is"):
        so.Workspace(keep=keep)


def test_a_loop_in_a_workspace_has_no_page_faults_after_its_first_steps():
    tables = {name: so.normal((20_000, 64), seed=0) for name in "pq"}
    opt = so.Adagrad(tables, lr=0.01)
    rng = np.random.default_rng(0)
    taken = []
    with so.Workspace():
        for _ in range(40):
            before = faults()
            i, j = rng.integers(20_000, size=(2, 4096))
            p, q = embedding.gather(tables["p"], i), embedding.gather(tables["q"], j)
            error = (np.einsum("bd,bd->b", p, q) - 1)[:, None]
            opt.step({"p": so.RowGradient(i, error * q), "q": so.RowGradient(j, error * p)})
            taken.append(faults() - before)
    assert np.median(taken[20:]) == 0
    assert np.mean(taken[20:]) < 5              # at first 1,000 and more


def clicks(model):
    rng = np.random.default_rng(0)
    X = sp.random_array((60_000, 20_000), density=20 / 20_000, rng=rng, dtype=np.float32, format="csr")
    return lambda callback: model.fit(X, rng.random(60_000) < 0.5, callback=callback)


def pairs(model):
    rng = np.random.default_rng(0)
    X = sp.csr_array((np.ones(120_000), (rng.integers(3000, size=120_000), rng.integers(2000, size=120_000))))
    X.sum_duplicates()
    return lambda callback: model.fit(X, callback=callback)


def text(model):
    rng = np.random.default_rng(0)
    sentences = (rng.zipf(1.3, (4000, 20)) % 3000).astype(str).tolist()
    return lambda callback: model.fit(sentences, callback=callback)


FITS = {
    "logistic": lambda: clicks(models.LogisticRegression(epochs=2, batch_size=4096)),
    "factorization machine": lambda: clicks(models.FactorizationMachineClassifier(epochs=2, batch_size=1024)),
    "matrix factorization": lambda: pairs(models.MatrixFactorization(epochs=2)),
    "softmax": lambda: pairs(models.ImplicitFactorization(epochs=2)),
    "square": lambda: pairs(models.ImplicitFactorization("square", epochs=2)),
    "bpr": lambda: pairs(models.ImplicitFactorization("bpr", epochs=2)),
    "warp": lambda: pairs(models.ImplicitFactorization("warp", epochs=2)),
    "skip-gram": lambda: text(models.SkipGram(epochs=2, batch_size=512, lr=0.001)),
    "cbow": lambda: text(models.CBOW(epochs=2, batch_size=512, lr=0.001)),
    "glove": lambda: text(models.GloVe(epochs=2)),
}


@pytest.fixture
def eager_allocator():
    """Have malloc give arrays of 32 KiB and more back at once. glibc does so at first, and learns not to later."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        pytest.skip("this C library has no mallopt, which sets when memory is given back")
    mmap_threshold, trim_threshold = -3, -1
    libc.mallopt(mmap_threshold, 1 << 15)
    libc.mallopt(trim_threshold, 1 << 15)
    yield
    libc.mallopt(mmap_threshold, 1 << 25)
    libc.mallopt(trim_threshold, 1 << 26)


@pytest.mark.parametrize("name", FITS)
def test_a_batch_of_a_model_has_no_page_faults_in_a_steady_state(name, eager_allocator):
    pytest.importorskip("numpy", minversion="2.0", reason="NumPy 1 has get_handler_name in another module")
    from numpy._core.multiarray import get_handler_name

    taken, handlers = [], set()

    def callback(progress):
        taken.append(faults())
        handlers.add(get_handler_name(np.empty(1000)))

    FITS[name]()(callback)
    each = np.diff(taken)[len(taken) // 4:len(taken) // 2 - 1]       # the last half of the first epoch
    assert len(each) >= 4
    assert np.median(each) == 0
    assert handlers == {"sparseopt"}            # without a workspace, some heaps would have no faults by chance
