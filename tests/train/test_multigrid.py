"""Shapes and plans of multigrid against the published rules."""

import itertools
from collections import Counter

import pytest

from data.batch_sampler import BatchShape
from train.multigrid import cycle_shapes, even_size, long_shapes, plan_epoch, short_shape

BASE = BatchShape(48, 16, 224)


def plan(n_clips: int, base: BatchShape = BASE, long: bool = True, short: bool = True) -> list:
    return plan_epoch(n_clips, cycle_shapes(base, long_cycles=long, short_cycles=short))


def all_shapes(base: BatchShape, long: bool, short: bool) -> list[BatchShape]:
    return [short_shape(shape, position, short) for shape in long_shapes(base, long) for position in range(3)]


def test_sizes_are_rounded_down_then_up_to_even() -> None:
    assert [even_size(size) for size in (158.39, 111.7, 79.0, 79.2, 112.0, 80.9)] == [
        158,
        112,
        80,
        80,
        112,
        80,
    ]


def test_long_shapes_are_those_of_the_papers() -> None:
    assert long_shapes(BASE, True) == [(384, 4, 158), (192, 8, 158), (96, 8, 224), (48, 16, 224)]
    assert long_shapes(BASE, False) == [BASE]


def test_published_shapes_appear_for_5040_clips() -> None:
    shapes = [step.shape for step in plan(5040)]
    for shape in ((1536, 4, 80), (384, 8, 112), (96, 16, 158), (48, 16, 224)):
        assert shape in shapes


def test_short_cycle_goes_through_itself_twice_and_four_times_the_batch() -> None:
    shapes = [step.shape for step in plan(48 * 14, long=False)]
    assert shapes == [(48, 16, 224), (96, 16, 158), (192, 16, 112)] * 2


@pytest.mark.parametrize(("long", "short"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("n_clips", [2, 3, 5, 23, 60, 385, 386, 1000, 5040, 10_000])
@pytest.mark.parametrize("base", [BASE, BatchShape(2, 1, 16), BatchShape(3, 4, 64), BatchShape(8, 10, 57)])
def test_every_clip_once_phases_equal_one_batch_smaller(
    n_clips: int, base: BatchShape, long: bool, short: bool
) -> None:
    steps = plan(n_clips, base, long, short)
    allowed = {(shape.length, shape.size): shape.batch for shape in all_shapes(base, long, short)}
    assert sum(step.shape.batch for step in steps) == n_clips
    assert [step.phase for step in steps] == sorted(step.phase for step in steps)
    per_phase = Counter(step.phase for step in steps)
    counts = [per_phase[phase] for phase in range(4 if long else 1)]
    assert max(counts) - min(counts) <= 1
    assert min(step.shape.batch for step in steps) >= 2
    full = set(all_shapes(base, long, short))
    assert sum(step.shape not in full for step in steps) <= 2  # the last one planned, and the one that lends
    for step in steps:
        assert (step.shape.length, step.shape.size) in allowed


def test_only_the_batch_before_lends_and_only_where_one_clip_would_stand_alone() -> None:
    base = BatchShape(4, 8, 32)
    assert [step.shape.batch for step in plan(9, base, False, False)] == [4, 3, 2]
    assert [step.shape.batch for step in plan(10, base, False, False)] == [4, 4, 2]
    assert [step.shape.batch for step in plan(8, base, False, False)] == [4, 4]
    assert [step.shape.batch for step in plan(5, BatchShape(2, 8, 32), False, False)] == [2, 3]


def test_batch_of_one_is_left_to_those_who_ask_for_it() -> None:
    assert [step.shape.batch for step in plan(3, BatchShape(1, 8, 32), False, False)] == [1, 1, 1]


def test_set_of_one_clip_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 1 clip, a batch norm needs at least 2"):
        plan(1)


def test_fewer_clips_than_the_first_batch_are_one_step() -> None:
    assert [step.shape for step in plan(60)] == [(60, 4, 158)]


def test_short_lengths_stay_at_least_one() -> None:
    assert {shape.length for shape in all_shapes(BatchShape(4, 1, 64), True, True)} == {1}
    assert [shape.length for shape in long_shapes(BatchShape(4, 3, 64), True)] == [1, 1, 1, 3]
