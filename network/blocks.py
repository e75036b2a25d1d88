"""The residual blocks of srtg_resnet, which may have squeeze and recursion at one of several places.

He et al., "Deep residual learning for image recognition", CVPR 2016, over time and space; the places are
those of Stergiou & Poppe, "Learn to cycle", Pattern Recognition Letters 2021, section 3.
"""

from collections.abc import Callable

from torch import Tensor, nn

from network.layers import factorized_channels
from network.recursion import SqueezeRecursion

Convolution = Callable[
    ..., nn.Module
]  # (in_channels, out_channels, mid_channels, stride, groups), see layers.py
Recursion = Callable[[int], SqueezeRecursion]  # channels -> module


def make_downsample(in_channels: int, channels: int, stride: int) -> nn.Module:
    """The skip connection: a strided 1 x 1 x 1 convolution where the shape changes, else the identity."""
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv3d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm3d(channels)
    )


class Block(nn.Module):
    """What both residual blocks share: at most one squeeze and recursion, `sar`, at a chosen place."""

    def add_recursion(self, recursion: Recursion | None, place: str, channels: dict[str, int]) -> None:
        """Put `recursion` at `place`; `channels` has this block's places and how many channels there are."""
        if place not in channels:
            raise ValueError(
                f"a {type(self).__name__} has no place {place!r}; its places are {', '.join(channels)}"
            )
        self.place = place
        acts = place != "skip" or not isinstance(self.downsample, nn.Identity)
        self.sar = recursion(channels[place]) if recursion is not None and acts else None

    def at(self, place: str, x: Tensor, openings: list[Tensor]) -> Tensor:
        """Squeeze and recursion of `x` if this is its place, else `x`; `openings` gets its opening."""
        if self.sar is None or place != self.place:
            return x
        x, opening = self.sar(x)
        if opening is not None:
            openings.append(opening)
        return x


class BasicBlock(Block):
    """Two convolutions beside a skip connection. Places: top, mid, skip, final."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        conv: Convolution,
        groups: int = 1,
        width: int = 1,
        recursion: Recursion | None = None,
        place: str = "final",
    ) -> None:
        super().__init__()
        inner = width * channels
        middle = factorized_channels(in_channels, channels, width, groups)
        self.conv1 = nn.Sequential(
            conv(in_channels, inner, middle, stride, groups), nn.BatchNorm3d(inner), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(conv(inner, channels, middle, 1, groups), nn.BatchNorm3d(channels))
        self.downsample = make_downsample(in_channels, channels, stride)
        self.relu = nn.ReLU(inplace=True)
        self.add_recursion(
            recursion, place, {"top": inner, "mid": channels, "skip": channels, "final": channels}
        )

    @property
    def last_norm(self) -> nn.BatchNorm3d:
        """The norm before the addition."""
        return self.conv2[1]

    def forward(self, x: Tensor, openings: list[Tensor]) -> Tensor:
        """`(B, in_channels, T, H, W)` -> `(B, channels, T/stride, H/stride, W/stride)`, rounded up."""
        out = self.at("top", self.conv1(x), openings)
        out = self.at("mid", self.conv2(out), openings)
        skip = self.at("skip", self.downsample(x), openings)
        return self.at("final", self.relu(out + skip), openings)


class Bottleneck(Block):
    """1 x 1 x 1, 3 x 3 x 3, 1 x 1 x 1 beside a skip connection. Places: start, top, mid, end, skip, final.

    Unlike that of other ResNets it does not expand: it puts out `channels`, not four times as many.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        conv: Convolution,
        groups: int = 1,
        width: int = 1,
        recursion: Recursion | None = None,
        place: str = "final",
    ) -> None:
        super().__init__()
        inner = width * channels
        middle = factorized_channels(in_channels, channels, width, groups)
        self.conv1 = nn.Sequential(
            nn.Conv3d(in_channels, inner, 1, bias=False), nn.BatchNorm3d(inner), nn.ReLU(inplace=True)
        )
        self.conv2 = nn.Sequential(
            conv(inner, inner, middle, stride, groups), nn.BatchNorm3d(inner), nn.ReLU(inplace=True)
        )
        self.conv3 = nn.Sequential(nn.Conv3d(inner, channels, 1, bias=False), nn.BatchNorm3d(channels))
        self.downsample = make_downsample(in_channels, channels, stride)
        self.relu = nn.ReLU(inplace=True)
        outside = {"end": channels, "skip": channels, "final": channels}
        self.add_recursion(recursion, place, {"start": in_channels, "top": inner, "mid": inner, **outside})

    @property
    def last_norm(self) -> nn.BatchNorm3d:
        """The norm before the addition."""
        return self.conv3[1]

    def forward(self, x: Tensor, openings: list[Tensor]) -> Tensor:
        """`(B, in_channels, T, H, W)` -> `(B, channels, T/stride, H/stride, W/stride)`, rounded up."""
        out = self.conv1(self.at("start", x, openings))
        out = self.conv2(self.at("top", out, openings))
        out = self.conv3(self.at("mid", out, openings))
        out = self.at("end", out, openings)
        skip = self.at("skip", self.downsample(x), openings)
        return self.at("final", self.relu(out + skip), openings)
