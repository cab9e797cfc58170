"""A run from torch's state, from a copy or from a pickle goes on like the original run."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from references import CASES, torch_default
from test_optimizers import optimizer

import sparseopt as so

WITH_TORCH = [case for case in CASES if case.torch]
OPTIONS = {"row": {}, "global": {"step_count": "global"}, "replay": {"missed": "replay"}}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
SHAPE, TAKEN, MORE = (6, 3), 7, 9


def gradients(seed=0, n=TAKEN + MORE, sparse=False, shape=SHAPE):
    """Dense arrays; or with few rows of theirs that are not 0."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((n, *shape))
    if sparse:
        made[TAKEN:] *= (rng.random((n, shape[0])) < 0.4)[TAKEN:, :, None]
    return made


def given(dense, options):
    """Under replay only the rows that are not 0: the others miss the step."""
    if "missed" not in options:
        return dense
    rows = np.flatnonzero(dense.any(axis=1))
    return so.RowGradient(rows, dense[rows])


def of_torch(their_state, ours, step):
    """torch's state of a parameter as `take_over` takes it: its numbers of a whole table once for each of our rows."""
    taken = {name: value.numpy() for name, value in their_state.items() if name != "step" and value is not None}
    taken = {name: np.full(ours[name].shape, value) if value.ndim == 0 else value for name, value in taken.items()}
    return taken | ({"step": step} if "step" in ours else {})


@each_option
@pytest.mark.parametrize("given_as", [int, np.int64, "rows"], ids=str)
@pytest.mark.parametrize("case", WITH_TORCH, ids=str)
def test_a_dense_run_of_torch_goes_on_here(case, given_as, options):
    grads = gradients(sparse="missed" in options)
    start = so.normal(SHAPE, np.float64, seed=3)
    exact = case.run_torch(start, grads, np.float64, **({"weight_decay": 0.0} if "AdamW" in case.name else {}))
    with torch_default(np.float64):
        parameter = torch.tensor(start.copy(), requires_grad=True)
        theirs = case.torch([parameter], **{"weight_decay": 0.0, **case.hyper})
        for g in grads[:TAKEN]:
            parameter.grad = torch.tensor(g)
            theirs.step()
    table = so.zeros(SHAPE, np.float64)
    opt = optimizer(case, table, **options)
    table[...] = parameter.detach().numpy()
    step = np.full(len(table), TAKEN) if given_as == "rows" else given_as(TAKEN)
    opt.take_over(0, **of_torch(theirs.state[parameter], opt.state[0], step))
    for g in grads[TAKEN:]:
        opt.step(given(g, options))
    if "missed" in options:
        opt.catch_up()
    np.testing.assert_allclose(table, exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case",
                         [case for case in WITH_TORCH if "step" in optimizer(case, np.zeros((2, 1))).state[0]], ids=str)
def test_rows_may_be_taken_over_with_a_count_each(case):
    counts = np.array([0, 1, 4, 9, 2])
    grads = gradients(n=12, shape=(5, 3))
    start = so.normal((5, 3), np.float64, seed=3)
    with torch_default(np.float64):
        rows = [torch.tensor(row.copy(), requires_grad=True) for row in start]
        theirs = [case.torch([row], **{"weight_decay": 0.0, **case.hyper}) for row in rows]

        def step(i, g):
            rows[i].grad = torch.tensor(g)
            theirs[i].step()

        for i, count in enumerate(counts):
            for g in grads[:count, i]:
                step(i, g)
        table = np.stack([row.detach().numpy() for row in rows])
        opt = optimizer(case, table)
        state = {name: array.copy() for name, array in opt.state[0].items() if name != "step"}
        for i, count in enumerate(counts):
            if count:
                for name, array in state.items():
                    array[i] = theirs[i].state[rows[i]][name]
        opt.take_over(0, step=counts, **state)
        for k in (9, 10, 11):
            opt.step(grads[k])
            for i in range(len(rows)):
                step(i, grads[k, i])
    assert opt.state[0]["step"].tolist() == (counts + 3).tolist()
    np.testing.assert_allclose(table, np.stack([row.detach().numpy() for row in rows]), rtol=1e-11)


