"""BatchNorm in training: frozen, precise, synchronized over ranks, or over sub-batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.parallel.distributed import DistContext


def freeze_batchnorm(network: nn.Module) -> None:
    """Normalize by the running statistics, and do not update them, until the next `network.train()`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()


@contextmanager
def precise_running_stats(network: nn.Module, dist: DistContext) -> Iterator[None]:
    """Set all running statistics to those of the clips that `network` sees, in training mode, within the block.

    Each clip has the same weight, over all ranks. The variance is that of the population: the mean of the batches'
    variances plus the variance of their means (Wu & Johnson, *Rethinking "Batch" in BatchNorm*, 2021, section 3). A
    norm that is used twice, as in MTNet, gets those of both inputs together. After an error the statistics are those
    before the block.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm3d)]
    momenta = [norm.momentum for norm in norms]
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    # of each norm: clips, and sums over them of mean and mean square
    sums = {norm: norm.weight.new_zeros(1 + 2 * norm.num_features, dtype=torch.float64) for norm in norms}

    def add(norm: nn.BatchNorm3d, inputs: tuple[Tensor], _: Tensor) -> None:
        mean, var = (stats.double() for stats in _running_stats(norm))
        sums[norm] += len(inputs[0]) * torch.cat([torch.ones_like(mean[:1]), mean, var + mean**2])

    hooks = [norm.register_forward_hook(add) for norm in norms]
    # ranks may see different numbers of batches
    num_participants, dist.num_participants = dist.num_participants, 1
    try:
        for norm in norms:
            norm.momentum = 1.0  # the running statistics become the batch's
        yield
    finally:
        dist.num_participants = num_participants
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for buffer, values in before:
            buffer.copy_(values)
    for norm, total in sums.items():
        count, mean, mean_square = dist.all_reduce(total).split([1, norm.num_features, norm.num_features])
        mean = mean / count
        for stats, new in zip(_running_stats(norm), (mean, mean_square / count - mean**2), strict=True):
            stats.copy_(new)


def _running_stats(norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def convert_sync_batchnorm(network: nn.Module, dist: DistContext) -> None:
    """Turn every `nn.BatchNorm3d` of a network, in place, into a `SyncBatchNorm3d`."""
    _convert_batchnorm(network, SyncBatchNorm3d, dist=dist)


def convert_sub_batchnorm(network: nn.Module, sub_batch_size: int) -> None:
    """Turn every `nn.BatchNorm3d` of a network, in place, into a `SubBatchNorm3d`."""
    _convert_batchnorm(network, SubBatchNorm3d, sub_batch_size=sub_batch_size)


def _convert_batchnorm(network: nn.Module, norm_class: type[nn.BatchNorm3d], **attributes: Any) -> None:
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = norm_class
            vars(module).update(attributes)


class SyncBatchNorm3d(nn.BatchNorm3d):
    """BatchNorm over the clips of all participating ranks, on any device, with statistics in fp32 or better.

    torch.nn.SyncBatchNorm does not run on CPUs and waits for idle ranks.
    """

    dist: DistContext

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.dist.num_participants == 1:
            return super().forward(x)
        y, mean, var, count = _SyncBatchNormFunction.apply(x, self.weight, self.bias, self.eps, self.dist)
        _update_running_stats(self, mean, var * (count / (count - 1)))
        return y


@torch.no_grad()
def _update_running_stats(norm: nn.BatchNorm3d, mean: Tensor, var: Tensor) -> None:
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    for stats, new in zip(_running_stats(norm), (mean, var), strict=True):
        stats.lerp_(new, norm.momentum)


class _SyncBatchNormFunction(torch.autograd.Function):
    """x `(B, C, ...)` -> normalized x, and over all participating ranks mean `(C,)`, variance `(C,)`, count `(1,)`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dist: DistContext
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype, dims = torch.promote_types(x.dtype, torch.float32), [0, *range(2, x.dim())]
        var, mean = torch.var_mean(x.to(dtype), dim=dims, correction=0)
        count = x.new_full((1,), x.numel() / x.shape[1], dtype=torch.float64)
        # E[x^2] - E[x]^2 cancels; in float64 the loss is below float32's rounding
        mean, var = mean.double(), var.double()
        sums = torch.cat([mean * count, (var + mean**2) * count, count])
        dist.all_reduce_subset(dist.num_participants, sums)
        total = sums[-1:]
        mean, square = (sums[:-1] / total).chunk(2)
        var = (square - mean**2).clamp(min=0)
        mean, var, total = mean.to(dtype), var.to(dtype), total.to(dtype)
        ctx.save_for_backward(x, weight, mean, var, total)
        ctx.eps, ctx.dist, ctx.num_participants = eps, dist, dist.num_participants
        ctx.mark_non_differentiable(mean, var, total)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, total = ctx.saved_tensors
        dims, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        std = (var + ctx.eps).sqrt()
        normalized = (x - mean.view(shape)) / std.view(shape)
        grad = grad.to(mean.dtype)
        bias_grad = grad.sum(dim=dims)
        weight_grad = (grad * normalized).sum(dim=dims)
        sums = torch.cat([bias_grad, weight_grad])
        ctx.dist.all_reduce_subset(ctx.num_participants, sums)
        mean_grad, mean_product = (sums / total).chunk(2)
        centered = grad - mean_grad.view(shape) - normalized * mean_product.view(shape)
        x_grad = centered * (weight / std).view(shape)
        return x_grad.to(x.dtype), weight_grad, bias_grad, None, None


