"""Batch norms in training: frozen, or with the statistics of all processes' clips."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.distributed import World


def batch_norms(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module


def freeze(network: nn.Module) -> None:
    """Normalise with the running statistics, which stay as they are; `network.train()` thaws them."""
    for norm in batch_norms(network):
        norm.eval()


def synchronise(network: nn.Module, world: World) -> None:
    """Replace every BatchNorm3d, under its name and with its parameters, by one over the clips of all processes."""
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm3d:
                setattr(parent, name, SynchronisedBatchNorm3d(norm, world))


class SynchronisedBatchNorm3d(nn.BatchNorm3d):
    """A batch norm over the clips of all processes that have some in a step; on any device, in fp32 at least.

    torch.nn.SyncBatchNorm does not run on the CPU and waits for processes that have no clips.
    """

    def __init__(self, norm: nn.BatchNorm3d, world: World) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(self, name, buffer)
        self.world = world

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.world.takers == 1:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps, self.world)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """x `(B, C, ...)` -> normalised x, and mean `(C,)`, variance `(C,)` and number of values over all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype, others = torch.promote_types(x.dtype, torch.float32), [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x.to(dtype), dim=others, correction=0)
        count = x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float64)
        # in float64, where a mean of squares less a squared mean loses nothing that float32 could tell
        mean, variance = mean.double(), variance.double()
        sums = torch.cat([mean * count, (variance + mean**2) * count, count])
        world.sum_among(world.takers, sums)
        total = sums[-1:]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean**2).clamp(min=0)
        mean, variance, total = mean.to(dtype), variance.to(dtype), total.to(dtype)
        ctx.save_for_backward(x, weight, mean, variance, total)
        ctx.eps, ctx.world, ctx.takers = eps, world, world.takers
        ctx.mark_non_differentiable(mean, variance, total)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, total = ctx.saved_tensors
        others, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        deviation = (variance + ctx.eps).sqrt()
        normalised = (x - mean.view(shape)) / deviation.view(shape)
        gradient = gradient.to(mean.dtype)
        bias_gradient = gradient.sum(dim=others)
        weight_gradient = (gradient * normalised).sum(dim=others)
        sums = torch.cat([bias_gradient, weight_gradient])
        ctx.world.sum_among(ctx.takers, sums)
        mean_gradient, mean_product = (sums / total).chunk(2)
        centred = gradient - mean_gradient.view(shape) - normalised * mean_product.view(shape)
        x_gradient = centred * (weight / deviation).view(shape)
        return x_gradient.to(x.dtype), weight_gradient, bias_gradient, None, None
