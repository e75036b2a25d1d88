"""MTNet: a short and a long branch of different temporal resolution, with lateral connections and recurrent alignment.

Stergiou & Poppe, "Multi-temporal convolutions for human action recognition in videos", IJCNN 2021, section III. Of the
channels of each layer 7/8 follow short motions at full temporal and spatial resolution, 1/8 follow long ones at half of
both. To add a network, add a line at the end.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from network.layers import SoftPool3d, Stem3D, check_clips, init_weights, make_pool, make_stage
from network.recursion import SqueezeRecursion
from network.registry import Builder, register

SHORT_FRACTION = 7 / 8  # of the channels
Branches = tuple[Tensor, Tensor]  # short, long
Depths = tuple[int, int, int, int]  # blocks in each of the four stages


def short_channels(channels: int) -> int:
    """Return the number of channels of the short branch, 64 -> 56; the long branch has the rest."""
    return int(channels * SHORT_FRACTION)


def select_static_frames(x: Tensor) -> Tensor | None:
    """Return the half of the frames that changes least: `(B, C, T, H, W)` -> sorted indices `(B, T // 2)`.

    The similarity of neighbouring frames is the squared cosine similarity of their means over space; frames are
    ranked by the sum of the similarities to both neighbours. The first and the last frame are never selected. Return
    None if that leaves no choice: all of one or two frames, the inner ones of three or four.
    """
    length = x.shape[2]
    if length < 5:
        return None
    with torch.no_grad():
        means = x.mean(dim=(3, 4), dtype=torch.promote_types(x.dtype, torch.float32))  # (B, C, T)
        directions = F.normalize(means, dim=1, eps=1e-4)
        similarity = (directions[..., :-1] * directions[..., 1:]).sum(dim=1).square()
        scores = similarity[:, :-1] + similarity[:, 1:]  # (B, T - 2), of frames 1 to T - 2
        return scores.topk(length // 2, dim=1, sorted=False).indices.sort(dim=1).values + 1


def gather_frames(x: Tensor, frames: Tensor | None) -> Tensor:
    """Return the frames `(B, T')` of x: `(B, C, T, H, W)` -> `(B, C, T', H, W)` in the same memory format."""
    if frames is None:  # dense, as convolutions would copy them
        return x if x.shape[2] < 3 else x[:, :, 1:-1].clone()
    if x.stride(1) == 1:  # channels-last
        return _gather_rows(x.movedim(1, 4), frames).movedim(4, 1)
    return _gather_rows(x, frames[:, None].expand(-1, x.shape[1], -1))


def _gather_rows(x: Tensor, frames: Tensor) -> Tensor:
    """`(*outer, T, *frame)`, indices `(*outer, T')` -> `(*outer, T', *frame)`, dense."""
    # not x[clips, frames], whose gradient sorts the indices
    outer, rows = frames.shape[:-1], x.flatten(0, frames.dim() - 1)
    first = torch.arange(0, rows.shape[0], x.shape[len(outer)], device=x.device).view(*outer, 1)
    return rows.index_select(0, (first + frames).flatten()).unflatten(0, frames.shape)


def map_images(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of images, `(N, C, H, W)`, to `(B, C, T, H, W)`, without copies in either memory format."""
    if x.is_contiguous():
        return function(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
    images = x.transpose(1, 2).flatten(0, 1)  # a view of channels-last memory
    return function(images).unflatten(0, (x.shape[0], -1)).transpose(1, 2)


def interpolate_to(x: Tensor, size: torch.Size) -> Tensor:
    """Return x, `(B, C, T, H, W)`, interpolated trilinearly to `size` (T, H, W), or x itself if it has that size."""
    # in time, then in space: each thread of CUDA's trilinear kernel loops over all clips and channels
    length, area = x.shape[2], x.shape[3:]
    if length == 2 * size[0]:
        x = F.avg_pool2d(x.flatten(3), (2, 1)).unflatten(3, area)
    elif length != size[0]:
        x = F.interpolate(x.flatten(3), (size[0], area.numel()), mode="bilinear").unflatten(3, area)
    return x if area == size[1:] else map_images(partial(F.interpolate, size=size[1:], mode="bilinear"), x)


class SpatialPool2x(nn.Module):
    """Mean or SoftPool of 2 x 2 pixels; a side of one pixel is kept, an odd one loses its last pixel."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` -> `(B, C, T, H/2, W/2)` in the same memory format."""
        if self.pool == "soft":
            return SoftPool3d((1, 2, 2))(x)
        height, width = (min(2, side) for side in x.shape[3:])
        # avg_pool2d keeps channels-last memory, avg_pool3d does not
        return map_images(partial(F.avg_pool2d, kernel_size=(height, width)), x)


class MTConv(nn.Module):
    """A convolution of each branch and a lateral connection from short to long (paper, figure 3).

    Args:
        in_channels, out_channels: of both branches together.
        kernel_size, stride, padding: of both convolutions.
        groups: of both convolutions together, 7/8 for the short one; above 1, GroupNorm replaces BatchNorm.
        lateral: whether there is a lateral connection.
        pool: its spatial pooling, "max" (here the mean, as published) or "soft".

    The features of the long branch and of the lateral connection are normalized by the same layer one after the
    other, as in the original, whose weights need that: its running statistics are of both.
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
        short_groups = max(1, int(groups * SHORT_FRACTION))
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
        """Short `(B, 7/8 C, T, H, W)` and long `(B, 1/8 C, T/2, H/2, W/2)` -> the same with out_channels."""
        short, long = self.conv_short(branches[0]), self.conv_long(branches[1])
        out_long = self.norm_long(long)
        if self.lateral:
            lateral = self.pool(short)
            lateral = gather_frames(lateral, select_static_frames(lateral))
            lateral = interpolate_to(lateral, long.shape[2:])
            out_long = out_long + self.norm_long(self.conv_short2long(lateral))
        return self.norm_short(short), out_long


class MTBlock(nn.Module):
    """Four multi-temporal convolutions, a recurrent alignment (GRU) of each branch, and a skip connection.

    Between the convolutions there are `channels // groups` channels.
    """

    residual_scales = ("conv3.norm_short.weight", "conv3.norm_long.weight")

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, groups: int, pool: str, recursion_init: str
    ) -> None:
        super().__init__()
        mid_channels, short, strided = channels // groups, short_channels(channels), stride != 1
        conv = partial(MTConv, pool=pool)
        self.conv1_1 = conv(in_channels, mid_channels)
        self.conv1_2 = conv(mid_channels, in_channels)
        self.conv2 = conv(in_channels, mid_channels, 3, stride=stride, padding=1, groups=groups)
        if strided:
            self.conv3 = conv(mid_channels, channels, groups=groups)
        else:
            self.conv3 = conv(mid_channels, channels, (1, 3, 3), padding=(0, 1, 1), groups=groups)
        self.downsample = (
            MTConv(in_channels, channels, stride=stride, lateral=False) if strided else nn.Identity()
        )
        self.sr_short = SqueezeRecursion(short, cell="gru", init=recursion_init)
        self.sr_long = SqueezeRecursion(channels - short, cell="gru", init=recursion_init)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, branches: Branches) -> Branches:
        """Return both branches, each `(B, C', T/stride, H/stride, W/stride)`, rounded up."""
        out = branches
        for conv in (self.conv1_1, self.conv1_2, self.conv2):
            short, long = conv(out)
            out = self.relu(short), self.relu(long)
        short, long = self.conv3(out)
        skip_short, skip_long = self._skip(*branches)
        short = self.sr_short(short)[0] + interpolate_to(skip_short, short.shape[2:])
        long = self.sr_long(long)[0] + interpolate_to(skip_long, long.shape[2:])
        return self.relu(short), self.relu(long)

    def _skip(self, short: Tensor, long: Tensor) -> Branches:
        # as in the original: 3 x 3 pixels, whatever the width, of a long branch that is less than 3 high
        if isinstance(self.downsample, MTConv) and long.shape[3] < 3:
            long = interpolate_to(long, torch.Size((long.shape[2], 3, 3)))
        return self.downsample((short, long))


class MTNet(nn.Module):
    """A stem, a split into two branches, four stages of `MTBlock`, the mean of both branches, linear head.

    Args:
        depths: number of blocks in each stage.
        groups: of the third and fourth convolution of each block.
        num_classes: outputs of the head, `fc`.
        pool: "max": as published, max after the stem and means in the blocks; "soft": SoftPool everywhere.
        recursion_init: see `SqueezeRecursion`.
        zero_init_residual: see `init_weights`.
    """

    gate_names: tuple[str, ...] = ()  # its recursion has no gates

    def __init__(
        self,
        depths: Depths,
        groups: int,
        num_classes: int,
        *,
        pool: str = "max",
        recursion_init: str = "identity",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        make_block = partial(MTBlock, groups=groups, pool=pool, recursion_init=recursion_init)
        self.stem = Stem3D()
        self.pool = make_pool(pool, stride=(1, 2, 2))
        self.halve = SpatialPool2x(pool)
        self.layer1 = make_stage(make_block, depths[0], 64, 64, stride=1)
        self.layer2 = make_stage(make_block, depths[1], 64, 128, stride=2)
        self.layer3 = make_stage(make_block, depths[2], 128, 256, stride=2)
        self.layer4 = make_stage(make_block, depths[3], 256, 512, stride=2)
        self.fc = nn.Linear(512, num_classes)
        init_weights(self, zero_init_residual)

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits `(B, num_classes)` of clips `(B, 3, T, H, W)`; H and W from 16, T from 1."""
        check_clips(clips)
        branches = self._split(self.stem(clips))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            branches = stage(branches)
        return self.fc(torch.cat([branch.mean(dim=(2, 3, 4)) for branch in branches], dim=1))

    def _split(self, x: Tensor) -> Branches:
        """`(B, 64, T, H, W)` -> short `(B, 56, T/2, H/2, W/2)`, long `(B, 8, T/4, H/4, W/4)`."""
        height, width = x.shape[3:]
        # the original repeats the first row and column, even if only one side is odd
        if height % 2 or width % 2:
            x = F.pad(x, (1, 0, 1, 0, 0, 0), mode="replicate")
        x = self.pool(x)
        frames = select_static_frames(x)
        short, long = (gather_frames(branch, frames) for branch in x.split([56, 8], dim=1))
        long = self.halve(long)
        return short, gather_frames(long, select_static_frames(long))


def define(name: str, depths: Depths, groups: int = 1) -> Builder:
    """Register an MTNet as `name` and return its builder, which has the other arguments of `MTNet`."""
    builder: Any = partial(MTNet, depths, groups)
    builder.__name__ = builder.__qualname__ = name.lower()
    builder.__doc__ = (
        f"MTNet (paper, section III): MTBlock x {depths}, groups {groups}. Input: clips `(B, 3, T, H, W)`; output: "
        "logits `(B, num_classes)`; options as for `MTNet`."
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
