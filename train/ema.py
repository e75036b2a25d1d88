"""Exponential moving average (EMA) of the weights, which often scores higher than the weights themselves."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ModelEma:
    """Keeps `ema_model`, a copy of `model` with `ema = d * ema + (1 - d) * weights` after each optimizer step.

    d is `decay`, but `(1 + n) / (10 + n)` after n steps where that is less, so that initial weights are soon forgotten.
    BatchNorm statistics are averaged too, counters are copied. Steps skipped by GradScaler do not update the EMA.
    With `decay` 0 there is no copy: `ema_model` is `model`.

    (torch.optim.swa_utils.AveragedModel counts its updates on the host, which learns of a skipped step only by waiting
    for the GPU, and sets the first average to the weights.)
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.decay = decay
        self.model = model
        self.ema_model = model
        self.ema_steps = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
        if decay:
            self.ema_model = copy.deepcopy(model).requires_grad_(False)
            for module in self.ema_model.modules():
                if isinstance(module, nn.RNNBase):
                    module.flatten_parameters()  # cuDNN needs contiguous weights, deepcopy splits them
            optimizer.register_step_post_hook(self._after_step)

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Update the EMA without waiting for the GPU.

        A fused optimizer steps in any case, and skips on the GPU where `found_inf` is 1. Others are not called then.
        """
        num_steps = 1 - getattr(optimizer, "found_inf", torch.zeros_like(self.ema_steps))
        warmup = (1 + self.ema_steps) / (10 + self.ema_steps)
        weight = num_steps * (1 - torch.clamp(warmup, max=self.decay))
        self.ema_steps += num_steps
        averages, values, counters, counts = [], [], [], []
        model_state = self.model.state_dict()
        for name, average in self.ema_model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(model_state[name])
            else:
                counters.append(average)
                counts.append(model_state[name])
        if counters:
            torch._foreach_copy_(counters, counts)
        changes = torch._foreach_sub(values, averages)
        torch._foreach_mul_(changes, weight.float())
        torch._foreach_add_(averages, changes)

    def checkpoint_entries(self) -> dict[str, Any]:
        """Return `state_dict`, the weights that are validated, and `trained`, those to resume from if they differ."""
        entries: dict[str, Any] = {"state_dict": self.ema_model.state_dict(), "trained": None}
        if self.decay:
            entries["trained"] = {"state_dict": self.model.state_dict(), "ema_steps": int(self.ema_steps)}
        return entries

    def restore(self, state_dict: Mapping[str, Tensor], ema_steps: int) -> None:
        """Load the EMA of a checkpoint; ignored where `decay` is 0."""
        if self.decay:
            self.ema_model.load_state_dict(state_dict)
            self.ema_steps.fill_(ema_steps)
