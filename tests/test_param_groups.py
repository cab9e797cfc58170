"""Groups added after construction: as if made at the start, or refused with nothing changed."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
from references import CASES

import sparseopt as so
from sparseopt import _tensors

OPTIONS = {"skip": {}, "global": {"step_count": "global"}, "replay": {"missed": "replay"}}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def gradient(seed, table):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(table), 3)
    return so.RowGradient(rows, rng.standard_normal((3, *table.shape[1:])).astype(table.dtype))


def tables(*names):
    shapes = {"a": (5, 3), "b": (4,), "c": (6, 2)}
    return {name: so.normal(shapes[name], [np.float32, np.float64][name == "b"], seed=ord(name)) for name in names}


def gradients_of(opt, seed):
    return {name: gradient((seed, ord(name)), table) for name, table in opt.params.items()}


def trained(opt, *seeds):
    for seed in seeds:
        opt.step(gradients_of(opt, seed))
    return opt


def bits(opt):
    if opt.missed == "replay":
        opt.catch_up()
    arrays = {(name, key): array.tobytes() for name in opt.params
              for key, array in {"table": opt.params[name], **opt.state[name]}.items()}
    groups = [{**group, "params": list(group["params"])} for group in opt.param_groups]
    return arrays, groups, opt.steps


@each_option
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_added_group_goes_on_as_one_that_was_there_and_had_no_gradient(case, options):
    hyper = {**case.hyper, "weight_decay": 0.0, **options}
    late, early = case.ours(tables("a", "b"), **hyper), case.ours(
        [{"params": tables("a", "b")}, {"params": tables("c"), "lr": 0.3}], **hyper)
    for seed in range(3):
        given = gradients_of(late, seed)
        late.step(given)
        early.step(given)
    late.add_param_group({"params": tables("c"), "lr": 0.3})
    assert bits(trained(late, 3, 4, 5)) == bits(trained(early, 3, 4, 5))


def test_a_group_has_the_constructors_hyper_parameters_where_it_gives_none_and_options_of_its_own():
    opt = so.Adam({"a": so.zeros((2, 1))}, lr=0.5, betas=(0.5, 0.6), maximize=True)
    opt.param_groups[0].update(lr=0.1, maximize=False)
    opt.add_param_group({"params": {"b": so.zeros((2, 1))}, "eps": 1e-3, "max_norm": 2})
    added = opt.param_groups[1]
    assert {name: added[name] for name in added if name != "params"} == dict(
        lr=0.5, betas=(0.5, 0.6), eps=1e-3, weight_decay=0.0, amsgrad=False, maximize=True, clip_value=None,
        max_row_norm=None, max_norm=2.0)
    assert list(added["params"]) == ["b"]


def test_positions_of_a_sequence_go_on():
    a, b, c = np.zeros((2, 1)), np.zeros((3, 1)), np.zeros(4)
    opt = so.SGD([a], lr=1.0)
    opt.add_param_group({"params": b})
    opt.add_param_group({"params": (c,), "lr": 0.5})
    assert list(opt.params) == [0, 1, 2]
    opt.step([None, np.ones((3, 1)), np.ones(4)])
    assert (a.sum(), b.sum(), c.sum()) == (0, -3, -2)
    with pytest.raises(ValueError, match="grads has 2 gradients; there are 3 parameters"):
        opt.step([None, None])


def test_step_counts_of_a_new_table_begin_at_0_and_a_schedule_goes_on():
    opt = so.Adam({"a": so.zeros((3, 1))}, lr=so.schedules.Linear(1.0, end=0.0, steps=4))
    trained(opt, 0, 1)
    table = so.zeros((3, 1), np.float64)
    opt.add_param_group({"params": {"b": table}})
    opt.step({"b": so.RowGradient([1], [[-3.0]])})
    np.testing.assert_allclose(table[:, 0], [0, 0.5, 0], rtol=1e-7)        # Adam's first step, at the third step's rate
    assert opt.state["b"]["step"].tolist() == [0, 1, 0]


def test_under_replay_a_new_table_has_missed_none_of_the_steps_before():
    opt = so.AdamW({"a": so.zeros((3, 1))}, lr=0.1, weight_decay=0.5, missed="replay")
    trained(opt, 0, 1, 2)
    table = np.ones((2, 1))
    opt.add_param_group({"params": {"b": table}, "lr": 0.2})
    assert opt.stale()["b"].tolist() == [0, 0]
    opt.step({"b": so.RowGradient([0], [[0.0]])})
    assert opt.stale()["b"].tolist() == [0, 1]
    opt.catch_up({"b": [1]})
    np.testing.assert_allclose(table[:, 0], [0.9, 0.9], rtol=1e-12)         # one step of decay at this group's rate


@each_option
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle", "file", "file into one"])
def test_an_optimizer_with_an_added_group_is_kept_and_restored(way, options, tmp_path):
    def begun():
        return trained(so.NAdam(tables("a", "b"), lr=0.1, **options), 0, 1)

    def extended(opt):
        opt.add_param_group({"params": tables("c"), "lr": 0.3, "betas": (0.5, 0.6)})
        return opt

    opt = trained(extended(begun()), 2, 3)
    whole = bits(trained(extended(begun()), 2, 3, 4, 5))
    if way == "state_dict":
        other = so.NAdam([{"params": tables("a", "b")}, {"params": tables("c")}], **options)
        other.load_state_dict(copy.deepcopy(opt.state_dict()))
    elif way == "deepcopy":
        other = copy.deepcopy(opt)
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(opt))
    else:
        so.save(tmp_path / "file", opt)
        other = so.load(tmp_path / "file", None if way == "file" else extended(begun()))
    assert bits(trained(other, 4, 5)) == whole


@pytest.mark.parametrize("params", [{"a": np.zeros((3, 1))}, [np.zeros((3, 1))]], ids=["mapping", "sequence"])
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "file"])
def test_a_restored_optimizer_still_has_the_constructors_hyper_parameters_for_groups_to_come(way, params, tmp_path):
    rate = so.schedules.Exponential(0.5, gamma=0.9)
    opt = so.Adam(copy.deepcopy(params), lr=rate, betas=(0.5, 0.6), max_norm=np.float32(3))
    opt.param_groups[0].update(lr=0.1, eps=1e-4)
    so.save(tmp_path / "file", opt)
    other = {"deepcopy": lambda: copy.deepcopy(opt), "pickle": lambda: pickle.loads(pickle.dumps(opt)),
             "file": lambda: so.load(tmp_path / "file")}[way]()
    added = {"b": np.zeros((2, 1))} if isinstance(params, dict) else np.zeros((2, 1))
    for one in (opt, other):
        one.add_param_group({"params": added.copy()})
    assert repr(other) == repr(opt)
    assert other.param_groups[1]["lr"] == so.schedules.Exponential(0.5, gamma=0.9)


def test_a_rate_handed_in_at_loading_is_that_of_groups_to_come(tmp_path):
    so.save(tmp_path / "file", so.SGD([np.zeros((3, 1))], lr=lambda step: 0.5))
    with pytest.raises(ValueError, match="its lr was a callable"):
        so.load(tmp_path / "file")
    opt = so.load(tmp_path / "file", lr=0.25)
    opt.add_param_group({"params": np.zeros((2, 1))})
    assert [group["lr"] for group in opt.param_groups] == [0.25, 0.25]


WHOLE = np.zeros((8, 2))
NEW = np.zeros((2, 2))
BAD = {
    "no dict": ([NEW], TypeError, "group is no group; a group is a dict with the key 'params'"),
    "no params": ({"lr": 0.1}, TypeError, "group is no group"),
    "groups within": ({"params": [{"params": NEW}]}, TypeError, "group has groups in its params"),
    "no names": ({"params": [NEW]}, TypeError, "params is a list; the parameters have names, so it must be a mapping"),
    "one array": ({"params": NEW}, TypeError, "params is a ndarray; the parameters have names"),
    "no tables": ({"params": {}}, ValueError, "params is empty"),
    "a name twice": ({"params": {"c": NEW, "a": np.zeros(3)}}, ValueError, "params names 'a', as another group does"),
    "a number as name": ({"params": {2: NEW}}, TypeError, "params has the name 2; names must be strings"),
    "no array": ({"params": {"c": [[1.0]]}}, TypeError, 'parameter "c" is a list; it must be a NumPy array'),
    "integers": ({"params": {"c": np.zeros((2, 2), int)}}, TypeError, 'parameter "c" has dtype int64'),
    "overlap": ({"params": {"c": WHOLE[3:]}}, ValueError, '"a" and "c" overlap in memory'),
    "overlap within": ({"params": {"c": NEW, "d": NEW[1:]}}, ValueError, '"c" and "d" overlap in memory'),
    "a hyper-parameter of none": ({"params": {"c": NEW}, "momentum": 1}, TypeError,
                                  "Adam has no hyper-parameter 'momentum'"),
    "an option": ({"params": {"c": NEW}, "missed": "skip"}, TypeError, "Adam has no hyper-parameter 'missed'"),
    "a bad value": ({"params": {"c": NEW}, "lr": math.nan}, ValueError, "lr is nan; it must be finite and 0 or more"),
    "no replay": ({"params": {"c": NEW}, "weight_decay": 0.5}, ValueError,
                  "weight_decay is 0.5 with missed=\"replay\""),
}


@pytest.mark.parametrize(("group", "error", "message"), BAD.values(), ids=BAD)
def test_a_group_that_is_refused_changes_nothing(group, error, message):
    def begun(table):
        table[...] = 0
        return trained(so.Adam({"a": table[:4]}, lr=0.1, missed="replay"), 0, 1)

    opt, twin = begun(WHOLE), begun(np.zeros((8, 2)))
    groups = opt.param_groups
    with pytest.raises(error, match=message):
        opt.add_param_group(group)
    assert opt.param_groups is groups
    assert list(opt.params) == ["a"]
    assert bits(trained(opt, 2)) == bits(trained(twin, 2))


@pytest.mark.parametrize(("params", "group", "error", "message"), [
    (NEW, {"params": np.zeros(3)}, ValueError, "params was one array at construction.* no group can be added. Make the "
                                               "optimizer with a mapping or a list of arrays"),
    ([NEW], {"params": {"a": np.zeros(3)}}, TypeError, "params is a mapping; the other parameters have no names"),
    ([NEW], {"params": NEW}, ValueError, "parameter 0 and parameter 1 overlap"),
    ([NEW], {"params": 3}, TypeError, "params is a int"),
    ([NEW], {"params": []}, ValueError, "params is empty"),
], ids=["single", "names", "twice", "number", "empty"])
def test_a_group_must_have_the_form_of_the_others(params, group, error, message):
    opt = so.SGD(params, lr=1.0)
    with pytest.raises(error, match=message):
        opt.add_param_group(group)
    assert list(opt.params) == [0]


def test_groups_put_into_the_list_by_hand_are_refused_with_the_way_to_add_one():
    opt = so.SGD([np.zeros(2)], lr=1.0)
    opt.param_groups.append({**opt.param_groups[0], "params": {1: np.zeros(3)}})
    with pytest.raises(ValueError, match=r"param_groups has other groups .* call add_param_group to add tables"):
        opt.state_dict()
    with pytest.raises(ValueError, match="param_groups has other groups"):
        opt.add_param_group({"params": np.zeros(4)})


def test_a_file_without_the_constructors_hyper_parameters_has_those_of_its_first_group(tmp_path):
    path = tmp_path / "file"
    opt = so.Adam({"a": np.zeros((3, 1))}, lr=0.5)
    opt.param_groups[0]["lr"] = 0.25
    so.save(path, opt)
    with open(path, "rb") as file:
        reader = _tensors.Reader(file)
        reader.check()
        header = json.loads(reader.metadata["sparseopt"])
        arrays = {place: reader.read(place, np.empty(stored.shape, stored.dtype))
                  for place, stored in reader.arrays.items()}
    assert header["defaults"].pop("lr") == 0.5
    for wrong in ({"lr": -1}, {"lr": 0.5, "colour": "red"}, {"lr": 0.5, "missed": "replay"}, [0.5], None):
        _tensors.write(path, arrays, {"sparseopt": json.dumps({**header, "defaults": wrong})})
        with pytest.raises(ValueError, match="file"):
            so.load(path)
    del header["defaults"]
    _tensors.write(path, arrays, {"sparseopt": json.dumps(header)})
    other = so.load(path)
    other.add_param_group({"params": {"b": np.zeros((3, 1))}})
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.25]


def test_what_was_kept_before_a_group_came_fits_the_optimizer_no_more():
    opt = so.SGD({"a": np.zeros((3, 1))}, lr=1.0)
    stopping = so.training.EarlyStopping(opt)
    plateau = so.training.ReduceLROnPlateau(opt, patience=0, min_lr=[0.1])
    stopping.step(1.0)
    plateau.step(1.0)
    opt.add_param_group({"params": {"b": np.zeros((5, 1))}})
    with pytest.raises(ValueError, match="state_dict has params named 'a'; this optimizer has 'a', 'b'"):
        stopping.restore()
    with pytest.raises(ValueError, match="min_lr has 1 rates; the optimizer has 2 groups"):
        plateau.step(2.0)
    assert plateau.last_epoch == 1


def test_micro_batches_go_on_when_a_group_comes():
    opt = so.SGD([np.zeros((3, 1))], lr=1.0)
    accumulator = so.training.Accumulator(opt, every=2, reduction="sum")
    accumulator.step([so.RowGradient([1], [[1.0]])])
    opt.add_param_group({"params": np.zeros((2, 1))})
    accumulator.step([None, so.RowGradient([0], [[1.0]])])
    assert [table.ravel().tolist() for table in opt.params.values()] == [[0, -1, 0], [-1, 0]]


class Fixed(so.Adam):
    """A user's subclass whose constructor has another signature."""

    def __init__(self, params, rate=0.1, **options):
        super().__init__(params, lr=rate, betas=(0.5, 0.9), **options)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["copy", "pickle"])
