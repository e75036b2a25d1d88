"""A moving average of weights over steps, which often scores above the weights themselves."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Keeps `network`, a copy whose weights are the average of another's: `a = d * a + (1 - d) * w` after each step.

    `d` is `decay`, at first less: `(1 + n) / (10 + n)` after n steps, so that the weights of the start are soon
    forgotten. Running statistics of norms are averaged likewise, counters copied. With `decay` 0 there is no copy:
    `network` is the other network itself.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.followed = network
        self.network = copy.deepcopy(network).requires_grad_(False) if decay else network

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the followed network. Nothing waits for the device."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages, weights = (
            list(self.network.state_dict().values()),
            list(self.followed.state_dict().values()),
        )
        pairs = list(zip(averages, weights, strict=True))
        smooth = [(average, weight) for average, weight in pairs if average.is_floating_point()]
        get_ema_multi_avg_fn(decay)(*map(list, zip(*smooth, strict=True)), None)
        for average, weight in pairs:
            if not average.is_floating_point():
                average.copy_(weight)

    def content(self) -> dict[str, Any]:
        """Its part of a checkpoint: `state_dict` is what validation sees, `trained` what training goes on with."""
        content: dict[str, Any] = {"state_dict": self.network.state_dict(), "trained": None}
        if self.decay:
            content["trained"] = {"state_dict": self.followed.state_dict(), "averaged_steps": self.steps}
        return content

    def restore(self, weights: Mapping[str, Tensor], steps: int) -> None:
        """Go on as a checkpoint has it; without a copy of its own this forgets the average."""
        if self.decay:
            self.network.load_state_dict(weights)
            self.steps = steps
