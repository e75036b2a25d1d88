"""MTNet: two branches of different temporal resolution, joined by a lateral connection and aligned by recurrence.

Stergiou & Poppe, "Multi-temporal convolutions for human action recognition in videos", IJCNN 2021, section III. Of each
layer's channels 7/8 follow brief motions at the full number of frames and pixels (*short*), 1/8 prolonged ones at half
of both (*long*). To add a network, add a line at the end.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from network.layers import SoftPool3d, Stem3D, check_clips, init_weights
from network.recursion import SqueezeRecursion
from network.registry import Builder, register

SHORT_SHARE = 7 / 8  # of the channels
Branches = tuple[Tensor, Tensor]  # short, long


def short_channels(channels: int) -> int:
    """Channels of the short branch: 64 -> 56. The long one has the rest."""
    return int(channels * SHORT_SHARE)


def select_static_frames(x: Tensor) -> Tensor | None:
    """Which half of the frames to keep: `(B, C, T, H, W)` -> indices `(B, T // 2)`, rising.

    Those that are most like both of their neighbours: the likeness of two neighbours is the squared cosine similarity
    of their means over space, a frame's is the mean of its two. The first and the last frame have but one neighbour and
    are never taken. None for one frame or two, between which there is nothing to choose.
    """
    length = x.shape[2]
    if length < 3:
        return None
    with torch.no_grad():
        means = x.mean(dim=(3, 4), dtype=torch.promote_types(x.dtype, torch.float32))  # (B, C, T)
        likeness = F.cosine_similarity(
            means[..., :-1], means[..., 1:], dim=1, eps=1e-4
        ).square()  # (B, T - 1)
        of_frames = (likeness[:, :-1] + likeness[:, 1:]) / 2  # (B, T - 2): of frames 1 to T - 2
        return of_frames.topk(length // 2, dim=1).indices.sort(dim=1).values + 1


def gather_frames(x: Tensor, frames: Tensor | None) -> Tensor:
    """The frames `(B, T')` of clips `(B, C, T, H, W)` -> `(B, C, T', H, W)`, its memory laid out as before."""
    if frames is None:
        return x
    # shape[0], as torch.export takes len for a constant
    clips = torch.arange(x.shape[0], device=x.device)[:, None]
    return x.transpose(1, 2)[clips, frames].transpose(1, 2)


def resized(x: Tensor, size: torch.Size) -> Tensor:
    """`x` `(B, C, T, H, W)` at `size` (T, H, W), linearly interpolated if it is not there already."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="trilinear")


class SpatialPool2x(nn.Module):
    """Pool 2 x 2 pixels into one, by mean or SoftPool; a side of one pixel stays, an odd one loses its last."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` -> `(B, C, T, H/2, W/2)`, its memory laid out as before."""
        rows, columns = (min(2, side) for side in x.shape[3:])
        if self.pool == "soft":
            return SoftPool3d((1, rows, columns), (1, rows, columns))(x)
        images = x.transpose(1, 2).flatten(
            0, 1
        )  # pooling in 2D keeps channels-last memory, pooling in 3D does not
        return F.avg_pool2d(images, (rows, columns)).unflatten(0, (x.shape[0], -1)).transpose(1, 2)


