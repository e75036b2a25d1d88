"""Load a checkpoint for inference: the network in evaluation mode, its classes, and the preprocessing of its clips.

Weights alone, of the original, a `.safetensors` or zoo:NAME, become a checkpoint by what `WeightsInfo` says of them.

model = load_inference_model(Path("srtg_r3d_34_best.pth"), torch.device("cuda", 0))
label = model.classes[model.logits(clips)[0].argmax()]
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data.common.cli import complete_by, positive, sanitize
from data.datasets import SPECS, DatasetSpec
from data.label_files import AnnotationSet, class_index_path, clean, find_label_folder, read_classes
from data.video_transforms import validation_short_side
from network import create_network, list_networks
from network.pretrained import find_weights, read_tensors_file
from network.published import WEIGHTS, published_name, weights_path
from train.engine import AUTOCAST_DTYPES
from train.input_norm import ClipNormalizer
from train.options import Options, network_kwargs, resolve
from train.parallel.devices import default_precision
from train.recipes import RECIPES


@dataclass(frozen=True)
class InferenceModel:
    """A trained network in evaluation mode on its device, with the weights used in validation (the EMA, if enabled).

    `classes`: names in the order of the logits. `options`: those of the training run, with clip length, clip size
    and intervals. `epoch`: number of completed epochs, None if unknown. `dataset`: the dataset entry of the checkpoint.
    """

    path: Path
    network: nn.Module
    device: torch.device
    precision: str
    classes: tuple[str, ...]
    options: Options
    normalization: ClipNormalizer
    epoch: int | None
    dataset: Mapping[str, Any]

    @property
    def short_side(self) -> int:
        """Short side that frames are scaled to before the center crop."""
        return validation_short_side(self.options.clip_size)

    def preprocess(self, clips: Tensor) -> Tensor:
        """Return the network's input, float32 `(B, 3, T, H, W)`, for decoded clips, uint8 `(B, T, H, W, 3)`, BGR."""
        return self.normalization(clips.to(self.device, non_blocking=True))

    @torch.no_grad()
    def logits(self, clips: Tensor) -> Tensor:
        """Return float32 logits `(B, num_classes)` for clips, uint8 `(B, T, H, W, 3)`, BGR, on any device."""
        inputs = self.preprocess(clips)
        with torch.autocast(
            self.device.type, dtype=AUTOCAST_DTYPES[self.precision], enabled=self.precision != "fp32"
        ):
            return self.network(inputs).float()


class WeightsInfo(NamedTuple):
    """What a file of weights alone does not say: the flags of `add_weights_flags`.

    `dataset`, `labels`: folders of a dataset and its label files, whose class index replaces `class_names`.
    """

    network: str | None = None
    data_spec: str | None = None
    class_names: Path | None = None
    clip_size: int | None = None
    dataset: Path | None = None
    labels: Path | None = None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "WeightsInfo":
        """Return the values of a command's flags; it may lack the last two."""
        return cls(*(getattr(arguments, name, None) for name in cls._fields))

    def to_checkpoint(self, content: Any, path: Path) -> dict[str, Any]:
        """Return weights, with or without other entries, as a checkpoint of the dataset's training script.

        Raise ValueError for a file without weights, and if the names of its classes are unknown or of another number.
        """
        weights = find_weights(content, path)
        if self.network is None or self.data_spec is None:
            raise ValueError(
                f"{path}: not a checkpoint of a run; weights alone need --network and --data-spec"
            )
        if "fc.weight" not in weights:
            raise ValueError(f"{path}: no weights of a network of this code: fc.weight is missing")
        spec, num_classes = SPECS[self.data_spec], len(weights["fc.weight"])
        same = (variant for variant, number in spec.num_classes.items() if number == num_classes)
        variant = next(same, spec.default_variant)
        names = self.class_names or self._class_index(spec, variant)
        if names is None or not names.is_file():
            missing = f"there is no {names}" if names else "its classes have no names"
            raise ValueError(f"{path}: {missing}; --class-names FILE has them in the order of its outputs")
        lines = names.read_text("utf-8-sig", errors="replace").splitlines()
        listed = [clean(line) for line in lines if line.strip()]
        classes = read_classes(names) if names.suffix == ".json" else listed
        if len(classes) != num_classes:
            raise ValueError(f"{names}: names {len(classes)} classes, {path} has {num_classes}")
        recipe = RECIPES[spec.name]
        size = self.clip_size or recipe.clip_size
        options = replace(recipe, network=self.network, variant=variant, clip_size=size)
        return {
            "state_dict": weights,
            "options": resolve(spec, options, gpus=0).to_dict(),
            "classes": classes,
            "normalization": content.get("normalization") or ClipNormalizer().to_dict(),
            "epoch": None,
            "dataset": {"name": spec.name},
        }

    def _class_index(self, spec: DatasetSpec, variant: str) -> Path | None:
        if self.dataset is None:
            return None
        paths = AnnotationSet(spec, variant, self.dataset).paths()
        folder = find_label_folder(self.dataset, paths["val"].name, self.labels)
        return class_index_path(folder / paths["train"].name)


def add_weights_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that describe weights alone."""
    add = parser.add_argument_group("for weights alone, which are not a checkpoint").add_argument
    complete_by(add("--network", metavar="NAME", help="their network"), list_networks())
    add("--data-spec", choices=SPECS, help="their dataset, which decides clips and label files")
    text = "names of their classes in the order of the outputs: a class index (.json), or a text file, one per line"
    add("--class-names", type=Path, metavar="FILE", help=text)
    text = "height and width of a clip in pixels (default: as in the dataset's script)"
    add("--clip-size", type=positive, metavar="N", help=text)


def load_inference_model(
    path: Path, device: torch.device, precision: str | None = None, info: WeightsInfo | None = None
) -> InferenceModel:
    """Return the model of a checkpoint, or of weights alone, of which `info` says what they do not; or of zoo:NAME.

    `precision`: fp32, fp16 or bf16 (default: `default_precision`).

    Raise FileNotFoundError, or ValueError for a file of something else, or whose weights do not fit.
    """
    on_gpu = device.type == "cuda"
    precision = precision or default_precision(int(on_gpu))
    channels_last = on_gpu and precision != "fp32"
    info = info or WeightsInfo()
    if name := published_name(path):
        row = WEIGHTS[name]
        size = info.clip_size or row.clip_size
        info = info._replace(
            network=info.network or name, data_spec=info.data_spec or row.dataset, clip_size=size
        )
    path = weights_path(path)
    checkpoint = read_tensors_file(path)
    if not isinstance(checkpoint, Mapping) or "options" not in checkpoint:
        checkpoint = info.to_checkpoint(checkpoint, path)
    elif any(info[:4]):
        raise ValueError(f"{path}: a checkpoint of a run; --network and so on describe weights alone")
    try:
        options = Options.from_dict(checkpoint["options"])
        classes = tuple(map(clean, checkpoint["classes"]))
        network = create_network(options.network, len(classes), **network_kwargs(options))
        network.load_state_dict(checkpoint["state_dict"])
        normalization = ClipNormalizer.from_dict(checkpoint["normalization"])
        epoch, dataset = checkpoint["epoch"], checkpoint["dataset"]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a checkpoint of a training run: {error!r}") from error
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: incompatible checkpoint: {sanitize(error)}") from error
    network.eval().requires_grad_(False).to(device)
    normalization = replace(normalization, channels_last=channels_last)
    if channels_last:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return InferenceModel(path, network, device, precision, classes, options, normalization, epoch, dataset)
