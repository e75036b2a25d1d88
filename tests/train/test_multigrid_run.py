"""The plan of whole runs against the published schedule."""

import doctest
import itertools
from collections import Counter

import pytest

import train.multigrid
from data.batch_sampler import BatchShape
from train.dry_run import describe_rows, phase_rows
from train.lr_schedule import LRSchedule
from train.multigrid import Phases, Schedule, cycle_shapes, phase_ends, plan_parts, with_equal_flops

BASE = BatchShape(8, 32, 224)


def phases_of(base: BatchShape, long: bool = True, short: bool = True) -> Phases:
    return cycle_shapes(base, long_cycles=long, short_cycles=short)


@pytest.mark.parametrize("module", [train.multigrid])
def test_examples_in_the_docstrings(module: object) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    ("begin", "end", "published"),
    [
        (0, 158, [73, 110, 142, 158]),
        (158, 259, [205, 228, 248, 259]),
        (259, 329, [291, 308, 322, 329]),
    ],
)
def test_phases_end_where_those_of_the_published_run_do(begin: int, end: int, published: list[int]) -> None:
    """SLOWFAST_8x8_R50_stepwise_multigrid; its mean batches are 10.67, 5.33, 4.67 and 2.33 of the base's."""
    ends = phase_ends(begin, end, [1 / batch for batch in (32 / 3, 16 / 3, 14 / 3, 7 / 3)])
    assert ends == pytest.approx(published, abs=1)


RUNS = [
    (n, length, batch)
    for n in (2, 3, 17, 250, 1000, 10_000)
    for length in (1, 3, 16)
    for batch in (1, 2, 7, 48)
    if n <= 1500 * batch  # more steps an epoch are only more of the same
]


