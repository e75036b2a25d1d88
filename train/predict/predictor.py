"""Predict the class of videos of any length with a sliding window, and compute their Grad-CAM heat maps."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.datasets import CUSTOM, SPECS
from data.ffmpeg.video_files import Video
from data.video_sampler import frames_at
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


class Prediction(NamedTuple):
    """The prediction for each of the N windows of a video of `num_frames`, in order.

    `frames`: first and last frame of each window, `(N, 2)`. `probabilities`: `(N, num_classes)`. `features`: input of
    the classification layer, `(N, C)`.
    """

    num_frames: int
    frames: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray

    def video_probabilities(self) -> np.ndarray:
        """Return the mean probabilities of all windows, `(num_classes,)`."""
        return self.probabilities.mean(axis=0)

    def at(self, frame: int) -> np.ndarray:
        """Return the probabilities of the window whose middle is closest to a frame."""
        return self.probabilities[np.abs(self.frames.mean(axis=1) - frame).argmin()]


@dataclass(frozen=True)
class VideoPredictor:
    """Runs a network on windows of a video, one every `stride` frames, `batch_size` at a time.

    If it was trained with `target_fps`, windows are cut from the frames of `frames_at`, where their times are known.
    Memory does not depend on the length of the video. Unreadable videos raise VideoStreamError or FrameStoreError.
    """

    model: InferenceModel
    stride: int
    batch_size: int

    def predict(self, video: Video) -> Prediction:
        """Return the prediction for a video. Raise ValueError if probabilities are NaN or Inf."""
        frames, probabilities, features = [], [], []
        for windows, clips in self._batches(video):
            logits, pooled = self._forward(clips)
            frames += [(window.indices.min(), window.indices.max()) for window in windows]
            probabilities.append(logits.softmax(dim=1).cpu().numpy())
            features.append(pooled.cpu().numpy())
        prediction = Prediction(
            len(video.times), np.array(frames), np.concatenate(probabilities), np.concatenate(features)
        )
        if not np.isfinite(prediction.probabilities).all():
            raise ValueError(f"{self.model.path}: probabilities for {video.path} contain NaN or Inf")
        return prediction

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
        fps, virtual = options.target_fps, None
        if fps is not None and (times := video.known_times) is not None:
            virtual = frames_at(times, fps)
        frames = video.frames(max(stored, self.model.short_side))  # the pixels of a frame store
        windows = sliding_windows(
            resample(tqdm(frames, desc=video.path.name, unit="frame", leave=False, disable=None), virtual),
            length=options.clip_length,
            interval=options.val_frame_interval,
            stride=self.stride,
            size=options.clip_size,
        )
        while batch := list(itertools.islice(windows, self.batch_size)):
            yield batch, torch.from_numpy(np.stack([window.clip for window in batch]))

    def _forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits `(B, num_classes)` and the input of the classification layer `(B, C)`."""
        pooled: list[Tensor] = []
        fc = self.model.network.get_submodule("fc")
        with fc.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].float())):
            return self.model.logits(clips), pooled[0]
