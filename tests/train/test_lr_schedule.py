"""The learning rate against curves written out by hand."""

from dataclasses import replace

import pytest

from train.lr_schedule import LRSchedule

RATE = LRSchedule(base=0.8, schedule="step", steps=(2, 5), factor=0.1, end_epoch=10, warmup_epochs=0)


def test_falls_after_the_epochs_named() -> None:
    rates = [RATE.at(epoch, 0, 7, phase=0) for epoch in range(1, 8)]
    assert rates == pytest.approx([0.8, 0.8, 0.08, 0.08, 0.08, 0.008, 0.008])


def test_is_constant_within_an_epoch_without_cycles() -> None:
    """The original swung eightfold within every epoch, with cycles off."""
    assert {RATE.at(1, step, 50, phase=0) for step in range(50)} == {0.8}


def test_halves_with_each_phase_of_the_long_cycle() -> None:
    assert [RATE.at(1, 3, 7, phase) for phase in range(4)] == pytest.approx([0.8, 0.4, 0.2, 0.1])


def test_cosine_goes_down_to_nothing_at_the_end() -> None:
    cosine = replace(RATE, schedule="cosine")
    rates = [cosine.at(epoch, step, 4, 0) for epoch in range(1, 11) for step in range(4)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 0.8
    assert cosine.at(6, 0, 4, 0) == pytest.approx(0.4)
    assert 0 < rates[-1] < 0.005


def test_warm_up_is_one_line_from_the_first_step_on() -> None:
    warm = replace(RATE, warmup_epochs=2, steps=(5,))
    rates = [warm.at(epoch, step, 4, 0) for epoch in (1, 2, 3) for step in range(4)]
    assert rates == pytest.approx([0.1 * i for i in range(1, 9)] + [0.8] * 4)


def test_depends_on_the_place_alone() -> None:
    """The original counted its own calls, and was one step off."""
    there = [RATE.at(3, step, 5, 1) for step in range(5)]
    RATE.at(9, 4, 5, 3)
    assert [RATE.at(3, step, 5, 1) for step in range(5)] == there
