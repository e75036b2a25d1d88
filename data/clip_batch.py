"""Clips and batches of them, as they pass from dataset to training loop."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.utils.data import default_collate, get_worker_info


class BadSample(NamedTuple):
    """A corrupt sample: the folder of the video, and why it cannot be read."""

    video: str
    reason: str


class Sample(NamedTuple):
    """One clip, uint8 `(T, H, W, 3)`, BGR, or None if it is corrupt; `bad` lists the corrupt videos that were tried.

    `augmentations`: what a device needs to finish the clip (video_transforms.pack_params), `(P,)`.
    """

    clip: torch.Tensor | None
    label: int
    index: int  # type: ignore[assignment]  # mypy confuses it with tuple.index
    bad: list[BadSample]
    augmentations: torch.Tensor | None = None


class Batch(NamedTuple):
    """Clips, uint8 `(B, T, H, W, 3)`, BGR; labels and indices of their videos, `(B,)`; and corrupt samples.

    `augmentations`: of clips that a device has to finish, `(B, P)`; they stay on the CPU.
    """

    clips: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    bad: list[BadSample]
    augmentations: torch.Tensor | None = None


Chunks = Sequence[Batch]  # of a batch


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the samples that could be read, perhaps none; in a worker, in shared memory."""
    read = [sample for sample in samples if sample.clip is not None]
    clips = [sample.clip for sample in read]
    augmentations = [sample.augmentations for sample in read if sample.augmentations is not None]
    batch = Batch(
        clips=default_collate(clips) if clips else torch.empty(0, 0, 0, 0, 3, dtype=torch.uint8),
        labels=torch.tensor([sample.label for sample in read], dtype=torch.long),
        indices=torch.tensor([sample.index for sample in read], dtype=torch.long),
        bad=[bad for sample in samples for bad in sample.bad],
        augmentations=torch.stack(augmentations) if augmentations else None,
    )
    if get_worker_info() is not None:
        # here an error reaches the training process; later, in the thread that sends, it would be lost
        for tensor in (batch.clips, batch.labels, batch.indices, batch.augmentations):
            if tensor is not None:
                tensor.share_memory_()
    return batch


def gather(chunks: Chunks, allocate: Callable[[Sequence[int]], torch.Tensor] | None = None) -> Batch:
    """Return the chunks of a batch as one, its clips copied into uint8 memory that `allocate` returns for a shape.

    By default it is new memory, and a single chunk is passed through.
    """
    if allocate is None and len(chunks) == 1:
        return chunks[0]
    read = [chunk for chunk in chunks if len(chunk.labels)] or chunks[:1]
    clips, labels, indices, _, augmentations = zip(*read, strict=True)
    shape = (sum(map(len, clips)), *clips[0].shape[1:])
    return Batch(
        clips=torch.cat(clips, out=allocate(shape) if allocate else None),
        labels=torch.cat(labels),
        indices=torch.cat(indices),
        bad=[bad for chunk in chunks for bad in chunk.bad],
        augmentations=None if augmentations[0] is None else torch.cat(augmentations),
    )
