"""Input normalization: uint8 clips -> the network's input, on the device."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MEAN = (124 / 255, 117 / 255, 104 / 255)
STD = (1 / (0.0167 * 255),) * 3


@dataclass(frozen=True)
class ClipNormalizer:
    """Mean, std and channel order of a network's input. The defaults are those of the published weights."""

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    channel_order: str = "bgr"
    channels_last: bool = False  # memory format; not saved in checkpoints

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ClipNormalizer":
        """Return the inverse of `to_dict`."""
        return cls(tuple(values["mean"]), tuple(values["std"]), values["channel_order"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and checkpoints."""
        return {"mean": list(self.mean), "std": list(self.std), "channel_order": self.channel_order}

    def __call__(self, clips: Tensor) -> Tensor:
        """Convert uint8 `(B, T, H, W, 3)`, BGR, to float32 `(B, 3, T, H, W)`."""
        if self.channel_order == "rgb":
            clips = clips.flip(-1)
        scale = _on_device(tuple(1 / (255 * std) for std in self.std), clips.device)
        bias = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        clips = clips.permute(0, 4, 1, 2, 3)
        memory_format = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        inputs = torch.empty_like(clips, dtype=torch.float32, memory_format=memory_format)
        # one kernel on a GPU, which converts, normalizes and permutes in a single pass over the pixels
        return torch.addcmul(_on_device(bias, clips.device), clips, scale, out=inputs)


@functools.cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Copy constants `(3, 1, 1, 1)` once, as each copy waits for the device."""
    return torch.tensor(values, device=device).view(-1, 1, 1, 1)
