"""Schedules against their formulas at chosen steps, and against torch at every step; checkpoints keep schedules."""

import dataclasses
import json
import math
import warnings

import numpy as np
import pytest

import sparseopt as so
from sparseopt.schedules import (
    Chain,
    Constant,
    Cosine,
    CosineRestarts,
    Exponential,
    InverseTime,
    Linear,
    Step,
    from_json,
    to_json,
)


@pytest.mark.parametrize(("schedule", "values"), [
    (Exponential(0.5, gamma=0.5), {0: 0.5, 1: 0.25, 2: 0.125, 10: 0.5**11}),
    (Exponential(0.5, gamma=1.0), {0: 0.5, 1_000_000: 0.5}),
    (Exponential(0.5, gamma=0.9), {1_000_000: 0.0}),
    (Exponential(0.0, gamma=0.5), {0: 0.0, 5: 0.0}),
    (Linear(1.0, end=0.0, steps=4), {0: 1.0, 1: 0.75, 2: 0.5, 4: 0.0, 5: 0.0, 10**9: 0.0}),
    (Linear(0.0, end=1.0, steps=4), {0: 0.0, 1: 0.25, 4: 1.0, 9: 1.0}),
    (Linear(0.25, end=0.25, steps=1), {0: 0.25, 1: 0.25, 2: 0.25}),
    (Cosine(1.0, steps=8), {0: 1.0, 2: (1 + 0.5**0.5) / 2, 4: 0.5, 8: 0.0, 9: 0.0, 10**9: 0.0}),
    (Cosine(1.0, steps=8, end=0.5), {0: 1.0, 4: 0.75, 8: 0.5, 100: 0.5}),
    (Cosine(1.0, steps=12, warmup=4), {0: 0.0, 1: 0.25, 3: 0.75, 4: 1.0, 8: 0.5, 12: 0.0, 13: 0.0}),
    (Cosine(2.0, steps=3, end=1.0, warmup=1), {0: 0.0, 1: 2.0, 2: 1.5, 3: 1.0}),
    (Constant(0.25), {0: 0.25, 10**9: 0.25}),
    (Step(1.0, gamma=0.5, every=3), {0: 1.0, 2: 1.0, 3: 0.5, 5: 0.5, 6: 0.25, 3 * 10**9: 0.0}),
    (Step(1.0, gamma=0.5, milestones=(7, 2, 7)), {0: 1.0, 1: 1.0, 2: 0.5, 6: 0.5, 7: 0.125, 10**9: 0.125}),
    (Step(1.0, gamma=0.5, milestones=()), {0: 1.0, 10**9: 1.0}),
    (InverseTime(1.0, decay=0.5), {0: 1.0, 2: 0.5, 6: 0.25, 2 * 10**15 - 2: 1e-15}),
    (InverseTime(1.0, decay=0.0), {0: 1.0, 10**9: 1.0}),
    (CosineRestarts(1.0, steps=4), {0: 1.0, 1: (1 + 0.5**0.5) / 2, 2: 0.5, 4: 1.0, 6: 0.5, 4 * 10**15 + 2: 0.5}),
    (CosineRestarts(1.0, steps=4, growth=2, end=0.5),
     {2: 0.75, 4: 1.0, 8: 0.75, 12: 1.0, 20: 0.75, 4 * (2**40 - 1): 1.0}),
    (Chain([Constant(0.5)]), {0: 0.5, 9: 0.5}),
    (Chain([(Linear(0.0, 1.0, steps=4), 4), (Constant(1.0), 2), Linear(1.0, 0.0, steps=2)]),
     {0: 0.0, 1: 0.25, 3: 0.75, 4: 1.0, 5: 1.0, 6: 1.0, 7: 0.5, 8: 0.0, 10**9: 0.0}),
    (Chain([(Chain([(Constant(1.0), 2), Constant(2.0)]), 4), Chain([(Constant(3.0), 2), Constant(4.0)])]),
     {0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0, 4: 3.0, 5: 3.0, 6: 4.0, 7: 4.0}),
], ids=str)
def test_a_schedule_has_its_values_at_its_landmarks(schedule, values):
    assert {step: schedule(step) for step in values} == pytest.approx(values, abs=1e-15)