class MTConv(nn.Module):
    """A convolution of each branch, the short one's result also going to the long one (paper, figure 3).

    Args:
        in_channels, out_channels: of both branches together.
        kernel_size, stride, padding: of both convolutions.
        groups: 7/8 of them are the short convolution's; with groups, group norms take the place of batch norms.
        lateral: whether there is a connection from short to long.
        pool: how it halves the pixels, "max" (which here is the mean, as published) or "soft".

    The long branch's own and its lateral features pass the same norm one after the other, as in the original, whose
    weights need that: in training its running statistics mix both.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int] = 1,
        *,
        stride: int = 1,
        padding: int | tuple[int, int, int] = 0,
        groups: int = 1,
        lateral: bool = True,
        pool: str = "max",
    ) -> None:
        super().__init__()
        short_groups = max(1, int(groups * SHORT_SHARE))
        long_groups = max(1, groups - short_groups)
        short_in, short_out = short_channels(in_channels), short_channels(out_channels)
        long_in, long_out = in_channels - short_in, out_channels - short_out
        conv = partial(nn.Conv3d, kernel_size=kernel_size, stride=stride, padding=padding, bias=False)
        self.conv_short = conv(short_in, short_out, groups=short_groups)
        self.conv_long = conv(long_in, long_out, groups=long_groups)
        self.lateral = lateral
        if lateral:
            self.pool = SpatialPool2x(pool)
            self.conv_short2long = nn.Conv3d(short_out, long_out, 1, bias=False)
        self.norm_short = nn.GroupNorm(short_groups, short_out) if groups > 1 else nn.BatchNorm3d(short_out)
        self.norm_long = nn.GroupNorm(long_groups, long_out) if groups > 1 else nn.BatchNorm3d(long_out)

    def forward(self, branches: Branches) -> Branches:
        """Short `(B, 7/8 C, T, H, W)` and long `(B, 1/8 C, T/2, H/2, W/2)` -> the same of the output's channels."""
        short, long = self.conv_short(branches[0]), self.conv_long(branches[1])
        normed = self.norm_long(long)
        if self.lateral:
            halved = self.pool(short)
            halved = gather_frames(halved, select_static_frames(halved))
            normed = normed + self.norm_long(self.conv_short2long(resized(halved, long.shape[2:])))
        return self.norm_short(short), normed


class MTBlock(nn.Module):
    """Four multi-temporal convolutions and a recurrent alignment of each branch, beside a skip connection.

    `inner` is the number of channels between the convolutions. GRUs multiply what comes out of the last convolution
    (see `SqueezeRecursion`) before the skip connection is added.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        inner: int,
        groups: int,
        pool: str,
        recursion_init: str,
    ) -> None:
        super().__init__()
        strided = stride != 1
        conv = partial(MTConv, pool=pool)
        self.conv1_1 = conv(in_channels, inner)
        self.conv1_2 = conv(inner, in_channels)
        self.conv2 = conv(in_channels, inner, 3, stride=stride, padding=1, groups=groups)
        last = {"kernel_size": 1} if strided else {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}
        self.conv3 = conv(inner, channels, groups=groups, **last)
        self.downsample = (
            MTConv(in_channels, channels, stride=stride, lateral=False) if strided else nn.Identity()
        )
        short = short_channels(channels)
        self.sr_short = SqueezeRecursion(short, cell="gru", init=recursion_init)
        self.sr_long = SqueezeRecursion(channels - short, cell="gru", init=recursion_init)
        self.relu = nn.ReLU(inplace=True)

    @property
    def last_norms(self) -> tuple[nn.Module, nn.Module]:
        """The norms before the addition."""
        return self.conv3.norm_short, self.conv3.norm_long

    def forward(self, branches: Branches) -> Branches:
        """Both branches -> both, each `(B, C', T/stride, H/stride, W/stride)`, rounded up."""
        out = branches
        for conv in (self.conv1_1, self.conv1_2, self.conv2):
            short, long = conv(out)
            out = self.relu(short), self.relu(long)
        short, long = self.conv3(out)
        skip_short, skip_long = self.downsample(self._at_least_three(branches))
        short = self.sr_short(short)[0] + resized(skip_short, short.shape[2:])
        long = self.sr_long(long)[0] + resized(skip_long, long.shape[2:])
        return self.relu(short), self.relu(long)

    def _at_least_three(self, branches: Branches) -> Branches:
        """Before a strided skip connection the long branch gets 3 x 3 pixels if it has fewer, as in the original."""
        short, long = branches
        if isinstance(self.downsample, nn.Identity):
            return branches
        length, height, width = long.shape[2:]
        return short, resized(long, torch.Size((length, max(3, height), max(3, width))))


class MTNet(nn.Module):
    """A stem, its channels split into the two branches, four stages of `MTBlock`, both branches' means, linear head.

    Args:
        depths: blocks in each stage.
        num_classes: outputs of the head, `fc`.
        groups: of the blocks' third and fourth convolution, whose inside is so many times narrower.
        pool: "max": published networks' (max after the stem, means within); "soft": SoftPool in all their places.
        recursion_init: see `SqueezeRecursion`.
        zero_init_residual: start with blocks that pass their input on (Goyal et al., 2017, section 5.1).
    """

    gate_names: tuple[str, ...] = ()  # its recursion has no gates

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        num_classes: int,
        *,
        groups: int = 1,
        pool: str = "max",
        recursion_init: str = "identity",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if pool not in ("max", "soft"):
            raise ValueError(f"pool is {pool!r}, and must be 'max' or 'soft'")
        pool_class = nn.MaxPool3d if pool == "max" else SoftPool3d
        self.stem = Stem3D()
        self.pool = pool_class(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.halve = SpatialPool2x(pool)
        options = {"groups": groups, "pool": pool, "recursion_init": recursion_init}
        in_channels = 64
        for number, depth in enumerate(depths):
            channels = 64 * 2**number
            first = MTBlock(
                in_channels, channels, 1 if number == 0 else 2, inner=channels // groups, **options
            )
            rest = [
                MTBlock(channels, channels, 1, inner=channels // groups, **options) for _ in range(depth - 1)
            ]
            self.add_module(f"layer{number + 1}", nn.Sequential(first, *rest))
            in_channels = channels
        self.fc = nn.Linear(512, num_classes)
        init_weights(self)
        if zero_init_residual:
            for norm in (
                n for module in self.modules() if isinstance(module, MTBlock) for n in module.last_norms
            ):
                nn.init.zeros_(norm.weight)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips `(B, 3, T, H, W)` -> logits `(B, num_classes)`; H and W from 16, T from 1, odd ones too."""
        check_clips(clips)
        branches = self._split(self.stem(clips))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            branches = stage(branches)
        return self.fc(torch.cat([branch.mean(dim=(2, 3, 4)) for branch in branches], dim=1))

    def _split(self, x: Tensor) -> Branches:
        """`(B, 64, T, H, W)` -> short `(B, 56, T/2, H/2, W/2)`, long `(B, 8, T/4, H/4, W/4)`."""
        height, width = x.shape[3:]
        if height % 2 or width % 2:  # the original repeats the first row and column of odd maps
            x = F.pad(x, (width % 2, 0, height % 2, 0, 0, 0), mode="replicate")
        x = self.pool(x)
        frames = select_static_frames(x)
        short, long = (gather_frames(branch, frames) for branch in x.split([56, 8], dim=1))
        long = self.halve(long)
        return short, gather_frames(long, select_static_frames(long))


