"""Tools for training loops: the plateau against torch, early stopping, and gradient accumulation."""

import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from references import CASES

import sparseopt as so
from sparseopt.models import GloVe, MatrixFactorization, Progress
from sparseopt.training import Accumulator, EarlyStopping, ReduceLROnPlateau

each_case = pytest.mark.parametrize("case", CASES, ids=str)


def bits(opt):
    arrays = [*opt.params.values(), *(array for state in opt.state.values() for array in state.values())]
    rates = [group["lr"] for group in opt.param_groups]
    return [array.tobytes() for array in arrays], rates, opt.steps, dict(opt.metadata)


def train(opt, steps):
    """Steps on gradients that depend on their numbers alone; under replay all rows are up to date then."""
    for step in steps:
        rng = np.random.default_rng(step)
        opt.step(so.RowGradient(rng.integers(0, 20, 6), rng.standard_normal((6, 3))))
    if opt.missed == "replay":
        opt.catch_up()
    return opt


# ReduceLROnPlateau.

def random_metrics(rng, n):
    """A noisy descent with stretches that stand still, and now and then a NaN or an infinity."""
    metrics = np.cumsum(rng.normal(-0.1, 1.0, n)) / 10 + rng.choice([-5.0, 0.0, 5.0])
    metrics = np.round(metrics, int(rng.integers(1, 5)))
    strange = rng.random(n) < 0.05
    metrics[strange] = rng.choice([math.nan, math.inf, -math.inf], strange.sum(), p=[0.7, 0.2, 0.1])
    return metrics.tolist()


def random_settings(rng):
    return dict(mode=str(rng.choice(["min", "max"])), factor=float(rng.choice([0.0, 0.1, 0.5, 0.9])),
                patience=int(rng.integers(0, 5)), threshold=float(rng.choice([0.0, 1e-4, 0.1, 1.0])),
                threshold_mode=str(rng.choice(["rel", "abs"])), cooldown=int(rng.integers(0, 4)),
                min_lr=[0.0, 1e-3, [1e-3, 0.2]][rng.integers(3)], eps=float(rng.choice([1e-8, 1e-2])))


def two_groups(lr=0.5):
    return so.SGD([{"params": so.zeros((3, 2)), "lr": lr}, {"params": so.zeros(4), "lr": 0.3}])


@pytest.mark.parametrize("seed", range(300))
def test_a_plateau_is_torchs_for_any_settings_and_metrics(seed):
    rng = np.random.default_rng(seed)
    settings, metrics = random_settings(rng), random_metrics(rng, 80)
    opt = two_groups()
    ours = ReduceLROnPlateau(opt, **settings)
    tensors = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    theirs = torch.optim.SGD([{"params": tensors[0], "lr": 0.5}, {"params": tensors[1], "lr": 0.3}])
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **settings)
    for metric in metrics:
        ours.step(metric)
        plateau.step(metric)
        assert [group["lr"] for group in opt.param_groups] == [group["lr"] for group in theirs.param_groups]
        for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch"):
            assert getattr(ours, name) == getattr(plateau, name)


def test_random_metrics_lower_rates_often_enough_to_test_it():
    falls = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        opt = two_groups()
        plateau = ReduceLROnPlateau(opt, **random_settings(rng))
        for metric in random_metrics(rng, 80):
            before = opt.param_groups[0]["lr"]
            plateau.step(metric)
            falls += opt.param_groups[0]["lr"] < before
    assert falls > 1000


def test_a_plateau_takes_metrics_of_numpy_and_torch():
    for metric in (np.float32(2.0), np.array(2.0), torch.tensor(2.0), 2):
        plateau = ReduceLROnPlateau(two_groups())
        plateau.step(metric)
        assert plateau.best == 2.0


def test_a_plateau_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path):
    rng = np.random.default_rng(5)
    metrics = random_metrics(rng, 60)
    settings = dict(patience=1, factor=0.7, cooldown=2, threshold=0.01, min_lr=[0.01, 0.02])
    whole = two_groups()
    plateau = ReduceLROnPlateau(whole, **settings)
    for metric in metrics:
        plateau.step(metric)

    opt = two_groups()
    plateau = ReduceLROnPlateau(opt, **settings)
    for metric in metrics[:23]:
        plateau.step(metric)
    opt.metadata["plateau"] = plateau.state_dict()
    so.save(tmp_path / "run", opt)
    again = so.load(tmp_path / "run")
    resumed = ReduceLROnPlateau(again)              # its settings are stored too
    resumed.load_state_dict(again.metadata["plateau"])
    assert resumed.state_dict() == json.loads(json.dumps(plateau.state_dict()))
    for metric in metrics[23:]:
        resumed.step(metric)
    assert [group["lr"] for group in again.param_groups] == [group["lr"] for group in whole.param_groups]
    assert whole.param_groups[0]["lr"] < 0.1


