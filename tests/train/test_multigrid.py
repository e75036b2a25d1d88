"""Shapes and steps of multigrid training against the published schedule."""

import doctest
import itertools
from collections import Counter

import pytest

import train.multigrid
from data.batch_sampler import BatchShape
from train.multigrid import (
    MultigridSchedule,
    Phases,
    Step,
    cycle_shapes,
    even_size,
    long_shapes,
    phase_end_epochs,
    plan_epoch,
    plan_partial_cycle,
    with_equal_flops,
)

BASE = BatchShape(48, 16, 224)
CYCLES = list(itertools.product([True, False], repeat=2))


def phases_of(base: BatchShape, long: bool = True, short: bool = True) -> Phases:
    return cycle_shapes(base, long_cycles=long, short_cycles=short)


def plan(num_clips: int, base: BatchShape = BASE, long: bool = True, short: bool = True) -> list[Step]:
    return plan_epoch(num_clips, phases_of(base, long, short))


def batch_sizes(num_clips: int, batch: int) -> list[int]:
    """Return the batches of an epoch without cycles."""
    return [step.shape.batch for step in plan(num_clips, BatchShape(batch, 8, 32), long=False, short=False)]


def assert_valid(steps: list[Step] | tuple[Step, ...], num_clips: int, phases: Phases) -> None:
    """Assert that steps draw each clip once, phase by phase, in the shapes of the phases with up to two odd batches."""
    assert sum(step.shape.batch for step in steps) == num_clips
    assert [step.phase for step in steps] == sorted(step.phase for step in steps)
    assert min(step.shape.batch for step in steps) >= min(2, phases[-1][0].batch)
    sizes = [{(shape.length, shape.size) for shape in shapes} for shapes in phases]
    assert all((step.shape.length, step.shape.size) in sizes[step.phase] for step in steps)
    # the last batch planned, and the one that gives it a clip
    assert sum(step.shape not in phases[step.phase] for step in steps) <= 2


def test_examples_in_the_docstrings() -> None:
    results = doctest.testmod(train.multigrid)
    assert results.attempted > 0
    assert results.failed == 0


def test_sizes_are_rounded_down_then_up_to_even() -> None:
    sizes = (158.39, 111.7, 79.0, 79.2, 112.0, 80.9)
    assert [even_size(size) for size in sizes] == [158, 112, 80, 80, 112, 80]


def test_shapes_are_those_of_the_papers() -> None:
    assert long_shapes(BASE, True) == [(384, 4, 158), (192, 8, 158), (96, 8, 224), (48, 16, 224)]
    assert long_shapes(BASE, False) == [BASE]
    shapes = {step.shape for step in plan(5040)}
    assert {(1536, 4, 80), (384, 8, 112), (96, 16, 158), (48, 16, 224)} <= shapes
    assert [step.shape for step in plan(60)] == [(60, 4, 158)]
    assert [shape.length for shape in long_shapes(BatchShape(4, 3, 64), True)] == [1, 1, 1, 3]


def test_short_cycle_alternates_with_two_and_four_times_the_batch() -> None:
    shapes = [step.shape for step in plan(48 * 14, long=False)]
    assert shapes == [(48, 16, 224), (96, 16, 158), (192, 16, 112)] * 2


@pytest.mark.parametrize(("long", "short"), CYCLES)
@pytest.mark.parametrize("base", [BASE, BatchShape(2, 1, 16), BatchShape(3, 4, 64), BatchShape(8, 10, 57)])
def test_each_epoch_draws_each_clip_once_with_equal_steps_per_phase(
    base: BatchShape, long: bool, short: bool
) -> None:
    for num_clips in (2, 3, 5, 23, 60, 385, 386, 1000, 5040):
        steps = plan(num_clips, base, long, short)
        assert_valid(steps, num_clips, phases_of(base, long, short))
        counts = Counter(step.phase for step in steps)
        steps_per_phase = [counts[phase] for phase in range(4 if long else 1)]
        assert max(steps_per_phase) - min(steps_per_phase) <= 1


def test_a_last_batch_of_one_clip_is_enlarged() -> None:
    assert batch_sizes(9, 4) == [4, 3, 2]
    assert batch_sizes(10, 4) == [4, 4, 2]
    assert batch_sizes(8, 4) == [4, 4]
    assert batch_sizes(5, 2) == [2, 3]
    assert batch_sizes(3, 1) == [1, 1, 1]
    with pytest.raises(ValueError, match="the training set has 1 clip, BatchNorm needs at least 2"):
        batch_sizes(1, 4)


