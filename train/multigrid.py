"""Long and short cycles as arithmetic: which shapes an epoch's steps have.

*A multigrid method for efficiently training video models* (Wu et al., CVPR 2020), in the form of the SRTG and MTNet
codebase: the long cycle runs once an epoch, the short cycle within each of its phases.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from data.batching import BatchShape

SHORT_PERIOD = 3


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


def plan_epoch(n_clips: int, base: BatchShape, *, long_cycles: bool, short_cycles: bool) -> list[Step]:
    """The steps of an epoch, in order; their batches sum to `n_clips`.

    Planned in rounds, each of which gives every phase one more step at its next short shape, until the clips run out.
    So the phases have equal numbers of steps, up to one, and only the last batch planned is smaller; it may end any
    phase. Where it would hold a single clip, which a norm cannot use, the batch planned before it lends one, or takes
    it in if it has but two.

    Raises ValueError for a set of one clip where batches are larger.
    """
    if n_clips == 1 and base.batch > 1:
        raise ValueError("the training set has 1 clip, a batch norm needs at least 2")
    phases: list[list[BatchShape]] = [[] for _ in long_shapes(base, long_cycles)]
    planned: list[tuple[int, int]] = []  # (phase, step within it), in the order of planning
    left = n_clips
    while left:
        phase = len(planned) % len(phases)
        position = len(phases[phase])
        shape = short_shape(long_shapes(base, long_cycles)[phase], position, short_cycles)
        shape = shape._replace(batch=min(shape.batch, left))
        left -= shape.batch
        phases[phase].append(shape)
        planned.append((phase, position))
    if base.batch > 1:
        _lend_to_single(phases, planned)
    return [Step(phase, shape) for phase, shapes in enumerate(phases) for shape in shapes]


def _lend_to_single(phases: list[list[BatchShape]], planned: Sequence[tuple[int, int]]) -> None:
    if len(planned) < 2:
        return
    (lender, i), (single, j) = planned[-2:]
    if phases[single][j].batch != 1:
        return
    if phases[lender][i].batch > 2:
        phases[single][j] = phases[single][j]._replace(batch=2)
        phases[lender][i] = phases[lender][i]._replace(batch=phases[lender][i].batch - 1)
    else:  # two clips are not enough for two batches
        phases[lender][i] = phases[lender][i]._replace(batch=phases[lender][i].batch + 1)
        phases[single].pop()
