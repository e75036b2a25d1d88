"""Grad-CAM over space and time, and its interpolation over the frames of a video (saliency tubes).

Selvaraju et al., "Grad-CAM: Visual explanations from deep networks", ICCV 2017; Stergiou et al., "Saliency tubes:
visual explanations for spatio-temporal convolutions", ICIP 2019. All networks here end with global average pooling and
a linear layer, so the logit of a class is its bias plus the mean of a map: the features of the last stage times their
weights. That map is Grad-CAM at the last stage. For earlier stages, with a higher resolution, the weight of a feature
is its mean gradient.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.inference import InferenceModel

STAGES = {"layer4": 32, "layer3": 16, "layer2": 8, "layer1": 4}  # spatial stride, deepest first
MIN_MAP_SIZE = 7  # of the last stage at 224 pixels


def gradcam_stage(size: int) -> str:
    """Return the deepest stage with a map of at least 7 x 7 for clips of `size` pixels: 224 layer4, 112 layer3."""
    return next((stage for stage, stride in STAGES.items() if size >= MIN_MAP_SIZE * stride), "layer1")


def grad_cam(model: InferenceModel, clips: Tensor, class_index: int, stage: str) -> Tensor:
    """Return maps, float32 `(B, T', H', W')`, of what supports a class (positive) and what opposes it (negative).

    Clips are uint8 `(B, T, H, W, 3)`, BGR. The mean of a map of the last stage is the logit without its bias. MTNet
    has two branches: the map with the lower resolution is interpolated, and both are added.
    """
    network = model.network
    captured: list[Tensor] = []

    def capture(_module: nn.Module, _inputs: object, output: tuple[Any, ...]) -> tuple[Any, ...]:
        """Replace features, but no values of gates, by leaf tensors: gradients are computed only from there on."""
        features = [value.detach().requires_grad_() for value in output if getattr(value, "ndim", 0) == 5]
        captured.extend(features)
        return (*features, *output[len(features) :])

    block = getattr(network, stage)[-1]
    with block.register_forward_hook(capture), _rnn_gradients(network), torch.enable_grad():
        logits = network(model.preprocess(clips))
        gradients = torch.autograd.grad(logits[:, class_index].sum(), captured)
    maps = []
    for features, gradient in zip(captured, gradients, strict=True):
        weighted = features.detach() * gradient.mean(dim=(2, 3, 4), keepdim=True)
        maps.append(weighted.sum(dim=1, keepdim=True) * features[0, 0].numel())
    size = max((branch.shape[2:] for branch in maps), key=lambda shape: shape.numel())
    resized = [F.interpolate(branch, size=size, mode="trilinear") for branch in maps]
    return torch.cat(resized, dim=1).sum(dim=1)


@contextmanager
def _rnn_gradients(network: nn.Module) -> Iterator[None]:
    """Put recurrent layers into training mode, which cuDNN needs for gradients; they have no dropout."""
    layers = [module for module in network.modules() if isinstance(module, nn.RNNBase)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


@dataclass(frozen=True)
class SaliencyTube:
    """Heat maps `(N, H', W')` of a video, with maximum 1, at ascending times `(N,)`, in frames."""

    times: np.ndarray
    heatmaps: np.ndarray

    def at(self, frame: int) -> np.ndarray:
        """Return the heat map `(H', W')` of a frame, interpolated linearly over time."""
        position = np.interp(frame, self.times, np.arange(len(self.times)))
        before, after = self.heatmaps[[int(np.floor(position)), int(np.ceil(position))]]
        return before + (position % 1) * (after - before)


def heatmap_over_time(windows: Sequence[tuple[np.ndarray, np.ndarray]]) -> SaliencyTube:
    """Combine the frame indices `(T,)` and maps `(T', H', W')` of all windows; negative values become 0.

    Each map is placed at the mean time of the frames that it covers.
    """
    times = np.array(
        [chunk.mean() for indices, maps in windows for chunk in np.array_split(indices, len(maps))]
    )
    order = np.argsort(times, kind="stable")
    heatmaps = np.concatenate([maps for _, maps in windows])[order].clip(0)
    return SaliencyTube(times[order], heatmaps / max(heatmaps.max(), np.finfo(np.float32).tiny))
