"""Datasets of clips: from a sample index to a clip with its label, and the batches of them.

Follow a clip: the batch sampler's ClipSpec reaches `TrainDataset.__getitem__`; frames are chosen, read, transformed and
collated to a Batch, uint8 `(B, T, H, W, 3)`. Float, normalization and layout are left to the device (train/engine.py).
"""

import itertools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from data.batch_sampler import ClipSpec
from data.clip_batch import BadSample, Sample
from data.frame_store import EncodedFrames, FrameStore, FrameStoreError
from data.video_list import VideoIndex
from data.video_sampler import center_clip, random_clip
from data.video_transforms import ClipParams, sample_clip_params, training_clip, validation_clip

MAX_REPLACEMENTS = 100  # corrupt videos in a row before a clip is given up


def describe_frames(indices: Sequence[int]) -> str:
    """Return `12 to 42, interval 2`, or the first indices where the interval varies."""
    intervals = {later - earlier for earlier, later in itertools.pairwise(indices)}
    if len(intervals) != 1:
        return ", ".join(map(str, indices[:10])) + ", ..." * (len(indices) > 10)
    return f"{indices[0]} to {indices[-1]}, interval {intervals.pop()}"


def describe_params(indices: Sequence[int], params: ClipParams) -> list[str]:
    """Return a line for the frames of a clip and for each of its random parameters."""
    top, left, side = params.crop_box
    lines = [f"frames {describe_frames(indices)}", f"crop {side}x{side} at ({left}, {top})"]
    lines += ["flipped"] if params.flipped else []
    for augmentation, values in params.augmentations:
        lines.append(f"{augmentation.name} " + ", ".join(f"{value:.3g}" for value in values))
    return lines


@dataclass(frozen=True, eq=False)
class TrainDataset(Dataset[Sample]):
    """Random, augmented clips; each is a function of its sample index alone.

    Clips shorter than `base_length` get random intervals larger by up to the same factor, so that they cover the same
    time (multigrid paper, section 3). See `random_clip` and `sample_clip_params` for the other settings. A clip that
    cannot be read is replaced by one of another video, in an order given by the seed of the sample index.
    """

    videos: VideoIndex
    _: KW_ONLY
    intervals: Sequence[int]
    base_length: int
    clip_size: int
    short_side: int
    augment: str
    flip: bool
    frame_sampling: str = "uniform"

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, spec: ClipSpec) -> Sample:
        bad = []
        replacements = np.random.default_rng((spec.seed, 1))
        index = spec.index
        for _ in range(MAX_REPLACEMENTS):
            folder = self.videos.folder(index)
            try:
                clip = self.read(folder, spec)
            except FrameStoreError as error:
                bad.append(BadSample(str(folder), str(error)))
                index = int(replacements.integers(len(self.videos)))
            else:
                return Sample(torch.from_numpy(clip), int(self.videos.labels[index]), index, bad)
        return Sample(None, -1, spec.index, bad)

    def read(self, folder: Path, spec: ClipSpec) -> np.ndarray:
        """Return a clip, uint8 `(length, size, size, 3)`, BGR. Raise FrameStoreError if the video is corrupt."""
        frames, params = self.sample(folder, spec)
        return training_clip(frames, params, size=spec.size, clip_size=self.clip_size, augment=self.augment)

    def sample(self, folder: Path, spec: ClipSpec) -> tuple[EncodedFrames, ClipParams]:
        """Return the frames of a clip, not decoded, and its random parameters. Raise FrameStoreError as `read`."""
        generator = np.random.default_rng(spec.seed)
        store = FrameStore(folder)
        speed = (1.0, max(1.0, self.base_length / spec.length))
        indices = random_clip(
            store.n_frames, spec.length, self.intervals, generator, speed=speed, starts=self.frame_sampling
        )
        frames = store.fetch(indices)
        params = sample_clip_params(
            frames.height,
            frames.width,
            size=spec.size,
            clip_size=self.clip_size,
            short_side=self.short_side,
            augment=self.augment,
            flip=self.flip,
            generator=generator,
        )
        return frames, params

    def describe(self, spec: ClipSpec) -> str:
        """Return a line on the clip of `spec`: video, size of its frames, class, and what was sampled."""
        sample = self[spec]
        if sample.clip is None:
            return sample.bad[-1].reason
        folder = self.videos.folder(sample.index)
        frames, params = self.sample(folder, spec)
        what = "; ".join(describe_params(frames.indices, params))
        return f"{folder} ({frames.width}x{frames.height}), class {sample.label}, {spec.length}x{spec.size}: {what}"


class ValDataset(Dataset[Sample]):
    """The center crop of the middle clip of each video, nothing random. A corrupt video is not replaced."""

    def __init__(self, videos: VideoIndex, *, interval: int) -> None:
        self.videos = videos
        self.interval = interval

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, spec: ClipSpec) -> Sample:
        folder, label = self.videos.folder(spec.index), int(self.videos.labels[spec.index])
        try:
            clip = self.read(folder, spec)
        except FrameStoreError as error:
            return Sample(None, label, spec.index, [BadSample(str(folder), str(error))])
        return Sample(torch.from_numpy(clip), label, spec.index, [])

    def read(self, folder: Path, spec: ClipSpec) -> np.ndarray:
        """Return a clip, uint8 `(length, size, size, 3)`, BGR. Raise FrameStoreError if the video is corrupt."""
        store = FrameStore(folder)
        frames = store.read(center_clip(store.n_frames, spec.length, self.interval))
        return validation_clip(frames, size=spec.size)
