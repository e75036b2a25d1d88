"""Datasets of clips: from a sample index to a clip with its label, and the batches of them.

Follow a clip: the batch sampler's ClipSpec reaches `TrainDataset.__getitem__`; frames are chosen, read, transformed and
collated to a Batch, uint8 `(B, T, H, W, 3)`. Float, normalization and layout are left to the device (train/engine.py).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from data.batch_sampler import ClipSpec
from data.clip_batch import BadSample, Sample
from data.frame_store import EncodedFrames, FrameStore, FrameStoreError
from data.video_list import VideoIndex
from data.video_sampler import center_clip, frames_at, random_clip
from data.video_transforms import ClipParams, pack_params, sample_clip_params, training_clip, validation_clip

MAX_REPLACEMENTS = 100  # corrupt videos in a row before a clip is given up


def describe_frames(indices: Sequence[int]) -> str:
    """Return `12 to 42, interval 2`, or the first indices where the interval varies."""
    intervals = {later - earlier for earlier, later in itertools.pairwise(indices)}
    if len(intervals) != 1:
        return ", ".join(map(str, indices[:10])) + ", ..." * (len(indices) > 10)
    return f"{indices[0]} to {indices[-1]}, interval {intervals.pop()}"


def describe_params(indices: Sequence[int], params: ClipParams, times: np.ndarray | None = None) -> list[str]:
    """Return a line for the frames of a clip, with `times` of the video in seconds, and for each random parameter."""
    top, left, side = params.crop_box
    seconds = "" if times is None else f", {times[indices[0]]:.2f} to {times[indices[-1]]:.2f} s"
    lines = [f"frames {describe_frames(indices)}{seconds}", f"crop {side}x{side} at ({left}, {top})"]
    lines += ["flipped"] if params.flipped else []
    for augmentation, values in params.augmentations:
        lines.append(f"{augmentation.name} " + ", ".join(f"{value:.3g}" for value in values))
    return lines


def virtual_frames(store: FrameStore, target_fps: float | None) -> Sequence[int] | np.ndarray:
    """Return the frames among which clips are chosen: at `target_fps`, or all where that or their times are None."""
    if target_fps is None or (times := store.times()) is None:
        return range(store.n_frames)
    return frames_at(times, target_fps)


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
    augment_table: str = "full"
    frame_sampling: str = "uniform"
    target_fps: float | None = None

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, spec: ClipSpec) -> Sample:
        bad = []
        for index in self._candidates(spec):
            folder = self.videos.folder(index)
            try:
                frames, params = self.sample(folder, spec)
                clip = training_clip(
                    frames, params, size=spec.size, clip_size=self.clip_size, augment=self.augment
                )
                packed = pack_params(params, size=spec.size, clip_size=self.clip_size, augment=self.augment)
            except FrameStoreError as error:
                bad.append(BadSample(str(folder), str(error)))
            else:
                label = int(self.videos.labels[index])
                return Sample(torch.from_numpy(clip), label, index, bad, packed)
        return Sample(None, -1, spec.index, bad)

    def _candidates(self, spec: ClipSpec) -> Iterator[int]:
        """Yield the video of a clip, then those that may replace it."""
        yield spec.index
        generator = np.random.default_rng((spec.seed, 1))
        for _ in range(MAX_REPLACEMENTS - 1):
            yield int(generator.integers(len(self.videos)))

    def sample(self, folder: Path, spec: ClipSpec) -> tuple[EncodedFrames, ClipParams]:
        """Return the frames of a clip, not decoded, and its random parameters. Raise FrameStoreError if corrupt."""
        generator = np.random.default_rng(spec.seed)
        store = FrameStore(folder)
        speed = (1.0, max(1.0, self.base_length / spec.length))
        with store.opened():
            virtual = virtual_frames(store, self.target_fps)
            clip = random_clip(
                len(virtual), spec.length, self.intervals, generator, speed=speed, starts=self.frame_sampling
            )
            indices = [int(virtual[index]) for index in clip]
            frames = None if store.has_half_level else store.fetch(indices)
            height, width = (frames.height, frames.width) if frames else store.frame_size(indices[0])
            params = sample_clip_params(
                height,
                width,
                size=spec.size,
                clip_size=self.clip_size,
                short_side=self.short_side,
                augment=self.augment,
                flip=self.flip,
                generator=generator,
                table=self.augment_table,
            )
            if frames is None:
                halved = self.augment != "imgaug" and params.crop_box.side >= 2 * spec.size
                frames = store.fetch(indices, half_of=(height, width) if halved else None)
                if (size := (frames.height, frames.width)) != (height, width):
                    raise FrameStoreError(
                        f"{store.path}: frame {indices[0]} has height and width {size}, listed {(height, width)}"
                    )
            return frames, params

    def describe(self, spec: ClipSpec) -> str:
        """Return a line on the clip of `spec`: video, size of its frames, class, and what was sampled."""
        sample = self[spec]
        if sample.clip is None:
            return sample.bad[-1].reason
        folder = self.videos.folder(sample.index)
        frames, params = self.sample(folder, spec)
        what = "; ".join(describe_params(frames.indices, params, FrameStore(folder).times()))
        return f"{folder} ({frames.width}x{frames.height}), class {sample.label}, {spec.length}x{spec.size}: {what}"


@dataclass(frozen=True, eq=False)
class ValDataset(Dataset[Sample]):
    """The center crop of the middle clip of each video, nothing random. A corrupt video is not replaced."""

    videos: VideoIndex
    _: KW_ONLY
    interval: int
    target_fps: float | None = None

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
        with store.opened():
            virtual = virtual_frames(store, self.target_fps)
            clip = center_clip(len(virtual), spec.length, self.interval)
            return validation_clip(store.read([virtual[index] for index in clip]), size=spec.size)
