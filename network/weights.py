"""Weights of others: read a file without running code from it, load what fits, and account for the rest."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

WRAPPER_PREFIX = "module."  # DataParallel's, in weights published for the original


class LoadReport(NamedTuple):
    """What became of each name: loaded, of another shape (with both), missing in the file, unexpected in it."""

    loaded: list[str]
    other_shape: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} tensors loaded"]
        for title, names in (
            ("of another shape, not loaded", self.other_shape),
            ("not in the file, keeps its initial values", self.missing),
            ("not in the network, ignored", self.unexpected),
        ):
            lines += [f"{title}: {name}" for name in names]
        return "\n".join(lines)


def read_tensors_file(path: Path) -> Any:
    """Whatever `torch.save` wrote, if it is tensors and plain values; onto the CPU.

    Raises FileNotFoundError, or ValueError where the file is damaged or would need code to load.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: holds more than tensors and plain values, or is damaged; not loaded. {reason}"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: is damaged or not a checkpoint, {reason}") from None


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in a file's content, wrapped in `state_dict` or not, without a `module.` before their names."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no weights, neither by itself nor under 'state_dict'")
    return {str(name).removeprefix(WRAPPER_PREFIX): value for name, value in content.items()}


def load_matching(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> LoadReport:
    """Load the weights whose name and shape are the network's; ValueError where there is none."""
    own = network.state_dict()
    fitting = {
        name: value for name, value in weights.items() if name in own and value.shape == own[name].shape
    }
    shared = [name for name in weights if name in own and name not in fitting]
    report = LoadReport(
        loaded=list(fitting),
        other_shape=[
            f"{name} {tuple(weights[name].shape)}, here {tuple(own[name].shape)}" for name in shared
        ],
        missing=[name for name in own if name not in weights],
        unexpected=[name for name in weights if name not in own],
    )
    if not fitting.keys() & {name for name, _ in network.named_parameters()}:
        raise ValueError(f"{path}: none of its {len(weights)} tensors has a name and shape of this network's")
    network.load_state_dict(fitting, strict=False)
    return report