def define(name: str, depths: tuple[int, int, int, int], groups: int = 1) -> Builder:
    """Register an MTNet under `name` and return its builder."""

    def builder(
        num_classes: int,
        *,
        pool: str = "max",
        recursion_init: str = "identity",
        zero_init_residual: bool = False,
    ) -> MTNet:
        return MTNet(
            depths,
            num_classes,
            groups=groups,
            pool=pool,
            recursion_init=recursion_init,
            zero_init_residual=zero_init_residual,
        )

    builder.__name__ = builder.__qualname__ = name.lower()
    builder.__doc__ = (
        f"MTNet (paper, section III): MTBlock x {depths}, groups {groups}. Clips `(B, 3, T, H, W)` in, logits "
        "`(B, num_classes)` out; options as for `MTNet`."
    )
    return register(builder)


MTNet_xs = define("MTNet_xs", (2, 2, 2, 2))
MTNet_s = define("MTNet_s", (2, 2, 5, 3))
MTNet_m = define("MTNet_m", (3, 4, 6, 3))
MTNet_l = define("MTNet_l", (3, 4, 23, 3))
MTNet_xl = define("MTNet_xl", (3, 8, 36, 3))
MTNet_xxl = define("MTNet_xxl", (3, 24, 36, 3))

MTNet_xs_g8 = define("MTNet_xs_g8", (2, 2, 2, 2), groups=8)
MTNet_s_g8 = define("MTNet_s_g8", (2, 2, 5, 3), groups=8)
MTNet_m_g8 = define("MTNet_m_g8", (3, 4, 6, 3), groups=8)
MTNet_l_g8 = define("MTNet_l_g8", (3, 4, 23, 3), groups=8)
