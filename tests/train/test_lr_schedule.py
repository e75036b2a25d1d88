"""LR schedules against values worked out by hand."""

from dataclasses import replace

import pytest

from train.lr_schedule import LRSchedule

STEP = LRSchedule(base=0.8, schedule="step", steps=(2, 5), gamma=0.1, end_epoch=10, warmup_epochs=0)
COSINE = replace(STEP, schedule="cosine")


def test_decays_after_the_given_epochs() -> None:
    lrs = [STEP.at(epoch, 0, 7, phase=0) for epoch in range(1, 8)]
    assert lrs == pytest.approx([0.8, 0.8, 0.08, 0.08, 0.08, 0.008, 0.008])


def test_is_constant_within_an_epoch() -> None:
    """The original's varied by a factor of eight, without cycles too."""
    assert {STEP.at(1, step, 50, phase=0) for step in range(50)} == {0.8}


def test_halves_with_each_phase_of_the_long_cycle() -> None:
    assert [STEP.at(1, 3, 7, phase) for phase in range(4)] == pytest.approx([0.8, 0.4, 0.2, 0.1])


def test_cosine_decays_to_0_at_the_end() -> None:
    lrs = [COSINE.at(epoch, step, 4, 0) for epoch in range(1, 11) for step in range(4)]
    assert lrs == sorted(lrs, reverse=True)
    assert lrs[0] == 0.8
    assert COSINE.at(6, 0, 4, 0) == pytest.approx(0.4)
    assert 0 < lrs[-1] < 0.005


def test_warm_up_is_linear_from_the_first_step() -> None:
    warm = replace(STEP, warmup_epochs=2, steps=(5,))
    lrs = [warm.at(epoch, step, 4, 0) for epoch in (1, 2, 3) for step in range(4)]
    assert lrs == pytest.approx([0.1 * i for i in range(1, 9)] + [0.8] * 4)


def test_stages_end_where_the_lr_decays_within_the_run() -> None:
    assert STEP.stages() == (2, 5, 10)
    assert replace(STEP, steps=(2, 12)).stages() == (2, 10)
    assert COSINE.stages() == (10,)
