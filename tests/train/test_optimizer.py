"""Parameter groups and their LRs, and optimizer state."""

import copy

import pytest
import torch
from torch import nn

import tests.tiny_network  # noqa: F401
from network import create_network
from train.optimizer import (
    NEW,
    PRETRAINED,
    RECURRENT,
    make_optimizer,
    param_roles,
    restore_optimizer,
    saved_param_roles,
    set_lr,
)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return create_network("srtg_tiny", 5)


def lr_by_name(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def new_optimizer(network: nn.Module, name: str = "sgd") -> torch.optim.Optimizer:
    return make_optimizer(network, param_roles(network, [], fine_tune=False), 0.6, name)


def test_all_parameters_have_the_base_lr_from_scratch(network: nn.Module) -> None:
    optimizer = new_optimizer(network)
    set_lr(optimizer, 0.1)
    lrs = lr_by_name(network, optimizer)
    assert set(lrs.values()) == {0.1}
    assert len(lrs) == len(list(network.parameters()))


def test_lrs_of_fine_tuning(network: nn.Module) -> None:
    """The original trained the new head slowest."""
    loaded = [name for name in network.state_dict() if not name.startswith(("fc.", "layer4."))]
    optimizer = make_optimizer(network, param_roles(network, [*loaded, "fc.bias"], fine_tune=True), 0.6)
    set_lr(optimizer, 0.1)
    for name, lr in lr_by_name(network, optimizer).items():
        if name.startswith(("fc.", "layer4.")):
            expected = 0.1
        else:
            expected = 0.05 if ".lstm." in name else 0.06
        assert lr == pytest.approx(expected), name


def test_hyperparameters(network: nn.Module) -> None:
    (group,) = new_optimizer(network).param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 1e-4)
    adamw = new_optimizer(network, "adamw")
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["weight_decay"] == 0.05


def test_adamw_decays_neither_biases_nor_normalization(network: nn.Module) -> None:
    roles = param_roles(network, network.state_dict(), fine_tune=True)
    optimizer = make_optimizer(network, roles, 0.6, "adamw")
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["names"]}
    assert decays.keys() == roles.keys()
    for name, parameter in network.named_parameters():
        assert decays[name] == (0.05 if parameter.dim() > 1 else 0.0), name
    assert saved_param_roles(optimizer.state_dict()) == roles


def test_state_is_found_by_name() -> None:
    """Checkpoints of AdamW that decayed all parameters have a single group, and so other positions."""

    def trained(optimizer: torch.optim.Optimizer, network: nn.Module, steps: int) -> None:
        set_lr(optimizer, 0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            network(torch.ones(3, 4)).square().sum().backward()
            optimizer.step()

    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    names = [name for name, _ in network.named_parameters()]
    group = {"params": network.parameters(), "role": NEW, "names": names, "lr_scale": 1.0}
    optimizer = torch.optim.AdamW([group], lr=0.0, weight_decay=0.0)
    trained(optimizer, network, 3)
    resumed = copy.deepcopy(network)
    other = new_optimizer(resumed, "adamw")
    assert len(other.param_groups) == 2
    restore_optimizer(other, optimizer.state_dict())
    for (name, before), after in zip(network.named_parameters(), resumed.parameters(), strict=True):
        for key, value in optimizer.state[before].items():
            assert torch.equal(value, other.state[after][key]), (name, key)
    again = copy.deepcopy(resumed)
    last = new_optimizer(again, "adamw")
    restore_optimizer(last, copy.deepcopy(other.state_dict()))
    trained(other, resumed, 2)
    trained(last, again, 2)
    assert all(map(torch.equal, resumed.parameters(), again.parameters()))


def test_momentum_is_zero_before_the_first_step(network: nn.Module) -> None:
    """Fused SGD left it uninitialized where fp16 skipped the first step."""
    optimizer = new_optimizer(network)
    buffers = [optimizer.state[parameter]["momentum_buffer"] for parameter in network.parameters()]
    assert not any(buffer.any() for buffer in buffers)


def test_roles_and_momentum_are_restored_and_lr_scales_are_those_of_the_options() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    roles = {"0.weight": PRETRAINED, "0.bias": RECURRENT, "1.weight": NEW, "1.bias": NEW}
    optimizer = make_optimizer(network, roles, 0.6)
    set_lr(optimizer, 0.1)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    assert saved_param_roles(saved) == roles
    resumed = make_optimizer(network, roles, 0.3)
    restore_optimizer(resumed, saved)
    for parameter in network.parameters():
        momentum = optimizer.state[parameter]["momentum_buffer"]
        assert torch.equal(momentum, resumed.state[parameter]["momentum_buffer"])
    assert [group["lr_scale"] for group in resumed.param_groups] == [1.0, 0.5, 0.3]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (torch.channels_last_3d, torch.contiguous_format),
        (torch.contiguous_format, torch.channels_last_3d),
    ],
)
def test_momentum_gets_the_memory_format_of_its_parameter(
    before: torch.memory_format, after: torch.memory_format
) -> None:
    """Fused kernels refuse other strides."""
    first = nn.Conv3d(3, 4, 3).to(memory_format=before)
    optimizer = new_optimizer(first)
    first(torch.ones(1, 3, 3, 3, 3)).sum().backward()
    optimizer.step()
    second = nn.Conv3d(3, 4, 3).to(memory_format=after)
    resumed = new_optimizer(second)
    restore_optimizer(resumed, optimizer.state_dict())
    momentum = resumed.state[second.weight]["momentum_buffer"]
    assert momentum.stride() == second.weight.stride()
    assert torch.equal(momentum, optimizer.state[first.weight]["momentum_buffer"])