@pytest.mark.parametrize(("change", "error", "message"), [
    (None, TypeError, "state_dict is a NoneType"),
    ({}, ValueError, r"state_dict has \[\]; it must have \['best'"),
    ({"more": 1}, ValueError, "'more'"),
    ({"mode": "best"}, ValueError, "mode is 'best'"),
    ({"min_lr": [0.1]}, ValueError, "min_lr has 1 rates; the optimizer has 2 groups"),
    ({"best": None}, TypeError, "best is None"),
    ({"num_bad_epochs": -1}, ValueError, "num_bad_epochs is -1"),
    ({"last_epoch": 1.5}, TypeError, "last_epoch is 1.5"),
])
def test_a_state_of_a_plateau_that_is_none_changes_nothing(change, error, message):
    plateau = ReduceLROnPlateau(two_groups())
    plateau.step(0.5)
    before = plateau.state_dict()
    with pytest.raises(error, match=message):
        plateau.load_state_dict({**before, **change} if change else change)
    assert plateau.state_dict() == before


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"mode": "low"}, ValueError, "mode is 'low'; it must be 'min' or 'max'"),
    ({"factor": 1.0}, ValueError, "factor is 1.0; it must be at least 0 and below 1"),
    ({"patience": -1}, ValueError, "patience is -1"),
    ({"patience": 2.0}, TypeError, "patience is 2.0"),
    ({"threshold": -0.1}, ValueError, "threshold is -0.1"),
    ({"threshold_mode": None}, ValueError, "threshold_mode is None"),
    ({"cooldown": True}, TypeError, "cooldown is True"),
    ({"min_lr": [0.1]}, ValueError, "min_lr has 1 rates; the optimizer has 2 groups"),
    ({"min_lr": [0.1, -1]}, ValueError, r"min_lr\[1\] is -1\.0"),
    ({"min_lr": "0"}, TypeError, "min_lr is '0'"),
    ({"eps": math.nan}, ValueError, "eps is nan"),
])
def test_a_wrong_setting_of_a_plateau_is_named(settings, error, message):
    with pytest.raises(error, match=message):
        ReduceLROnPlateau(two_groups(), **settings)


def test_a_plateau_does_not_lower_a_schedule():
    schedule = so.schedules.Exponential(0.1, 0.9)
    with pytest.raises(TypeError, match=r"lr of group 0 is Exponential\(.*, a schedule; .* it must be a number"):
        ReduceLROnPlateau(two_groups(schedule))
    opt = two_groups()
    plateau = ReduceLROnPlateau(opt, patience=0)
    plateau.step(1.0)
    opt.param_groups[1]["lr"] = schedule
    before = plateau.state_dict()
    with pytest.raises(TypeError, match="lr of group 1"):
        plateau.step(2.0)
    assert plateau.state_dict() == before
    assert opt.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("score", ["0.5", None, [0.5], np.ones(1), 1j, b"1", [[1], [1, 2]]], ids=repr)
def test_a_score_that_is_no_number_is_refused_and_counts_for_nothing(score):
    opt = two_groups()
    plateau, stopping = ReduceLROnPlateau(opt), EarlyStopping(opt)
    before = plateau.state_dict()
    with pytest.raises(TypeError, match=r"metric is .*; it must be a number"):
        plateau.step(score)
    with pytest.raises(TypeError, match=r"score is .*; it must be a number"):
        stopping.step(score)
    assert plateau.state_dict() == before
    assert (stopping.best, stopping.waited) == (None, 0)


# EarlyStopping.

@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("mode", ["min", "max"])
def test_training_stops_where_the_last_scores_are_all_no_better_than_one_before_them(mode, seed):
    rng = np.random.default_rng(seed)
    scores, patience = random_metrics(rng, 60), int(rng.integers(1, 6))

    def better(j):
        before = [x for x in scores[:j] if math.isfinite(x)]
        if not math.isfinite(scores[j]) or not before:
            return math.isfinite(scores[j])
        return scores[j] < min(before) if mode == "min" else scores[j] > max(before)

    expected = [i + 1 >= patience and not any(better(j) for j in range(i - patience + 1, i + 1))
                for i in range(len(scores))]
    stopping = EarlyStopping(two_groups(), patience=patience, mode=mode)
    assert [stopping.step(score) for score in scores] == expected
    finite = [x for x in scores if math.isfinite(x)]
    assert stopping.best == (min(finite) if mode == "min" else max(finite))


def test_what_is_better_by_no_more_than_min_delta_is_no_better():
    stopping = EarlyStopping(two_groups(), patience=3, min_delta=0.25)
    assert [stopping.step(score) for score in (1.0, 0.75, 0.8, 0.5, 0.4, 0.3, 0.25)] == [False] * 6 + [True]
    assert stopping.best == 0.5
    stopping = EarlyStopping(two_groups(), patience=2, min_delta=0.25, mode="max")
    assert [stopping.step(score) for score in (1.0, 1.25, 1.5, 1.75, 1.7)] == [False, False, False, False, True]
    assert stopping.best == 1.5


