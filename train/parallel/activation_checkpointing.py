"""Activation checkpointing for residual blocks.

*Training Deep Nets with Sublinear Memory Cost* (Chen et al., 2016).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class CheckpointedBlock(nn.Module):
    """A mixin put before a block's class: the backward pass recomputes the block's activations from its input."""

    def forward(self, *inputs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*inputs)

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), frozen_running_stats(self)  # of the first and of the second forward pass

        return checkpoint(
            super().forward, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )


@contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Normalize by batch statistics without updating the running statistics and counters of BatchNorms."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm3d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = torch.zeros_like(cast(Tensor, norm.num_batches_tracked))
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def apply_activation_checkpointing(network: nn.Module) -> None:
    """Checkpoint every block of the `nn.Sequential`s named `layer...`, in place. Names of weights do not change.

    Raises ValueError for a network without such stages.
    """
    stages = [
        stage
        for name, stage in network.named_children()
        if name.startswith("layer") and isinstance(stage, nn.Sequential)
    ]
    if not stages:
        raise ValueError("--activation-checkpointing: this network has no stages of blocks to checkpoint")
    for block in (block for stage in stages for block in stage):
        block_class = type(block)
        block.__class__ = type(block_class.__name__, (CheckpointedBlock, block_class), {})
