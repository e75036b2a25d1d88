"""What a run will do: a summary of the multigrid schedule with its compute."""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from data.batch_sampler import BatchShape
from network.flops import count_flops
from train.lr_schedule import LRSchedule
from train.multigrid import MultigridSchedule, Phases
from train.options import Options, network_kwargs

MIN_SIZE = 16  # pixels; smaller feature maps vanish within a network

ClipFlops = Callable[[int, int], int]  # (length, size) -> FLOPs of one clip's forward pass


def make_clip_flops(options: Options, num_classes: int) -> ClipFlops:
    """Return a function that counts the FLOPs of the network of a run."""
    return functools.partial(count_flops, options.network, num_classes, **network_kwargs(options))


def check_sizes(shapes: Iterable[BatchShape]) -> None:
    """Raise ValueError if cycles make clips too small for the networks."""
    smallest = min(shape.size for shape in shapes)
    if smallest < MIN_SIZE:
        raise ValueError(
            f"clips of {smallest} pixels are too small, need at least {MIN_SIZE}: raise --clip-size or leave cycles out"
        )


@dataclass
class PhaseSummary:
    """A phase of the long cycle in one learning-rate stage; `epochs` and `lrs` are its first and last."""

    phase: int
    epochs: tuple[int, int]
    lrs: tuple[float, float]
    steps: int = 0
    flops: int = 0
    clips: Counter[tuple[int, int]] = field(default_factory=Counter)  # by length and size


def summarize_schedule(
    schedule: MultigridSchedule, lr_schedule: LRSchedule, clip_flops: ClipFlops
) -> list[PhaseSummary]:
    """Return the phases of a whole run, in order."""
    summaries: dict[tuple[int, int], PhaseSummary] = {}
    stages = lr_schedule.stages()
    for epoch in range(1, lr_schedule.end_epoch + 1):
        stage = sum(epoch > last for last in stages)
        steps = schedule.epoch(epoch)
        for phase, group in itertools.groupby(enumerate(steps), key=lambda pair: pair[1].phase):
            numbers, members = zip(*group, strict=True)
            first, last = (lr_schedule.at(epoch, n, len(steps), phase) for n in (numbers[0], numbers[-1]))
            summary = summaries.setdefault((stage, phase), PhaseSummary(phase, (epoch, epoch), (first, last)))
            summary.epochs, summary.lrs = (summary.epochs[0], epoch), (summary.lrs[0], last)
            summary.steps += len(members)
            for shape, count in Counter(step.shape for step in members).items():
                summary.flops += count * shape.batch * clip_flops(shape.length, shape.size)
                summary.clips[shape.length, shape.size] += count * shape.batch
    return [summaries[key] for key in sorted(summaries)]


def relative_flops(
    phases: Iterable[PhaseSummary], num_clips: int, base: BatchShape, clip_flops: ClipFlops
) -> float:
    """Return the FLOPs of phases with `num_clips` clips, relative to training these at the base shape."""
    return sum(phase.flops for phase in phases) / (num_clips * clip_flops(base.length, base.size))


def format_summary(summaries: Sequence[PhaseSummary], phases: Phases) -> list[str]:
    """Return the lines of a table: epochs, steps, learning rate, fraction of the run's FLOPs, batch shapes."""
    total = sum(summary.flops for summary in summaries)
    lines = [f"{'epochs':>9} {'steps':>7} {'lr':>18} {'compute':>8}  batches"]
    for summary in summaries:
        epochs = "-".join(str(epoch) for epoch in dict.fromkeys(summary.epochs))
        lrs = " to ".join(dict.fromkeys(f"{lr:.3g}" for lr in summary.lrs))
        batches = ", ".join(str(shape) for shape in phases[summary.phase])
        fraction = summary.flops / total
        lines.append(f"{epochs:>9} {summary.steps:7} {lrs:>18} {fraction:8.1%}  {batches}")
    return lines