@each_option
def test_the_product_of_nadam_follows_from_the_count_where_it_is_not_handed_in(options):
    case = next(case for case in CASES if case.name == "NAdam")
    results = []
    for with_product in (True, False):
        opt = optimizer(case, np.ones(SHAPE), **options)
        # The paper's product, worked out step by step.
        product = math.prod(0.9 * (1 - 0.5 * 0.96 ** (k * 0.1)) for k in range(1, 31))
        more = {"mu_product": np.full(opt.state[0]["mu_product"].shape, product)} if with_product else {}
        opt.take_over(0, step=30, exp_avg=np.full(SHAPE, 0.5), exp_avg_sq=np.full(SHAPE, 0.3), **more)
        np.testing.assert_allclose(opt.state[0]["mu_product"], product, rtol=1e-12)
        opt.step(gradients()[0])
        results.append(opt.params[0].copy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-12)


@each_option
@pytest.mark.parametrize("change", [{"betas": (0.5, 0.9)}, {"momentum_decay": 0.5},
                                    {"betas": (0.95, 0.99), "momentum_decay": 0.0}],
                         ids=str)
def test_nadam_whose_hyper_parameters_change_on_the_way_is_torchs(change, options):
    start, grads = so.normal(SHAPE, np.float64, seed=3), gradients(sparse=True)
    hyper = dict(lr=0.05, momentum_decay=0.1)
    table = start.copy()
    opt = so.NAdam(table, **hyper, **options)
    with torch_default(np.float64):
        parameter = torch.tensor(start, requires_grad=True)
        theirs = torch.optim.NAdam([parameter], **hyper)
        for k, g in enumerate(grads):
            if k in (TAKEN - 1, TAKEN + 5):
                new = change if k < TAKEN else {"betas": (0.9, 0.999), "momentum_decay": 0.01}
                opt.param_groups[0].update(new)
                theirs.param_groups[0].update(new)
            opt.step(given(g, options))
            parameter.grad = torch.tensor(g)
            theirs.step()
    if "missed" in options:
        assert opt.stale().any()
        opt.catch_up()
    np.testing.assert_allclose(table, parameter.detach().numpy(), rtol=1e-9)


def everything(opt):
    return [a.tobytes() for name in opt.params for a in (opt.params[name], *opt.state[name].values())], opt.steps


M = np.zeros((4, 2))


@each_option
@pytest.mark.parametrize(("name", "taken", "error", "message"), [
    ("b", dict(step=1), KeyError, "name is 'b'; the names in params are"),
    (0, dict(step=1), KeyError, "name is 0"),
    ("a", dict(sum=M), TypeError, "Adam keeps no state 'sum'; its state is"),
    ("a", dict(exp_avg=M[:3]), ValueError, r"exp_avg has shape \(3, 2\); the state has shape \(4, 2\)"),
    ("a", dict(exp_avg=M.T), ValueError, r"exp_avg has shape \(2, 4\)"),
    ("a", dict(exp_avg=0.5), ValueError, r"exp_avg has shape \(\)"),
    ("a", dict(exp_avg=M.astype(str)), TypeError, "exp_avg has dtype <U32; it must be numbers"),
    ("a", dict(exp_avg=M + np.nan), ValueError, "exp_avg has a NaN or an infinity"),
    ("a", dict(exp_avg=M + 1e39), ValueError, "exp_avg has a NaN or an infinity in float32"),
    ("a", dict(exp_avg_sq=M - 1), ValueError, "state has 'exp_avg_sq' with -1; it must be 0 or more"),
    ("a", dict(step=-1), ValueError, "step has -1; it must be from 0 to 2147483647"),
    ("a", dict(step=2**31), ValueError, "step has 2147483648"),
    ("a", dict(step=1.5), TypeError, "step has dtype float64; it must be integers"),
    ("a", dict(step="1"), TypeError, "step has dtype <U1"),
    ("a", dict(step=True), TypeError, "step has dtype bool"),
    ("a", dict(step=[1, 2]), ValueError, "step"),
    ("a", dict(step=[1, -2, 1, 1]), ValueError, "step has -2; it"),
    # The fault is in the last one: nothing of what comes before it is written.
    ("a", dict(exp_avg=M + 1, step=3, exp_avg_sq=M - 1), ValueError, "exp_avg_sq"),
], ids=lambda x: str(x)[:30] if isinstance(x, dict) else "")
def test_what_cannot_be_taken_over_is_named_and_nothing_is_written(name, taken, error, message, options):
    opt = so.Adam({"a": so.zeros((4, 2))}, **options)
    opt.step({"a": so.RowGradient([1], np.ones((1, 2)))})
    before = everything(opt)
    with pytest.raises(error, match=message):
        opt.take_over(name, **taken)
    assert everything(opt) == before
    opt.step({"a": so.RowGradient([1], np.ones((1, 2)))})
    assert opt.steps == 2


