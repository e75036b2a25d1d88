"""Optimizers and their parameter groups, which have an LR multiplier each."""

import itertools
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

OPTIMIZERS = ("sgd", "adamw")
OPTIMIZER_SLOTS = {"sgd": 1, "adamw": 2}  # state tensors per parameter
MOMENTUM = 0.9
WEIGHT_DECAY = {"sgd": 1e-4, "adamw": 0.05}
RECURRENT_LR_SCALE = 0.5

# roles of parameters, one parameter group each
NEW, RECURRENT, PRETRAINED = "new", "recurrent", "pretrained"


def param_roles(network: nn.Module, loaded: Collection[str], fine_tune: bool) -> dict[str, str]:
    """Return the role of each parameter by name: all are new, unless fine-tuning those `loaded` from weights.

    When fine-tuning, the head and parameters that were not loaded are new; recurrent cells have a role of their own.
    """
    names = [name for name, _ in network.named_parameters()]
    if not fine_tune:
        return dict.fromkeys(names, NEW)
    recurrent = {
        f"{prefix}.{name}"
        for prefix, module in network.named_modules()
        if isinstance(module, nn.RNNBase)
        for name, _ in module.named_parameters()
    }
    roles = {name: RECURRENT if name in recurrent else PRETRAINED for name in names}
    return roles | {name: NEW for name in names if name.startswith("fc.") or name not in loaded}


def make_optimizer(
    network: nn.Module, roles: Mapping[str, str], pretrained_lr_scale: float, name: str = "sgd"
) -> torch.optim.Optimizer:
    """Create an optimizer with parameter groups per role, which also have `role`, `names` and `lr_scale`.

    "sgd": Nesterov momentum 0.9, weight decay 1e-4. "adamw": weight decay 0.05 (Loshchilov & Hutter, ICLR 2019), but 0
    for parameters of one dimension: biases and normalization layers. Both are fused: a single pass over the weights
    updates them, and fp16 does not wait for the GPU.
    """
    lr_scales = {NEW: 1.0, RECURRENT: RECURRENT_LR_SCALE, PRETRAINED: pretrained_lr_scale}
    parameters = dict(network.named_parameters())
    groups: list[dict[str, Any]] = []
    for role, decays in itertools.product(lr_scales, (True, False)):
        names = [
            parameter
            for parameter, value in parameters.items()
            if roles[parameter] == role and (name == "sgd" or value.dim() > 1) is decays
        ]
        if names:
            group = {"role": role, "names": names, "lr_scale": lr_scales[role]}
            params = [parameters[parameter] for parameter in names]
            groups.append({"params": params, "weight_decay": decays * WEIGHT_DECAY[name], **group})
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True, fused=True)
    for parameter in parameters.values():
        # fused SGD allocates it uninitialized in its first step, and leaves it so if fp16 skips that step
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def saved_param_roles(optimizer_state: Mapping[str, Any]) -> dict[str, str]:
    """Return the role of each parameter by name from a saved optimizer state."""
    return {name: group["role"] for group in optimizer_state["param_groups"] for name in group["names"]}


def is_fine_tuning(optimizer_state: Mapping[str, Any]) -> bool:
    """Return whether a saved run trains its pretrained parameters at lower LRs."""
    return set(saved_param_roles(optimizer_state).values()) != {NEW}


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load the state tensors of a checkpoint; groups, LRs and multipliers stay those of this run's options.

    The tensors get the memory format of their parameters, which fused kernels need. They are found by name, as earlier
    checkpoints of AdamW have one group per role.
    """
    groups = optimizer.state_dict()["param_groups"]
    before, after = (
        [name for group in some for name in group["names"]] for some in (saved["param_groups"], groups)
    )
    by_index = {after.index(before[index]): state for index, state in saved["state"].items()}
    optimizer.load_state_dict({"state": by_index, "param_groups": groups})
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name != "step":
                state[name] = torch.empty_like(parameter).copy_(value.view_as(parameter))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the LR of each parameter group to `lr` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