def sequential(schedulers, opt, parts, milestones):
    return schedulers.SequentialLR(opt, [part(schedulers, opt) for part in parts], milestones=milestones)


@pytest.mark.parametrize(("schedule", "torchs", "steps"), [
    (Constant(0.3), lambda schedulers, opt: schedulers.ConstantLR(opt, factor=1.0), 50),
    (Exponential(0.3, gamma=0.97), lambda schedulers, opt: schedulers.ExponentialLR(opt, 0.97), 500),
    (Linear(0.3, end=0.03, steps=40),
     lambda schedulers, opt: schedulers.LinearLR(opt, start_factor=1.0, end_factor=0.1, total_iters=40), 500),
    (Cosine(0.3, steps=300, end=0.01),
     lambda schedulers, opt: schedulers.CosineAnnealingLR(opt, 300, eta_min=0.01), 300),
    (Step(0.3, every=30), lambda schedulers, opt: schedulers.StepLR(opt, 30), 500),
    (Step(0.3, gamma=0.9, every=1), lambda schedulers, opt: schedulers.StepLR(opt, 1, gamma=0.9), 500),
    (Step(0.3, gamma=0.7, milestones=[200, 10, 37, 37]),
     lambda schedulers, opt: schedulers.MultiStepLR(opt, [200, 10, 37, 37], gamma=0.7), 500),
    (InverseTime(0.3, decay=0.07),
     lambda schedulers, opt: schedulers.LambdaLR(opt, lambda step: 1 / (1 + 0.07 * step)), 500),
    *((CosineRestarts(0.3, steps=steps, growth=growth, end=0.01),
       lambda schedulers, opt, first=steps, growth=growth:
           schedulers.CosineAnnealingWarmRestarts(opt, first, growth, 0.01), 900)
      for steps, growth in ((1, 1), (7, 1), (10, 2), (1, 2), (5, 3))),
    (Chain([(Linear(0.1, 0.3, steps=20), 20), CosineRestarts(0.3, steps=50, growth=2)]),
     lambda schedulers, opt: sequential(schedulers, opt, [
         lambda schedulers, opt: schedulers.LinearLR(opt, start_factor=1 / 3, total_iters=20),
         lambda schedulers, opt: schedulers.CosineAnnealingWarmRestarts(opt, 50, 2)], [20]), 500),
    (Chain([(Linear(0.1, 0.3, steps=10), 15), (Constant(0.3), 100), (Exponential(0.3, 0.99), 85), Step(0.3, every=40)]),
     lambda schedulers, opt: sequential(schedulers, opt, [
         lambda schedulers, opt: schedulers.LinearLR(opt, start_factor=1 / 3, total_iters=10),
         lambda schedulers, opt: schedulers.ConstantLR(opt, factor=1.0),
         lambda schedulers, opt: schedulers.ExponentialLR(opt, 0.99),
         lambda schedulers, opt: schedulers.StepLR(opt, 40)], [15, 115, 200]), 500),
], ids=lambda value: str(value) if dataclasses.is_dataclass(value) else "")
def test_a_schedule_is_torchs(schedule, torchs, steps):
    import torch

    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")         # torch's own use of what it has deprecated
        theirs = torchs(torch.optim.lr_scheduler, opt)
        for step in range(steps + 1):
            assert schedule(step) == pytest.approx(opt.param_groups[0]["lr"], rel=1e-11)
            opt.step()
            theirs.step()


def test_a_cosine_with_warmup_is_a_chain_of_a_line_and_a_cosine():
    chain = Chain([(Linear(0.0, 0.3, steps=30), 30), Cosine(0.3, steps=170, end=0.01)])
    whole = Cosine(0.3, steps=200, warmup=30, end=0.01)
    assert [chain(step) for step in range(300)] == pytest.approx([whole(step) for step in range(300)], rel=1e-14)


def test_an_optimizer_takes_the_rate_of_the_number_of_steps_taken_before():
    asked = []

    def schedule(step):
        asked.append(step)
        return 2.0**-step

    w = so.zeros(3)
    opt = so.SGD(w, lr=schedule)
    for step in range(4):
        opt.step(so.RowGradient([step % 2], [1.0]))
    assert asked == [0, 1, 2, 3]
    assert w.tolist() == [-(1 + 0.25), -(0.5 + 0.125), 0]


