"""Compile networks with torch.compile."""

import torch
from torch import nn


def compile_network(network: nn.Module) -> None:
    """Compile a network in place, at its first clips of each shape: one graph a shape, in eager mode's memory format.

    torch.compile may choose another memory format for convolutions, and then mistakes that of their gradients on a GPU
    (torch 2.11: "expected size 512==512, stride 27==1").
    """
    # all networks and blocks share their code, and each meets every shape of the cycles: more variants than expected
    torch._dynamo.config.recompile_limit = 1024
    torch._dynamo.config.accumulated_recompile_limit = 4096
    network.compile(fullgraph=True, dynamic=False, options={"layout_optimization": False})
