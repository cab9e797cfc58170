"""Models train in memory and in stores, with the same bits where one worker takes all steps."""

import copy
import functools
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

import sparseopt as so
from sparseopt.models import CBOW, GloVe, ImplicitFactorization, MatrixFactorization, SkipGram


class Store:
    """The simplest store. Pulled rows are copies, and what the workers return is put together."""

    made: list["Store"] = []            # noqa: RUF012

    def __init__(self, rows, optimizer, workers=1):
        self.rows, self.workers, self.closed = dict(rows), workers, False
        self.tables = {name: one.start(range(one.n_rows)) for name, one in rows.items()}
        self.opt = pickle.loads(pickle.dumps(optimizer))(self.tables)
        self.made.append(self)

    @property
    def steps(self):
        return self.opt.steps

    def pull(self, rows):
        if self.opt.missed == "replay":
            self.opt.catch_up(rows)
        return {name: self.tables[name][some] for name, some in rows.items()}

    def fit(self, gradients_of, steps=None, callback=None):
        gradients_of, self.begun = pickle.loads(pickle.dumps(gradients_of)), self.steps     # as in another process
        while True:
            found = [self.gradients(gradients_of, worker) for worker in range(self.workers)]
            parts = [one[0] for one in found if one is not None]
            if not parts:
                return
            assert all(isinstance(gradient, so.RowGradient) for part in parts for gradient in part.values())
            self.opt.step({name: so.RowGradient(np.concatenate([part[name].rows for part in parts]),
                                                np.concatenate([part[name].values for part in parts]))
                           for name in parts[0]})
            if callback(self.steps, [one and one[1] for one in found]):
                return

    def gradients(self, gradients_of, worker):
        return gradients_of(self, self.steps, worker)

    def optimizer(self):
        return copied(self.opt)

    def load(self, optimizer):
        self.opt.load_state_dict(optimizer.state_dict())

    def close(self):
        self.closed = True


def copied(optimizer):
    state = copy.deepcopy(optimizer.state_dict())
    groups = [{**group, "params": {name: state["params"][name] for name in group["params"]}}
              for group in state["param_groups"]]
    made = type(optimizer)(groups, **state["options"])
    made.load_state_dict(state)
    return made


def pairs(seed=0):
    rng = np.random.default_rng(seed)
    return sp.csr_array((rng.random((90, 40)) < 0.15) * rng.uniform(1, 5, (90, 40)).astype(np.float32))


def text():
    rng = np.random.default_rng(0)
    return [[f"w{word}" for word in rng.zipf(1.3, 20) % 60] for _ in range(150)]


SMALL = {"dim": 6, "epochs": 2, "batch_size": 100}
KINDS = {
    **{name: (functools.partial(ImplicitFactorization, **SMALL, **settings), pairs) for name, settings in {
        "softmax": {}, "softmax, drawn": {"negatives": 15}, "softmax, of the batch": {"negatives": "batch"},
        "bpr": {"loss": "bpr"}, "warp": {"loss": "warp"}}.items()},
    "ratings": (functools.partial(MatrixFactorization, **SMALL), pairs),
    "skip-gram": (functools.partial(SkipGram, **SMALL), text),
    "CBOW": (functools.partial(CBOW, **SMALL), text),
    "GloVe": (functools.partial(GloVe, **SMALL), text),
}
kinds = pytest.mark.parametrize("name", KINDS)


def everything(model):
    """The tables and the state of a model, and its losses."""
    model._catch_up()
    opt = model.optimizer_
    return ({f"{name}/{key}": array for name in opt.params
             for key, array in {"table": opt.params[name], **opt.state[name]}.items()}, model.loss_curve_)


def check_same(model, other):
    (arrays, losses), (theirs, their_losses) = everything(model), everything(other)
    assert arrays.keys() == theirs.keys()
    for name, array in arrays.items():
        assert_array_equal(array, theirs[name], err_msg=name)
    assert losses == their_losses


@kinds
@pytest.mark.parametrize(("optimizer", "missed"), [("Adagrad", "skip"), ("Adam", "skip"), ("SGD", "replay"),
                                                   ("Adam", "replay")])
