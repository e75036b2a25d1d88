"""Sub-batch norm against a plain BatchNorm per sub-batch, and frozen BatchNorm. (Synchronized: test_distributed.)"""

import copy

import pytest
import torch
from torch import nn

import tests.tiny_network  # noqa: F401
from network import create_network
from train.parallel.batch_norm import SubBatchNorm3d, convert_sub_batchnorm, freeze_batchnorm


def plain_and_converted(sub_batch_size: int) -> tuple[nn.BatchNorm3d, nn.Module]:
    torch.manual_seed(0)
    plain = nn.BatchNorm3d(3).double()
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    network = nn.Sequential(copy.deepcopy(plain))
    convert_sub_batchnorm(network, sub_batch_size)
    return plain, network[0]


@pytest.mark.parametrize(
    ("clips", "sizes"), [(16, [8, 8]), (20, [10, 10]), (26, [9, 9, 8]), (15, [15]), (3, [3])]
)
def test_each_sub_batch_has_its_own_statistics(clips: int, sizes: list[int]) -> None:
    plain, norm = plain_and_converted(8)
    x = torch.randn(clips, 3, 2, 4, 4, dtype=torch.float64)
    means, variances, expected = [], [], []
    for sub_batch in x.split(sizes):
        one = copy.deepcopy(plain)
        one.momentum = 1.0
        expected.append(one(sub_batch))
        means.append(one.running_mean)
        variances.append(one.running_var)
    assert torch.allclose(norm(x), torch.cat(expected))
    assert torch.allclose(norm.running_mean, 0.1 * torch.stack(means).mean(dim=0))
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * torch.stack(variances).mean(dim=0))
    assert norm.num_batches_tracked == 1


def test_gradients_are_those_of_the_sub_batches() -> None:
    plain, norm = plain_and_converted(4)
    x = torch.randn(8, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    (norm(x) ** 3).sum().backward()
    found, x.grad = x.grad, None
    sum((copy.deepcopy(plain)(sub_batch) ** 3).sum() for sub_batch in x.split(4)).backward()
    assert torch.allclose(found, x.grad)


def test_weights_and_evaluation_are_those_of_plain_batchnorm() -> None:
    plain, converted = create_network("tiny", 3), create_network("tiny", 3)
    count = sum(isinstance(module, nn.BatchNorm3d) for module in plain.modules())
    convert_sub_batchnorm(converted, 2)
    assert sum(isinstance(module, SubBatchNorm3d) for module in converted.modules()) == count > 0
    clips = torch.randn(8, 3, 4, 32, 32)
    converted(clips)
    plain.load_state_dict(converted.state_dict())
    assert torch.equal(plain.eval()(clips), converted.eval()(clips))


def test_frozen_batchnorm_uses_and_keeps_the_running_statistics() -> None:
    network = create_network("tiny", 3)
    before = copy.deepcopy(network.state_dict())
    clips = torch.randn(4, 3, 4, 32, 32)
    expected = network.eval()(clips)
    freeze_batchnorm(network.train())
    assert torch.equal(network(clips), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
