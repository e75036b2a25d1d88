"""What training leaves, as something to ask: a network with its classes, and clips prepared as validation does it.

trained = load_inference_model(Path("srtg_r3d_34_best.pth"), torch.device("cuda", 0))
best = trained.classes[trained.logits(clips)[0].argmax()]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from network import create_network
from network.pretrained import read_tensors_file
from train.engine import AUTOCAST
from train.input_norm import ClipNormalizer
from train.options import Options, network_kwargs

NEEDED = ("state_dict", "epoch", "options", "classes", "normalization", "dataset")


@dataclass(frozen=True)
class InferenceModel:
    """A network on its device, in evaluation mode, with the weights that its validation saw: averaged where there is an
    average.

    `classes` are names in the order of the logits. `options` are those of its run: clip length, size, short side,
    intervals. `epoch`: how many are done. `dataset`: which one it was trained on, as the checkpoint says.
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

    def prepare(self, clips: Tensor) -> Tensor:
        """uint8 `(B, T, H, W, 3)`, BGR -> the network's input, float32 `(B, 3, T, H, W)`, on the device."""
        return self.normalization(clips.to(self.device, non_blocking=True))

    def autocast(self) -> torch.autocast:
        """Within, the network computes in the precision chosen."""
        dtype = AUTOCAST[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    @torch.no_grad()
    def logits(self, clips: Tensor) -> Tensor:
        """uint8 `(B, T, H, W, 3)`, BGR -> float32 `(B, num_classes)`, on the device."""
        inputs = self.prepare(clips)
        with self.autocast():
            return self.network(inputs).float()


def load_inference_model(path: Path, device: torch.device, precision: str | None = None) -> InferenceModel:
    """The network of a checkpoint. `precision`: fp32, fp16 or bf16, by default as training: fp16 on a GPU.

    Raises FileNotFoundError, or ValueError where the file is not what training saved.
    """
    precision = precision or ("fp16" if device.type == "cuda" else "fp32")
    content = read_tensors_file(path)
    absent = [key for key in NEEDED if not isinstance(content, Mapping) or key not in content]
    if absent:
        raise ValueError(f"{path}: is not a checkpoint of a training run, has no {', '.join(absent)}")
    try:
        options = Options.of(content["options"])
        classes = tuple(content["classes"])
        normalization = ClipNormalizer.of(content["normalization"])
        network = create_network(options.network, len(classes), **network_kwargs(options))
        network.load_state_dict(content["state_dict"])
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: is a checkpoint that does not fit this version, {reason}") from error
    network.eval().requires_grad_(False).to(device)
    if device.type == "cuda" and precision != "fp32":
        network.to(memory_format=torch.channels_last_3d)
    return InferenceModel(
        path=path,
        network=network,
        device=device,
        precision=precision,
        classes=classes,
        options=options,
        normalization=normalization,
        epoch=content["epoch"],
        dataset=content["dataset"],
    )
