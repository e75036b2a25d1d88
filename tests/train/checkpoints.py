"""Checkpoints of networks that nobody has trained, for what is asked of trained ones."""

from collections.abc import Sequence
from pathlib import Path

import torch

from data.datasets import CUSTOM
from network import create_network
from train.checkpointing.checkpoint import KEYS, save_checkpoint
from train.input_norm import ClipNormalizer
from train.options import Options, network_kwargs


def make_checkpoint(
    path: Path, options: Options, classes: Sequence[str] = ("a", "b", "c"), seed: int = 0
) -> Path:
    """Random weights, with logits that differ between clips by more than rounding."""
    torch.manual_seed(seed)
    network = create_network(options.network, len(classes), **network_kwargs(options))
    with torch.no_grad():
        network.fc.weight.mul_(50)
    content = {
        "state_dict": network.state_dict(),
        "epoch": 3,
        "step": 0,
        "options": options.plain(),
        "classes": list(classes),
        "normalization": ClipNormalizer().plain(),
        "dataset": {"name": CUSTOM.name},
    }
    save_checkpoint(path, {**dict.fromkeys(KEYS), **content})
    return path