def test_a_store_gives_the_bits_of_memory(name, optimizer, missed, tmp_path):
    make, data = KINDS[name]
    memory = make(optimizer=optimizer, missed=missed).fit(data())
    assert memory.store_ is None
    places = [Store, functools.partial(so.sharded.Tables, shards=3),
              functools.partial(so.sharded.Tables, shards=2, combine="none")]
    if missed == "skip":
        places.append(functools.partial(so.DiskTables, tmp_path, cache_rows=75, threads=2))
    for tables in places:
        model = make(optimizer=optimizer, missed=missed, tables=tables).fit(data())
        check_same(memory, model)
        model.store_.close()


def test_ray_gives_the_bits_of_memory_with_one_worker_and_those_of_local_shards_with_two(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason='engine "ray" needs the package ray')
    monkeypatch.chdir(tmp_path)                             # Ray's processes look for packages in this folder first
    for name in ("softmax", "bpr", "skip-gram"):
        make, data = KINDS[name]
        for workers in (1, 2):
            tables = functools.partial(so.sharded.Tables, shards=2, workers=workers)
            expected = make(tables=tables if workers > 1 else None).fit(data())
            model = make(tables=functools.partial(tables, engine="ray")).fit(data())
            with model.store_:
                check_same(model, expected)


@kinds
def test_partial_fits_in_a_store_give_the_bits_of_memory(name):
    make, data = KINDS[name]
    memory, store, steps = make(), make(tables=Store), []
    for _ in range(3):
        memory.partial_fit(data())
        store.partial_fit(data(), callback=lambda progress: steps.append(progress) or False)
    check_same(memory, store)
    assert len(steps) == store.optimizer_.steps == memory.optimizer_.steps
    assert [step.epoch for step in steps if step.epoch_ends] == [0, 1, 2]


@kinds
def test_workers_share_an_epoch(name):
    make, data = KINDS[name]
    one, steps = make(epochs=5).fit(data()), []
    model = make(epochs=5, tables=functools.partial(Store, workers=3)).fit(data(), callback=steps.append)
    assert 0.9 < model.optimizer_.steps / one.optimizer_.steps < 1.5        # a step of all has the batch of one
    assert [step.epoch for step in steps if step.epoch_ends] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(model.loss_curve_[-1], one.loss_curve_[-1], rtol=0.1)


@kinds
def test_a_model_moves_between_memory_and_a_store(name, tmp_path):
    make, data = KINDS[name]
    still = make(optimizer="Adam").fit(data()).partial_fit(data()).partial_fit(data())
    moving = make(optimizer="Adam").fit(data())
    moving.tables = Store
    moving.partial_fit(data())
    first = moving.store_
    moving.tables = None
    moving.partial_fit(data())
    assert first.closed
    assert moving.store_ is None
    check_same(moving, still)
    moving = make(optimizer="Adam", tables=Store).fit(data())
    moving.save(tmp_path / "model.st")
    again = type(moving).load(tmp_path / "model.st")
    assert again.tables is None
    again.tables = Store
    check_same(again.partial_fit(data()).partial_fit(data()), still)


@pytest.mark.parametrize("kind", [ImplicitFactorization, MatrixFactorization])
def test_new_users_and_items_start_with_the_same_values_whenever_they_come(kind):
    X = pairs()
    whole, grown = kind(dim=6, epochs=0).fit(X), kind(dim=6, epochs=0).fit(X[:20, :30])
    for shape in ((21, 30), (45, 33), X.shape):
        grown._grow(grown._rows(*shape), {})
    check_same(whole, grown)


@kinds
def test_a_store_does_not_grow(name):
    make, data = KINDS[name]
    model, X = make(tables=Store).fit(data()), data()
    before = everything(model)
    if sp.issparse(X):
        new = {"X": sp.csr_array(np.ones((91, 40), np.float32))}
    else:
        new = {"X": [["a", "new", "word"]] * 10, "grow": True}
    with pytest.raises(ValueError, match=r"X has something new, and tables is .*; a store does not grow"):
        model.partial_fit(**new)
    assert str(everything(model)) == str(before)
    model.tables = None
    model.partial_fit(**new)
    assert len(model.optimizer_.params[next(iter(model.optimizer_.params))]) > len(next(iter(before[0].values())))


