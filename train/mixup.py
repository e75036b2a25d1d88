"""Label smoothing, mixup and cutmix. What is random is a function of (seed, epoch, step): resuming repeats it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from train.metrics import batch_metric_sums


class Mixed(NamedTuple):
    """Clips `(B, 3, T, H, W)` that belong to `labels` `(B,)` by `share`, and to `others` `(B,)` by the rest."""

    clips: Tensor
    labels: Tensor
    others: Tensor
    share: float

    def parts(self, size: int) -> Iterator["Mixed"]:
        """In order, `size` clips each, the last one perhaps fewer."""
        for clips, labels, others in zip(*(tensor.split(size) for tensor in self[:3]), strict=True):
            yield Mixed(clips, labels, others, self.share)


@dataclass(frozen=True)
class MixupCutmix:
    """What training does to clips and labels, and validation does not.

    `mixup` (Zhang et al., ICLR 2018) adds to each clip of a batch its partner, first to last, second to last but one:
    by shares from Beta(mixup, mixup), one draw a step. `cutmix` (Yun et al., ICCV 2019) pastes a box of the partner,
    the same in all frames, of a share of the picture from Beta(cutmix, cutmix); labels share by what is left. 0 is
    off; with both, each step does one of them, by a fair coin. `label_smoothing` of each label is spread over all
    classes. Of several processes each pairs its own clips.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    seed: int = 0

    def mix(self, clips: Tensor, labels: Tensor, epoch: int, step: int) -> Mixed:
        """Clips `(B, 3, T, H, W)` and labels `(B,)` of a step, on any device; nothing waits for it."""
        generator = np.random.default_rng((self.seed, epoch, step))
        if not len(labels):  # this process sits out
            return Mixed(clips, labels, labels, 1.0)
        if self.mixup and (not self.cutmix or generator.random() < 0.5):
            share = float(generator.beta(self.mixup, self.mixup))
            return Mixed(clips.lerp(clips.flip(0), 1 - share), labels, labels.flip(0), share)
        if self.cutmix:
            rows, columns = _box(clips.shape[3], clips.shape[4], self.cutmix, generator)
            mixed = clips.clone()
            mixed[..., rows, columns] = clips.flip(0)[..., rows, columns]
            box = (rows.stop - rows.start) * (columns.stop - columns.start)
            return Mixed(mixed, labels, labels.flip(0), 1 - box / (clips.shape[3] * clips.shape[4]))
        return Mixed(clips, labels, labels, 1.0)

    def loss(self, logits: Tensor, mixed: Mixed) -> Tensor:
        """The sum over clips, perhaps none, of each one's cross-entropy with its labels, by their shares."""

        def entropy(labels: Tensor) -> Tensor:
            return nn.functional.cross_entropy(
                logits, labels, reduction="sum", label_smoothing=self.label_smoothing
            )

        own = entropy(mixed.labels)
        if mixed.share == 1:
            return own
        return mixed.share * own + (1 - mixed.share) * entropy(mixed.others)


def _box(height: int, width: int, parameter: float, generator: np.random.Generator) -> tuple[slice, slice]:
    """A box with its middle anywhere in the picture, clipped by its edges."""
    part = math.sqrt(float(generator.beta(parameter, parameter)))
    slices = []
    for length in (height, width):
        middle, half = generator.uniform(0, length), part * length / 2
        slices.append(slice(round(max(0, middle - half)), round(min(length, middle + half))))
    return slices[0], slices[1]


@torch.no_grad()
def mixed_sums(logits: Tensor, mixed: Mixed, loss: Tensor) -> Tensor:
    """As `batch_metric_sums`, where a hit of either label counts by its share; the loss is the one that is trained."""
    own = batch_metric_sums(logits, mixed.labels, loss)
    if mixed.share == 1:
        return own
    return mixed.share * own + (1 - mixed.share) * batch_metric_sums(logits, mixed.others, loss)