class SubBatchNorm3d(nn.BatchNorm3d):
    """BatchNorm that, in training, normalizes each sub-batch by its own statistics.

    B clips are split, in order, into B // sub_batch_size sub-batches (at least one) whose sizes differ by one clip at
    most. Running statistics are updated once per batch, with the mean over sub-batches of their means and variances.
    Parameters and buffers are those of `nn.BatchNorm3d`, so weights fit both. Sub-batch norm of *A Multigrid Method for
    Efficiently Training Video Models* (Wu et al., 2020).
    """

    sub_batch_size: int

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` -> the same shape."""
        num_splits = len(x) // self.sub_batch_size
        if not self.training or num_splits <= 1:
            return super().forward(x)
        size, num_larger = divmod(len(x), num_splits)
        if num_larger == 0:
            y, means, variances = self._normalize(x, num_splits)
        else:
            split = num_larger * (size + 1)
            larger, smaller = x.split([split, len(x) - split])
            parts = self._normalize(larger, num_larger), self._normalize(smaller, num_splits - num_larger)
            y, means, variances = map(torch.cat, zip(*parts, strict=True))
        _update_running_stats(self, means.mean(dim=0), variances.mean(dim=0))
        return y

    def _normalize(self, x: Tensor, num_splits: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x normalized in sub-batches of the same size, and their means and variances `(num_splits, C)`.

        The channels of sub-batches become channels of one batch, `(B / num_splits, num_splits * C, T, H, W)`, in the
        memory format of x, where whole clips or pixels are copied: one kernel, however many sub-batches.
        """
        dim = 4 if x.is_contiguous(memory_format=torch.channels_last_3d) else 1  # of channels in memory
        merged = x.movedim(1, dim).unflatten(0, (num_splits, -1)).movedim(0, dim).flatten(dim, dim + 1)
        weight, bias = self.weight.repeat(num_splits), self.bias.repeat(num_splits)
        means, variances = torch.zeros_like(weight), torch.zeros_like(weight)
        # momentum 1: the buffers become the statistics of the sub-batches
        y = F.batch_norm(merged.movedim(dim, 1), means, variances, weight, bias, True, 1.0, self.eps)
        y = y.movedim(1, dim).unflatten(dim, (num_splits, -1)).movedim(dim, 0).flatten(0, 1).movedim(dim, 1)
        return y, means.view(num_splits, -1), variances.view(num_splits, -1)
