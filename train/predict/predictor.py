"""What a trained network says about a video of any length, in bounded memory, and where it found that."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.ffmpeg import Video
from train.inference import InferenceModel
from train.predict.gradcam import SaliencyTube, grad_cam, gradcam_stage, heatmap_over_time
from train.predict.sliding_window import Window, sliding_windows


class ClassScore(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


def topk_classes(probabilities: np.ndarray, classes: Sequence[str], top: int) -> list[ClassScore]:
    """The most probable of `(classes,)`, falling."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [ClassScore(classes[number], float(probabilities[number])) for number in order]


class Prediction(NamedTuple):
    """Of a video of `n_frames`, and its windows, in order: `frames` `(N, 2)`, first and last; `probabilities` `(N,
    classes)`; `features` `(N, C)`, means over time and space, as the head sees them.
    """

    n_frames: int
    frames: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray

    def overall(self) -> np.ndarray:
        """The video's probabilities: the mean of its windows', `(classes,)`."""
        return self.probabilities.mean(axis=0)

    def at(self, frame: int) -> np.ndarray:
        """The probabilities of the window whose middle is nearest to a frame."""
        return self.probabilities[np.abs(self.frames.mean(axis=1) - frame).argmin()]


@dataclass(frozen=True)
class VideoPredictor:
    """A network that watches videos through a window that moves on by `stride` frames, `batch_size` windows at a time.

    No more than a window's frames and a batch of clips are held. Where a video cannot be read, VideoStreamError or
    FrameStoreError.
    """

    trained: InferenceModel
    stride: int
    batch_size: int

    def predict(self, video: Video) -> Prediction:
        """One pass over a video. ValueError where the network gives no numbers."""
        n_frames = 0
        frames, probabilities, features = [], [], []
        for windows, clips in self._batches(video):
            logits, pooled = _ask(self.trained, clips)
            n_frames = windows[-1].seen
            frames += [(window.indices.min(), window.indices.max()) for window in windows]
            probabilities.append(logits.softmax(dim=1).cpu().numpy())
            features.append(pooled.cpu().numpy())
        result = Prediction(
            n_frames, np.array(frames), np.concatenate(probabilities), np.concatenate(features)
        )
        if not np.isfinite(result.probabilities).all():
            raise ValueError(f"{self.trained.path}: its network's answers for {video.path} are not numbers")
        return result

    def attention(self, video: Video, number: int) -> SaliencyTube:
        """Another pass: where and when it found what speaks for class `number`."""
        stage = gradcam_stage(self.trained.options.clip_size)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for windows, clips in self._batches(video):
            maps = grad_cam(self.trained, clips, number, stage).cpu().numpy()
            found += zip((window.indices for window in windows), maps, strict=True)
        return heatmap_over_time(found)

    def _batches(self, video: Video) -> Iterator[tuple[list[Window], Tensor]]:
        """Windows, prepared as in validation, and their clips, uint8 `(B, T, H, W, 3)`."""
        options = self.trained.options
        short_side = max(options.short_side, options.clip_size)
        frames = video.frames(short_side)
        windows = sliding_windows(
            tqdm(frames, desc=video.path.name, unit="frame", leave=False, disable=None),
            length=options.clip_length,
            interval=options.val_frame_interval,
            stride=self.stride,
            size=options.clip_size,
            short_side=short_side,
        )
        for batch in _in_batches(windows, self.batch_size):
            yield batch, torch.from_numpy(np.stack([window.clip for window in batch]))


def _in_batches(windows: Iterable[Window], size: int) -> Iterator[list[Window]]:
    batch = []
    for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _ask(trained: InferenceModel, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `(B, classes)`, and what goes into the head, `(B, C)`."""
    pooled: list[Tensor] = []
    handle = trained.network.fc.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].float()))
    try:
        return trained.logits(clips), pooled[0]
    finally:
        handle.remove()
