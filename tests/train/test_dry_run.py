"""The summary of a run's schedule."""

import pytest

from data.batch_sampler import BatchShape
from train.dry_run import summarize_schedule
from train.lr_schedule import LRSchedule
from train.multigrid import MultigridSchedule, cycle_shapes

BASE = BatchShape(8, 32, 224)


def volume(length: int, size: int) -> int:
    return length * size * size


def test_lrs_steps_and_flops_of_each_phase() -> None:
    """Each stage starts at 8 times the LR of the base shape, and its phases need equal FLOPs, as published."""
    lr_schedule = LRSchedule(0.8, "step", steps=(15, 30), gamma=0.1, end_epoch=36, warmup_epochs=0)
    phases = cycle_shapes(BASE, long_cycles=True, short_cycles=False)
    schedule = MultigridSchedule(640, phases, lr_schedule.stages())
    rows = summarize_schedule(schedule, lr_schedule, volume)
    assert [row.lrs[0] for row in rows] == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.08, 0.04, 0.02, 0.01, 0.001])
    assert [row.epochs for row in rows[:5]] == [(1, 8), (9, 12), (13, 14), (15, 15), (16, 23)]
    assert [row.steps for row in rows] == [80] * 8 + [480]
    total = sum(row.flops for row in rows)
    assert [row.flops / total for row in rows] == pytest.approx([80 / 1120] * 8 + [480 / 1120], rel=0.01)
