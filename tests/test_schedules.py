"""Schedules have the values that their formulas say at their landmarks, which are torch's."""

import dataclasses
import warnings

import numpy as np
import pytest

import sparseopt as so
from sparseopt.schedules import Cosine, Exponential, Linear


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
], ids=str)
def test_a_schedule_has_its_values_at_its_landmarks(schedule, values):
    assert {step: schedule(step) for step in values} == pytest.approx(values, abs=1e-15)


@pytest.mark.parametrize(("schedule", "torchs"), [
    (Exponential(0.3, gamma=0.97), lambda schedulers, opt: schedulers.ExponentialLR(opt, 0.97)),
    (Linear(0.3, end=0.03, steps=40),
     lambda schedulers, opt: schedulers.LinearLR(opt, start_factor=1.0, end_factor=0.1, total_iters=40)),
    (Cosine(0.3, steps=50, end=0.01), lambda schedulers, opt: schedulers.CosineAnnealingLR(opt, 50, eta_min=0.01)),
], ids=["Exponential", "Linear", "Cosine"])
def test_a_schedule_is_torchs(schedule, torchs):
    import torch

    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torchs(torch.optim.lr_scheduler, opt)
    for step in range(51):
        assert schedule(step) == pytest.approx(opt.param_groups[0]["lr"], rel=1e-12)
        opt.step()
        theirs.step()


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


@pytest.mark.parametrize("schedule", [Exponential(0.5, 0.5), Linear(0.5, 0.25, 2), Cosine(0.5, 4, warmup=1)], ids=str)
def test_a_schedule_moves_the_weights_as_its_rates_given_by_hand(schedule):
    given, by_hand = (so.Adam(so.normal((5, 3), seed=1), lr=lr) for lr in (schedule, 1.0))
    for step in range(6):
        by_hand.param_groups[0]["lr"] = schedule(step)
        gradient = so.RowGradient([step % 5], np.full((1, 3), 1.0 + step))
        given.step(gradient)
        by_hand.step(gradient)
    assert given.params[0].tobytes() == by_hand.params[0].tobytes()


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
