"""Checks before the first step, of what would otherwise end a run hours later."""

import shutil
from contextlib import suppress
from pathlib import Path

from torch import nn

from data.batch_sampler import BatchShape, ClipSpec
from data.frame_store import FrameStore, FrameStoreError
from data.video_iterator import TrainDataset, ValDataset
from data.video_list import VideoIndex
from train.engine import corrupt_validation_error
from train.optimizer import OPTIMIZER_SLOTS
from train.options import Options

NUM_TRIES = 3  # training videos; a single corrupt one is replaced while training


def check_first_clips(
    train: TrainDataset, val: ValDataset, shape: BatchShape, skip_bad_samples: bool
) -> None:
    """Raise ValueError if none of the first training videos can be read, TrainingError for the first validation video
    unless corrupt ones are skipped.
    """
    specs = [ClipSpec(index, shape.length, shape.size, seed=0) for index in range(min(NUM_TRIES, len(train)))]
    corrupt = [train[spec].bad[:1] for spec in specs]
    if all(corrupt):
        raise ValueError(
            f"{corrupt[0][0].reason}; the {len(specs) - 1} training videos after it are corrupt too"
        )
    if not skip_bad_samples and (val_corrupt := val[specs[0]].bad):
        raise corrupt_validation_error(val_corrupt[0])


def find_without_times(videos: VideoIndex) -> Path | None:
    """Return the first of a hundred videos, spread over all, without times; None if all have them."""
    for index in range(0, len(videos), -(-len(videos) // 100)):
        with suppress(FrameStoreError):
            if FrameStore(videos.folder(index)).times() is None:
                return videos.folder(index)
    return None


def check_disk(folder: Path, network: nn.Module, options: Options) -> None:
    """Raise ValueError if two checkpoints, a new one beside the old one, do not fit on the disk."""
    # weights and buffers, twice with an EMA, and the optimizer state
    tensors = [*network.state_dict().values()] * (2 if options.ema_decay else 1)
    tensors += [*network.parameters()] * OPTIMIZER_SLOTS[options.optimizer]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < 2 * size:
        raise ValueError(
            f"{folder}: {free / 1e6:.0f} MB are free, a checkpoint needs {size / 1e6:.0f} MB twice"
        )