@pytest.mark.parametrize("missed", ["skip", "replay"])
@pytest.mark.parametrize(("cls", "hyper"), [
    (so.SGD, {"momentum": 0.9}), (so.Adagrad, {}), (so.Adam, {}), (so.AdamW, {}), (so.Lion, {}), (so.Ftrl, {}),
    (so.Adam, {"lr": so.schedules.Cosine(0.1, steps=20)}), (so.RMSprop, {"lr": lambda step: 0.1 / (1 + step)}),
], ids=lambda value: getattr(value, "__name__", str(list(value)) if isinstance(value, dict) else None))
def test_the_best_comes_back_with_its_bits_and_goes_on_as_it_would_have(cls, hyper, missed):
    opt = cls(so.normal((20, 3), seed=0), missed=missed, **hyper)
    opt.metadata["epoch"] = "best"
    stopping = EarlyStopping(opt, patience=2)
    train(opt, range(10))
    assert not stopping.step(0.5)
    at_best = bits(opt)
    after = bits(train(opt, range(10, 30)))
    opt.metadata["epoch"] = "later"
    assert not stopping.step(0.6)
    assert stopping.step(math.nan)
    stopping.restore()
    assert bits(opt) == at_best
    assert bits(train(opt, range(10, 30))) == after
    stopping.restore()                              # what is kept is not what has been trained since
    assert bits(opt) == at_best


def test_a_rate_that_cannot_be_copied_is_kept_as_it_is():
    class Trainer:
        def __init__(self):
            self.opt = so.SGD(so.zeros((20, 3)), lr=self.rate)

        def rate(self, step):
            return 0.5 / (1 + self.opt.steps)

        def __deepcopy__(self, memo):
            raise TypeError("no copy of a trainer")

    opt = Trainer().opt
    rate = opt.param_groups[0]["lr"]
    stopping = EarlyStopping(opt)
    stopping.step(1.0)
    at_best = bits(opt)
    train(opt, range(3))
    stopping.restore()
    assert bits(opt) == at_best
    assert opt.param_groups[0]["lr"] is rate


