"""Clips and batches of them, as they pass from dataset to training loop."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import default_collate, get_worker_info


class BadSample(NamedTuple):
    """A corrupt sample: the folder of the video, and why it cannot be read."""

    video: str
    reason: str


class Sample(NamedTuple):
    """One clip, uint8 `(T, H, W, 3)`, BGR, or None if it is corrupt; `bad` lists the corrupt videos that were tried."""

    clip: torch.Tensor | None
    label: int
    index: int  # type: ignore[assignment]  # mypy confuses it with tuple.index
    bad: list[BadSample]


class Batch(NamedTuple):
    """Clips, uint8 `(B, T, H, W, 3)`, BGR; labels and indices of their videos, `(B,)`; and corrupt samples."""

    clips: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    bad: list[BadSample]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the samples that could be read, perhaps none; in a worker, in shared memory."""
    read = [sample for sample in samples if sample.clip is not None]
    clips = [sample.clip for sample in read]
    batch = Batch(
        clips=default_collate(clips) if clips else torch.empty(0, 0, 0, 0, 3, dtype=torch.uint8),
        labels=torch.tensor([sample.label for sample in read], dtype=torch.long),
        indices=torch.tensor([sample.index for sample in read], dtype=torch.long),
        bad=[bad for sample in samples for bad in sample.bad],
    )
    if get_worker_info() is not None:
        # here an error reaches the training process; later, in the thread that sends, it would be lost
        for tensor in (batch.clips, batch.labels, batch.indices):
            tensor.share_memory_()
    return batch
