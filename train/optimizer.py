"""Which parameters train at which rate."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

OPTIMIZERS = ("sgd", "adamw")
MOMENTUM = 0.9
MOMENTS = {"sgd": 1, "adamw": 2}  # tensors that it keeps for each parameter
WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05}
RECURRENT_FACTOR = 0.5

# the roles of parameters: new ones train at the full rate
NEW, RECURRENT, FILLED = "new", "recurrent", "filled"


def param_roles(network: nn.Module, filled: Collection[str], fine_tune: bool) -> dict[str, str]:
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


def make_optimizer(
    network: nn.Module, roles: Mapping[str, str], fine_tune_factor: float, kind: str = "sgd"
) -> torch.optim.Optimizer:
    """A group a role, with its `lr_factor` and its `names`.

    "sgd": Nesterov momentum 0.9, weight decay 1e-4. "adamw": PyTorch's moments, weight decay 0.05 (Loshchilov &
    Hutter, ICLR 2019). On a GPU each updates all weights in one kernel, which also spares fp16 a wait a step.
    """
    factors = {NEW: 1.0, RECURRENT: RECURRENT_FACTOR, FILLED: fine_tune_factor}
    parameters = dict(network.named_parameters())
    groups = []
    for role, factor in factors.items():
        names = [name for name in parameters if roles[name] == role]
        if names:
            members = [parameters[name] for name in names]
            groups.append({"params": members, "role": role, "names": names, "lr_factor": factor})
    common = {
        "lr": 0.0,
        "weight_decay": WEIGHT_DECAY[kind],
        "fused": next(iter(parameters.values())).is_cuda,
    }
    if kind == "adamw":
        return torch.optim.AdamW(groups, **common)
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True, **common)
    for parameter in parameters.values():
        # a fused SGD would make it with the first step, and leave what happens to lie there if fp16 skips that one
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def saved_roles(optimiser_state: Mapping[str, Any]) -> dict[str, str]:
    """The roles that a checkpoint's optimizer had."""
    return {name: group["role"] for group in optimiser_state["param_groups"] for name in group["names"]}


def fine_tunes(optimiser_state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's run trains what weights have filled at other rates."""
    return set(saved_roles(optimiser_state).values()) != {NEW}


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take momentum, or moments, from a checkpoint; rates and factors stay those of this run's options.

    They get the memory layout of their parameters, which fused kernels need, whatever they were saved with. ValueError
    where they are of other sizes.
    """
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name == "step" or value is None:
                continue
            if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
                raise ValueError("the optimizer's moments are not as large as the parameters")
            state[name] = torch.empty_like(parameter).copy_(value)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]
