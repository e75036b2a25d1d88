"""What a run will do, before it does it: the steps of an epoch and what they cost."""

from collections.abc import Sequence
from typing import Any

from data.batching import BatchShape
from network.operations import count_operations
from train.lr_scheduler import LearningRate
from train.multigrid import Step

MIN_SIZE = 16  # pixels; below that, maps vanish within a network


def check_sizes(steps: Sequence[Step]) -> None:
    """ValueError where cycles would make clips smaller than networks take."""
    smallest = min(step.shape.size for step in steps)
    if smallest < MIN_SIZE:
        raise ValueError(
            f"clips of {smallest} pixels are too small, need at least {MIN_SIZE}: raise --clip-size or leave cycles out"
        )


def describe_steps(steps: Sequence[Step], epoch: int, learning_rate: LearningRate) -> list[dict[str, Any]]:
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


def compute_ratio(
    steps: Sequence[Step], base: BatchShape, network: str, num_classes: int, choices: dict[str, bool | str]
) -> float:
    """Operations of an epoch in `steps` to one with every clip at the base shape, counted on the network itself."""

    def operations(shape: BatchShape) -> int:
        return count_operations(network, num_classes, shape.length, shape.size, **choices)

    clips = sum(step.shape.batch for step in steps)
    return sum(step.shape.batch * operations(step.shape) for step in steps) / (clips * operations(base))
