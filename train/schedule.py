"""The whole run's plan: which phases of the long cycle each epoch goes through, and so which steps it has.

A pure function of the options, the number of clips and the epoch: a resumed run, and each of several processes, sees
the same plan.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from data.batching import BatchShape
from train.multigrid import Phases, Step, plan_epoch, plan_parts

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
