"""Batch norms in training: frozen, or with the statistics of all processes' clips."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.parallel.distributed import DistContext


def batch_norms(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module


def freeze(network: nn.Module) -> None:
    """Normalise with the running statistics, which stay as they are; `network.train()` thaws them."""
    for norm in batch_norms(network):
        norm.eval()


def convert_sync_batchnorm(network: nn.Module, dist: DistContext) -> None:
    """Replace every BatchNorm3d, under its name and with its parameters, by one over the clips of all processes."""
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm) is nn.BatchNorm3d:
                setattr(parent, name, SyncBatchNorm3d(norm, dist))


class SyncBatchNorm3d(nn.BatchNorm3d):
    """A batch norm over the clips of all processes that have some in a step; on any device, in fp32 at least.

    torch.nn.SyncBatchNorm does not run on the CPU and waits for processes that have no clips.
    """

    def __init__(self, norm: nn.BatchNorm3d, dist: DistContext) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(self, name, buffer)
        self.dist = dist

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.dist.num_participants == 1:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps, self.dist)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return y


class _Normalise(torch.autograd.Function):
    """x `(B, C, ...)` -> normalised x, and mean `(C,)`, variance `(C,)` and number of values over all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dist: DistContext
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype, others = torch.promote_types(x.dtype, torch.float32), [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x.to(dtype), dim=others, correction=0)
        count = x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float64)
        # in float64, where a mean of squares less a squared mean loses nothing that float32 could tell
        mean, variance = mean.double(), variance.double()
        sums = torch.cat([mean * count, (variance + mean**2) * count, count])
        dist.all_reduce_subset(dist.num_participants, sums)
        total = sums[-1:]
        mean, square = (sums[:-1] / total).chunk(2)
        variance = (square - mean**2).clamp(min=0)
        mean, variance, total = mean.to(dtype), variance.to(dtype), total.to(dtype)
        ctx.save_for_backward(x, weight, mean, variance, total)
        ctx.eps, ctx.dist, ctx.num_participants = eps, dist, dist.num_participants
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
        ctx.dist.all_reduce_subset(ctx.num_participants, sums)
        mean_gradient, mean_product = (sums / total).chunk(2)
        centred = gradient - mean_gradient.view(shape) - normalised * mean_product.view(shape)
        x_gradient = centred * (weight / deviation).view(shape)
        return x_gradient.to(x.dtype), weight_gradient, bias_gradient, None, None


class SubBatchNorm3d(nn.BatchNorm3d):
    """In training, normalises each group of about `group` clips by its own statistics; in evaluation, a plain norm.

    A batch of B clips makes B // group groups, at least one, of equal sizes up to one clip, in order. Running
    statistics take the mean over groups of their means and of their variances, once a batch. Parameters, buffers and
    their names are those of the plain norm, so weights fit either.
    """

    group: int

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` -> the same shape."""
        groups = len(x) // self.group
        if not self.training or groups <= 1:
            return super().forward(x)
        means = x.new_zeros(groups, self.num_features, dtype=self.running_mean.dtype)
        variances = torch.zeros_like(means)
        parts = [
            # momentum 1: the buffers become the group's statistics
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            for part, mean, variance in zip(x.tensor_split(groups), means, variances, strict=True)
        ]
        self._track(means.mean(dim=0), variances.mean(dim=0))
        return torch.cat(parts)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def convert_sub_batchnorm(network: nn.Module, group: int) -> None:
    """Make every `nn.BatchNorm3d` of a network, in place, one over groups of `group` clips."""
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = SubBatchNorm3d
            module.group = group
