"""Parameters and FLOPs of networks, counted on torch's `meta` device, which computes shapes only."""

import functools

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from network.registry import create_network


def count_parameters(name: str, num_classes: int) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in _on_meta(name, num_classes).parameters())


@functools.cache
def count_flops(name: str, num_classes: int, length: int, size: int, **options: bool | str) -> int:
    """Return the floating-point operations of the forward pass of one clip, 2 per multiply-add.

    Convolutions, recurrent cells and linear layers count.
    """
    clip = torch.empty(1, 3, length, size, size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _on_meta(name, num_classes, **options)(clip)
    return counter.get_total_flops()


@functools.lru_cache(maxsize=2)
def _on_meta(name: str, num_classes: int, **options: bool | str) -> nn.Module:
    with torch.device("meta"):
        return create_network(name, num_classes, **options).eval()
