"""A model from a file has the parameters of the saved one, and trains to the same bits, on and anew."""

import json

import numpy as np
import pytest
import scipy.sparse as sp

import sparseopt as so
from sparseopt import _tensors, models
from sparseopt.models import GloVe, ImplicitFactorization, LogisticRegression, SkipGram

RNG = np.random.default_rng(0)
RATINGS = sp.csr_array((RNG.random((30, 20)) < 0.3) * RNG.integers(1, 6, (30, 20)).astype(np.float32))
FEATURES = sp.random_array((200, 30), density=0.2, format="csr", dtype=np.float32, rng=1)
SCORES = RNG.standard_normal(200)
TEXT = [list("abcdefgh"[i] for i in RNG.integers(0, 8, 12)) for _ in range(40)]
COUNTS = sp.csr_array(RNG.integers(0, 4, (25, 25)).astype(np.float32))
DATA = {
    "CBOW": (TEXT,),
    "FactorizationMachineClassifier": (FEATURES, np.where(SCORES > 0, "yes", "no")),
    "FactorizationMachineRegressor": (FEATURES, SCORES),
    "GloVe": (COUNTS,),
    "ImplicitFactorization": (RATINGS,),
    "LogisticRegression": (FEATURES, SCORES > 0),
    "MatrixFactorization": (RATINGS,),
    "SkipGram": (TEXT,),
}
CONSTANT = so.schedules.Constant(0.1)
SETTINGS = {
    "as it comes": {},
    "momentum": {"optimizer": "momentum"},
    "another case of letters": {"optimizer": "rowwiseADAM", "lr": 0.01},
    "nesterov with a rate of NumPy's": {"optimizer": "Nesterov", "lr": np.float32(0.01)},
    "a schedule": {"optimizer": "Adagrad", "lr": so.schedules.Chain([(so.schedules.Linear(0.0, 0.1, 5), 5), CONSTANT])},
    "replay": {"optimizer": "Adam", "missed": "replay"},
}


def new(name, **settings):
    own = {"min_count": 1} if name in ("CBOW", "SkipGram") else {}
    return getattr(models, name)(epochs=2, random_state=3, **own, **settings)


def tables(model):
    model._catch_up()
    return {name: table.tobytes() for name, table in model.optimizer_.params.items()}, model.loss_curve_


def test_all_models_are_here():
    assert set(DATA) == set(models.__all__) - {"Model", "Progress"}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", DATA)
def test_a_saved_model_has_its_parameters_and_trains_to_the_same_bits(name, settings, tmp_path):
    model = new(name, **settings).fit(*DATA[name])
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model")
    assert again.get_params() == model.get_params()
    assert tables(again) == tables(model)
    assert tables(again.partial_fit(*DATA[name])) == tables(model.partial_fit(*DATA[name]))
    assert tables(again.fit(*DATA[name])) == tables(model.fit(*DATA[name]))


@pytest.mark.parametrize("name", DATA)
def test_of_a_callable_the_class_and_the_rate_come_back(name, tmp_path):
    model = new(name, optimizer=lambda tables: so.Adam(tables, lr=0.01, betas=(0.5, 0.9))).fit(*DATA[name])
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model")
    assert again.get_params() == {**model.get_params(), "optimizer": "Adam", "lr": 0.01}
    assert tables(again.partial_fit(*DATA[name])) == tables(model.partial_fit(*DATA[name]))


def fading(step):
    return 0.1 / (1 + step)


def test_a_rate_that_no_file_holds_is_handed_in_and_is_then_the_models(tmp_path):
    model = LogisticRegression(optimizer="SGD", lr=fading).fit(*DATA["LogisticRegression"])
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="hand one in as lr="):
        LogisticRegression.load(tmp_path / "model")
    again = LogisticRegression.load(tmp_path / "model", lr=fading)
    assert again.get_params() == model.get_params()
    assert tables(again.fit(*DATA["LogisticRegression"])) == tables(model.fit(*DATA["LogisticRegression"]))
    # If the optimizer has a rate that a file can hold, `load` returns this rate.
    model = LogisticRegression(optimizer="SGD", lr=0.25).fit(*DATA["LogisticRegression"]).set_params(lr=fading)
    model.save(tmp_path / "model")
    assert LogisticRegression.load(tmp_path / "model").lr == 0.25


def test_a_model_whose_loss_was_no_number_is_saved(tmp_path):
    model = GloVe(epochs=1).fit(COUNTS)
    model.loss_curve_ += [np.inf, np.nan]
    model.loss_curve_ = [float(loss) for loss in model.loss_curve_]
    model.save(tmp_path / "model")
    again = GloVe.load(tmp_path / "model")
    np.testing.assert_array_equal(again.loss_curve_, model.loss_curve_)


def changed(path, change, **arrays):
    """Change the metadata, and put arrays in place of others, with right checksums."""
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    stored, raw = safetensors_numpy.load_file(path), path.read_bytes()
    state = json.loads(json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["sparseopt"])
    change(state["metadata"])
    stored |= {f"params/{name}": array for name, array in arrays.items()}
    _tensors.write(path, stored, {"sparseopt": json.dumps(state)})


@pytest.mark.parametrize(("name", "change", "arrays"), [
    ("SkipGram", lambda metadata: metadata.pop("words"), {}),
    ("SkipGram", lambda metadata: metadata["words"].pop(), {}),
    ("SkipGram", lambda metadata: metadata.update(counts=[0] * 8), {}),
    ("SkipGram", lambda metadata: metadata.update(counts=[{}] * 8), {}),
    ("LogisticRegression", lambda metadata: metadata.update(classes=[1, 2, 3]), {}),
    ("LogisticRegression", lambda metadata: metadata.update(classes_dtype="<U500000000"), {}),
    ("LogisticRegression", lambda metadata: metadata.update(classes_dtype="nothing"), {}),
    ("LogisticRegression", lambda metadata: metadata["model"].update(colour="red"), {}),
    ("LogisticRegression", lambda metadata: metadata.update(model=None), {}),
    ("LogisticRegression", lambda metadata: metadata["model"].update(lr={"schedule": "Sine"}), {}),
    ("LogisticRegression", lambda metadata: metadata.pop("losses"), {}),
    ("LogisticRegression", lambda metadata: None, {"intercept": np.zeros(2, np.float32)}),
    ("MatrixFactorization", lambda metadata: None, {"user_bias": np.zeros(29, np.float32)}),
    ("MatrixFactorization", lambda metadata: None, {"users": np.zeros((30, 3), np.float32)}),
    ("MatrixFactorization", lambda metadata: None, {"user_bias": np.zeros(30)}),
    ("MatrixFactorization", lambda metadata: metadata.pop("mean"), {}),
], ids=str)
def test_a_file_changed_by_hand_is_no_model(name, change, arrays, tmp_path):
    path = tmp_path / "model"
    model = new(name, optimizer="SGD").fit(*DATA[name])
    model.save(path)
    changed(path, change, **arrays)
    with pytest.raises(ValueError, match=str(path)):
        type(model).load(path)


def test_a_model_of_another_kind_is_refused(tmp_path):
    ImplicitFactorization(epochs=1).fit(RATINGS).save(tmp_path / "model")
    with pytest.raises(ValueError, match="not of a SkipGram model"):
        SkipGram.load(tmp_path / "model")
