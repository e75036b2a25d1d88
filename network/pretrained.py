"""Weights of others: read a file without running code from it, load what fits, and account for the rest.

    report = load_weights(network, Path("srtg_r3d_34_best.pth"))
    print(report)  # a line a tensor that was not loaded

Three layouts are known: our own and the original's (`own`), torchvision's video ResNets (`torchvision`) and 2D ResNets
trained on ImageNet (`imagenet`), whose weights are inflated over time.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from network.pretrained_formats import CHECKPOINT_FORMATS, Layout, detect_format

WRAPPER_PREFIX = "module."  # DataParallel's, in weights published for the original


class Unloaded(NamedTuple):
    """A tensor that was not loaded: its shape in the file and in the network, None where it is not there."""

    name: str
    in_file: tuple[int, ...] | None
    in_network: tuple[int, ...] | None


class IncompatibleKeys(NamedTuple):
    """What became of each tensor, by the network's names, and what the weights were trained on.

    `normalization` is that of their clips: `means`, `deviations` and `channel_order`; None where the file does not say.
    As text: a table of what was not loaded.
    """

    path: Path
    layout: str
    loaded: Sequence[str]
    shape_mismatch: Sequence[Unloaded]
    missing: Sequence[Unloaded]
    unexpected: Sequence[Unloaded]
    normalization: Mapping[str, Any] | None

    def __str__(self) -> str:
        counts = (
            f"{self.path}: {len(self.loaded)} tensors loaded, {len(self.shape_mismatch)} of another shape, "
            f"{len(self.missing)} not in the file, {len(self.unexpected)} not in the network (layout: {self.layout})"
        )
        rows = [*self.shape_mismatch, *self.missing, *self.unexpected]
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


def load_weights(network: nn.Module, path: Path, layout: str = "auto") -> IncompatibleKeys:
    """Load the tensors of a file whose name and shape are the network's: `.safetensors`, or what `torch.save` wrote.

    The rest of the network keeps its values. Wrapped in `state_dict` or not, with `module.` before the names or not,
    saved on a GPU or not. `layout` is one of `CHECKPOINT_FORMATS`, or "auto": what the names and shapes say.

    Raises FileNotFoundError, and ValueError where the file is damaged, needs code to load, or has no tensor that fits.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_tensors_file(path)
    weights = state_dict_of(content, path)
    own = network.state_dict()
    chosen = detect_format(weights, content) if layout == "auto" else CHECKPOINT_FORMATS[layout]
    report = _load_matching(network, chosen.convert(weights, own), path, chosen)
    recorded = content.get("normalization") if isinstance(content, Mapping) else None
    return report._replace(normalization=recorded) if isinstance(recorded, Mapping) else report


def read_tensors_file(path: Path) -> Any:
    """Whatever `torch.save` wrote, if it is tensors and plain values; onto the CPU.

    Raises FileNotFoundError, or ValueError where the file is damaged or would need code to load.
    """
    _check_is_file(path)
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message says how to run the code; what it stumbled over is behind that
        reason = _one_line(error.__context__ or error)
        raise ValueError(
            f"{path}: holds more than tensors and plain values, or is damaged; not loaded. {reason}"
        ) from None
    except Exception as error:  # what a pickle makes of its reader is up to who wrote it
        raise _damaged(path, error) from error


def _check_archive(path: Path) -> None:
    """`torch.save` packs nothing: records that unpack to more than the file has are not its work."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return  # as written before torch 1.6
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    if packed or sum(record.file_size for record in records) > path.stat().st_size:
        raise ValueError("its records are packed, or lie over one another")


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Weights by name; in `state_dict`, beside their `normalization`, where `write_safetensors` has noted one."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only for who has such files

    _check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - is no dictionary
            notes = file.metadata() or {}
        if "normalization" not in notes:
            return weights
        return {"state_dict": weights, "normalization": json.loads(notes["normalization"])}
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error


def write_safetensors(network: nn.Module, path: Path, notes: Mapping[str, str]) -> None:
    """A network's weights as `.safetensors`, with notes as its metadata; `normalization` is one in JSON."""
    from safetensors.torch import save  # noqa: PLC0415 - only for who wants such files

    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(weights, metadata=dict(notes)))


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: is damaged or not a checkpoint, {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    """Its message, not long, without what moves a terminal's cursor."""
    line = " ".join(str(error).split())[:200] or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in line)


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The weights in a file's content, wrapped in `state_dict` or not, without a `module.` before their names."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no weights, neither by itself nor under 'state_dict'")
    odd = next((name for name, value in content.items() if not _is_plain(name, value)), None)
    if odd is not None:
        raise ValueError(f"{path}: {odd!r:.200} is no plain tensor with a name")
    return {str(name).removeprefix(WRAPPER_PREFIX): value for name, value in content.items()}


def _is_plain(name: Any, value: Tensor) -> bool:
    """Whether it has real numbers in a row: is not sparse, quantised, complex, or without memory."""
    in_order = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    return isinstance(name, str) and in_order and not value.is_complex()


def _load_matching(
    network: nn.Module, weights: Mapping[str, Tensor], path: Path, layout: Layout
) -> IncompatibleKeys:
    own = network.state_dict()
    fitting = {
        name: value for name, value in weights.items() if name in own and value.shape == own[name].shape
    }
    if not fitting.keys() & {name for name, _ in network.named_parameters()}:
        raise ValueError(f"{path}: none of its {len(weights)} tensors has a name and shape of this network's")

    for name, value in fitting.items():
        if own[name].is_floating_point() and not value.is_floating_point():
            raise ValueError(f"{path}: {name} holds {value.dtype}, the network's holds {own[name].dtype}")

    def unloaded(names: list[str]) -> list[Unloaded]:
        sources = (weights, own)
        return [
            Unloaded(n, *(tuple(source[n].shape) if n in source else None for source in sources))
            for n in names
        ]

    network.load_state_dict(fitting, strict=False)
    return IncompatibleKeys(
        path=path,
        layout=layout.name,
        loaded=list(fitting),
        shape_mismatch=unloaded([name for name in weights if name in own and name not in fitting]),
        missing=unloaded([name for name in own if name not in weights]),
        unexpected=unloaded([name for name in weights if name not in own]),
        normalization=layout.normalization,
    )
