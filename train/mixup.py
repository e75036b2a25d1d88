"""Mixup, CutMix and label smoothing. Random draws depend on (seed, epoch, step) only, so a resumed run repeats them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from train.metrics import batch_metric_sums


class MixedBatch(NamedTuple):
    """Clips `(B, 3, T, H, W)`, which have `labels` `(B,)` with weight `lam` and `labels_b` `(B,)` with 1 - `lam`."""

    clips: Tensor
    labels: Tensor
    labels_b: Tensor
    lam: float

    def micro_batches(self, size: int) -> Iterator["MixedBatch"]:
        """Yield consecutive batches of `size` clips; the last one may be smaller."""
        for clips, labels, labels_b in zip(*(tensor.split(size) for tensor in self[:3]), strict=True):
            yield MixedBatch(clips, labels, labels_b, self.lam)


@dataclass(frozen=True)
class MixupCutmix:
    """Mixup, CutMix and label smoothing of training batches.

    `mixup` (Zhang et al., ICLR 2018) blends each clip with its partner in the reversed batch, with one
    lam ~ Beta(mixup, mixup) per step. `cutmix` (Yun et al., ICCV 2019) pastes a box of the partner into all frames; the
    area it leaves is lam ~ Beta(cutmix, cutmix), corrected for clipping at the edges. 0 is off; if both are on, each
    step does one of them with probability 1/2. Each rank pairs its own clips.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    seed: int = 0

    def mix(self, clips: Tensor, labels: Tensor, epoch: int, step: int) -> MixedBatch:
        """Mix clips `(B, 3, T, H, W)` with labels `(B,)`, on any device, without waiting for it."""
        generator = np.random.default_rng((self.seed, epoch, step))
        if not len(labels):  # an idle rank
            return MixedBatch(clips, labels, labels, 1.0)
        if self.mixup and (not self.cutmix or generator.random() < 0.5):
            lam = float(generator.beta(self.mixup, self.mixup))
            return MixedBatch(clips.lerp(clips.flip(0), 1 - lam), labels, labels.flip(0), lam)
        if self.cutmix:
            height, width = clips.shape[3:]
            rows, columns = _random_box(height, width, self.cutmix, generator)
            mixed = clips.clone()
            mixed[..., rows, columns] = clips.flip(0)[..., rows, columns]
            area = (rows.stop - rows.start) * (columns.stop - columns.start)
            return MixedBatch(mixed, labels, labels.flip(0), 1 - area / (height * width))
        return MixedBatch(clips, labels, labels, 1.0)

    def loss(self, logits: Tensor, batch: MixedBatch) -> Tensor:
        """Return the sum over clips of the cross-entropy with both labels, weighted; 0 without clips."""

        def cross_entropy(labels: Tensor) -> Tensor:
            return nn.functional.cross_entropy(
                logits, labels, reduction="sum", label_smoothing=self.label_smoothing
            )

        loss = cross_entropy(batch.labels)
        if batch.lam == 1:
            return loss
        return batch.lam * loss + (1 - batch.lam) * cross_entropy(batch.labels_b)


def _random_box(height: int, width: int, beta: float, generator: np.random.Generator) -> tuple[slice, slice]:
    """Return the rows and columns of a box centered anywhere in the frame and clipped at its edges."""
    side = math.sqrt(float(generator.beta(beta, beta)))
    slices = []
    for length in (height, width):
        center, half = generator.uniform(0, length), side * length / 2
        slices.append(slice(round(max(0, center - half)), round(min(length, center + half))))
    return slices[0], slices[1]


@torch.no_grad()
def mixed_metric_sums(logits: Tensor, batch: MixedBatch, loss: Tensor) -> Tensor:
    """Return `batch_metric_sums` where correct predictions of either label count with its weight."""
    sums = batch_metric_sums(logits, batch.labels, loss)
    if batch.lam == 1:
        return sums
    return batch.lam * sums + (1 - batch.lam) * batch_metric_sums(logits, batch.labels_b, loss)
