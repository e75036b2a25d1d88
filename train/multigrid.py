"""Long and short cycles as arithmetic: which shapes there are, and how an epoch's clips are dealt to them.

*A multigrid method for efficiently training video models* (Wu et al., CVPR 2020), with the shapes of the SRTG and
MTNet codebase. How long each phase of the long cycle lasts is train/multigrid.py's.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data.batch_sampler import BatchShape

SHORT_PERIOD = 3
BATCH_SCALINGS = ("volume", "flops")
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


def with_equal_flops(phases: Phases, operations: Callable[[int, int], int]) -> Phases:
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


SPANS = ("epoch", "stage")


def phase_ends(begin: float, end: float, steps_per_epoch: Sequence[float]) -> list[float]:
    """When phases end that follow each other from `begin` to `end`, in epochs, with equal numbers of steps each.

    Each lasts in inverse proportion to the steps that an epoch at its shapes has. The first stage of the published
    schedule, where an epoch has 1/8, 1/4, 1/2, 1 of the steps:

    >>> phase_ends(0, 15, [1, 2, 4, 8])
    [8.0, 12.0, 14.0, 15.0]
    """
    shares = [1 / steps for steps in steps_per_epoch]
    scale = (end - begin) / sum(shares)
    ends = [begin + scale * done for done in itertools.accumulate(shares)]
    return [*ends[:-1], float(end)]


@dataclass(frozen=True)
class Schedule:
    """Plans each epoch of a run.

    `stages`: the last epoch of each learning-rate stage; empty where the long cycle runs once an epoch. Otherwise it
    runs once in each stage but the last, which fine-tunes at the base shape, as in the multigrid paper; a run of one
    stage has its long cycle there. A phase may end within an epoch.
    """

    n_clips: int
    phases: Phases
    stages: tuple[int, ...] = ()

    def epoch(self, number: int) -> tuple[Step, ...]:
        """The steps of an epoch, counted from 1, in order. Each clip is drawn once: the batches sum to `n_clips`.

        Raises ValueError for a set of one clip where batches are larger.
        """
        return _planned(self.n_clips, self.phases, self._parts(number))

    def shapes(self, end_epoch: int) -> set[BatchShape]:
        """All that occur in a run."""
        parts = {self._parts(number) for number in range(1, end_epoch + 1)}  # most epochs are alike
        return {step.shape for each in parts for step in _planned(self.n_clips, self.phases, each)}

    def _parts(self, number: int) -> tuple[tuple[int, int], ...]:
        """(phase, clips drawn at its end) of an epoch, for `plan_parts`; none where it goes through all phases."""
        if not self.stages or len(self.phases) == 1:
            return ()
        parts = []
        for phase, end in self._spans(number):
            drawn = min(self.n_clips, round((end - (number - 1)) * self.n_clips))
            if drawn > (parts[-1][1] if parts else 0):
                parts.append((phase, drawn))
        return tuple(parts)

    def _spans(self, number: int) -> list[tuple[int, float]]:
        """(phase, epochs done at its end) of the stage that an epoch is in."""
        stage = sum(number > last for last in self.stages[:-1])
        begin = self.stages[stage - 1] if stage else 0
        if stage and stage == len(self.stages) - 1:
            return [(len(self.phases) - 1, float(self.stages[-1]))]
        steps = [
            len(_planned(self.n_clips, self.phases, ((phase, self.n_clips),)))
            for phase in range(len(self.phases))
        ]
        return list(enumerate(phase_ends(begin, self.stages[stage], steps)))


@functools.lru_cache(maxsize=64)
def _planned(n_clips: int, phases: Phases, parts: tuple[tuple[int, int], ...]) -> tuple[Step, ...]:
    """Remembered, as most epochs of a run are alike."""
    return tuple(plan_parts(n_clips, phases, parts) if parts else plan_epoch(n_clips, phases))