EACH = [
    Constant(0.5), Step(0.5, every=2), Step(0.5, gamma=0.25, milestones=[4, 1]), Exponential(0.5, 0.5),
    InverseTime(0.5, 0.25), Linear(0.5, 0.25, 2), Cosine(0.5, 4, warmup=1), CosineRestarts(0.5, 2, growth=2, end=0.125),
    Chain([(Linear(0.0, 0.5, 2), 2), (Step(0.5, milestones=[1]), 2),
           Chain([(Constant(0.25), 1), CosineRestarts(0.125, 3)])]),
]


def test_every_schedule_is_among_those_that_are_tested():
    assert {type(schedule) for schedule in EACH} == set(so.schedules._STORED.values())


@pytest.mark.parametrize("schedule", EACH, ids=str)
def test_a_schedule_moves_the_weights_as_its_rates_given_by_hand(schedule):
    given, by_hand = (so.Adam(so.normal((5, 3), seed=1), lr=lr) for lr in (schedule, 1.0))
    for step in range(6):
        by_hand.param_groups[0]["lr"] = schedule(step)
        gradient = so.RowGradient([step % 5], np.full((1, 3), 1.0 + step))
        given.step(gradient)
        by_hand.step(gradient)
    assert given.params[0].tobytes() == by_hand.params[0].tobytes()


def test_what_a_schedule_changes_in_its_group_holds_from_the_same_step_on_and_for_every_table():
    def rate(step):         # the same at every step
        scheduled.param_groups[0]["weight_decay"] = decays[step]
        return 0.5

    decays = [0.5, 0.25, 0.5, 0.5]
    scheduled, by_hand = (so.AdamW([so.normal((5, 3), seed=1), so.normal((2, 3), seed=2)], lr=lr) for lr in (rate, 0.5))
    for decay in decays:
        by_hand.param_groups[0]["weight_decay"] = decay
        for opt in (scheduled, by_hand):
            opt.step([so.RowGradient([1], np.ones((1, 3)))] * 2)
        for table, expected in zip(scheduled.params.values(), by_hand.params.values(), strict=True):
            assert table.tobytes() == expected.tobytes()


def test_a_step_that_is_refused_does_not_count_for_the_schedule():
    w = so.zeros(3)
    opt = so.SGD(w, lr=Exponential(1.0, 0.5))
    with pytest.raises(IndexError, match="row 3"):
        opt.step(so.RowGradient([3], [1.0]))
    opt.step(so.RowGradient([0], [1.0]))
    assert w.tolist() == [-1, 0, 0]


def test_schedules_are_values():
    assert Cosine(0.5, 10, warmup=2) == Cosine(0.5, 10, warmup=2)
    assert Cosine(0.5, 10, warmup=2) != Cosine(0.5, 10, warmup=3)
    assert len({Linear(1.0, 0.0, 4), Linear(1.0, 0.0, 4)}) == 1
    assert repr(Exponential(0.5, gamma=0.25)) == "Exponential(lr=0.5, gamma=0.25)"
    with pytest.raises(dataclasses.FrozenInstanceError, match="lr"):
        Exponential(0.5, 0.5).lr = 1.0


def test_a_rate_too_small_for_a_float_is_zero_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Exponential(1e-3, 0.5)(5000) == 0.0


@pytest.mark.parametrize("schedule", EACH, ids=str)
def test_a_checkpoint_keeps_a_schedule(schedule, tmp_path):
    def trained(opt, steps):
        for step in steps:
            opt.step(so.RowGradient([step % 5], np.full((1, 3), 1.0 + step)))
        return opt

    def new():
        return so.Adam(so.normal((5, 3), seed=1), lr=schedule)

    so.save(tmp_path / "run", trained(new(), range(4)))
    again = so.load(tmp_path / "run")
    assert again.param_groups[0]["lr"] == schedule
    assert trained(again, range(4, 9)).params[0].tobytes() == trained(new(), range(9)).params[0].tobytes()


