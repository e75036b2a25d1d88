"""How much a network computes, counted without computing it."""

import functools

import torch
from torch.utils.flop_counter import FlopCounterMode

from network.registry import create_network


def count_parameters(name: str, num_classes: int) -> int:
    """Parameters of a network by name; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in create_network(name, num_classes).parameters())


@functools.cache
def count_operations(name: str, num_classes: int, length: int, size: int, **options: bool | str) -> int:
    """Floating-point operations of one clip's forward pass, a multiply-add as two.

    Convolutions, recurrent cells and linear layers count.
    Nothing is allocated: network and clip are on torch's `meta` device.
    """
    with torch.device("meta"):
        network = create_network(name, num_classes, **options).eval()
        clips = torch.empty(1, 3, length, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(clips)
    return counter.get_total_flops()
