"""Checkpoints of networks that were not trained, for tests of what loads checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tests.tiny_network  # noqa: F401  registers tiny and srtg_tiny
from data.datasets import CUSTOM
from network import create_network
from train.input_norm import ClipNormalizer
from train.options import Options, network_kwargs


def save_network(
    path: Path, network: nn.Module, options: Options, classes: Sequence[str], **changes: Any
) -> Path:
    """Write what inference needs of a checkpoint; `changes` replace entries."""
    checkpoint = {
        "state_dict": network.state_dict(),
        "epoch": 3,
        "options": options.to_dict(),
        "classes": list(classes),
        "normalization": ClipNormalizer().to_dict(),
        "dataset": {"name": CUSTOM.name},
    }
    torch.save({**checkpoint, **changes}, path)
    return path


def make_checkpoint(
    path: Path, options: Options, classes: Sequence[str] = ("a", "b", "c"), seed: int = 0, **changes: Any
) -> Path:
    """Write random weights, with logits that differ between clips by more than rounding errors."""
    torch.manual_seed(seed)
    network = create_network(options.network, len(classes), **network_kwargs(options))
    with torch.no_grad():
        network.fc.weight.mul_(200)
    return save_network(path, network, options, classes, **changes)
