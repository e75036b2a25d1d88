"""Loss, top-1 and top-5 as sums over clips. Sums stay on the device, so that adding to them does not wait for it."""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_METRIC_SUMS = 4  # clips, top-1 hits, top-5 hits, summed loss


class Averages(NamedTuple):
    """Over clips, not batches; top-1 and top-5 are fractions of 1."""

    top1: float
    top5: float
    loss: float


def zero_metric_sums(device: torch.device) -> Tensor:
    """Nothing counted yet."""
    return torch.zeros(NUM_METRIC_SUMS, dtype=torch.float64, device=device)


@torch.no_grad()
def batch_metric_sums(logits: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
    """The sums of one batch: `logits` `(B, classes)`, `labels` `(B,)`, `loss` the mean over the batch -> `(4,)`.

    With fewer than five classes, top-5 looks at all of them. A clip whose logits are not all finite is no hit: `topk`
    puts NaN first, which would make the first classes right.
    """
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = (best == labels[:, None]) & logits.isfinite().all(dim=1, keepdim=True)
    clips = logits.new_full((), len(labels), dtype=torch.float64)
    return torch.stack([clips, hits[:, 0].sum(), hits.sum(), loss.double() * clips])


def averages(sums: Tensor) -> Averages:
    """Waits for the device. NaN where nothing was counted."""
    clips, top1, top5, loss = sums.tolist()
    if clips == 0:
        return Averages(float("nan"), float("nan"), float("nan"))
    return Averages(top1 / clips, top5 / clips, loss / clips)
