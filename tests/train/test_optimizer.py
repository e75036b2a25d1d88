"""Which parameters train at which rate, one by one."""

import pytest
import torch
from torch import nn

from network import create_network
from train.optimizer import (
    FILLED,
    NEW,
    RECURRENT,
    make_optimizer,
    param_roles,
    restore_optimizer,
    saved_roles,
    set_learning_rate,
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return create_network("srtg_ir_csn_50", 5)


def rates(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def test_everything_trains_at_the_base_rate_from_scratch(network: nn.Module) -> None:
    optimizer = make_optimizer(network, param_roles(network, [], fine_tune=False), 0.6)
    set_learning_rate(optimizer, 0.1)
    assert set(rates(network, optimizer).values()) == {0.1}
    assert len(rates(network, optimizer)) == len(list(network.parameters()))


def test_fine_tuning_rates(network: nn.Module) -> None:
    """The original trained the new head slowest, and looked for it under another name."""
    filled = [name for name in network.state_dict() if not name.startswith(("fc.", "layer4.2"))]
    optimizer = make_optimizer(network, param_roles(network, [*filled, "fc.bias"], fine_tune=True), 0.6)
    set_learning_rate(optimizer, 0.1)
    for name, rate in rates(network, optimizer).items():
        if name.startswith(("fc.", "layer4.2")):
            expected = 0.1
        elif ".lstm." in name:
            expected = 0.05
        else:
            expected = 0.06
        assert rate == pytest.approx(expected), name


def test_momentum_is_nothing_where_fp16_skips_the_first_step() -> None:
    """On GPUs, where one kernel updates all, it was then what happened to lie in memory."""
    torch.manual_seed(0)
    modules = [nn.Linear(64, 64), nn.Linear(64, 64)]
    modules[1].load_state_dict(modules[0].state_dict())
    scalers = [torch.amp.GradScaler("cpu", init_scale=4.0) for _ in modules]
    optimizers = [make_optimizer(module, param_roles(module, [], False), 0.6) for module in modules]
    for group in optimizers[1].param_groups:
        group["fused"] = True
    optimizers[1]._step_supports_amp_scaling = True
    torch.use_deterministic_algorithms(True)  # memory that nobody has set is then NaN
    try:
        for factor in (torch.inf, 1.0, 1.0):
            inputs = torch.randn(8, 64)
            for module, scaler, optimizer in zip(modules, scalers, optimizers, strict=True):
                set_learning_rate(optimizer, 0.1)
                optimizer.zero_grad()
                scaler.scale(factor * module(inputs).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
    finally:
        torch.use_deterministic_algorithms(False)
    for plain, fused in zip(*(module.parameters() for module in modules), strict=True):
        assert torch.isfinite(fused).all()
        assert torch.allclose(plain, fused, atol=1e-6)


def test_settings(network: nn.Module) -> None:
    (group,) = make_optimizer(network, param_roles(network, [], False), 0.6).param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-4)


def test_settings_of_adamw(network: nn.Module) -> None:
    optimizer = make_optimizer(network, param_roles(network, [], False), 0.6, "adamw")
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.05


def test_roles_and_momentum_survive_saving_and_factors_are_the_new_runs() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    roles = {"0.weight": FILLED, "0.bias": RECURRENT, "1.weight": NEW, "1.bias": NEW}
    first = make_optimizer(network, roles, 0.6)
    set_learning_rate(first, 0.1)
    network(torch.ones(1, 2)).sum().backward()
    first.step()
    saved = first.state_dict()
    assert saved_roles(saved) == roles
    second = make_optimizer(network, saved_roles(saved), 0.3)
    restore_optimizer(second, saved)
    for one, other in zip(first.param_groups, second.param_groups, strict=True):
        for p, q in zip(one["params"], other["params"], strict=True):
            assert torch.equal(first.state[p]["momentum_buffer"], second.state[q]["momentum_buffer"])
    assert [group["lr_factor"] for group in second.param_groups] == [1.0, 0.5, 0.3]


def test_momentum_takes_the_layout_of_its_parameters() -> None:
    """Saved channels-last and resumed contiguous, or the reverse: fused kernels refuse other strides."""
    layouts = (torch.channels_last_3d, torch.contiguous_format)
    for before, after in (layouts, layouts[::-1]):
        first = nn.Conv3d(3, 4, 3).to(memory_format=before)
        optimizer = make_optimizer(first, param_roles(first, [], False), 0.6)
        first(torch.ones(1, 3, 3, 3, 3)).sum().backward()
        optimizer.step()
        second = nn.Conv3d(3, 4, 3).to(memory_format=after)
        resumed = make_optimizer(second, param_roles(second, [], False), 0.6)
        restore_optimizer(resumed, optimizer.state_dict())
        momentum = resumed.state[second.weight]["momentum_buffer"]
        assert momentum.stride() == second.weight.stride()
        assert torch.equal(momentum, optimizer.state[first.weight]["momentum_buffer"])