def test_predictions_of_a_model_in_a_store_are_those_of_memory():
    X = pairs()
    memory, store = (ImplicitFactorization(**SMALL, tables=tables).fit(X) for tables in (None, Store))
    for call in (lambda model: model.recommend(np.arange(90), 5, seen=X), lambda model: model.similar_items(3, 5),
                 lambda model: (model.predict([3, 1], [2, 2]),), lambda model: model.recommend_for([1, 2], 4)):
        for one, other in zip(call(memory), call(store), strict=True):
            assert_array_equal(one, other)
    assert memory.score(X, seen=X) == store.score(X, seen=X)
    words, more = (SkipGram(**SMALL, tables=tables).fit(text()) for tables in (None, Store))
    assert_array_equal(words["w1"], more["w1"])
    assert words.most_similar("w1") == more.most_similar("w1")


def test_a_copy_of_a_model_in_a_store_is_in_memory():
    X = pairs()
    model = ImplicitFactorization(**SMALL, tables=Store).fit(X)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.store_ is None
        check_same(again, model)
    assert model.store_ is Store.made[-1]


def test_the_optimizer_is_read_anew_after_each_step():
    seen = []
    model = ImplicitFactorization(**SMALL, tables=Store)
    model.fit(pairs(), callback=lambda progress: seen.append(progress.model.optimizer_.steps))
    assert seen == list(range(1, len(seen) + 1))
    assert model.optimizer_ is model.optimizer_
    assert model.optimizer_.steps == seen[-1] == model.store_.steps


def test_a_new_fit_closes_the_store_of_before():
    model = ImplicitFactorization(**SMALL, tables=Store).fit(pairs())
    first = model.store_
    model.fit(pairs(seed=1))
    assert first.closed
    assert not model.store_.closed
    check_same(model, ImplicitFactorization(**SMALL).fit(pairs(seed=1)))


def test_a_callback_ends_a_training_in_a_store():
    model = ImplicitFactorization(**SMALL, tables=functools.partial(Store, workers=2))
    model.fit(pairs(), callback=lambda progress: progress.done > 200)
    assert len(model.loss_curve_) == 1
    assert 2 < model.optimizer_.steps < 6


def test_a_diverging_training_in_a_store_says_so():
    model = ImplicitFactorization(**SMALL, optimizer="SGD", lr=1e30, tables=Store)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"has diverged: .*\. Set a lower lr or a "):
        model.fit(pairs())


class Restarted(Store):
    """Asks for each step twice, and for an earlier one in between."""

    def gradients(self, gradients_of, worker):
        gradients_of(self, self.steps, worker)
        gradients_of(self, max(self.begun, self.steps - self.steps % 4), worker)
        return super().gradients(gradients_of, worker)


@kinds
def test_a_step_can_be_asked_for_again(name):
    make, data = KINDS[name]
    check_same(make(tables=Restarted).fit(data()), make().fit(data()))


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: ImplicitFactorization(tables=3), TypeError, r"tables is 3; it must be None or a callable"),
    (lambda: ImplicitFactorization("square", tables=Store), ValueError, r"loss is 'square', which .* tables must be N"),
    (lambda: ImplicitFactorization(tables=lambda rows, make: None), TypeError, r"tables returned None; it must return"),
    (lambda: ImplicitFactorization(tables=taken), ValueError, r"tables returned a store that has taken 1 steps"),
])
def test_bad_tables_are_refused(make, error, message):
    model = make()
    with pytest.raises(error, match=message):
        model.fit(pairs())
    assert not hasattr(model, "optimizer_")


def test_dense_steps_of_glove_need_memory():
    with pytest.raises(ValueError, match=r"tables is .* and missed is 'dense', which takes steps on whole tables"):
        GloVe(missed="dense", tables=Store).fit(text())


def taken(rows, optimizer):
    store = Store(rows, optimizer)
    store.opt.step({"users": so.RowGradient([0], np.ones((1, 64)))})
    return store


def test_vectors_that_shrink_in_a_store_give_the_warning_too():
    with pytest.warns(UserWarning, match="the vectors have shrunk to almost zero"):
        ImplicitFactorization(dim=6, epochs=10, regularization=20.0, tables=Store).fit(pairs())


def test_early_stopping_refuses_a_store_that_it_cannot_restore():
    stopping = so.training.EarlyStopping(patience=1, score=lambda model: 1.0)
    with pytest.raises(ValueError, match="the model trains in a store, where EarlyStopping cannot restore the best sc"):
        ImplicitFactorization(**SMALL, tables=Store).fit(pairs(), callback=stopping)