@pytest.mark.parametrize(("options", "step", "message"), [
    ({"step_count": "global"}, [1, 1, 2, 1], 'with step_count="global" it must be one'),
    ({"missed": "replay"}, [1, 1, 2, 1], 'step is from 1 to 2; under missed="replay" every row has taken every step'),
    ({"missed": "replay"}, 2**31 - 2, "must be one number below 2147483646")], ids=str)
def test_counts_that_the_rows_cannot_have_are_refused(options, step, message):
    opt = so.Adam(so.zeros((4, 2)), **options)
    before = everything(opt)
    with pytest.raises(ValueError, match=message):
        opt.take_over(0, step=step, exp_avg=M + 1)
    assert everything(opt) == before


@each_option
@pytest.mark.parametrize("bad", [-0.5, 1.5])
def test_a_product_of_nadam_that_no_run_leaves_is_refused(bad, options):
    opt = so.NAdam(so.zeros((4, 2)), **options)
    before, product = everything(opt), np.full(opt.state[0]["mu_product"].shape, bad)
    with pytest.raises(ValueError, match="mu_product"):
        opt.take_over(0, step=3, mu_product=product)
    wrong = copy.deepcopy(opt.state_dict())
    wrong["state"][0]["mu_product"][...] = bad
    with pytest.raises(ValueError, match="mu_product"):
        opt.load_state_dict(wrong)
    assert everything(opt) == before


def test_a_state_dict_of_the_optimizers_own_arrays_under_other_names_is_read_before_any_is_written():
    a, b = np.zeros((2, 2)), np.ones((2, 2))
    opt = so.SGD({"a": a, "b": b}, momentum=0.5)
    opt.step({"a": np.full((2, 2), 3.0)})
    old = [array.copy() for array in (a, b, *opt.state["a"].values(), *opt.state["b"].values())]
    state = opt.state_dict()
    state["params"] = {"a": b, "b": a}
    state["state"] = {"a": opt.state["b"], "b": opt.state["a"]}
    opt.load_state_dict(state)
    now = [b, a, *opt.state["b"].values(), *opt.state["a"].values()]
    for ours, expected in zip(now, old, strict=True):
        np.testing.assert_array_equal(ours, expected)


# Copies.

STRUCTURES = {
    "single": lambda a, b: a, "mapping": lambda a, b: {"a": a, "b": b}, "sequence": lambda a, b: [a, b],
    "groups": lambda a, b: [{"params": {"a": a}, "lr": so.schedules.Linear(0.1, 0.01, steps=20)}, {"params": {"b": b}}],
    "groups without names": lambda a, b: [{"params": [a]}, {"params": [b], "lr": 0.2, "maximize": True}]}


def in_shape(opt, a, b):
    names = list(opt.params)
    return a if len(names) == 1 else {"a": a, "b": b} if isinstance(names[0], str) else [a, b]


@each_option
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_copy_and_a_pickle_go_on_with_the_same_bits(case, structure, options):
    rng = np.random.default_rng(5)
    a, b = so.normal((6, 3), seed=1), so.normal((4, 2), np.float64, seed=2)
    opt = optimizer(case, STRUCTURES[structure](a, b), num_threads=2, nonfinite="skip", max_grad_norm=3.0, **options)
    opt.metadata = {"epoch": 3, "words": ["one"]}

    def steps():
        return [(so.RowGradient(rng.integers(0, 6, 2), rng.standard_normal((2, 3)).astype(np.float32)),
                 so.RowGradient(rng.integers(0, 4, 2), rng.standard_normal((2, 2)))) for _ in range(4)]

    for pair in steps():
        opt.step(in_shape(opt, *pair))
    before = everything(opt)
    twins = [copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))]
    assert everything(opt) == before
    for pair in steps():
        for one in (opt, *twins):
            one.step(in_shape(opt, *pair))
    for one in (opt, *twins):
        if one.missed == "replay":
            one.catch_up()
    assert everything(opt) != before
    for twin in twins:
        assert type(twin) is type(opt)
        assert everything(twin) == everything(opt)
        assert repr(twin) == repr(opt)
        assert twin.num_threads == 2
        assert twin.metadata == opt.metadata
        assert twin.metadata is not opt.metadata
        assert list(twin.params) == list(opt.params)
        assert not any(np.shares_memory(twin.params[name], opt.params[name]) for name in opt.params)


