"""A network that sees nothing but brightness, as training would have saved it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.ffmpeg import written_video
from network import create_network
from train.input_norm import ClipNormalizer
from train.options import Options

CLASSES = ("dark", "bright")
OPTIONS = Options(network="ir_csn_50", clip_length=4, clip_size=64, short_side=64, val_frame_interval=2)


def bright_network() -> nn.Module:
    """Blocks pass on what they get, the stem gives the brightness of the middle of each of its windows."""
    network = create_network(OPTIONS.network, len(CLASSES), zero_init_residual=True)
    with torch.no_grad():
        stem = network.stem[0].weight
        stem.zero_()
        stem[:, :, 1, 3, 3] = 1 / 3
        for name, parameter in network.named_parameters():
            if "downsample.0" in name:
                parameter.fill_(1 / parameter.shape[1])
        network.fc.weight[0] = 0
        network.fc.weight[1] = 10 / 512  # ten times the mean brightness beyond the mean of all pixels
        network.fc.bias[:] = torch.tensor([4.0, 0.0])
    return network


def save_bright(path: Path) -> Path:
    content = {
        "state_dict": bright_network().state_dict(),
        "epoch": 1,
        "options": OPTIONS.plain(),
        "classes": list(CLASSES),
        "normalization": ClipNormalizer().plain(),
        "dataset": {},
    }
    torch.save(content, path)
    return path


def write_video(path: Path, frames: np.ndarray) -> Path:
    """Of grey frames `(T, H, W)`."""
    with written_video(path, *frames.shape[1:], 25, threads=1) as writer:
        for frame in frames:
            writer.write(np.repeat(frame[..., None], 3, axis=2).astype(np.uint8))
    return path