@pytest.mark.parametrize(
    ("begin", "end", "published"),
    [
        (0, 158, [73, 110, 142, 158]),
        (158, 259, [205, 228, 248, 259]),
        (259, 329, [291, 308, 322, 329]),
    ],
)
def test_phases_end_as_published(begin: int, end: int, published: list[int]) -> None:
    """SLOWFAST_8x8_R50_stepwise_multigrid; its mean batches are 10.67, 5.33, 4.67 and 2.33 of the base's."""
    ends = phase_end_epochs(begin, end, [1 / batch for batch in (32 / 3, 16 / 3, 14 / 3, 7 / 3)])
    assert ends == pytest.approx(published, abs=1)


RUNS = [
    (num_clips, BatchShape(batch, length, 64))
    for num_clips in (2, 3, 17, 250, 1000, 10_000)
    for length in (1, 16)
    for batch in (1, 2, 7, 48)
    if num_clips <= 600 * batch  # more steps only repeat
]


@pytest.mark.parametrize(("long", "short"), CYCLES)
@pytest.mark.parametrize("stages", [(), (12,), (3, 8), (1, 2), (6, 9, 11, 13)], ids=str)
def test_each_epoch_of_a_run_draws_each_clip_once(long: bool, short: bool, stages: tuple[int, ...]) -> None:
    for num_clips, base in RUNS:
        phases = phases_of(base, long, short)
        schedule = MultigridSchedule(num_clips, phases, stages)
        for epoch in range(1, 14):
            assert_valid(schedule.epoch(epoch), num_clips, phases)
        assert schedule.shapes(13) == {step.shape for epoch in range(1, 14) for step in schedule.epoch(epoch)}


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("stages", [(12,), (12, 20), (15, 30, 40, 100)], ids=str)
def test_phases_of_a_stage_have_equal_numbers_of_steps(short: bool, stages: tuple[int, ...]) -> None:
    """Up to five steps or a tenth, for last batches and phases that end within an epoch."""
    for num_clips, base in RUNS:
        schedule = MultigridSchedule(num_clips, phases_of(base, short=short), stages)
        for begin, end in itertools.pairwise((0, *stages)):
            epochs = range(begin + 1, end + 1)
            counts = Counter(step.phase for epoch in epochs for step in schedule.epoch(epoch))
            if begin and end == stages[-1]:  # fine-tuning
                assert set(counts) == {3}
            else:
                assert set(counts) == {0, 1, 2, 3}
                assert max(counts.values()) - min(counts.values()) <= max(5, 0.1 * max(counts.values()))


def test_a_stage_has_the_published_shapes_and_the_last_one_fine_tunes() -> None:
    schedule = MultigridSchedule(640, phases_of(BatchShape(8, 32, 224), short=False), (15, 20))
    epochs = [schedule.epoch(epoch) for epoch in range(1, 21)]
    assert [{step.shape[1:] for step in steps} for steps in epochs] == [
        *[{(8, 158)}] * 8, *[{(16, 158)}] * 4, *[{(16, 224)}] * 2, *[{(32, 224)}] * 6,
    ]  # fmt: skip
    assert [len(steps) for steps in epochs] == [10] * 8 + [20] * 4 + [40] * 2 + [80] * 6


def test_a_phase_ends_within_an_epoch_at_the_nearest_batch() -> None:
    phases = phases_of(BatchShape(2, 8, 32), short=False)
    for end, expected in ((23, [(0, 16), (1, 8), (1, 8), (1, 8)]), (25, [(0, 16), (0, 16), (1, 8)])):
        steps = plan_partial_cycle(40, phases, [(0, end), (1, 40)])
        assert [(step.phase, step.shape.batch) for step in steps] == expected


def test_without_long_cycles_stages_change_nothing() -> None:
    phases = phases_of(BASE, long=False)
    assert MultigridSchedule(500, phases, (3, 8)).epoch(2) == MultigridSchedule(500, phases).epoch(2)


def test_batches_of_equal_flops_are_the_largest_within_those_of_the_base_shape() -> None:
    def flops(length: int, size: int) -> int:
        return length * size * size * (2 if length < 16 else 1)  # small maps are padded

    phases = phases_of(BASE)
    resized = with_equal_flops(phases, flops)
    budget = BASE.batch * flops(16, 224)
    assert resized[-1][0] == BASE
    for shapes, published in zip(resized, phases, strict=True):
        for shape, other in zip(shapes, published, strict=True):
            assert shape[1:] == other[1:]
            cost = flops(shape.length, shape.size)
            assert shape.batch * cost <= budget < (shape.batch + 1) * cost
    assert with_equal_flops(phases, lambda length, size: 10**9 if length < 16 else 1)[0][0].batch == 1
