"""How much a network computes, counted without computing it."""

import functools

import torch
from torch import Tensor, nn

from network.registry import create_network

FREE = (nn.BatchNorm3d, nn.GroupNorm, nn.ReLU)  # keep shapes, do not count, and are slow on the meta device


def count_parameters(name: str, num_classes: int) -> int:
    """Parameters of a network by name; nothing is allocated."""
    return sum(parameter.numel() for parameter in _on_meta(name, num_classes).parameters())


@functools.cache
def count_flops(name: str, num_classes: int, length: int, size: int, **options: bool | str) -> int:
    """Floating-point operations of one clip's forward pass, a multiply-add as two.

    Convolutions, recurrent cells and linear layers count.
    Nothing is allocated: network and clip are on torch's `meta` device.
    """
    network = _on_meta(name, num_classes, **options)
    operations = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv3d):
            positions = output.shape[2:].numel()
        else:
            positions = len(inputs[0])  # frames of a recurrent cell (T, 1, C), one of a linear layer (1, C)
        weights = sum(value.numel() for key, value in module.named_parameters() if "weight" in key)
        operations.append(2 * positions * weights)

    hooks = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Conv3d | nn.RNNBase | nn.Linear)
    ]
    with torch.no_grad():
        network(torch.empty(1, 3, length, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(operations)


@functools.lru_cache(maxsize=2)
def _on_meta(name: str, num_classes: int, **options: bool | str) -> nn.Module:
    """A network with shapes and without values, whose layers without weights worth counting do nothing."""
    with torch.device("meta"):
        network = create_network(name, num_classes, **options).eval()
    for module in network.modules():
        if isinstance(module, FREE):
            module.forward = lambda x: x
        elif isinstance(module, nn.RNNBase):
            module.forward = lambda sequence: (sequence, sequence)  # as many channels out as in
    return network
