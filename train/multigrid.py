"""Long and short cycles as arithmetic: which shapes there are, and how an epoch's clips are dealt to them.

*A multigrid method for efficiently training video models* (Wu et al., CVPR 2020), with the shapes of the SRTG and
MTNet codebase. How long each phase of the long cycle lasts is train/schedule.py's.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from data.batching import BatchShape

SHORT_PERIOD = 3
BATCH_RULES = ("volume", "flops")

Phases = tuple[
    tuple[BatchShape, ...], ...
]  # of the long cycle, coarse to fine; each goes round its short shapes


class Step(NamedTuple):
    """One step of an epoch: its phase of the long cycle, from 0, and its shape."""

    phase: int
    shape: BatchShape


def even_size(size: float) -> int:
    """Rounded down, then up to even: 111.7 -> 112, 79.2 -> 80, 158.4 -> 158."""
    down = math.floor(size)
    return down + down % 2


def long_shapes(base: BatchShape, long_cycles: bool) -> list[BatchShape]:
    """The shapes of the phases, coarse to fine; the last is `base`, the only one without long cycles."""
    batch, length, size = base
    if not long_cycles:
        return [base]
    coarse = even_size(size / math.sqrt(2))
    return [
        BatchShape(8 * batch, max(1, length // 4), coarse),
        BatchShape(4 * batch, max(1, length // 2), coarse),
        BatchShape(2 * batch, max(1, length // 2), size),
        base,
    ]


def short_shape(shape: BatchShape, position: int, short_cycles: bool) -> BatchShape:
    """The shape at a position of the short cycle: itself, `2b, s/sqrt2`, `4b, s/2`, and again."""
    batch, length, size = shape
    if not short_cycles or position % SHORT_PERIOD == 0:
        return shape
    if position % SHORT_PERIOD == 1:
        return BatchShape(2 * batch, length, even_size(size / math.sqrt(2)))
    return BatchShape(4 * batch, length, even_size(size / 2))


def cycle_shapes(base: BatchShape, *, long_cycles: bool, short_cycles: bool) -> Phases:
    """All shapes of a run as published: batches grow as clips shrink, by the volume of clips."""
    period = SHORT_PERIOD if short_cycles else 1
    return tuple(
        tuple(short_shape(shape, position, short_cycles) for position in range(period))
        for shape in long_shapes(base, long_cycles)
    )


def with_equal_operations(phases: Phases, operations: Callable[[int, int], int]) -> Phases:
    """The same shapes, each batch as large as costs no more than the base shape's, the last phase's first.

    `operations(length, size)` are those of one clip. At least one clip is left in a batch.
    """
    base = phases[-1][0]
    budget = base.batch * operations(base.length, base.size)
    return tuple(
        tuple(
            shape._replace(batch=max(1, budget // operations(shape.length, shape.size))) for shape in shapes
        )
        for shapes in phases
    )


def plan_epoch(n_clips: int, phases: Phases) -> list[Step]:
    """An epoch that goes through all phases, in order; the batches sum to `n_clips`.

    Planned in rounds, each of which gives every phase one more step at its next short shape, until the clips run out.
    So the phases have equal numbers of steps, up to one, and only the last batch planned is smaller; it may end any
    phase. Where it would hold a single clip, which a norm cannot use, the batch planned before it lends one, or takes
    it in if it has but two.

    Raises ValueError for a set of one clip where batches are larger.
    """
    planned: list[Step] = []  # in the order of planning
    left = n_clips
    while left:
        rounds, phase = divmod(len(planned), len(phases))
        left -= _plan_step(planned, phases, phase, rounds, left)
    return sorted(_without_single(planned, phases), key=lambda step: step.phase)


def plan_parts(n_clips: int, phases: Phases, parts: Sequence[tuple[int, int]]) -> list[Step]:
    """An epoch that goes through some phases: `parts` has pairs (phase, clips drawn at its end), the last `n_clips`.

    A phase ends with the batch whose end is nearest to the part's; each starts its short cycle anew. The last batch of
    the epoch is smaller, and lends or borrows, as in `plan_epoch`. Two clips to a batch, the change after 3 of 9:

    >>> plan_parts(9, ((BatchShape(4, 2, 16),), (BatchShape(2, 4, 16),)), [(0, 3), (1, 9)])
    [Step(phase=0, shape=BatchShape(batch=4, length=2, size=16)), \
Step(phase=1, shape=BatchShape(batch=2, length=4, size=16)), \
Step(phase=1, shape=BatchShape(batch=3, length=4, size=16))]
    """
    planned: list[Step] = []
    drawn = 0
    for phase, end in parts:
        position = 0
        while drawn < end and (end == n_clips or end - drawn >= _shape(phases, phase, position).batch / 2):
            drawn += _plan_step(planned, phases, phase, position, n_clips - drawn)
            position += 1
    return _without_single(planned, phases)


def _shape(phases: Phases, phase: int, position: int) -> BatchShape:
    return phases[phase][position % len(phases[phase])]


def _plan_step(planned: list[Step], phases: Phases, phase: int, position: int, left: int) -> int:
    """Append a step of at most `left` clips; returns how many."""
    shape = _shape(phases, phase, position)
    planned.append(Step(phase, shape._replace(batch=min(shape.batch, left))))
    return planned[-1].shape.batch


def _without_single(planned: list[Step], phases: Phases) -> list[Step]:
    """Where the last batch is a single clip and none of this run is meant to be."""
    if phases[-1][0].batch == 1 or planned[-1].shape.batch > 1:
        return planned
    if len(planned) == 1:
        raise ValueError("the training set has 1 clip, a batch norm needs at least 2")
    *others, lender, single = planned
    if lender.shape.batch > 2:
        return [*others, _resized(lender, -1), _resized(single, 1)]
    return [*others, _resized(lender, 1)]  # two clips are not enough for two batches


def _resized(step: Step, by: int) -> Step:
    return step._replace(shape=step.shape._replace(batch=step.shape.batch + by))