def test_a_subclass_with_another_signature_is_copied_with_its_defaults(way):
    opt = Fixed({"a": np.zeros((3, 2))}, rate=0.25)
    opt.step({"a": so.RowGradient([1], np.ones((1, 2)))})
    again = way(opt)
    for each in (opt, again):
        each.add_param_group({"params": {"b": np.zeros((2, 2))}})
        assert [group["lr"] for group in each.param_groups] == [0.25, 0.25]
        assert each.param_groups[1]["betas"] == (0.5, 0.9)
    np.testing.assert_array_equal(again.params["a"], opt.params["a"])


def test_an_optimizer_that_loads_a_state_takes_its_defaults_for_groups_to_come():
    one, other = (so.Adam({"a": np.zeros((3, 2))}, lr=lr) for lr in (0.5, 0.1))
    other.load_state_dict(one.state_dict())
    other.add_param_group({"params": {"b": np.zeros((2, 2))}})
    assert other.param_groups[1]["lr"] == 0.5
    wrong = one.state_dict() | {"defaults": {"lr": 0.5}}
    with pytest.raises(ValueError, match="state_dict has defaults named"):
        one.load_state_dict(wrong)


def test_a_check_of_several_tables_finds_what_a_step_finds():
    opt = so.SGD({"a": np.zeros((3, 2)), "b": np.zeros((3, 2))}, lr=1.0)
    grads = {"a": so.RowGradient([0], [[np.nan, 1.0]]), "b": so.RowGradient([3], [[1.0, 1.0]])}
    for call in (opt.step, opt.check):
        with pytest.raises(IndexError, match='gradient of "b" has row 3'):
            call(grads)
