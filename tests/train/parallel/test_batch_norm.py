"""Batch norm over groups of clips against one plain norm a group."""

import copy

import pytest
import torch
from torch import nn

from network import create_network
from train.parallel.batch_norm import SubBatchNorm3d, convert_sub_batchnorm


def grouped(group: int) -> tuple[nn.BatchNorm3d, nn.BatchNorm3d]:
    torch.manual_seed(0)
    plain = nn.BatchNorm3d(3).double()
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    network = nn.Sequential(copy.deepcopy(plain))
    convert_sub_batchnorm(network, group)
    return plain, network[0]


@pytest.mark.parametrize(
    ("clips", "sizes"), [(16, [8, 8]), (20, [10, 10]), (26, [9, 9, 8]), (15, [15]), (3, [3])]
)
def test_each_group_is_normalised_by_itself(clips: int, sizes: list[int]) -> None:
    plain, norm = grouped(8)
    x = torch.randn(clips, 3, 2, 4, 4, dtype=torch.float64)
    means, variances, expected = [], [], []
    for part in x.split(sizes):
        one = copy.deepcopy(plain)
        one.momentum = 1.0
        expected.append(one(part))
        means.append(one.running_mean)
        variances.append(one.running_var)
    assert torch.allclose(norm(x), torch.cat(expected))
    assert torch.allclose(norm.running_mean, 0.1 * torch.stack(means).mean(dim=0))
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * torch.stack(variances).mean(dim=0))
    assert norm.num_batches_tracked == 1


def test_gradients_are_those_of_the_groups() -> None:
    plain, norm = grouped(4)
    x = torch.randn(8, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    (norm(x) ** 3).sum().backward()
    found, x.grad = x.grad, None
    sum((copy.deepcopy(plain)(part) ** 3).sum() for part in x.split(4)).backward()
    assert torch.allclose(found, x.grad)


def test_evaluation_is_the_plain_norms() -> None:
    plain, norm = grouped(2)
    norm(torch.randn(8, 3, 2, 4, 4, dtype=torch.float64))
    plain.load_state_dict(norm.state_dict())
    x = torch.randn(8, 3, 2, 4, 4, dtype=torch.float64)
    assert torch.equal(norm.eval()(x), plain.eval()(x))


def test_weights_of_a_network_fit_either() -> None:
    plain, other = create_network("r3d_18", 3), create_network("r3d_18", 3)
    convert_sub_batchnorm(other, 2)
    assert sum(isinstance(module, SubBatchNorm3d) for module in other.modules()) == 20
    plain.load_state_dict(other.state_dict())
    assert list(plain.state_dict()) == list(other.state_dict())
