"""Load a checkpoint for inference: the network in evaluation mode, its classes, and the preprocessing of its clips.

model = load_inference_model(Path("srtg_r3d_34_best.pth"), torch.device("cuda", 0))
label = model.classes[model.logits(clips)[0].argmax()]
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.label_files import clean
from data.video_transforms import validation_short_side
from network import create_network
from network.pretrained import read_tensors_file
from train.engine import AUTOCAST_DTYPES
from train.input_norm import ClipNormalizer
from train.options import Options, network_kwargs
from train.parallel.devices import default_precision


@dataclass(frozen=True)
class InferenceModel:
    """A trained network in evaluation mode on its device, with the weights used in validation (the EMA, if enabled).

    `classes`: names in the order of the logits. `options`: those of the training run, with clip length, clip size
    and intervals. `epoch`: number of completed epochs. `dataset`: the dataset entry of the checkpoint.
    """

    path: Path
    network: nn.Module
    device: torch.device
    precision: str
    classes: tuple[str, ...]
    options: Options
    normalization: ClipNormalizer
    epoch: int
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


def load_inference_model(path: Path, device: torch.device, precision: str | None = None) -> InferenceModel:
    """Return the model of a checkpoint. `precision`: fp32, fp16 or bf16 (default: `default_precision`).

    Raise FileNotFoundError, or ValueError if the file is not a checkpoint of a training run.
    """
    on_gpu = device.type == "cuda"
    precision = precision or default_precision(int(on_gpu))
    channels_last = on_gpu and precision != "fp32"
    checkpoint = read_tensors_file(path)
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
        raise ValueError(f"{path}: incompatible checkpoint: {error}") from error
    network.eval().requires_grad_(False).to(device)
    normalization = replace(normalization, channels_last=channels_last)
    if channels_last:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return InferenceModel(path, network, device, precision, classes, options, normalization, epoch, dataset)
