"""Where a network looked: Grad-CAM over space and time, drawn upon the video as saliency tubes.

Selvaraju et al., "Grad-CAM: Visual explanations from deep networks", ICCV 2017; Stergiou et al., "Saliency tubes:
visual explanations for spatio-temporal convolutions", ICIP 2019. All networks here end with the mean of their last
features over time and space and a linear head, so that a class's logit is its bias plus the mean of a map: at each
place, the features times their weights. That map is Grad-CAM at the last stage. Earlier stages have more places; there
a feature's weight is the mean of its gradient.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.inference import InferenceModel

STAGES = {"layer4": 32, "layer3": 16, "layer2": 8, "layer1": 4}  # pixels of the clip to one place
LEAST_PLACES = 7  # a side: those of the last stage at 224 pixels


def gradcam_stage(size: int) -> str:
    """The deepest stage that tells enough places of a clip apart: of 224 pixels the last, of 112 the third."""
    return next((stage for stage, pixels in STAGES.items() if size >= LEAST_PLACES * pixels), "layer1")


def grad_cam(trained: InferenceModel, clips: Tensor, number: int, stage: str) -> Tensor:
    """What speaks for class `number` (positive) and against it, at each place of a stage's output.

    Clips uint8 `(B, T, H, W, 3)`, BGR -> float32 `(B, T', H', W')`. The mean over the places of the last stage is the
    logit less its bias. Of two branches (MTNet) the coarser is interpolated, and they are added.
    """
    network = trained.network
    with (
        _kept_features(getattr(network, stage)[-1]) as kept,
        _recurrent_gradients(network),
        torch.enable_grad(),
    ):
        logits = network(trained.prepare(clips))
        gradients = torch.autograd.grad(logits[:, number].sum(), kept)
    maps = [
        (features.detach() * gradient.mean(dim=(2, 3, 4), keepdim=True)).sum(dim=1, keepdim=True)
        * features[0, 0].numel()
        for features, gradient in zip(kept, gradients, strict=True)
    ]
    size = max((part.shape[2:] for part in maps), key=lambda shape: shape.numel())
    return sum(
        part if part.shape[2:] == size else F.interpolate(part, size=size, mode="trilinear") for part in maps
    ).squeeze(1)


@contextmanager
def _kept_features(block: nn.Module) -> Iterator[list[Tensor]]:
    """Within, what `block` puts out is kept, and gradients are computed from there on, not before."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> object:
        branches = (output,) if isinstance(output, Tensor) else output
        kept.extend(branch.detach().requires_grad_() for branch in branches)
        return kept[0] if isinstance(output, Tensor) else tuple(kept)

    handle = block.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def _recurrent_gradients(network: nn.Module) -> Iterator[None]:
    """Within, cuDNN computes gradients of recurrent cells: in training mode alone, the same without dropout."""
    cells = [module for module in network.modules() if isinstance(module, nn.RNNBase)]
    for cell in cells:
        cell.train()
    try:
        yield
    finally:
        for cell in cells:
            cell.eval()


@dataclass(frozen=True)
class SaliencyTube:
    """Maps over a video's time: `moments` `(N,)`, in frames, rise; `heat` `(N, H', W')`, 1 where it is highest."""

    moments: np.ndarray
    heat: np.ndarray

    def at(self, frame: int) -> np.ndarray:
        """`(H', W')`, between the moments around a frame."""
        after = int(np.searchsorted(self.moments, frame))
        if after in (0, len(self.moments)):
            return self.heat[min(after, len(self.moments) - 1)]
        before, behind = self.moments[after - 1], self.moments[after]
        share = (frame - before) / (behind - before)
        return (1 - share) * self.heat[after - 1] + share * self.heat[after]


def heatmap_over_time(windows: Sequence[tuple[np.ndarray, np.ndarray]]) -> SaliencyTube:
    """From each window's frame indices `(T,)` and maps `(T', H', W')`: one stands amid its share of the frames.

    What speaks against the class is left out.
    """
    moments = [share.mean() for indices, maps in windows for share in np.array_split(indices, len(maps))]
    order = np.argsort(moments, kind="stable")
    heat = np.concatenate([maps for _, maps in windows])[order].clip(0)
    return SaliencyTube(np.array(moments)[order], heat / max(heat.max(), np.finfo(np.float32).tiny))
