"""Loss, top-1 and top-5 as sums over clips, which stay on the device: adding to them does not wait for it."""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_METRIC_SUMS = 4  # clips, top-1 correct, top-5 correct, loss


class Metrics(NamedTuple):
    """Means over clips; top-1 and top-5 are fractions."""

    top1: float
    top5: float
    loss: float


def zero_metric_sums(device: torch.device) -> Tensor:
    """Return the metric sums `(4,)` of no clips."""
    return torch.zeros(NUM_METRIC_SUMS, dtype=torch.float64, device=device)


@torch.no_grad()
def batch_metric_sums(logits: Tensor, labels: Tensor, loss: Tensor) -> Tensor:
    """Return the metric sums `(4,)` of logits `(B, classes)`, labels `(B,)` and the summed loss of a batch.

    With fewer than five classes top-5 counts all of them. Clips whose logits are not all finite are never correct:
    `topk` sorts NaN first, which would favor the first classes.
    """
    predicted = logits.topk(min(5, logits.shape[1]), dim=1).indices
    topk_correct = (predicted == labels[:, None]) & logits.isfinite().all(dim=1, keepdim=True)
    clips = logits.new_full((), len(labels), dtype=torch.float64)
    return torch.stack([clips, topk_correct[:, 0].sum(), topk_correct.sum(), loss.double()])


def compute_metrics(sums: Tensor) -> Metrics:
    """Return the means of metric sums, NaN without clips. Waits for the device."""
    clips, top1, top5, loss = sums.tolist()
    if clips == 0:
        return Metrics(float("nan"), float("nan"), float("nan"))
    return Metrics(top1 / clips, top5 / clips, loss / clips)
