"""From clips as they are read to the network's input, on the device."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MEANS = (124 / 255, 117 / 255, 104 / 255)
DEVIATIONS = (1 / (0.0167 * 255),) * 3
CHANNEL_ORDERS = ("bgr", "rgb")


@dataclass(frozen=True)
class ClipNormalizer:
    """What a network was trained with, in its channels' order. The defaults are the published weights'."""

    means: tuple[float, float, float] = MEANS
    deviations: tuple[float, float, float] = DEVIATIONS
    channel_order: str = "bgr"

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "ClipNormalizer":
        """From what `plain` gave, as checkpoints hold it. ValueError for what cannot normalise."""
        try:
            means, deviations, order = (plain[name] for name in ("means", "deviations", "channel_order"))
            numbers = [float(number) for number in (*means, *deviations)]
            fits = (len(means), len(deviations)) == (3, 3) and all(map(math.isfinite, numbers))
            fits = fits and min(deviations) > 0 and order in CHANNEL_ORDERS
        except (LookupError, TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise ValueError("its normalization is not three means, three deviations above 0, and bgr or rgb")
        return cls(tuple(numbers[:3]), tuple(numbers[3:]), order)

    def plain(self) -> dict[str, Any]:
        return {
            "means": list(self.means),
            "deviations": list(self.deviations),
            "channel_order": self.channel_order,
        }

    def __call__(self, clips: Tensor) -> Tensor:
        """uint8 `(B, T, H, W, 3)`, BGR -> float32 `(B, 3, T, H, W)`, channels last in memory."""
        if self.channel_order == "rgb":
            clips = clips.flip(-1)
        factors = tuple(1 / (255 * deviation) for deviation in self.deviations)
        offsets = tuple(
            -mean / deviation for mean, deviation in zip(self.means, self.deviations, strict=True)
        )
        # one pass over the pixels: subtracting and dividing one after the other take three
        clips = torch.addcmul(
            _on_device(offsets, clips.device), clips.float(), _on_device(factors, clips.device)
        )
        return clips.permute(0, 4, 1, 2, 3)


@functools.cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Copied once: copying at each step would wait for the device."""
    return torch.tensor(values, device=device)
