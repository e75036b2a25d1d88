"""The convolutions' channels and the soft pooling."""

import math

import pytest
import torch
from torch import Tensor, nn

from network.layers import (
    Conv2Plus1D,
    Conv3D,
    DepthwiseConv3D,
    InteractionPreservedConv3D,
    SoftPool3d,
    factorized_channels,
)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "width", "groups", "expected"),
    [(64, 64, 1, 1, 144), (64, 128, 1, 1, 230), (64, 128, 2, 1, 460), (64, 128, 2, 32, 480)],
)
def test_factorised_channels(
    in_channels: int, out_channels: int, width: int, groups: int, expected: int
) -> None:
    assert factorized_channels(in_channels, out_channels, width, groups) == expected


@pytest.mark.parametrize("conv", [Conv3D, Conv2Plus1D, DepthwiseConv3D, InteractionPreservedConv3D])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_round_sizes_up(conv: type[nn.Module], stride: int) -> None:
    for size in ((1, 1, 1), (2, 3, 4), (5, 1, 7)):
        out = conv(4, 4, 6, stride)(torch.randn(2, 4, *size))
        assert out.shape == (2, 4, *(math.ceil(s / stride) for s in size))


@pytest.mark.parametrize("conv", [DepthwiseConv3D, InteractionPreservedConv3D])
def test_channel_separated_convolutions_have_a_filter_for_each_channel(conv: type[nn.Module]) -> None:
    last = [module for module in conv(4, 4, 0).modules() if isinstance(module, nn.Conv3d)][-1]
    assert (last.groups, last.weight.shape) == (4, (4, 1, 3, 3, 3))


def soft_pool_by_hand(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Each output of a `(T, H, W)` tensor from the values of its window that lie inside, one by one."""
    sizes = [(size + 2 * padding - kernel) // stride + 1 for size in x.shape]
    out = torch.empty(sizes, dtype=x.dtype)
    for position in torch.cartesian_prod(*(torch.arange(size) for size in sizes)).tolist():
        starts = [stride * i - padding for i in position]
        window = x[tuple(slice(max(start, 0), start + kernel) for start in starts)].flatten()
        out[tuple(position)] = (window.exp() * window).sum() / window.exp().sum()
    return out


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_soft_pool_is_the_definition(kernel: int, stride: int, padding: int) -> None:
    x = torch.randn(2, 2, 5, 4, 7, dtype=torch.float64)
    pooled = SoftPool3d(kernel, stride, padding)(x)
    for b, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(pooled[b, c], soft_pool_by_hand(x[b, c], kernel, stride, padding))


def test_soft_pool_halves() -> None:
    """The original's pool="soft" was an identity."""
    pool, reference = SoftPool3d(3, 2, 1), nn.MaxPool3d(3, 2, 1)
    for size in ((1, 1, 1), (8, 8, 8), (7, 8, 9), (2, 1, 5)):
        x = torch.randn(2, 3, *size)
        assert pool(x).shape == reference(x).shape == (2, 3, *(math.ceil(s / 2) for s in size))


def test_soft_pool_is_safe_in_half_precision() -> None:
    """e^x overflows fp16 from 12 on: the original's users reported NaN."""
    x = torch.tensor([-1e3, -60.0, 0.0, 11.0, 12.0, 1e3, 6e4], dtype=torch.float16)
    x = x[torch.randint(len(x), (1, 2, 8, 8, 8))].requires_grad_()
    pooled = SoftPool3d(3, 2, 1)(x)
    assert pooled.dtype == torch.float16
    assert pooled.isfinite().all()
    pooled.float().mean().backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_soft_pool_gradient() -> None:
    x = torch.randn(1, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SoftPool3d(3, 2, 1), x)
