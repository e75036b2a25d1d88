"""A network that classifies clips by their brightness, without training, and videos of known brightness."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import tests.tiny_network  # noqa: F401  registers tiny
from data.ffmpeg.encoding import video_writer
from network import create_network
from tests.train.checkpoints import save_network
from train.options import Options

CLASSES = ("dark", "bright")
OPTIONS = Options(network="tiny", clip_length=4, clip_size=64, short_side=64, val_frame_interval=2)


def brightness_network() -> nn.Module:
    """Return a network whose blocks are identities and whose stem measures brightness."""
    network = create_network(OPTIONS.network, len(CLASSES), zero_init_residual=True)
    with torch.no_grad():
        stem = network.stem[0].weight
        stem.zero_()
        stem[:, :, 1, 3, 3] = 1 / 3
        for name, parameter in network.named_parameters():
            if "downsample.0" in name:
                parameter.fill_(1 / parameter.shape[1])
        network.fc.weight[0] = 0
        network.fc.weight[1] = 10 / network.fc.in_features  # logit: ten times the mean brightness
        network.fc.bias[:] = torch.tensor([4.0, 0.0])
    return network


def save_brightness_network(path: Path) -> Path:
    return save_network(path, brightness_network(), OPTIONS, CLASSES)


def write_video(path: Path, frames: np.ndarray) -> Path:
    """Write grey frames `(T, H, W)` as a video of 25 frames per second."""
    _, height, width = frames.shape
    with video_writer(path, height, width, threads=1) as writer:
        for index, frame in enumerate(frames):
            writer.write(np.repeat(frame[..., None], 3, axis=2).astype(np.uint8), index / 25)
    return path
