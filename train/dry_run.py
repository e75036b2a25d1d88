"""What a run will do, before it does it: steps, phases, and what they cost."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from data.batch_sampler import BatchShape
from network.flops import count_flops
from train.lr_schedule import LRSchedule
from train.multigrid import Phases, Schedule, Step
from train.options import Options, network_kwargs

MIN_SIZE = 16  # pixels; below that, maps vanish within a network

Operations = Callable[[int, int], int]  # (length, size) -> those of one clip's forward pass


def flops_of(options: Options, num_classes: int) -> Operations:
    """Those of the network that is trained."""
    choices = network_kwargs(options)

    def operations(length: int, size: int) -> int:
        return count_flops(options.network, num_classes, length, size, **choices)

    return operations


def check_sizes(shapes: Iterable[BatchShape]) -> None:
    """ValueError where cycles would make clips smaller than networks take."""
    smallest = min(shape.size for shape in shapes)
    if smallest < MIN_SIZE:
        raise ValueError(
            f"clips of {smallest} pixels are too small, need at least {MIN_SIZE}: raise --clip-size or leave cycles out"
        )


def describe_steps(steps: Sequence[Step], epoch: int, learning_rate: LRSchedule) -> list[dict[str, Any]]:
    """The steps of an epoch, in order, counted from 1."""
    return [
        {
            "epoch": epoch,
            "step": number + 1,
            **step.shape._asdict(),
            "lr": learning_rate.at(epoch, number, len(steps), step.phase),
        }
        for number, step in enumerate(steps)
    ]


@dataclass
class PhaseRow:
    """A phase of the long cycle within one learning-rate stage, over all of its epochs, and its operations."""

    phase: int
    epochs: tuple[int, int]
    rates: tuple[float, float]
    steps: int = 0
    operations: int = 0


def phase_rows(schedule: Schedule, learning_rate: LRSchedule, operations: Operations) -> list[PhaseRow]:
    """The whole run, a row a phase and learning-rate stage, in order."""
    rows: dict[tuple[int, int], PhaseRow] = {}
    stages = learning_rate.stages()
    for epoch in range(1, learning_rate.end_epoch + 1):
        steps = schedule.epoch(epoch)
        for part in _parts(steps, operations):
            key = (sum(epoch > last for last in stages), part.phase)
            first, last = (
                learning_rate.at(epoch, step, len(steps), part.phase) for step in (part.first, part.last)
            )
            row = rows.setdefault(key, PhaseRow(part.phase, (epoch, epoch), (first, last)))
            row.epochs, row.rates = (row.epochs[0], epoch), (row.rates[0], last)
            row.steps += part.last - part.first + 1
            row.operations += part.operations
    return [rows[key] for key in sorted(rows)]


class _Part(NamedTuple):
    """Steps `first` to `last` of an epoch, of one phase."""

    phase: int
    first: int
    last: int
    operations: int


@functools.lru_cache(maxsize=64)  # most epochs of a run are alike
def _parts(steps: tuple[Step, ...], operations: Operations) -> list[_Part]:
    parts = []
    for phase, group in itertools.groupby(enumerate(steps), key=lambda pair: pair[1].phase):
        numbered = list(group)
        cost = sum(step.shape.batch * operations(step.shape.length, step.shape.size) for _, step in numbered)
        parts.append(_Part(phase, numbered[0][0], numbered[-1][0], cost))
    return parts


def describe_rows(rows: Sequence[PhaseRow], phases: Phases) -> list[str]:
    """A table, its titles first: epochs, steps, batches, learning rate, share of the run's operations."""
    total = sum(row.operations for row in rows)
    lines = [f"{'epochs':>9} {'steps':>7} {'rate':>18} {'compute':>8}  batches"]
    for row in rows:
        epochs = "-".join(str(epoch) for epoch in dict.fromkeys(row.epochs))
        rates = " to ".join(dict.fromkeys(f"{rate:.3g}" for rate in row.rates))
        batches = ", ".join(str(shape) for shape in phases[row.phase])
        share = row.operations / total
        lines.append(f"{epochs:>9} {row.steps:7} {rates:>18} {share:8.1%}  {batches}")
    return lines
