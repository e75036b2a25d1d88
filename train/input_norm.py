"""Input normalization: uint8 clips -> the network's input, on the device."""

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

MEAN = (124 / 255, 117 / 255, 104 / 255)
STD = (1 / (0.0167 * 255),) * 3
CHANNEL_ORDERS = ("bgr", "rgb")


@dataclass(frozen=True)
class ClipNormalizer:
    """Mean, std and channel order of a network's input. The defaults are those of the published weights."""

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    channel_order: str = "bgr"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ClipNormalizer":
        """Return the inverse of `to_dict`."""
        return cls(tuple(values["mean"]), tuple(values["std"]), values["channel_order"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and checkpoints."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def __call__(self, clips: Tensor) -> Tensor:
        """Convert uint8 `(B, T, H, W, 3)`, BGR, to float32 `(B, 3, T, H, W)`, channels last in memory."""
        if self.channel_order == "rgb":
            clips = clips.flip(-1)
        scale = tuple(1 / (255 * std) for std in self.std)
        bias = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        # a single pass over the pixels; subtracting and dividing need three
        clips = torch.addcmul(_on_device(bias, clips.device), clips.float(), _on_device(scale, clips.device))
        return clips.permute(0, 4, 1, 2, 3)


@functools.cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Copy constants once, as each copy waits for the device."""
    return torch.tensor(values, device=device)
