"""A moving average of weights over steps, which often scores above the weights themselves."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ModelEma:
    """Keeps `network`, a copy whose weights are the average of another's: `a = d * a + (1 - d) * w` after each step
    that `optimizer` makes. One that the scaler of fp16 skips is none: it is neither averaged nor counted.

    `d` is `decay`, at first less: `(1 + n) / (10 + n)` after n steps, so that the weights of the start are soon
    forgotten. Running statistics of norms are averaged likewise, counters copied. With `decay` 0 there is no copy:
    `network` is the other network itself.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.decay = decay
        self.followed = network
        self.network = network
        # on the device, which alone knows whether a step was skipped
        self.steps = torch.zeros((), dtype=torch.float64, device=next(network.parameters()).device)
        if decay:
            self.network = copy.deepcopy(network).requires_grad_(False)
            for module in self.network.modules():
                if isinstance(module, nn.RNNBase):  # copied one by one; cuDNN wants weights in one piece
                    module.flatten_parameters()
            optimizer.register_step_post_hook(self._after_step)

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Nothing waits for the device: a fused optimizer, which is called in any case, is told there by `found_inf`
        (1.0) to leave the weights alone. Others are not called when a step is skipped.
        """
        made = 1 - getattr(optimizer, "found_inf", torch.zeros_like(self.steps))
        share = made * (1 - torch.clamp((1 + self.steps) / (10 + self.steps), max=self.decay))
        self.steps += made
        tensors = (network.state_dict().values() for network in (self.network, self.followed))
        pairs = list(zip(*tensors, strict=True))
        smooth = [(average, weight) for average, weight in pairs if average.is_floating_point()]
        averages, weights = (list(side) for side in zip(*smooth, strict=True))
        changes = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(changes, share.float())
        torch._foreach_add_(averages, changes)
        for average, weight in pairs:
            if not average.is_floating_point():
                average.copy_(weight)

    def content(self) -> dict[str, Any]:
        """Its part of a checkpoint: `state_dict` is what validation sees, `trained` what training goes on with."""
        content: dict[str, Any] = {"state_dict": self.network.state_dict(), "trained": None}
        if self.decay:
            content["trained"] = {"state_dict": self.followed.state_dict(), "ema_steps": int(self.steps)}
        return content

    def restore(self, weights: Mapping[str, Tensor], steps: int) -> None:
        """Go on as a checkpoint has it; without a copy of its own this forgets the average."""
        if self.decay:
            self.network.load_state_dict(weights)
            self.steps.fill_(steps)