@pytest.mark.parametrize(("long", "short"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("stages", [(), (12,), (3, 8), (1, 2), (6, 9, 11, 13)], ids=str)
def test_every_epoch_draws_each_clip_once_in_allowed_shapes(
    long: bool, short: bool, stages: tuple[int, ...]
) -> None:
    for n, length, batch in RUNS:
        phases = phases_of(BatchShape(batch, length, 64), long, short)
        schedule = Schedule(n, phases, stages)
        for epoch in range(1, 14):
            steps = schedule.epoch(epoch)
            assert sum(step.shape.batch for step in steps) == n
            assert [step.phase for step in steps] == sorted(step.phase for step in steps)
            assert min(step.shape.batch for step in steps) >= min(2, batch)
            odd = [step for step in steps if step.shape not in phases[step.phase]]
            assert len(odd) <= 2  # the last one planned, and the one that lends
            allowed = [[(shape.length, shape.size) for shape in shapes] for shapes in phases]
            assert all((step.shape.length, step.shape.size) in allowed[step.phase] for step in steps)


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("stages", [(12,), (12, 20), (15, 30, 40, 100)], ids=str)
def test_phases_of_a_stage_have_equal_numbers_of_steps(short: bool, stages: tuple[int, ...]) -> None:
    """Up to what the epochs' last batches, and ends within an epoch, make: five steps, or one in ten."""
    for n, length, batch in RUNS:
        schedule = Schedule(n, phases_of(BatchShape(batch, length, 64), short=short), stages)
        begin = 0
        for stage, end in enumerate(stages):
            counts = Counter(
                step.phase for epoch in range(begin + 1, end + 1) for step in schedule.epoch(epoch)
            )
            if stage and end == stages[-1]:  # fine-tuning
                assert set(counts) == {3}
            else:
                assert set(counts) == {0, 1, 2, 3}
                assert max(counts.values()) - min(counts.values()) <= max(5, 0.1 * max(counts.values()))
            begin = end


def test_stage_goes_through_the_published_shapes_and_ends_at_the_base() -> None:
    schedule = Schedule(640, phases_of(BASE, short=False), (15, 20))
    shapes = [[step.shape[1:] for step in schedule.epoch(epoch)] for epoch in range(1, 21)]
    assert [set(epoch) for epoch in shapes] == [
        *[{(8, 158)}] * 8, *[{(16, 158)}] * 4, *[{(16, 224)}] * 2, *[{(32, 224)}] * 6,
    ]  # fmt: skip
    assert [len(epoch) for epoch in shapes] == [10] * 8 + [20] * 4 + [40] * 2 + [80] * 6


def test_shape_changes_within_an_epoch_at_the_nearest_batch() -> None:
    phases = phases_of(BatchShape(2, 8, 32), short=False)
    steps = plan_parts(40, phases, [(0, 23), (1, 40)])
    assert [(step.phase, step.shape.batch) for step in steps] == [(0, 16), (1, 8), (1, 8), (1, 8)]
    steps = plan_parts(40, phases, [(0, 25), (1, 40)])
    assert [(step.phase, step.shape.batch) for step in steps] == [(0, 16), (0, 16), (1, 8)]


def test_without_long_cycles_the_span_changes_nothing() -> None:
    phases = phases_of(BASE, long=False)
    assert Schedule(500, phases, (3, 8)).epoch(2) == Schedule(500, phases).epoch(2)


RATE = LRSchedule(base=0.8, schedule="step", steps=(15, 30), factor=0.1, end_epoch=36, warmup_epochs=0)


def test_stages_lie_between_the_falls_of_the_rate_within_the_run() -> None:
    assert RATE.stages() == (15, 30, 36)
    assert LRSchedule(0.8, "step", (15, 40), 0.1, 36, 0).stages() == (15, 36)
    assert LRSchedule(0.8, "cosine", (15, 30), 0.1, 36, 0).stages() == (36,)


def volume(length: int, size: int) -> int:
    return length * size * size


def test_rates_and_compute_of_each_row() -> None:
    """8, 4, 2 and 1 times the base's rate in each stage, as published; each batch of the base's volume."""
    schedule = Schedule(640, phases_of(BASE, short=False), RATE.stages())
    rows = phase_rows(schedule, RATE, volume)
    assert [row.rates[0] for row in rows] == pytest.approx(
        [0.8, 0.4, 0.2, 0.1, 0.08, 0.04, 0.02, 0.01, 0.001]
    )
    assert [row.epochs for row in rows[:5]] == [(1, 8), (9, 12), (13, 14), (15, 15), (16, 23)]
    assert [row.steps for row in rows] == [80] * 8 + [480]
    total = sum(row.operations for row in rows)
    assert [row.operations / total for row in rows] == pytest.approx([80 / 1120] * 8 + [480 / 1120], rel=0.01)
    assert sum(row.steps for row in rows) == sum(len(schedule.epoch(epoch)) for epoch in range(1, 37))


def test_table_of_a_run_that_cycles_each_epoch() -> None:
    rate = LRSchedule(base=0.8, schedule="step", steps=(15,), factor=0.1, end_epoch=30, warmup_epochs=0)
    phases = phases_of(BASE)
    lines = describe_rows(phase_rows(Schedule(640, phases), rate, volume), phases)
    assert lines[0].split() == ["epochs", "steps", "rate", "compute", "batches"]
    assert lines[1].startswith("     1-15 ")
    assert lines[1].endswith("64x8x158x158, 128x8x112x112, 256x8x80x80")
    assert lines[5].split()[:3] == ["16-30", lines[5].split()[1], "0.08"]
    assert len(lines) == 9


def test_batches_by_operations_cost_no_more_than_the_base() -> None:
    """Small maps round up: here each frame costs as two where there are few."""
    phases = phases_of(BASE)

    def operations(length: int, size: int) -> int:
        return volume(length, size) * (2 if length < 32 else 1)

    resized = with_equal_flops(phases, operations)
    budget = BASE.batch * operations(32, 224)
    assert resized[-1][0] == BASE
    for shapes, published in zip(resized, phases, strict=True):
        for shape, other in zip(shapes, published, strict=True):
            assert shape[1:] == other[1:]
            cost = operations(shape.length, shape.size)
            assert shape.batch * cost <= budget < (shape.batch + 1) * cost
    assert with_equal_flops(phases, lambda length, size: 10**9 if length < 32 else 1)[0][0].batch == 1
