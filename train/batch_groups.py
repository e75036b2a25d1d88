"""Batch norm over groups of clips: the same statistics however many clips multigrid's shapes put into a batch.

The sub-batch norm of *A multigrid method for efficiently training video models* (Wu et al., CVPR 2020, section 3.3).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupedBatchNorm3d(nn.BatchNorm3d):
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


def group_norms(network: nn.Module, group: int) -> None:
    """Make every `nn.BatchNorm3d` of a network, in place, one over groups of `group` clips."""
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = GroupedBatchNorm3d
            module.group = group
