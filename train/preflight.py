"""What is checked before the first step, because it would otherwise end a run hours later."""

import logging
import shutil
from pathlib import Path

import numpy as np
from torch import nn

from data.batch_sampler import BatchShape, ClipSpec
from data.video_iterator import Sample, TrainDataset, ValDataset
from data.video_list import Dataset
from train.engine import unreadable_in_validation
from train.parallel.distributed import DistContext

logger = logging.getLogger(__name__)

FIRST = 3  # training videos that tell a bad file, which is replaced, from a bad data set


def check_labels(dataset: Dataset) -> None:
    """ValueError where a label is none of the classes."""
    for split, videos in (("train", dataset.train), ("val", dataset.val)):
        outside = np.flatnonzero((videos.labels < 0) | (videos.labels >= len(dataset.classes)))
        if len(outside):
            raise ValueError(
                f"{videos.folder(outside[0])}: its {split} label is {videos.labels[outside[0]]}, "
                f"must be 0 to {len(dataset.classes) - 1}"
            )


def check_same_videos(dataset: Dataset, dist: DistContext) -> None:
    """ValueError where another machine of the run has other videos: its batches would be others'."""
    here, there = dataset.summary(), dist.broadcast_object(dataset.summary())
    if here != there:
        raise ValueError(
            f"{dataset.train.root}: the videos and classes are not those of the first process: {here}, there {there}"
        )


def check_training_clips(clips: TrainDataset, shape: BatchShape) -> None:
    """ValueError that names the first file and what is wrong with it, where none of the first few can be read."""
    bad = []
    for index in range(min(FIRST, len(clips))):
        sample = _first_clip(clips, shape, index)
        if not sample.bad:
            return
        bad += sample.bad[:1]
    raise ValueError(f"{bad[0].reason}; nor could the {len(bad) - 1} training videos after it be read")


def check_validation_clip(clips: ValDataset, shape: BatchShape) -> None:
    """TrainingError, as validation would end an epoch later, where the first video cannot be read."""
    sample = _first_clip(clips, shape, 0)
    if sample.bad:
        raise unreadable_in_validation(sample.bad[0])


def _first_clip(clips: TrainDataset | ValDataset, shape: BatchShape, index: int) -> Sample:
    return clips[ClipSpec(index, shape.length, shape.size, seed=0)]


def checkpoint_bytes(network: nn.Module, *, moments: int, averaged: bool) -> int:
    """What a checkpoint takes: weights and buffers, twice if `averaged`, and the optimizer's moments."""
    tensors = [*network.state_dict().values()] * (1 + averaged) + [*network.parameters()] * moments
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def check_disk(folder: Path, size: int, checkpoints: int, *, goes_on: bool = False) -> None:
    """ValueError where not even two checkpoints of `size` bytes fit, a new one beside an old; a warning where not all.

    `checkpoints`: how many the run will write and keep. `goes_on`: with a full disk too, so there is only the warning.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    numbers = f"{folder}: {free / 1e6:.0f} MB are free"
    if free < 2 * size and not goes_on:
        raise ValueError(
            f"{numbers}, a checkpoint takes {size / 1e6:.0f} MB and is written beside the one before"
        )
    if free < checkpoints * size:
        logger.warning(
            "%s, the %d checkpoints of this run take %.0f MB; a larger --save-frequency writes fewer",
            *(numbers, checkpoints, checkpoints * size / 1e6),
        )
