"""Multigrid training: the batch shapes of long and short cycles, and the steps of every epoch.

*A Multigrid Method for Efficiently Training Video Models* (Wu et al., CVPR 2020), with the shapes of the SRTG and MTNet
codebase.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data.batch_sampler import BatchShape

LONG_CYCLE_PERIODS = ("epoch", "lr-stage")
BATCH_SCALINGS = ("volume", "flops")

# of the long cycle, small clips to large; the shapes of a phase are those of its short cycle
Phases = tuple[tuple[BatchShape, ...], ...]


class Step(NamedTuple):
    """One step of an epoch: its phase of the long cycle, from 0, and its shape."""

    phase: int
    shape: BatchShape


def even_size(size: float) -> int:
    """Round down, then up to even: 111.7 -> 112, 79.2 -> 80, 158.4 -> 158."""
    down = math.floor(size)
    return down + down % 2


def long_shapes(base: BatchShape, long_cycles: bool) -> list[BatchShape]:
    """Return the shape of each phase of the long cycle; the last one is `base`, the only one without long cycles."""
    batch, length, size = base
    if not long_cycles:
        return [base]
    small = even_size(size / math.sqrt(2))
    return [
        BatchShape(8 * batch, max(1, length // 4), small),
        BatchShape(4 * batch, max(1, length // 2), small),
        BatchShape(2 * batch, max(1, length // 2), size),
        base,
    ]


def short_shapes(shape: BatchShape, short_cycles: bool) -> tuple[BatchShape, ...]:
    """Return the shapes of the short cycle: itself, then batch 2B of size S/sqrt(2), then 4B of S/2."""
    batch, length, size = shape
    if not short_cycles:
        return (shape,)
    return (
        shape,
        BatchShape(2 * batch, length, even_size(size / math.sqrt(2))),
        BatchShape(4 * batch, length, even_size(size / 2)),
    )


def cycle_shapes(base: BatchShape, *, long_cycles: bool, short_cycles: bool) -> Phases:
    """Return all shapes of a run as published: batches scale with the volume of clips."""
    return tuple(short_shapes(shape, short_cycles) for shape in long_shapes(base, long_cycles))


def with_equal_flops(phases: Phases, flops: Callable[[int, int], int]) -> Phases:
    """Return the same shapes with the largest batches, at least 1, that need no more FLOPs than the base shape's.

    `flops(length, size)` are those of one clip.
    """
    base = phases[-1][0]
    budget = base.batch * flops(base.length, base.size)
    return tuple(
        tuple(shape._replace(batch=max(1, budget // flops(shape.length, shape.size))) for shape in shapes)
        for shapes in phases
    )


def plan_epoch(num_clips: int, phases: Phases) -> list[Step]:
    """Return the steps of an epoch that runs through all phases in order; their batches sum to `num_clips`.

    Steps are planned round-robin over the phases, each at its next short-cycle shape, until no clips are left. So the
    phases have equal numbers of steps, up to one, and only the batch planned last is smaller. A last batch of one clip,
    which BatchNorm cannot use, takes one from the batch planned before it, or joins it if that has two.

    Raises ValueError for a training set of one clip where batches are larger.
    """
    planned: list[Step] = []
    short_cycles = [itertools.cycle(shapes) for shapes in phases]
    clips_left = num_clips
    while clips_left:
        phase = len(planned) % len(phases)
        planned.append(_step(phase, next(short_cycles[phase]), clips_left))
        clips_left -= planned[-1].shape.batch
    return sorted(_without_single_clip(planned, phases), key=lambda step: step.phase)


def plan_partial_cycle(num_clips: int, phases: Phases, phase_ends: Sequence[tuple[int, int]]) -> list[Step]:
    """Return the steps of an epoch that runs through part of a long cycle.

    `phase_ends` are pairs (phase, clips drawn at its end), the last of which is `num_clips`. A phase ends with the
    batch whose end is nearest; each phase starts its short cycle anew. A small last batch is treated as in
    `plan_epoch`. Two clips to a batch, the phase changes after 3 of 9:

    >>> plan_partial_cycle(9, ((BatchShape(4, 2, 16),), (BatchShape(2, 4, 16),)), [(0, 3), (1, 9)])
    [Step(phase=0, shape=BatchShape(batch=4, length=2, size=16)), \
Step(phase=1, shape=BatchShape(batch=2, length=4, size=16)), \
Step(phase=1, shape=BatchShape(batch=3, length=4, size=16))]
    """
    planned: list[Step] = []
    drawn = 0
    for phase, end in phase_ends:
        short_cycle = itertools.cycle(phases[phase])
        shape = next(short_cycle)
        while drawn < end and (end == num_clips or end - drawn >= shape.batch / 2):
            planned.append(_step(phase, shape, num_clips - drawn))
            drawn += planned[-1].shape.batch
            shape = next(short_cycle)
    return _without_single_clip(planned, phases)


def _step(phase: int, shape: BatchShape, clips_left: int) -> Step:
    return Step(phase, shape._replace(batch=min(shape.batch, clips_left)))


def _without_single_clip(planned: list[Step], phases: Phases) -> list[Step]:
    """Enlarge or merge a last batch of one clip, unless the base shape has one."""
    if phases[-1][0].batch == 1 or planned[-1].shape.batch > 1:
        return planned
    if len(planned) == 1:
        raise ValueError("the training set has 1 clip, BatchNorm needs at least 2")
    *others, before, single = planned
    if before.shape.batch > 2:
        return [*others, _resized(before, -1), _resized(single, 1)]
    return [*others, _resized(before, 1)]


def _resized(step: Step, by: int) -> Step:
    return step._replace(shape=step.shape._replace(batch=step.shape.batch + by))


def phase_end_epochs(begin: float, end: float, steps_per_epoch: Sequence[float]) -> list[float]:
    """Return when, in epochs, phases from `begin` to `end` end if all have the same number of steps.

    A phase lasts in inverse proportion to `steps_per_epoch` at its shapes. The first stage of the published schedule:

    >>> phase_end_epochs(0, 15, [1, 2, 4, 8])
    [8.0, 12.0, 14.0, 15.0]
    """
    epochs_per_step = [1 / steps for steps in steps_per_epoch]
    scale = (end - begin) / sum(epochs_per_step)
    ends = [begin + scale * done for done in itertools.accumulate(epochs_per_step)]
    return [*ends[:-1], float(end)]


@dataclass(frozen=True)
class MultigridSchedule:
    """Plans the steps of each epoch.

    `stages`: the last epochs of the LR stages, or empty for a long cycle per epoch. Otherwise there is a long cycle in
    each stage but the last, which fine-tunes at the base shape as in the paper; a run of a single stage has its long
    cycle there. A phase may end within an epoch.
    """

    num_clips: int
    phases: Phases
    stages: tuple[int, ...] = ()

    def epoch(self, number: int) -> tuple[Step, ...]:
        """Return the steps of an epoch, from 1, in order. Their batches sum to `num_clips`.

        Raises ValueError for a training set of one clip where batches are larger.
        """
        return _plan(self.num_clips, self.phases, self._phase_ends(number))

    def shapes(self, end_epoch: int) -> set[BatchShape]:
        """Return all shapes of a run."""
        distinct = {self._phase_ends(number) for number in range(1, end_epoch + 1)}
        return {step.shape for ends in distinct for step in _plan(self.num_clips, self.phases, ends)}

    def _phase_ends(self, number: int) -> tuple[tuple[int, int], ...]:
        """Return (phase, clips drawn at its end) of an epoch; empty where it runs through all phases."""
        if not self.stages or len(self.phases) == 1:
            return ()
        ends: list[tuple[int, int]] = []
        for phase, end in enumerate(self._stage_phase_ends(number)):
            drawn = min(self.num_clips, round((end - (number - 1)) * self.num_clips))
            if drawn > (ends[-1][1] if ends else 0):
                ends.append((phase, drawn))
        return tuple(ends)

    def _stage_phase_ends(self, number: int) -> list[float]:
        """Return when, in epochs, each phase ends in the LR stage of an epoch."""
        stage = sum(number > last for last in self.stages[:-1])
        begin = self.stages[stage - 1] if stage else 0
        if stage and stage == len(self.stages) - 1:  # fine-tuning: the first phases have ended before
            return [float(begin)] * (len(self.phases) - 1) + [float(self.stages[-1])]
        steps = [
            len(_plan(self.num_clips, self.phases, ((phase, self.num_clips),)))
            for phase in range(len(self.phases))
        ]
        return phase_end_epochs(begin, self.stages[stage], steps)


@functools.lru_cache(maxsize=64)  # most epochs of a run are alike
def _plan(num_clips: int, phases: Phases, phase_ends: tuple[tuple[int, int], ...]) -> tuple[Step, ...]:
    if phase_ends:
        return tuple(plan_partial_cycle(num_clips, phases, phase_ends))
    return tuple(plan_epoch(num_clips, phases))
