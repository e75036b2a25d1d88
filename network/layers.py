"""Convolutions, stems and pooling layers, and what all networks share: stages, initialization, input checks.

All convolutions of a block have the same arguments, `conv(in_channels, out_channels, factorized_channels, stride,
groups)`, and map `(B, in_channels, T, H, W)` to `(B, out_channels, T', H', W')`, sizes divided by the stride and
rounded up. The order of modules in each `nn.Sequential` gives the names in published weights.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def check_clips(clips: Tensor) -> None:
    """Raise ValueError if `clips` is not `(B, 3, T, H, W)`."""
    if clips.dim() != 5 or clips.shape[1] != 3:
        raise ValueError(f"expected clips of shape (B, 3, T, H, W), got {tuple(clips.shape)}")


def init_weights(network: nn.Module, zero_init_residual: bool) -> None:
    """Initialize convolutions (He et al., 2015) and the head `fc`; other layers keep PyTorch's initialization.

    `zero_init_residual` also sets the weights that a block lists in `residual_scales` to zero, so that each block
    starts as its skip connection (Goyal et al., 2017, section 5.1).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.normal_(network.get_parameter("fc.weight"), std=0.01)
    nn.init.zeros_(network.get_parameter("fc.bias"))
    if zero_init_residual:
        for module in network.modules():
            for name in getattr(module, "residual_scales", ()):
                nn.init.zeros_(module.get_parameter(name))


def make_stage(
    make_block: Callable[..., nn.Module], depth: int, in_channels: int, channels: int, stride: int
) -> nn.Sequential:
    """Return `depth` blocks; the first one has the stride and changes the number of channels."""
    first = make_block(in_channels, channels, stride)
    return nn.Sequential(first, *(make_block(channels, channels, 1) for _ in range(depth - 1)))


def num_factorized_channels(
    in_channels: int, out_channels: int, width_multiplier: int = 1, groups: int = 1
) -> int:
    """Return the channels between the two halves of a block's (2+1)D convolutions: 64, 64 -> 144.

    Both halves together have the parameters of one 3 x 3 x 3 convolution from the block's input to its output (Tran et
    al., CVPR 2018, section 3.5), times `width_multiplier`, rounded up to a multiple of `groups`.
    """
    channels = width_multiplier * (27 * in_channels * out_channels // (9 * in_channels + 3 * out_channels))
    return -(-channels // groups) * groups


class Conv3D(nn.Sequential):
    """One 3 x 3 x 3 convolution; `factorized_channels` is ignored."""

    def __init__(
        self, in_channels: int, out_channels: int, factorized_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, groups=groups, bias=False)
        )


class Conv2Plus1D(nn.Sequential):
    """A 1 x 3 x 3 convolution in space, BatchNorm and ReLU, then a 3 x 1 x 1 convolution in time."""

    def __init__(
        self, in_channels: int, out_channels: int, factorized_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        mid, s = factorized_channels, stride
        super().__init__(
            nn.Conv3d(in_channels, mid, (1, 3, 3), (1, s, s), (0, 1, 1), groups=groups, bias=False),
            nn.BatchNorm3d(mid),
            nn.ReLU(inplace=True),
            nn.Conv3d(mid, out_channels, (3, 1, 1), (s, 1, 1), (1, 0, 0), groups=groups, bias=False),
        )


class DepthwiseConv3D(Conv3D):
    """A 3 x 3 x 3 convolution of each channel alone: ir-CSN (Tran et al., ICCV 2019, section 3.3)."""

    def __init__(
        self, in_channels: int, out_channels: int, factorized_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, factorized_channels, stride, groups=in_channels)


class InteractionPreservedConv3D(nn.Sequential):
    """A 1 x 1 x 1 convolution that mixes channels, then a depthwise one: ip-CSN (same section)."""

    def __init__(
        self, in_channels: int, out_channels: int, factorized_channels: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
            DepthwiseConv3D(out_channels, out_channels, factorized_channels, stride),
        )


class Stem3D(nn.Sequential):
    """One 3 x 7 x 7 convolution: `(B, 3, T, H, W)` -> `(B, channels, T, H/2, W/2)`."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__(
            nn.Conv3d(3, channels, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )


class Stem2Plus1D(nn.Sequential):
    """A convolution in space, then one in time: `(B, 3, T, H, W)` -> `(B, channels, T, H/2, W/2)`."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__(
            nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(45),
            nn.ReLU(inplace=True),
            nn.Conv3d(45, channels, (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(inplace=True),
        )


Size3d = tuple[int, int, int]


class _SoftPool(torch.autograd.Function):
    """SoftPool by one position of all windows after the other, in the gradient again: windows are never unfolded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Size3d) -> Tensor:
        largest = F.max_pool3d(x, window)
        largest = largest.to(torch.promote_types(x.dtype, torch.float32))  # up to 8 products are summed
        total, weighted = torch.zeros_like(largest), torch.zeros_like(largest)
        ends = [size * count for size, count in zip(window, largest.shape[2:], strict=True)]
        offsets = product(*map(range, window))
        ctx.positions = [(..., *map(slice, offset, ends, window)) for offset in offsets]
        for values in ctx.positions:
            weights = (x[values] - largest).exp_()
            total.add_(weights)
            weighted.add_(weights.mul_(x[values]))
        mean = weighted.div_(total)
        ctx.save_for_backward(x, largest, total, mean)
        return mean.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, largest, total, mean = ctx.saved_tensors
        grad, grad_x = grads[0] / total, torch.zeros_like(x)
        for values in ctx.positions:
            weights = (x[values] - largest).exp_().mul_(grad)
            grad_x[values] = weights.mul_((x[values] - mean).add_(1))
        return grad_x, None


class SoftPool3d(nn.Module):
    """Mean of each window, weighted by the exponential of its values: sum(x e^x) / sum(e^x).

    (Stergiou et al., ICCV 2021.) Windows do not overlap. What is left at the end of a side is dropped, as in their
    code; a side that is smaller than the window is one window.
    """

    def __init__(self, window: Size3d) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` -> `(B, C, T', H', W')`, with the same dtype and memory format."""
        length, height, width = map(min, self.window, x.shape[2:])
        return _SoftPool.apply(x, (length, height, width))


def make_pool(pool: str, stride: Size3d = (2, 2, 2)) -> nn.Module:
    """Return the pooling layer after the stem, as in the original.

    "max": of 3 pixels or frames wherever the stride is 2. "soft": `SoftPool3d` of windows as large as the stride.
    """
    if pool not in ("max", "soft"):
        raise ValueError(f"pool is {pool!r}, and must be 'max' or 'soft'")
    if pool == "soft":
        return SoftPool3d(stride)
    return nn.MaxPool3d(tuple(2 * step - 1 for step in stride), stride, tuple(step - 1 for step in stride))
