"""Averages of weights against the recurrence written out."""

import pytest
import torch
from torch import nn

from train.average import WeightAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3))


def step(module: nn.Module) -> None:
    module(torch.randn(4, 2, 1, 2, 2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_follows_the_recurrence_with_its_beginning() -> None:
    module = network()
    average = WeightAverage(module, 0.5)
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    for n in range(12):
        step(module)
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        for name, value in module.state_dict().items():
            exact = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
            expected[name] = exact.clone()
    for name, value in average.network.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    assert average.network[1].num_batches_tracked == 12
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_restored_goes_on_the_same(decay: float) -> None:
    one, other = network(), network()
    first, second = WeightAverage(one, decay), WeightAverage(other, decay)
    step(one)
    first.update()
    content = first.content()
    trained = content["trained"]
    assert (trained is None) == (decay == 0)
    other.load_state_dict((trained or content)["state_dict"])
    if trained:
        second.restore(content["state_dict"], trained["averaged_steps"])
    for module in (one, other):
        torch.manual_seed(1)
        step(module)
    first.update()
    second.update()
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])


def test_without_a_decay_there_is_no_copy() -> None:
    module = network()
    average = WeightAverage(module, 0.0)
    average.update()
    assert average.network is module
    assert all(parameter.requires_grad for parameter in module.parameters())
