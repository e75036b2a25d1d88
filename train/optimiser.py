"""Which parameters train at which rate."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
RECURRENT_FACTOR = 0.5

# the roles of parameters: new ones train at the full rate
NEW, RECURRENT, FILLED = "new", "recurrent", "filled"


def parameter_roles(network: nn.Module, filled: Collection[str], fine_tune: bool) -> dict[str, str]:
    """The role of each parameter by name. When fine-tuning, the head and whatever the weights did not fill are new."""
    names = [name for name, _ in network.named_parameters()]
    if not fine_tune:
        return dict.fromkeys(names, NEW)
    recurrent = {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, nn.RNNBase)
        for name, _ in module.named_parameters()
    }
    return {name: _role(name, filled, recurrent) for name in names}


def _role(name: str, filled: Collection[str], recurrent: Collection[str]) -> str:
    if name.startswith("fc.") or name not in filled:
        return NEW
    return RECURRENT if name in recurrent else FILLED


def make_optimiser(network: nn.Module, roles: Mapping[str, str], fine_tune_factor: float) -> torch.optim.SGD:
    """SGD with Nesterov momentum 0.9 and weight decay 1e-4; a group a role, with its `lr_factor` and its `names`."""
    factors = {NEW: 1.0, RECURRENT: RECURRENT_FACTOR, FILLED: fine_tune_factor}
    parameters = dict(network.named_parameters())
    groups = []
    for role, factor in factors.items():
        names = [name for name in parameters if roles[name] == role]
        if names:
            members = [parameters[name] for name in names]
            groups.append({"params": members, "role": role, "names": names, "lr_factor": factor})
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)


def saved_roles(optimiser_state: Mapping[str, Any]) -> dict[str, str]:
    """The roles that a checkpoint's optimiser had."""
    return {name: group["role"] for group in optimiser_state["param_groups"] for name in group["names"]}


def restore_optimiser(optimiser: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take momentum from a checkpoint; rates and factors stay those of this run's options."""
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": saved["state"], "param_groups": groups})


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["lr_factor"]
