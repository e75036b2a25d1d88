"""Predict the class of videos of any length with a sliding window, and compute their Grad-CAM heat maps."""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.datasets import CUSTOM, SPECS
from data.ffmpeg.video_files import LiveVideo, TimedImage, Video
from train.inference import InferenceModel
from train.predict.gradcam import SaliencyTube, grad_cam, gradcam_stage, heatmap_over_time
from train.predict.sliding_window import Window, resample, sliding_windows


class ClassScore(NamedTuple):
    """A class and its probability."""

    label: str
    probability: float


def topk_classes(probabilities: np.ndarray, classes: Sequence[str], k: int) -> list[ClassScore]:
    """Return the k most probable classes, given their probabilities `(num_classes,)`, in descending order."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [ClassScore(classes[index], float(probabilities[index])) for index in order]


class WindowPrediction(NamedTuple):
    """The prediction for a window, a row of each array of Prediction."""

    frames: np.ndarray
    seconds: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray


class Prediction(NamedTuple):
    """The prediction for a video of `num_frames`, and for N of its windows, in order.

    `num_windows`: of the video. `mean`: probabilities of the video, the mean over its windows, `(num_classes,)`.
    `frames`: first and last frame of each of the N, `(N, 2)`. `seconds`: its start and end, `(N, 2)`. `probabilities`:
    `(N, num_classes)`. `features`: input of the classification layer, `(N, C)`.
    """

    num_frames: int
    num_windows: int
    mean: np.ndarray
    frames: np.ndarray
    seconds: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray

    def at(self, frame: int) -> np.ndarray:
        """Return the probabilities of the window whose middle is closest to a frame."""
        return self.probabilities[np.abs(self.frames.mean(axis=1) - frame).argmin()]


Follow = Callable[[Iterable[WindowPrediction]], object]


@dataclass(frozen=True)
class VideoPredictor:
    """Runs a network on windows of a video, one every `stride` frames, `batch_size` at a time.

    If it was trained with `target_fps`, windows are cut from the frames of `frames_at`, where their times are known.
    Those of live video are predicted one by one. Unreadable videos raise VideoStreamError or FrameStoreError.
    """

    model: InferenceModel
    stride: int
    batch_size: int

    def predict(self, video: Video, follow: Follow = list, *, keep_windows: bool = True) -> Prediction:
        """Return the prediction for a video; `follow` iterates over its windows, each as soon as it is predicted.

        Without `keep_windows` it has only the last, and memory is bounded. Raise ValueError if one is NaN or Inf.
        """
        kept: deque[WindowPrediction] = deque(maxlen=None if keep_windows else 1)
        total, count = np.zeros(len(self.model.classes)), 0

        def windows() -> Iterator[WindowPrediction]:
            nonlocal total, count
            for batch, clips in self._batches(video):
                logits, pooled = self._forward(clips)
                outputs = logits.softmax(dim=1).cpu().numpy(), pooled.cpu().numpy()
                if not np.isfinite(outputs[0]).all():
                    raise ValueError(f"{self.model.path}: probabilities for {video.name} contain NaN or Inf")
                for (indices, _, *seconds), probabilities, features in zip(batch, *outputs, strict=True):
                    frames = np.array([indices.min(), indices.max()])
                    kept.append(WindowPrediction(frames, np.array(seconds), probabilities, features))
                    total, count = total + probabilities, count + 1
                    yield kept[-1]

        follow(windows())
        return Prediction(video.num_frames, count, total / count, *map(np.stack, zip(*kept, strict=True)))

    def gradcam(self, video: Video, class_index: int) -> SaliencyTube:
        """Decode the video again and return the heat maps of a class over time."""
        stage = gradcam_stage(self.model.options.clip_size)
        window_maps: list[tuple[np.ndarray, np.ndarray]] = []
        for windows, clips in self._batches(video):
            maps = grad_cam(self.model, clips, class_index, stage).cpu().numpy()
            window_maps += zip((window.indices for window in windows), maps, strict=True)
        return heatmap_over_time(window_maps)

    def _batches(self, video: Video) -> Iterator[tuple[list[Window], Tensor]]:
        """Yield batches of windows, preprocessed as in validation, with their clips, uint8 `(B, T, H, W, 3)`."""
        options = self.model.options
        stored = SPECS.get(self.model.dataset.get("name", ""), CUSTOM).short_side
        frames: Iterable[TimedImage] = video.frames(max(stored, self.model.short_side))  # as in a frame store
        if not isinstance(video, LiveVideo) and sys.stderr.isatty():
            frames = tqdm(frames, video.path.name, video.expected_frames, leave=False, unit="frame")
        windows = sliding_windows(
            resample(frames, options.target_fps),
            length=options.clip_length,
            interval=options.val_frame_interval,
            stride=self.stride,
            size=options.clip_size,
        )
        batch_size = 1 if isinstance(video, LiveVideo) else self.batch_size
        while batch := list(itertools.islice(windows, batch_size)):
            yield batch, torch.from_numpy(np.stack([window.clip for window in batch]))

    def _forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits `(B, num_classes)` and the input of the classification layer `(B, C)`."""
        pooled: list[Tensor] = []
        fc = self.model.network.get_submodule("fc")
        with fc.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].float())):
            return self.model.logits(clips), pooled[0]