@pytest.mark.parametrize("schedule", [
    Constant(np.float32(0.1)), Step(np.float64(0.5), np.float32(0.1), every=np.int64(3)),
    Step(1, milestones=[np.int32(4), np.int64(2)]), InverseTime(np.array(0.5), decay=np.float32(0.1)),
    CosineRestarts(np.float32(0.3), steps=np.uint8(200), growth=np.int8(2)),
    Chain([(Linear(0, np.float32(0.1), np.int16(7)), np.int64(7)), Constant(np.float16(0.1))]),
], ids=str)
def test_fields_of_numpy_are_stored_and_never_overflow(schedule):
    stored = json.loads(json.dumps(to_json(schedule)))
    assert from_json(stored) == schedule
    rates = [schedule(step) for step in range(1000)]
    assert [from_json(stored)(step) for step in range(1000)] == rates
    assert {type(rate) for rate in rates} == {float}


def test_a_chain_with_a_foreign_part_is_not_stored():
    class Mine(Constant):
        pass

    assert to_json(Chain([(Constant(1.0), 2), lambda step: 0.5])) is None
    assert to_json(Chain([(Chain([math.sqrt]), 2), Constant(0.5)])) is None
    assert to_json(Chain([(Constant(1.0), 2), Mine(0.5)])) is None


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda: Constant(-1.0), ValueError, r"lr is -1\.0"),
    (lambda: Constant(math.inf), ValueError, "lr is inf"),
    (lambda: Constant(10**400), ValueError, "lr is inf"),
    (lambda: Step(0.1), ValueError, "every is None and milestones None; exactly one of the two"),
    (lambda: Step(0.1, every=3, milestones=[4]), ValueError, r"every is 3 and milestones \[4\]"),
    (lambda: Step(0.1, every=0), ValueError, "every is 0"),
    (lambda: Step(0.1, every=2.0), TypeError, "every is 2.0"),
    (lambda: Step(0.1, every=True), TypeError, "every is True"),
    (lambda: Step(0.1, milestones=5), TypeError, "milestones is 5"),
    (lambda: Step(0.1, milestones="12"), TypeError, "milestones is '12'"),
    (lambda: Step(0.1, milestones=[3, -1]), ValueError, r"milestones\[1\] is -1"),
    (lambda: InverseTime(0.1, decay=-0.5), ValueError, r"decay is -0\.5"),
    (lambda: InverseTime(0.1, decay=math.nan), ValueError, "decay is nan"),
    (lambda: CosineRestarts(0.1, steps=0), ValueError, "steps is 0"),
    (lambda: CosineRestarts(0.1, steps=5, growth=0), ValueError, "growth is 0"),
    (lambda: CosineRestarts(0.1, steps=5, growth=1.5), TypeError, r"growth is 1\.5"),
    (lambda: Chain([]), TypeError, r"parts is \[\]"),
    (lambda: Chain(Constant(0.1)), TypeError, "parts is Constant"),
    (lambda: Chain((Constant(0.1), 100)), TypeError, r"parts\[0\] is Constant.*only the last"),
    (lambda: Chain([Constant(0.1), Constant(0.2)]), TypeError, r"parts\[0\] is Constant.*only the last"),
    (lambda: Chain([(0.1, 5), Constant(0.2)]), TypeError, r"parts\[0\] is \(0\.1, 5\)"),
    (lambda: Chain([(Constant(0.1), 0), Constant(0.2)]), ValueError, r"steps of parts\[0\] is 0"),
    (lambda: Chain([(Constant(0.1), 2.5), Constant(0.2)]), TypeError, r"steps of parts\[0\] is 2\.5"),
    (lambda: Chain([(Constant(0.1), 2), (Constant(0.2), 3)]), TypeError, "the last of parts is .*goes on forever"),
    (lambda: Chain([(Constant(0.1), 2), 0.2]), TypeError, r"the last of parts is 0\.2"),
])
def test_a_schedule_made_wrongly_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("stored", [
    {"schedule": "Chain", "parts": 3}, {"schedule": "Chain", "parts": [[{"schedule": "Sine"}, 2], 0.5]},
    {"schedule": "Step", "lr": 0.1, "gamma": 0.1, "every": None, "milestones": {"schedule": "Constant"}},
    {"schedule": ["Constant"], "lr": 0.1}, {"schedule": "Constant", "lr": {"schedule": "Constant", "lr": 0.1}},
], ids=str)
def test_a_damaged_schedule_is_refused_as_what_it_is(stored):
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json(stored)
