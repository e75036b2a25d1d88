"""The convolutions, stems and poolings that blocks are made of.

All convolutions of a block are called alike, `conv(in_channels, out_channels, mid_channels, stride, groups)`,
and turn `(B, in_channels, T, H, W)` into `(B, out_channels, T', H', W')`, each rounded up after the stride.
The order of the modules in each `nn.Sequential` is that of the names in published weights.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_clips(clips: Tensor) -> None:
    """ValueError for anything but clips `(B, 3, T, H, W)`."""
    if clips.dim() != 5 or clips.shape[1] != 3:
        raise ValueError(f"expected clips of shape (B, 3, T, H, W), got {tuple(clips.shape)}")


def init_weights(network: nn.Module) -> None:
    """Initial weights of convolutions (He et al., 2015) and of the head `fc`.

    Norms keep PyTorch's (scale 1, offset 0), recurrent cells their own.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.normal_(network.fc.weight, std=0.01)
    nn.init.zeros_(network.fc.bias)


def factorized_channels(in_channels: int, out_channels: int, width: int = 1, groups: int = 1) -> int:
    """Channels between the two halves of a block's (2+1)D convolutions: 64, 64 -> 144.

    As many as give both halves the parameters of one 3 x 3 x 3 convolution from a block's input to its output
    (Tran et al., CVPR 2018, section 3.5), `width` times, up to the next multiple of `groups`.
    """
    channels = width * (27 * in_channels * out_channels // (9 * in_channels + 3 * out_channels))
    return -(-channels // groups) * groups


class Conv3D(nn.Sequential):
    """One 3 x 3 x 3 convolution. `mid_channels` is for the factorised one."""

    def __init__(
        self, in_channels: int, out_channels: int, mid_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)
        )


class Conv2Plus1D(nn.Sequential):
    """A 1 x 3 x 3 convolution over space, norm and ReLU, then a 3 x 1 x 1 convolution over time."""

    def __init__(
        self, in_channels: int, out_channels: int, mid_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        s = stride
        super().__init__(
            nn.Conv3d(in_channels, mid_channels, (1, 3, 3), (1, s, s), (0, 1, 1), groups=groups, bias=False),
            nn.BatchNorm3d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid_channels, out_channels, (3, 1, 1), (s, 1, 1), (1, 0, 0), groups=groups, bias=False),
        )


class DepthwiseConv3D(Conv3D):
    """A 3 x 3 x 3 convolution of each channel by itself: ir-CSN (Tran et al., ICCV 2019, section 3.3)."""

    def __init__(
        self, in_channels: int, out_channels: int, mid_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, mid_channels, stride, groups=in_channels)


class InteractionPreservedConv3D(nn.Sequential):
    """A 1 x 1 x 1 convolution that mixes channels, before the depthwise one: ip-CSN (same section)."""

    def __init__(
        self, in_channels: int, out_channels: int, mid_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
            DepthwiseConv3D(out_channels, out_channels, mid_channels, stride),
        )


class Stem3D(nn.Sequential):
    """`(B, 3, T, H, W)` -> `(B, channels, T, H/2, W/2)` with one 3 x 7 x 7 convolution."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__(
            nn.Conv3d(3, channels, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )


class Stem2Plus1D(nn.Sequential):
    """`(B, 3, T, H, W)` -> `(B, channels, T, H/2, W/2)`, over space first and then over time."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__(
            nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(45),
            nn.ReLU(inplace=True),
            nn.Conv3d(45, channels, (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )


class SoftPool3d(nn.Module):
    """The mean of each window, weighted by the exponential of the values: sum(x e^x) / sum(e^x).

    (Stergiou et al., ICCV 2021.) Positions outside of the input have no weight. Output sizes are those of
    `nn.MaxPool3d`, half of the input's, rounded up, for kernel 3, stride 2, padding 1.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: int | Sequence[int] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = map(_triple, (kernel_size, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` -> `(B, C, T', H', W')`, of the same type."""
        # e^x leaves the range of fp16 at 12, and 27 products are added up.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # -1e30: a weight of exactly 0, unlike 0, and a finite gradient, unlike minus infinity.
        around = [side for padding in reversed(self.padding) for side in (padding, padding)]
        windows = F.pad(wide, around, value=-1e30)
        for dim, kernel, stride in zip((2, 3, 4), self.kernel_size, self.stride, strict=True):
            windows = windows.unfold(dim, kernel, stride)
        windows = windows.flatten(start_dim=5)  # (B, C, T', H', W', values of the window)
        return (windows.softmax(dim=-1) * windows).sum(dim=-1).to(x.dtype)


def _triple(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) * 3 if isinstance(value, int) else tuple(value)
