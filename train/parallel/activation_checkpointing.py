"""Blocks that keep their input alone and compute the rest again in the backward pass: memory for time.

*Training deep nets with sublinear memory cost* (Chen et al., 2016).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class _CheckpointedBlock:
    """Put before a block's class: its forward pass is run again when gradients come to it."""

    def forward(self, *inputs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*inputs)

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), frozen_running_stats(self)

        return checkpoint(
            super().forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )


@contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Within, batch norms normalise by the batch as ever, but their running statistics and counters stay."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, torch.zeros_like(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def apply_activation_checkpointing(network: nn.Module) -> None:
    """Make every block of a network's stages, the members of its `nn.Sequential`s named `layer...`, one of these.

    In place; names of weights stay. Raises ValueError for a network without such stages.
    """
    stages = [
        stage
        for name, stage in network.named_children()
        if name.startswith("layer") and isinstance(stage, nn.Sequential)
    ]
    if not stages:
        raise ValueError("--activation-checkpointing: this network has no stages of blocks to compute again")
    for block in (block for stage in stages for block in stage):
        kind = type(block)
        block.__class__ = type(kind.__name__, (_CheckpointedBlock, kind), {})
