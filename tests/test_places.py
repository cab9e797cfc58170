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
        gradients_of = pickle.loads(pickle.dumps(gradients_of))         # as in another process
        while True:
            found = [gradients_of(self, self.steps, worker) for worker in range(self.workers)]
            parts = [one[0] for one in found if one is not None]
            if not parts:
                return
            assert all(isinstance(gradient, so.RowGradient) for part in parts for gradient in part.values())
            self.opt.step({name: so.RowGradient(np.concatenate([part[name].rows for part in parts]),
                                                np.concatenate([part[name].values for part in parts]))
                           for name in parts[0]})
            if callback(self.steps, [one and one[1] for one in found]):
                return

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
    return sp.csr_array((rng.random((60, 40)) < 0.2) * rng.uniform(1, 5, (60, 40)).astype(np.float32))


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
def test_a_store_gives_the_bits_of_memory(name, optimizer, missed):
    make, data = KINDS[name]
    memory = make(optimizer=optimizer, missed=missed).fit(data())
    store = make(optimizer=optimizer, missed=missed, tables=Store).fit(data())
    assert memory.store_ is None
    assert store.store_ is Store.made[-1]
    check_same(memory, store)


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
