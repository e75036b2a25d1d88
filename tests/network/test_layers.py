"""Convolutions and SoftPool."""

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from network.layers import (
    Conv2Plus1D,
    Conv3D,
    DepthwiseConv3D,
    InteractionPreservedConv3D,
    SoftPool3d,
    make_pool,
    num_factorized_channels,
)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((64, 64), 144), ((64, 128), 230), ((64, 128, 2), 460), ((64, 128, 2, 32), 480)],
)
def test_num_factorized_channels(arguments: tuple[int, ...], expected: int) -> None:
    assert num_factorized_channels(*arguments) == expected


@pytest.mark.parametrize("conv", [Conv3D, Conv2Plus1D, DepthwiseConv3D, InteractionPreservedConv3D])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_round_sizes_up(conv: type[nn.Module], stride: int) -> None:
    for size in ((1, 1, 1), (2, 3, 4), (5, 1, 7)):
        out = conv(4, 4, 6, stride)(torch.randn(2, 4, *size))
        assert out.shape == (2, 4, *(math.ceil(side / stride) for side in size))


@pytest.mark.parametrize("conv", [DepthwiseConv3D, InteractionPreservedConv3D])
def test_channel_separated_convolutions_are_depthwise(conv: type[nn.Module]) -> None:
    last = [module for module in conv(4, 4, 0).modules() if isinstance(module, nn.Conv3d)][-1]
    assert (last.groups, last.weight.shape) == (4, (4, 1, 3, 3, 3))


def soft_pool_in_loops(x: Tensor, window: tuple[int, int, int]) -> Tensor:
    """SoftPool of a `(T, H, W)` tensor, one output at a time."""
    sizes = [max(side // size, 1) for side, size in zip(x.shape, window, strict=True)]
    out = torch.empty(sizes, dtype=x.dtype)
    for position in torch.cartesian_prod(*(torch.arange(size) for size in sizes)).tolist():
        starts = [size * i for size, i in zip(window, position, strict=True)]
        part = x[
            tuple(slice(start, start + size) for start, size in zip(starts, window, strict=True))
        ].flatten()
        out[tuple(position)] = part.softmax(dim=0) @ part
    return out


@pytest.mark.parametrize("window", [(2, 2, 2), (1, 2, 2), (3, 1, 2)])
@pytest.mark.parametrize("size", [(5, 4, 7), (1, 6, 1)])
@pytest.mark.parametrize("scale", [1, 3000])  # 3000: one maximum for all windows would lose the lower ones
def test_soft_pool_matches_its_definition(
    window: tuple[int, int, int], size: tuple[int, int, int], scale: int
) -> None:
    x = (scale * torch.randn(2, 2, *size, dtype=torch.float64)).requires_grad_()
    expected = torch.stack([soft_pool_in_loops(clip, window) for clip in x.flatten(0, 1)])
    pooled = SoftPool3d(window)(x)
    torch.testing.assert_close(pooled.flatten(0, 1), expected, rtol=0, atol=1e-12 * scale)
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    (pooled.flatten(0, 1) * weights).sum().backward()
    torch.testing.assert_close(x.grad, gradient, rtol=0, atol=1e-12 * scale)


class MemoryPeak(TorchFunctionMode):
    """Sees the largest number of bytes that tensors of torch's functions hold at once."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors, self.peak = WeakValueDictionary(), 0

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.tensors[id(out)] = out
            storages = [tensor.untyped_storage() for tensor in self.tensors.values()]
            self.peak = max(self.peak, sum({s.data_ptr(): s.nbytes() for s in storages}.values()))
        return out


def test_soft_pool_does_not_unfold_windows() -> None:
    """Unfolded with their weights and products they would be 5 times the input, and again for the gradient."""
    x = torch.randn(2, 4, 8, 12, 12, requires_grad=True)
    with MemoryPeak() as memory:
        make_pool("soft")(x).sum().backward()
    assert x.nbytes < memory.peak < 3.5 * x.nbytes


@pytest.mark.parametrize("size", [(1, 1, 1), (8, 8, 8), (7, 8, 9), (2, 1, 5)])
def test_sizes_of_pooling_after_the_stem(size: tuple[int, int, int]) -> None:
    """As in the original: max of 3 with padding rounds up, SoftPool of 2 without rounds down."""
    for pool, expected in (
        ("max", [math.ceil(side / 2) for side in size]),
        ("soft", [max(side // 2, 1) for side in size]),
    ):
        assert list(make_pool(pool)(torch.randn(2, 3, *size)).shape[2:]) == expected
        first, *others = make_pool(pool, stride=(1, 2, 2))(torch.randn(2, 3, *size)).shape[2:]
        assert [first, *others] == [size[0], *expected[1:]]


def test_soft_pool_is_finite_in_half_precision() -> None:
    """e^x overflows fp16 from 12 on: the original's users reported NaN."""
    x = torch.tensor([-1e3, -60.0, 0.0, 11.0, 12.0, 1e3, 6e4], dtype=torch.float16)
    x = x[torch.randint(len(x), (1, 2, 8, 8, 8))].requires_grad_()
    pooled = make_pool("soft")(x)
    assert pooled.dtype == torch.float16
    assert pooled.isfinite().all()
    pooled.float().mean().backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()


def test_soft_pool_gradient() -> None:
    x = torch.randn(1, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(make_pool("soft"), x)
