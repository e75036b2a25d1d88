"""Load pretrained weights safely and report the tensors that were not loaded.

    report = load_weights(network, Path("srtg_r3d_34_best.pth"))
    print(report)  # a line for each tensor that was not loaded

Four formats are known: that of this codebase and the original (`own`), the video ResNets of torchvision (`torchvision`)
and of 3D-ResNets-PyTorch (`3d-resnets`), and 2D ResNets trained on ImageNet (`imagenet`), inflated in time.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from network.pretrained_formats import CHECKPOINT_FORMATS, detect_format
from network.registry import list_networks

Shape = tuple[int, ...]
WRAPPER_PREFIX = "module."  # of DataParallel, in weights published for the original
FAILED_DOWNLOADS = (  # pattern of the first bytes, what the file is, and what to do
    (rb"\0*\Z", "an empty file", "download it again"),
    (rb"\W*<[!?\w]", "a web page", "open its address in a browser, and download the file there"),
    (rb"version https://", "a Git LFS pointer", "git lfs pull fetches the file itself"),
    # the first file of an archive of torch.save is data.pkl
    (rb"PK(?!.*/data\.pkl)", "a zip archive of other files", "unpack it first"),
    (rb"[\s!-~]+\Z", "a text file", "download it again"),  # such as {"error": "not found"}
)


class IncompatibleKeys(NamedTuple):
    """The tensors that were and were not loaded, by their names in the network, and the normalization of the weights.

    `shape_mismatch` has names with the shapes in the file and in the network. `normalization` is a dict with `mean`,
    `std` and `channel_order`, or None if the file does not record it.
    """

    path: Path
    format: str
    loaded: Sequence[str]
    shape_mismatch: Sequence[tuple[str, Shape, Shape]]
    missing: Sequence[str]
    unexpected: Sequence[str]
    normalization: Mapping[str, Any] | None

    def check(self, network: str, allow_partial: bool = False) -> str | None:
        """Return a warning if the file seems to be of another network than `network`.

        Raise ValueError if fewer than a tenth of the network's tensors were loaded, unless `allow_partial`.
        """
        total = len(self.loaded) + len(self.shape_mismatch) + len(self.missing)
        counts = f"{self.path}: {len(self.loaded)} of {network}'s {total} tensors were loaded"
        if 10 * len(self.loaded) < total and not allow_partial:
            raise ValueError(
                f"{counts}: it is of another network; --allow-partial starts from it nonetheless"
            )
        if 2 * len(self.loaded) < total:
            return f"{counts}: is it of another network? All other tensors start with random values"
        plain = network.removeprefix("srtg_")
        recursion = [name for name in (*self.loaded, *self.missing) if ".sar." in name]
        if self.format == "own" and recursion and recursion == self.missing and plain in list_networks():
            return f"{self.path}: this is a plain {plain}: --network {plain}"
        return None

    def __str__(self) -> str:
        summary = (
            f"{self.path}: {len(self.loaded)} tensors loaded, {len(self.shape_mismatch)} with a different shape, "
            f"{len(self.missing)} not in the file, {len(self.unexpected)} not in the network (format: {self.format})"
        )
        lines = [
            f"{name}: {theirs} in the file, {ours} in the network"
            for name, theirs, ours in self.shape_mismatch
        ]
        lines += [f"{name}: not in the file" for name in self.missing]
        lines += [f"{_one_line(name)}: not in the network" for name in self.unexpected]
        return "\n  ".join([summary, *lines])


def load_weights(network: nn.Module, path: Path, checkpoint_format: str = "auto") -> IncompatibleKeys:
    """Load the tensors of a file whose name and shape match the network's; the rest of the network keeps its values.

    The file is `.safetensors` or of `torch.save`; the weights may be under `state_dict` and have the prefix `module.`.
    `checkpoint_format` is a key of `CHECKPOINT_FORMATS`, or "auto": detected from names and shapes.

    Raise FileNotFoundError, or ValueError for a file that is not a checkpoint or has no tensor that fits.
    """
    content = read_tensors_file(path)
    weights = find_weights(content, path)
    own = network.state_dict()
    if checkpoint_format == "auto":
        checkpoint_format = detect_format(weights, bare=content.keys() == weights.keys())
    chosen = CHECKPOINT_FORMATS[checkpoint_format]
    weights = chosen.convert(weights, own)
    loaded = {name: w for name, w in weights.items() if name in own and w.shape == own[name].shape}
    if not loaded.keys() & {name for name, _ in network.named_parameters()}:
        raise ValueError(f"{path}: none of its {len(weights)} tensors has a name and shape of this network's")
    try:
        network.load_state_dict(loaded, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path}: {_one_line(error)}") from error
    recorded = content.get("normalization")
    return IncompatibleKeys(
        path=path,
        format=checkpoint_format,
        loaded=list(loaded),
        shape_mismatch=[
            (name, tuple(value.shape), tuple(own[name].shape))
            for name, value in weights.items()
            if name in own and name not in loaded
        ],
        missing=[name for name in own if name not in weights],
        unexpected=[name for name in weights if name not in own],
        normalization=recorded if isinstance(recorded, Mapping) else chosen.normalization,
    )


def read_tensors_file(path: Path) -> Any:
    """Return the content of a file of `torch.save` or safetensors, on the CPU, without running code from it.

    Raise FileNotFoundError, or ValueError for a damaged file or one that holds more than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed pickle can raise anything
        # torch's message goes on with advice to load the file with its code; its context starts with what was rejected
        reason = str(error.__context__ or error).split(". ")[0] or type(error).__name__
        damaged = f"holds more than tensors and plain values, or is damaged: {reason}"
        raise ValueError(f"{path}: {_one_line(_failed_download(path) or damaged)}") from None


def _failed_download(path: Path) -> str | None:
    """Return what a file is that holds no weights, and what to do about it; None if it may be a damaged checkpoint."""
    with path.open("rb") as file:
        start = file.read(512)
    for pattern, what, advice in FAILED_DOWNLOADS:
        if re.match(pattern, start, re.DOTALL):
            return f"this is {what}, not a file of weights: {advice}"
    return None


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Return weights by name, or under `state_dict`, beside `normalization`, if the metadata records that."""
    from safetensors import safe_open  # noqa: PLC0415 - needed for such files only

    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata() or {}
    if "normalization" not in metadata:
        return weights
    return {"state_dict": weights, "normalization": json.loads(metadata["normalization"])}


def write_safetensors(network: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the weights of a network as `.safetensors`; `normalization` in the metadata is JSON."""
    from safetensors.torch import save  # noqa: PLC0415 - needed for such files only

    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(save(weights, metadata=dict(metadata)))


def find_weights(content: Any, path: Path) -> Mapping[str, Tensor]:
    """Return the tensors by name, from the top level or from `state_dict`, without the prefix `module.`."""
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path}: holds no weights, neither at the top level nor under 'state_dict'")
    return {str(name).removeprefix(WRAPPER_PREFIX): value for name, value in weights.items()}


def _one_line(text: object) -> str:
    """Return untrusted text as one short line without control characters."""
    line = " ".join(str(text).split())[:200] or type(text).__name__
    return "".join(character if character.isprintable() else "?" for character in line)
