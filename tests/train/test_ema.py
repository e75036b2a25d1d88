"""EMA of the weights against the formula."""

import copy

import pytest
import torch
from torch import Tensor, nn

from train.ema import ModelEma


def make_model() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.randn(4, 2, 1, 2, 2))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


def test_follows_the_formula_with_its_warm_up() -> None:
    model, optimizer = make_model()
    ema = ModelEma(model, optimizer, 0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for n in range(12):
        step(model, optimizer)
        decay = min(0.5, (1 + n) / (10 + n))
        for name, value in model.state_dict().items():
            averaged = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
            expected[name] = averaged.clone()
    for name, value in ema.ema_model.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    assert ema.ema_model[1].num_batches_tracked == 12
    assert not any(parameter.requires_grad for parameter in ema.ema_model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_steps_skipped_by_the_scaler_do_not_count(fused: bool) -> None:
    """On a GPU, where the optimizer is fused, only the GPU knows which are skipped."""
    model, _ = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    ema = ModelEma(model, optimizer, 0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)

    def scaled_step(factor: float = 1.0) -> list[Tensor]:
        optimizer.zero_grad()
        scaler.scale(factor * model(torch.randn(4, 2, 1, 2, 2)).mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        return [parameter.clone() for parameter in ema.ema_model.parameters()]

    after_one = scaled_step()
    assert not all(map(torch.equal, after_one, model.parameters()))
    for _ in range(3):
        assert all(map(torch.equal, scaled_step(torch.inf), after_one))
    assert scaler.get_scale() == 1 / 8
    assert ema.checkpoint_entries()["trained"]["ema_steps"] == 1
    after_two = scaled_step()
    assert ema.checkpoint_entries()["trained"]["ema_steps"] == 2
    expected = [2 / 11 * old + 9 / 11 * new for old, new in zip(after_one, model.parameters(), strict=True)]
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(after_two, expected, strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_restored_ema_continues_the_same(decay: float) -> None:
    (model, optimizer), (other, other_optimizer) = make_model(), make_model()
    ema, restored = ModelEma(model, optimizer, decay), ModelEma(other, other_optimizer, decay)
    step(model, optimizer)
    entries = copy.deepcopy(ema.checkpoint_entries())
    trained = entries["trained"]
    assert (trained is None) == (decay == 0) == (ema.ema_model is model)
    other.load_state_dict((trained or entries)["state_dict"])
    if trained:
        restored.restore(entries["state_dict"], trained["ema_steps"])
    for pair in ((model, optimizer), (other, other_optimizer)):
        torch.manual_seed(1)
        step(*pair)
    for name, value in ema.ema_model.state_dict().items():
        assert torch.equal(value, restored.ema_model.state_dict()[name])
