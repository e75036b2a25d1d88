"""Weights of others: read a file without running code from it, load what fits, and account for the rest.

    report = load_weights(network, Path("srtg_r3d_34_best.pth"))
    print(report)  # a line a tensor that was not loaded

Three layouts are known: our own and the original's (`own`), torchvision's video ResNets (`torchvision`) and 2D ResNets
trained on ImageNet (`imagenet`), whose weights are inflated over time.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from network.layouts import LAYOUTS, Layout, recognise

WRAPPER_PREFIX = "module."  # DataParallel's, in weights published for the original


class Unloaded(NamedTuple):
    """A tensor that was not loaded: its shape in the file and in the network, None where it is not there."""

    name: str
    in_file: tuple[int, ...] | None
    in_network: tuple[int, ...] | None


class LoadReport(NamedTuple):
    """What became of each tensor, by the network's names, and what the weights were trained on.

    `normalisation` is that of their clips: `means`, `deviations` and `channel_order`; None where the file does not say.
    As text: a table of what was not loaded.
    """

    path: Path
    layout: str
    loaded: Sequence[str]
    other_shape: Sequence[Unloaded]
    missing: Sequence[Unloaded]
    unexpected: Sequence[Unloaded]
    normalisation: Mapping[str, Any] | None

    def __str__(self) -> str:
        counts = (
            f"{self.path}: {len(self.loaded)} tensors loaded, {len(self.other_shape)} of another shape, "
            f"{len(self.missing)} not in the file, {len(self.unexpected)} not in the network (layout: {self.layout})"
        )
        rows = [*self.other_shape, *self.missing, *self.unexpected]
        if not rows:
            return counts
        titles = ("not loaded", "in the file", "in the network")
        cells = [titles, *((row.name, _shape(row.in_file), _shape(row.in_network)) for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(3)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
        ]
        return "\n".join([counts, *(f"  {line}".rstrip() for line in lines)])


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else "x".join(map(str, shape)) or "one number"


def load_weights(network: nn.Module, path: Path, layout: str = "auto") -> LoadReport:
    """Load the tensors of a file whose name and shape are the network's: `.safetensors`, or what `torch.save` wrote.

    The rest of the network keeps its values. Wrapped in `state_dict` or not, with `module.` before the names or not,
    saved on a GPU or not. `layout` is one of `LAYOUTS`, or "auto": what the names and shapes say.

    Raises FileNotFoundError, and ValueError where the file is damaged, needs code to load, or has no tensor that fits.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_tensors_file(path)
    weights = state_dict_of(content, path)
    own = network.state_dict()
    chosen = recognise(weights, content) if layout == "auto" else LAYOUTS[layout]
    report = _load_matching(network, chosen.convert(weights, own), path, chosen)
    recorded = content.get("normalisation") if isinstance(content, Mapping) else None
    return report._replace(normalisation=recorded) if isinstance(recorded, Mapping) else report


def read_tensors_file(path: Path) -> Any:
    """Whatever `torch.save` wrote, if it is tensors and plain values; onto the CPU.

    Raises FileNotFoundError, or ValueError where the file is damaged or would need code to load.
    """
    _check_is_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: holds more than tensors and plain values, or is damaged; not loaded. {reason}"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Weights by name; in `state_dict`, beside their `normalisation`, where `write_safetensors` has noted one."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only for who has such files

    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - is no dictionary
            notes = file.metadata() or {}
        if "normalisation" not in notes:
            return weights
        return {"state_dict": weights, "normalisation": json.loads(notes["normalisation"])}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def write_safetensors(network: nn.Module, path: Path, notes: Mapping[str, str]) -> None:
    """A network's weights as `.safetensors`, with notes as its metadata; `normalisation` is one in JSON."""
    from safetensors.torch import save  # noqa: PLC0415 - only for who wants such files

    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(weights, metadata=dict(notes)))


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"{path}: is damaged or not a checkpoint, {reason}")


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in a file's content, wrapped in `state_dict` or not, without a `module.` before their names."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no weights, neither by itself nor under 'state_dict'")
    return {str(name).removeprefix(WRAPPER_PREFIX): value for name, value in content.items()}


def _load_matching(
    network: nn.Module, weights: Mapping[str, Tensor], path: Path, layout: Layout
) -> LoadReport:
    own = network.state_dict()
    fitting = {
        name: value for name, value in weights.items() if name in own and value.shape == own[name].shape
    }
    if not fitting.keys() & {name for name, _ in network.named_parameters()}:
        raise ValueError(f"{path}: none of its {len(weights)} tensors has a name and shape of this network's")

    def unloaded(names: list[str]) -> list[Unloaded]:
        sources = (weights, own)
        return [
            Unloaded(n, *(tuple(source[n].shape) if n in source else None for source in sources))
            for n in names
        ]

    network.load_state_dict(fitting, strict=False)
    return LoadReport(
        path=path,
        layout=layout.name,
        loaded=list(fitting),
        other_shape=unloaded([name for name in weights if name in own and name not in fitting]),
        missing=unloaded([name for name in own if name not in weights]),
        unexpected=unloaded([name for name in weights if name not in own]),
        normalisation=layout.normalisation,
    )
