"""Averages of weights against the recurrence written out."""

import pytest
import torch
from torch import Tensor, nn

from train.ema import ModelEma


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3))


def optimiser_of(module: nn.Module, fused: bool = False) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1, fused=fused)


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    module(torch.randn(4, 2, 1, 2, 2))
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def test_follows_the_recurrence_with_its_beginning() -> None:
    module = network()
    optimizer = optimiser_of(module)
    average = ModelEma(module, optimizer, 0.5)
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    for n in range(12):
        step(module, optimizer)
        decay = min(0.5, (1 + n) / (10 + n))
        for name, value in module.state_dict().items():
            exact = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
            expected[name] = exact.clone()
    for name, value in average.network.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    assert average.network[1].num_batches_tracked == 12
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_steps_that_the_scaler_skips_are_neither_averaged_nor_counted(fused: bool) -> None:
    """They were once, which drew the average to the weights. On a GPU, where all are fused, nobody but it knows."""
    module = network()
    optimizer = optimiser_of(module, fused)
    average = ModelEma(module, optimizer, 0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)

    def scaled_step(factor: float = 1.0) -> None:
        optimizer.zero_grad()
        scaler.scale(factor * module(torch.randn(4, 2, 1, 2, 2)).mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    def averaged() -> list[Tensor]:
        return [parameter.clone() for parameter in average.network.parameters()]

    scaled_step()
    after_one = averaged()
    assert not all(map(torch.equal, after_one, module.parameters()))
    for _ in range(3):
        scaled_step(torch.inf)
    assert scaler.get_scale() == 1 / 8
    assert all(map(torch.equal, averaged(), after_one))
    assert average.content()["trained"]["ema_steps"] == 1
    scaled_step()
    assert average.content()["trained"]["ema_steps"] == 2
    expected = [2 / 11 * old + 9 / 11 * new for old, new in zip(after_one, module.parameters(), strict=True)]
    for value, exact in zip(averaged(), expected, strict=True):
        assert torch.allclose(value, exact, atol=1e-6)


def test_recurrent_weights_of_the_copy_are_in_one_piece() -> None:
    """cuDNN wants them so, and with each validation warned and moved them together."""
    module = nn.LSTM(4, 4, num_layers=2)
    module.flatten_parameters = lambda: flattened.append(module)
    flattened: list[nn.Module] = []
    average = ModelEma(module, optimiser_of(module), 0.5)
    assert isinstance(average.network, nn.LSTM)
    assert len(flattened) == 1


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_restored_goes_on_the_same(decay: float) -> None:
    one, other = network(), network()
    optimizers = [optimiser_of(one), optimiser_of(other)]
    first, second = ModelEma(one, optimizers[0], decay), ModelEma(other, optimizers[1], decay)
    step(one, optimizers[0])
    content = first.content()
    trained = content["trained"]
    assert (trained is None) == (decay == 0)
    other.load_state_dict((trained or content)["state_dict"])
    if trained:
        second.restore(content["state_dict"], trained["ema_steps"])
    for module, optimizer in zip((one, other), optimizers, strict=True):
        torch.manual_seed(1)
        step(module, optimizer)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])


def test_without_a_decay_there_is_no_copy() -> None:
    module = network()
    optimizer = optimiser_of(module)
    average = ModelEma(module, optimizer, 0.0)
    step(module, optimizer)
    assert average.network is module
    assert all(parameter.requires_grad for parameter in module.parameters())