@each_option
def test_a_copy_of_an_optimizer_and_its_tables_belongs_together(options):
    tables = {"a": np.ones((3, 2), np.float32), "b": np.ones(2)}
    model = {"opt": so.Adam(tables, lr=0.1, **options), "tables": tables}
    model["opt"].step({"a": np.ones((3, 2))})
    for other in (copy.deepcopy(model), copy.deepcopy({"tables": model["tables"], "opt": model["opt"]})):
        assert all(other["opt"].params[name] is table for name, table in other["tables"].items())
        assert other["tables"]["a"] is not tables["a"]
        other["opt"].step({"a": np.ones((3, 2))})
        np.testing.assert_allclose(other["tables"]["a"], 0.8, rtol=1e-5)
    np.testing.assert_allclose(tables["a"], 0.9, rtol=1e-5)


def test_a_schedule_that_cannot_be_pickled_can_be_copied():
    opt = so.SGD(np.zeros((2, 1)), lr=lambda step: 1.0 / (1 + step))
    opt.step(np.ones((2, 1)))
    twin = copy.deepcopy(opt)
    twin.step(np.ones((2, 1)))
    assert twin.params[0].tolist() == [[-1.5], [-1.5]]
    assert opt.params[0].tolist() == [[-1.0], [-1.0]]


@pytest.mark.parametrize(("options", "says"), [
    ({}, []), ({"missed": "replay"}, ["missed='replay'"]), ({"step_count": "global"}, ["step_count='global'"]),
    ({"max_grad_norm": 2}, ["max_grad_norm=2.0"]), ({"nonfinite": "skip"}, ["nonfinite='skip'"]),
    ({"num_threads": 3}, ["num_threads=3"]),
    ({"clip_value": 0.5, "maximize": True}, ["clip_value=0.5", "maximize=True"]),
    ({"max_norm": 4, "max_row_norm": 2}, ["max_norm=4.0", "max_row_norm=2.0"])], ids=str)
def test_the_repr_says_what_is_not_default_and_only_that(options, says):
    said = repr(so.Adam(so.zeros((2, 3)), lr=0.5, **options))
    assert said.startswith("Adam((2, 3) float32; lr=0.5, betas=(0.9, 0.999)")
    among = [name for name in ("missed", "step_count", "max_grad_norm", "nonfinite", "num_threads",
                               "clip_value", "maximize", "max_norm", "max_row_norm") if f"{name}=" in said]
    assert sorted(among) == sorted(options)
    assert all(part in said for part in says)


def test_the_current_rate_is_that_of_the_next_step():
    def schedule(step):
        return 2.0 / (1 + step)

    tables = [np.zeros((1, 1)) for _ in range(3)]
    opt = so.SGD([{"params": [tables[0]]}, {"params": [tables[1]], "lr": so.schedules.Linear(1.0, 0.0, steps=4)},
                  {"params": [tables[2]], "lr": schedule}], lr=0.25)
    for expected in ([0.25, 1.0, 2.0], [0.25, 0.75, 1.0], [0.25, 0.5, 2 / 3]):
        before = [table.item() for table in tables]
        assert [opt.current_lr(i) for i in range(3)] == expected
        assert opt.current_lr() == expected[0]
        opt.step([np.ones((1, 1))] * 3)
        np.testing.assert_allclose([b - table.item() for b, table in zip(before, tables, strict=True)],
                                   expected, rtol=1e-12)
    opt.param_groups[0]["lr"] = 0.125
    assert opt.current_lr() == 0.125


@pytest.mark.parametrize("group", [-1, 1, 1.0, True, "0", None], ids=str)
def test_a_group_that_is_none_has_no_rate(group):
    with pytest.raises(IndexError, match=r"group is .*; it must be from 0 to 0"):
        so.SGD(np.zeros(1)).current_lr(group)


@pytest.mark.parametrize("rate", [-1.0, math.nan, "fast", None], ids=str)
def test_a_schedule_whose_rate_is_none_is_named(rate):
    opt = so.SGD(np.zeros(1), lr=lambda step: rate)
    with pytest.raises((TypeError, ValueError), match=r"lr \(of the schedule at step 0\)"):
        opt.current_lr()
    with pytest.raises((TypeError, ValueError), match=r"lr \(of the schedule at step 0\)"):
        opt.step(np.ones(1))
    assert opt.steps == 0
