"""Residual blocks of srtg_resnet, with an optional squeeze-and-recursion branch at one of several places.

He et al., "Deep residual learning for image recognition", CVPR 2016, in space and time; the places are those of
Stergiou & Poppe, "Learn to cycle", Pattern Recognition Letters 2021, section 3.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from network.layers import num_factorized_channels
from network.recursion import SqueezeRecursion

Convolution = Callable[..., nn.Module]  # (in_channels, out_channels, factorized_channels, stride, groups)
Recursion = Callable[[int], SqueezeRecursion]  # channels -> module
Output = tuple[Tensor, Tensor | None]  # features, values of the gates as `SqueezeRecursion` returns them


def conv_norm_relu(conv: nn.Module, channels: int) -> nn.Sequential:
    """Return `conv` followed by BatchNorm over its `channels` and ReLU."""
    return nn.Sequential(conv, nn.BatchNorm3d(channels), nn.ReLU(inplace=True))


def make_downsample(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Return the skip connection: a strided 1 x 1 x 1 convolution if the shape changes, else the identity."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv3d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm3d(channels)
    )


class Block(nn.Module):
    """Base of the residual blocks, with at most one squeeze-and-recursion branch, `sar`.

    Args:
        in_channels, channels, stride: channels of the input and of the output, and the stride of the block.
        conv, groups: class of its convolutions, and their groups.
        width_multiplier: channels between its convolutions, relative to `channels`.
        recursion, place: returns the branch for a number of channels; where it is. At "skip" only blocks with a
            downsample have one.
    """

    residual_scales: tuple[str, ...]  # weights of the BatchNorm before the addition

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        conv: Convolution,
        groups: int = 1,
        width_multiplier: int = 1,
        recursion: Recursion | None = None,
        place: str = "final",
    ) -> None:
        super().__init__()
        factorized = num_factorized_channels(in_channels, channels, width_multiplier, groups)
        conv = partial(conv, factorized_channels=factorized, groups=groups)
        places = self.add_convolutions(conv, in_channels, width_multiplier * channels, channels, stride)
        self.downsample = make_downsample(in_channels, channels, stride)
        self.relu = nn.ReLU(inplace=True)
        places |= {"skip": channels, "final": channels}
        if place not in places:
            raise ValueError(
                f"--srtg-position, place: a {type(self).__name__} has no {place!r}, only {', '.join(places)}"
            )
        self.place = place
        empty = place == "skip" and isinstance(self.downsample, nn.Identity)
        self.sar = None if recursion is None or empty else recursion(places[place])

    def add_convolutions(
        self, conv: Convolution, in_channels: int, mid_channels: int, channels: int, stride: int
    ) -> dict[str, int]:
        """Add the convolutions; return the places before the addition with their number of channels."""
        raise NotImplementedError

    def recur_at(self, place: str, x: Tensor, gate_values: Tensor | None = None) -> Output:
        """Apply the branch to `x` if it is at `place`, else return `x` and the `gate_values` of an earlier place."""
        return (x, gate_values) if self.sar is None or place != self.place else self.sar(x)


class BasicBlock(Block):
    """Two convolutions and a skip connection. Places: top, mid, skip, final."""

    residual_scales = ("conv2.1.weight",)

    def add_convolutions(
        self, conv: Convolution, in_channels: int, mid_channels: int, channels: int, stride: int
    ) -> dict[str, int]:
        self.conv1 = conv_norm_relu(conv(in_channels, mid_channels, stride=stride), mid_channels)
        self.conv2 = nn.Sequential(conv(mid_channels, channels), nn.BatchNorm3d(channels))
        return {"top": mid_channels, "mid": channels}

    def forward(self, x: Tensor) -> Output:
        """Return features `(B, channels, T/stride, H/stride, W/stride)`, rounded up, of `(B, in_channels, T, H, W)`."""
        out, values = self.recur_at("top", self.conv1(x))
        out, values = self.recur_at("mid", self.conv2(out), values)
        skip, values = self.recur_at("skip", self.downsample(x), values)
        return self.recur_at("final", self.relu(out + skip), values)


class Bottleneck(Block):
    """Convolutions 1 x 1 x 1, 3 x 3 x 3, 1 x 1 x 1 and a skip connection. Places: start, top, mid, end, skip, final.

    Without expansion, as in the original: the output has `channels`, not four times as many.
    """

    residual_scales = ("conv3.1.weight",)

    def add_convolutions(
        self, conv: Convolution, in_channels: int, mid_channels: int, channels: int, stride: int
    ) -> dict[str, int]:
        self.conv1 = conv_norm_relu(nn.Conv3d(in_channels, mid_channels, 1, bias=False), mid_channels)
        self.conv2 = conv_norm_relu(conv(mid_channels, mid_channels, stride=stride), mid_channels)
        self.conv3 = nn.Sequential(nn.Conv3d(mid_channels, channels, 1, bias=False), nn.BatchNorm3d(channels))
        return {"start": in_channels, "top": mid_channels, "mid": mid_channels, "end": channels}

    def forward(self, x: Tensor) -> Output:
        """Return features `(B, channels, T/stride, H/stride, W/stride)`, rounded up, of `(B, in_channels, T, H, W)`."""
        x, values = self.recur_at("start", x)  # also the input of the skip connection
        out, values = self.recur_at("top", self.conv1(x), values)
        out, values = self.recur_at("mid", self.conv2(out), values)
        out, values = self.recur_at("end", self.conv3(out), values)
        skip, values = self.recur_at("skip", self.downsample(x), values)
        return self.recur_at("final", self.relu(out + skip), values)