def test_scores_that_are_not_finite_leave_nothing_to_restore():
    stopping = EarlyStopping(two_groups(), patience=3, mode="max")
    with pytest.raises(RuntimeError, match="no finite score"):
        stopping.restore()
    assert [stopping.step(score) for score in (math.nan, math.inf, -math.inf)] == [False, False, True]
    with pytest.raises(RuntimeError, match="no finite score"):
        stopping.restore()


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: EarlyStopping(), TypeError, "an opt .* or a score .*: one of the two$"),
    (lambda: EarlyStopping(two_groups(), score=len), TypeError, "one of the two, not both"),
    (lambda: EarlyStopping(so.zeros(3)), TypeError, "opt is a ndarray; it must be an Optimizer"),
    (lambda: EarlyStopping(score=0.5), TypeError, "score is 0.5; it must be a callable"),
    (lambda: EarlyStopping(two_groups(), every=3), ValueError, "every is 3; it must be None without a score"),
    (lambda: EarlyStopping(score=len, every=0), ValueError, "every is 0"),
    (lambda: EarlyStopping(two_groups(), patience=0), ValueError, "patience is 0; it must be an integer of at least 1"),
    (lambda: EarlyStopping(two_groups(), min_delta=-0.1), ValueError, "min_delta is -0.1"),
    (lambda: EarlyStopping(two_groups(), mode="auto"), ValueError, "mode is 'auto'; it must be 'min' or 'max'"),
    (lambda: EarlyStopping(score=len).step(0.5), RuntimeError, "is a callback; pass it to the fit of a model"),
    (lambda: EarlyStopping(two_groups())(None), TypeError, "has no score, so it cannot be a callback"),
    (lambda: EarlyStopping(score=len)(Progress(None, 0, 5, None, 1.0)), ValueError,
     "every is None, and the length of an epoch is unknown; every must be the number of batches"),
    (lambda: ReduceLROnPlateau(3), TypeError, "opt is a int"),
    (lambda: Accumulator(None, 2), TypeError, "opt is a NoneType"),
    (lambda: Accumulator(two_groups(), 0), ValueError, "every is 0"),
    (lambda: Accumulator(two_groups(), 2.0), TypeError, "every is 2.0"),
    (lambda: Accumulator(two_groups(), 2, reduction="max"), ValueError,
     "reduction is 'max'; it must be 'mean' or 'sum'"),
])
def test_what_cannot_work_says_so(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.fixture(scope="module")
def counts():
    """Counts that have structure, of 40 words, and half of them held out."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.6, (40, 4))
    i, j = np.divmod(rng.permutation(1600), 40)
    X = sp.coo_array((np.exp(1 + (vectors[i] * vectors[j]).sum(1) + rng.normal(0, 0.5, 1600)), (i, j)), shape=(40, 40))
    return tuple(sp.coo_array((X.data[part], (i[part], j[part])), shape=X.shape)
                 for part in (slice(800), slice(800, None)))


def scored(scores):
    scores = iter(scores)
    return lambda model: next(scores)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam", "missed": "replay"}], ids=str)
def test_a_callback_ends_a_models_training_with_the_best_epoch(counts, settings):
    model = GloVe(dim=5, epochs=50, batch_size=100, **settings)
    stopping = EarlyStopping(score=scored([5.0, 4.0, 3.0, 3.5, math.nan, 3.0]), patience=3)
    model.fit(counts[0], callback=stopping)
    three = GloVe(dim=5, epochs=3, batch_size=100, **settings).fit(counts[0])
    assert len(model.loss_curve_) == 6
    assert model.loss_curve_[:3] == three.loss_curve_
    assert model.vectors_.tobytes() == three.vectors_.tobytes()
    assert stopping.best == 3.0


def test_where_the_epochs_run_out_first_restore_brings_the_best_back(counts):
    model = GloVe(dim=5, epochs=4, batch_size=100)
    stopping = EarlyStopping(score=scored([5.0, 3.0, 4.0, 3.5]), patience=3)
    model.fit(counts[0], callback=stopping)
    assert model.optimizer_.steps == 32
    stopping.restore()
    assert model.vectors_.tobytes() == GloVe(dim=5, epochs=2, batch_size=100).fit(counts[0]).vectors_.tobytes()


def test_a_callback_may_score_every_so_many_batches(counts):
    model = GloVe(dim=5, epochs=4, batch_size=100)
    stopping = EarlyStopping(score=scored([5.0, 3.0, 4.0, 3.5]), patience=2, every=3)
    model.fit(counts[0], callback=stopping)         # 8 batches an epoch
    assert (len(model.loss_curve_), model.optimizer_.steps) == (2, 6)


def test_a_callback_begins_anew_with_every_fit_and_goes_on_in_partial_fit(counts):
    stopping = EarlyStopping(score=scored([1.0, 2.0, 3.0, 9.0, 8.0, 8.5, 8.6]), patience=2)
    model = GloVe(dim=5, epochs=10).fit(counts[0], callback=stopping)
    assert len(model.loss_curve_) == 3
    for _ in range(4):
        model = GloVe(dim=5).partial_fit(counts[0]) if stopping.best == 1.0 else model
        model.partial_fit(counts[0], callback=stopping)
    assert stopping.best == 8.0
    assert stopping.waited == 2
    assert model.optimizer_.steps == 3              # the one without the callback, 9.0, and 8.0, brought back


def test_stopping_on_held_out_counts_keeps_the_model_that_does_best_on_them(counts):
    train, held_out = counts
    i, j = held_out.coords

    def error(model):
        params = model.optimizer_.params
        guess = (params["words"][i] * params["contexts"][j]).sum(1) + params["word_bias"][i] + params["context_bias"][j]
        return float(np.square(guess - np.log(held_out.data)).mean())

    stopping = EarlyStopping(score=error, patience=10)
    settings = dict(dim=20, batch_size=100, x_max=1.0, regularization=0)        # so that it overfits
    model = GloVe(epochs=500, **settings).fit(train, callback=stopping)
    overfit = GloVe(epochs=len(model.loss_curve_) + 100, **settings).fit(train)
    assert error(model) == stopping.best
    assert 10 < len(model.loss_curve_) < 400
    assert error(model) < 0.9 * error(overfit)


SETTINGS = [{}, {"missed": "replay"}, {"optimizer": "momentum", "missed": "replay"}, {"optimizer": "ftrl"},
            {"optimizer": lambda tables: so.Adam(tables, lr=0.01, step_count="global", amsgrad=True)}]


@pytest.mark.parametrize("settings", SETTINGS, ids=["skip", "replay", "momentum, replay", "ftrl", "global"])
def test_a_callback_keeps_its_best_when_users_and_items_join(settings):
    rng = np.random.default_rng(0)
    whole = sp.csr_array(np.where(rng.random((50, 30)) < 0.3, rng.integers(1, 6, (50, 30)), 0).astype(np.float32))
    first = whole[:40, :20]

    def trained(epochs, callback=None):
        model = MatrixFactorization(dim=4, batch_size=30, random_state=0, **settings)
        for X in (first, first, whole, whole)[:epochs]:
            model.partial_fit(X, callback=callback)
        return model

    def tables_and_state(model):
        opt = model.optimizer_
        if opt.missed == "replay":
            opt.catch_up()
        return {**opt.params, **{(name, key): array for name, arrays in opt.state.items()
                                 for key, array in arrays.items()}}

    stopping = EarlyStopping(score=scored([3.0, 1.0, 2.0, 2.5]), patience=2)
    model = trained(4, stopping)
    assert (stopping.best, stopping.waited) == (1.0, 2)
    best, last = tables_and_state(trained(2)), tables_and_state(trained(4))
    assert model.optimizer_.steps == trained(2).optimizer_.steps
    if model.optimizer_.missed == "replay":
        assert not model.optimizer_.stale()["users"][40:].any()
        assert not model.optimizer_.stale()["items"][20:].any()
    now = tables_and_state(model)
    for name, array in now.items():
        known = 40 if "user" in str(name) else 20
        if not array.ndim:
            assert array == best[name]
            continue
        assert array[:known].tobytes() == best[name].tobytes()
        if "step" not in name:                      # those of replay stand where all do
            assert array[known:].tobytes() == last[name][known:].tobytes()
    model.partial_fit(whole)
    assert np.isfinite(model.predict(np.arange(50), np.arange(50) % 30)).all()
    stopping.score = scored([7.0, 6.0])
    model.set_params(epochs=2).fit(whole, callback=stopping)
    assert stopping.best == 6.0


def test_a_loop_brings_the_best_back_into_tables_that_have_grown_more_than_once():
    stopping = EarlyStopping(score=scored([1.0, 2.0, 3.0, 4.0]), patience=9)
    X = sp.csr_array(np.arange(1.0, 31).reshape(6, 5))
    model = MatrixFactorization(dim=2, missed="replay").partial_fit(X[:3], callback=stopping)
    kept = model.optimizer_.params["users"].copy()
    model.partial_fit(X[:4]).partial_fit(X[:5])     # which the callback does not see
    model.partial_fit(X, callback=stopping)
    new = model.optimizer_.params["users"][3:].copy()
    assert (stopping.best, stopping.waited) == (1.0, 1)
    stopping.restore()
    assert_array_equal(model.optimizer_.params["users"], np.concatenate([kept, new]))


# Accumulator.

N_ROWS, DIM = 12, 3


def sparse(rng, dtype):
    """Dense numbers, most of them missing, and the mask of those that are stored."""
    stored = rng.random((N_ROWS, DIM)) < 0.3
    return np.where(stored, rng.standard_normal((N_ROWS, DIM)), 0).astype(dtype), stored


def scipy_form(kind):
    def make(rng, dtype):
        dense, stored = sparse(rng, dtype)
        gradient = getattr(sp, f"{kind}_array")(dense) if kind != "csr_matrix" else sp.csr_matrix(dense)
        return gradient, dense, stored.any(axis=1)
    return make


def rows_form(index_type=np.int64, values_type=None):
    def make(rng, dtype):
        rows = rng.integers(0, N_ROWS, 7).astype(index_type)
        values = (4 * rng.standard_normal((7, DIM))).astype(values_type or dtype)
        dense = np.zeros((N_ROWS, DIM))
        np.add.at(dense, rows, values)
        return so.RowGradient(rows, values), dense, np.isin(np.arange(N_ROWS), rows)
    return make


def product_form(kind, X_type=None):
    def make(rng, dtype):
        batch = int(rng.integers(1, 6))
        X = (3 * rng.standard_normal((batch, N_ROWS)) * (rng.random((batch, N_ROWS)) < 0.2)).astype(X_type or dtype)
        dY = rng.standard_normal((batch, DIM)).astype(dtype)
        return so.MatmulGradient(getattr(sp, f"{kind}_array")(X), dY), X.T.astype(np.float64) @ dY, X.any(axis=0)
    return make


def dense_form(rng, dtype):
    dense = rng.standard_normal((N_ROWS, DIM)).astype(dtype)
    return dense, dense.copy(), np.ones(N_ROWS, bool)


FORMS = {
    "rows": rows_form(), "rows of int32": rows_form(np.int32), "rows of uint8": rows_form(np.uint8),
    "rows with integers": rows_form(values_type=np.int64), "rows with float32": rows_form(values_type=np.float32),
    **{f"product, {kind}": product_form(kind) for kind in ("csr", "csc", "coo")},
    "product of a bool X": product_form("csr", np.bool_), "product of an int8 X": product_form("coo", np.int8),
    **{kind: scipy_form(kind) for kind in ("csr", "csc", "coo", "lil", "dok", "bsr", "csr_matrix")},
    "dense": dense_form,
}


def explicit(dense, touched):
    """The gradient with all cells of the touched rows stored, and no others."""
    rows = np.flatnonzero(touched)
    return so.RowGradient(rows, dense[rows])


def overwrite(gradient):
    """Spoil the memory of a gradient, as a caller does who uses it again."""
    if isinstance(gradient, so.RowGradient):
        arrays = gradient.rows, gradient.values
    elif isinstance(gradient, so.MatmulGradient):
        arrays = (gradient.X.data, gradient.dY, *indices(gradient.X))
    elif isinstance(gradient, np.ndarray):
        arrays = (gradient,)
    elif gradient.format in ("lil", "dok"):
        gradient[0, 0] = 1
        return
    else:
        arrays = (gradient.data, *indices(gradient))
    for array in arrays:
        array[...] = 1


def indices(matrix):
    return matrix.coords if matrix.format == "coo" else (matrix.indices,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cls", [so.SGD, so.Adam, so.RowwiseAdagrad])
@pytest.mark.parametrize("form", [*FORMS, "mixed", "mixed without dense"])
def test_micro_batches_of_any_form_make_the_step_of_their_mean(form, cls, dtype):
    rng = np.random.default_rng(3)
    ours, whole = (cls(so.normal((N_ROWS, DIM), dtype, seed=1), lr=0.1) for _ in range(2))
    accumulator = Accumulator(ours, every=4)
    for _ in range(5):
        mean, touched = np.zeros((N_ROWS, DIM)), np.zeros(N_ROWS, bool)
        for i in range(4):
            names = [name for name in FORMS if name != "dense" or form == "mixed"]
            make = FORMS[names[rng.integers(len(names))] if form.startswith("mixed") else form]
            gradient, dense, rows = make(rng, dtype)
            mean += dense / 4
            touched |= rows
            assert accumulator.step(gradient) is (i == 3)
            overwrite(gradient)
        whole.step(explicit(mean, touched))
        if "step" in ours.state[0]:
            assert_array_equal(ours.state[0]["step"], whole.state[0]["step"])
        # Adam's first steps are the signs of gradients: what cancels to nearly 0 would compare roundings
        assert_allclose(ours.params[0], whole.params[0], rtol=0, atol=2e-5 if dtype == np.float32 else 1e-12)
    assert ours.steps == whole.steps == 5


@each_case
def test_each_row_moves_as_the_paper_moves_it_on_the_means_of_its_micro_batches(case):
    rng = np.random.default_rng(4)
    table = so.normal((N_ROWS, DIM), np.float64, seed=rng)
    before, own = table.copy(), [[] for _ in table]
    accumulator = Accumulator(case.ours(table, **{**case.hyper, "weight_decay": 0.0}), every=3)
    for _ in range(10):
        mean, touched = np.zeros((N_ROWS, DIM)), np.zeros(N_ROWS, bool)
        for _ in range(3):
            gradient, dense, rows = rows_form()(rng, np.float64)
            accumulator.step(gradient)
            mean, touched = mean + dense / 3, touched | rows
        for row in np.flatnonzero(touched):
            own[row].append(mean[row])
    for row, gradients in enumerate(own):
        assert_allclose(table[row], case.run_reference(before[row], gradients), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if case.hyper.get("betas") != (0.9, 0.9)], ids=str)
def test_under_replay_micro_batches_make_the_dense_optimizers_steps(case):
    rng = np.random.default_rng(4)
    start = rng.standard_normal((N_ROWS, DIM))
    opt = case.ours(start.copy(), **{**case.hyper, "weight_decay": 0.0}, missed="replay")
    accumulator, means = Accumulator(opt, every=3), []
    for _ in range(40):
        mean = np.zeros((N_ROWS, DIM))
        for _ in range(3):
            rows = rng.integers(0, N_ROWS, 2)
            opt.catch_up(rows)                      # of micro-batches that read them
            values = rng.standard_normal((2, DIM))
            accumulator.step(so.RowGradient(rows, values))
            np.add.at(mean, rows, values / 3)
        means.append(mean)
    opt.catch_up()
    if "RowwiseAdagrad" in case.name or "RowwiseAdam" in case.name:
        dense = np.stack([case.run_reference(row, [mean[i] for mean in means]) for i, row in enumerate(start)])
    else:
        dense = case.run_reference(start, means)
    assert np.abs(opt.params[0] - dense).max() <= 1e-8 * np.abs(dense).max()


def test_tables_that_a_micro_batch_leaves_out_have_a_gradient_of_zero_in_it():
    def tables():
        return {"U": so.normal((5, 2), np.float64, seed=0), "V": so.normal(4, np.float64, seed=1),
                "W": so.zeros((3, 1))}

    g, h = np.arange(4.0).reshape(2, 2), np.array([3.0, -1.0])
    ours, whole = so.Adagrad(tables(), lr=0.5), so.Adagrad(tables(), lr=0.5)
    accumulator = Accumulator(ours, every=3)
    accumulator.step({"U": so.RowGradient([1, 4], g)})
    accumulator.step({"U": None, "V": so.RowGradient([2, 2], h)})
    accumulator.step({"V": sp.coo_array(([6.0], ([0], [0])), shape=(4, 1)), "U": so.RowGradient([4, 0], g)})
    whole.step({"U": so.RowGradient([1, 4, 4, 0], np.concatenate([g, g]) / 3), "V": np.array([2.0, 0, 2 / 3, 0])})
    for name in ("U", "V", "W"):
        assert_allclose(ours.params[name], whole.params[name], rtol=1e-14)

    ours, whole = (so.Adagrad(list(tables().values()), lr=0.5) for _ in range(2))
    accumulator = Accumulator(ours, every=2, reduction="sum")
    accumulator.step([None, so.RowGradient([2], [1.0]), None])
    accumulator.step((so.RowGradient([1, 4], g), so.MatmulGradient(sp.csr_array([[0, 0, 2.0, 1.0]]), [4.0]), None))
    whole.step([so.RowGradient([1, 4], g), so.RowGradient([2, 3], [9.0, 4.0]), None])
    for name in range(3):
        assert_allclose(ours.params[name], whole.params[name], rtol=1e-14)


def test_a_table_of_one_dimension_takes_all_forms_it_takes_otherwise():
    forms = [so.RowGradient([1, 2], [1.0, 2.0]), so.RowGradient([2], [[4.0]]), sp.csr_array([[0.0], [8.0], [0], [0]]),
             sp.coo_array(np.array([16.0, 0, 0, 0])), so.MatmulGradient(sp.csr_array([[0, 1, 0, 1.0]]), [32.0]),
             so.MatmulGradient(sp.coo_array([[1.0, 0, 0, 0]]), [[64.0]]), np.full(4, 128.0)]
    for last in (len(forms), len(forms) - 1):       # with and without the dense one
        opt = so.SGD(so.zeros(4), lr=1.0)
        accumulator = Accumulator(opt, every=last, reduction="sum")
        for gradient in forms[:last]:
            accumulator.step(gradient)
        assert (-opt.params[0]).tolist() == [208 - 128 * (last == 6), 169 - 128 * (last == 6), 134 - 128 * (last == 6),
                                             160 - 128 * (last == 6)]


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0,), (4,)])
@pytest.mark.parametrize("more", [np.zeros, sp.coo_array], ids=["dense", "sparse"])
def test_tables_and_gradients_of_nothing_are_no_trouble(shape, more):
    opt = so.Adam(so.zeros(shape))
    accumulator = Accumulator(opt, every=2)
    assert not accumulator.step(so.RowGradient([], np.empty((0, *shape[1:]))))
    assert accumulator.step(more(shape if len(shape) == 2 or more is np.zeros else (*shape, 1)))
    assert (opt.steps, opt.params[0].any()) == (1, False)


def test_flush_steps_on_the_mean_of_what_waits_and_on_nothing_else():
    opt = so.SGD(so.zeros(4), lr=1.0)
    accumulator = Accumulator(opt, every=5)
    assert not accumulator.flush()
    accumulator.step(so.RowGradient([1], [2.0]))
    accumulator.step(so.RowGradient([2], [4.0]))
    assert accumulator.pending == 2
    assert accumulator.flush()
    assert not accumulator.flush()
    assert (accumulator.pending, opt.steps) == (0, 1)
    assert opt.params[0].tolist() == [0, -1, -2, 0]


def test_clear_forgets_what_waits():
    opt = so.SGD(so.zeros(4), lr=1.0)
    accumulator = Accumulator(opt, every=2)
    accumulator.step(so.RowGradient([1], [2.0]))
    accumulator.clear()
    accumulator.step(so.RowGradient([2], [4.0]))
    accumulator.step(so.RowGradient([2], [4.0]))
    assert opt.params[0].tolist() == [0, 0, -4, 0]


@pytest.mark.parametrize(("bad", "error", "message"), [
    ({"U": so.RowGradient([5], [[1.0, 1.0]])}, IndexError, "row 5"),
    ({"U": so.RowGradient([0], [[math.nan, 1.0]])}, ValueError, "nan at row 0"),
    ({"U": so.RowGradient([0], [[1e300, 1.0]])}, ValueError, "inf at row 0"),
    ({"U": so.RowGradient([0], [[1.0]])}, ValueError, r"shape \(1, 1\)"),
    ({"U": so.MatmulGradient(sp.csr_array((2, 4)), np.ones((2, 2)))}, ValueError, "X of shape"),
    ({"U": sp.csr_array((3, 3))}, ValueError, r"shape \(3, 3\)"),
    ({"V": so.RowGradient([0], [1.0]), "X": None}, KeyError, "'X'"),
    ({"V": so.RowGradient([0], [1.0]), "U": [[1.0]]}, TypeError, "list"),
    (so.RowGradient([0], [[1.0, 1.0]]), TypeError, "must be one, with names"),
])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_micro_batch_that_is_refused_changes_nothing(bad, error, message, at):
    good = [{"U": so.RowGradient([1], [[1.0, 2.0]])}, {"V": np.ones(3)}, {"V": np.ones(3), "U": np.ones((5, 2))}]

    def run(broken):
        opt = so.Adam({"U": so.normal((5, 2), seed=0), "V": so.zeros(3)})
        accumulator = Accumulator(opt, every=3)
        for i, gradients in enumerate(good):
            if broken and i == at:
                before = bits(opt)
                with pytest.raises(error, match=message):
                    accumulator.step(bad)
                assert (accumulator.pending, bits(opt)) == (i, before)
            accumulator.step(gradients)
        return bits(opt)

    assert run(broken=True) == run(broken=False)


@pytest.mark.parametrize("form",
                         [lambda x: so.RowGradient([1], [[x, 0]]), lambda x: np.array([[0, 0], [x, 0]], np.float32)])
def test_a_sum_that_overflows_is_refused_and_can_be_cleared(form):
    opt = so.SGD(so.zeros((2, 2)), lr=1.0)
    accumulator = Accumulator(opt, every=2, reduction="sum")
    accumulator.step(form(3e38))
    with pytest.raises(ValueError, match="inf at row 1"):
        accumulator.step(form(3e38))
    assert (accumulator.pending, opt.steps, opt.params[0].any()) == (1, 0, False)
    accumulator.flush()                             # what waited before, alone
    assert opt.params[0].tolist() == [[0, 0], [-float(np.float32(3e38)), 0]]
    accumulator.step(form(3e38))
    with pytest.raises(ValueError, match="inf at row 1"):
        accumulator.step(form(3e38))
    accumulator.clear()
    accumulator.step(form(-2e38))
    accumulator.step(form(-1e38))
    assert abs(opt.params[0][1, 0]) < 1e32


def test_rows_that_are_not_finite_are_left_out_of_the_whole_step():
    opt = so.SGD(so.zeros((4, 2)), lr=1.0, nonfinite="skip")
    accumulator = Accumulator(opt, every=2)
    accumulator.step(so.RowGradient([1, 2], [[2.0, 2.0], [math.nan, 2.0]]))
    with pytest.warns(RuntimeWarning, match="1 of 3 touched rows"):
        accumulator.step(so.RowGradient([2, 3], np.full((2, 2), 2.0)))
    assert opt.params[0].tolist() == [[0, 0], [-1, -1], [0, 0], [-1, -1]]
    assert opt.nonfinite_rows == 1
    opt = so.SGD(so.zeros((2, 1)), lr=1.0, nonfinite="allow")
    accumulator = Accumulator(opt, every=2)
    accumulator.step(np.array([[math.inf], [1]], np.float32))
    accumulator.step(np.array([[-math.inf], [2]], np.float32))
    assert_array_equal(opt.params[0], [[math.nan], [-1.5]])


def test_the_norm_that_is_clipped_is_that_of_the_mean():
    opt = so.SGD(so.zeros((3, 2), np.float64), lr=1.0, max_grad_norm=1.0)
    accumulator = Accumulator(opt, every=2)
    accumulator.step(so.RowGradient([0], [[8.0, 0.0]]))
    accumulator.step(so.RowGradient([0, 2], [[-2.0, 0], [0, 8.0]]))
    assert_allclose(opt.params[0], [[-0.6, 0], [0, 0], [0, -0.8]], atol=1e-6)      # of (3, 4)


@pytest.mark.parametrize(("make", "kept"), [
    (rows_form(), so.RowGradient), (product_form("csr"), so.MatmulGradient), (scipy_form("csc"), sp.coo_array),
    (dense_form, np.ndarray),
])
def test_gradients_of_one_form_stay_in_it(make, kept, monkeypatch):
    opt = so.SGD(so.zeros((N_ROWS, DIM)))
    accumulator, rng, seen = Accumulator(opt, every=3), np.random.default_rng(0), []
    monkeypatch.setattr(opt, "step", seen.append)
    for _ in range(3):
        accumulator.step(make(rng, np.float32)[0])
    assert [type(gradient) for gradient in seen] == [kept]


def test_a_schedule_counts_steps_not_micro_batches():
    opt = so.SGD(so.zeros(1), lr=so.schedules.Step(1.0, gamma=0.5, every=1))
    accumulator = Accumulator(opt, every=2)
    for _ in range(6):
        accumulator.step(so.RowGradient([0], [-1.0]))
    assert opt.params[0].tolist() == [1.75]


def test_a_signal_right_after_the_step_on_micro_batches_does_not_step_on_them_again(monkeypatch):
    table, once = so.zeros((3, 1)), so.RowGradient([1], [[1.0]])
    opt = so.SGD(table, lr=1.0)
    accumulator = so.training.Accumulator(opt, every=2, reduction="sum")
    accumulator.step(once)
    step = opt.step

    def interrupted(grads):
        step(grads)
        raise KeyboardInterrupt

    monkeypatch.setattr(opt, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        accumulator.step(once)
    monkeypatch.undo()
    assert table[1] == -2
    assert accumulator.pending == 0
    assert not accumulator.flush()
    accumulator.step(once)
    assert accumulator.pending == 1


def test_what_waits_stays_after_a_step_that_failed_whatever_is_stepped_besides():
    table, once = so.zeros((3, 1)), so.RowGradient([1], [[1.0]])
    opt = so.SGD(table, lr=1.0)
    accumulator = so.training.Accumulator(opt, every=2, reduction="sum")
    accumulator.step(once)
    opt.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match="lr"):
        accumulator.step(once)
    opt.param_groups[0]["lr"] = 1.0
    opt.step(once)
    assert accumulator.pending == 1
    accumulator.flush()
    assert table[1] == -2
