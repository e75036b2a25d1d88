"""BatchNorm in training: frozen, synchronized over ranks, or over sub-batches."""

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
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var, norm.momentum)


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
        assert self.running_mean is not None
        means = x.new_zeros(num_splits, self.num_features, dtype=self.running_mean.dtype)
        variances = torch.zeros_like(means)
        outputs = [
            # momentum 1: the buffers become the sub-batch's statistics
            F.batch_norm(sub_batch, mean, var, self.weight, self.bias, True, 1.0, self.eps)
            for sub_batch, mean, var in zip(x.tensor_split(num_splits), means, variances, strict=True)
        ]
        _update_running_stats(self, means.mean(dim=0), variances.mean(dim=0))
        return torch.cat(outputs)
