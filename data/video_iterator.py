"""From a request to a clip and its label, and the loader whose workers do it.

Follow a clip: the batch sampler's ClipSpec arrives at `TrainDataset.__getitem__`; frames are chosen, read,
transformed, and stacked to a Batch, uint8 `(B, T, H, W, 3)`. Float, normalization and layout are the device's work
(train/engine.py).
"""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, default_collate, get_worker_info

from data.batch_sampler import ClipSpec
from data.clip_loader import PREFETCH, ClipLoader, is_no_shared_memory, sent
from data.frame_store import EncodedFrames, FrameStore, FrameStoreError
from data.video_list import VideoIndex
from data.video_sampler import center_clip, random_clip
from data.video_transforms import ClipParams, sample_clip_params, training_clip, validation_clip

MAX_REPLACEMENTS = 100  # unreadable videos in a row before a clip is given up


class BadSample(NamedTuple):
    """A clip that could not be read: of which video, and why."""

    video: str
    reason: str


class Sample(NamedTuple):
    """One clip, uint8 `(T, H, W, 3)`, BGR; None where it could not be read. `bad`: what was tried before."""

    clip: torch.Tensor | None
    label: int
    index: int
    bad: list[BadSample]


class Batch(NamedTuple):
    """Clips uint8 `(B, T, H, W, 3)`, BGR; `labels` and `indices` (of the videos) `(B,)`; what could not be read."""

    clips: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    bad: list[BadSample]


class TrainDataset(Dataset[Sample]):
    """Random clips, augmented; a function of the request alone.

    With fewer frames than `base_length`, intervals grow at random up to the factor by which the frames shrank, so that
    a coarse clip covers the same time (multigrid paper, section 3). A clip that cannot be read is replaced by one of
    another video, the next readable one in an order given by the request's seed.
    """

    def __init__(
        self,
        videos: VideoIndex,
        *,
        intervals: Sequence[int],
        base_length: int,
        clip_size: int,
        short_side: int,
        augment: str,
        flip: bool,
        frame_sampling: str,
    ) -> None:
        self.videos = videos
        self.intervals = intervals
        self.base_length = base_length
        self.clip_size = clip_size
        self.short_side = short_side
        self.augment = augment
        self.flip = flip
        self.frame_sampling = frame_sampling

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, request: ClipSpec) -> Sample:
        bad = []
        replacements = np.random.default_rng((request.seed, 1))
        index = request.index
        for _ in range(MAX_REPLACEMENTS):
            try:
                return Sample(self._clip(index, request), int(self.videos.labels[index]), index, bad)
            except FrameStoreError as error:
                bad.append(BadSample(str(self.videos.folder(index)), str(error)))
                index = int(replacements.integers(len(self.videos)))
        return Sample(None, -1, request.index, bad)

    def drawn(self, request: ClipSpec) -> tuple[list[int], ClipParams]:
        """The frames that `self[request]` shows, and what is done to them; for people to look at.

        Raises FrameStoreError where the video of the request cannot be read.
        """
        frames, generator = _random_frames(
            self.videos.folder(request.index),
            length=request.length,
            seed=request.seed,
            base_length=self.base_length,
            intervals=self.intervals,
            frame_sampling=self.frame_sampling,
        )
        draw = sample_clip_params(
            frames.height,
            frames.width,
            size=request.size,
            clip_size=self.clip_size,
            short_side=self.short_side,
            augment=self.augment,
            flip=self.flip,
            generator=generator,
        )
        return list(frames.indices), draw

    def _clip(self, index: int, request: ClipSpec) -> torch.Tensor:
        clip = read_training_clip(
            self.videos.folder(index),
            length=request.length,
            size=request.size,
            seed=request.seed,
            base_length=self.base_length,
            intervals=self.intervals,
            clip_size=self.clip_size,
            short_side=self.short_side,
            augment=self.augment,
            flip=self.flip,
            frame_sampling=self.frame_sampling,
        )
        return torch.from_numpy(clip)


def read_training_clip(
    folder: Path,
    *,
    length: int,
    size: int,
    seed: int,
    base_length: int,
    intervals: Sequence[int],
    clip_size: int,
    short_side: int,
    augment: str,
    flip: bool,
    frame_sampling: str = "uniform",
) -> np.ndarray:
    """All that a worker does for one clip: uint8 `(length, size, size, 3)`, BGR, a function of its arguments.

    Raises FrameStoreError where the store in `folder` cannot be read.
    """
    frames, generator = _random_frames(
        folder,
        length=length,
        seed=seed,
        base_length=base_length,
        intervals=intervals,
        frame_sampling=frame_sampling,
    )
    return training_clip(
        frames,
        size=size,
        clip_size=clip_size,
        short_side=short_side,
        augment=augment,
        flip=flip,
        generator=generator,
    )


def _random_frames(
    folder: Path,
    *,
    length: int,
    seed: int,
    base_length: int,
    intervals: Sequence[int],
    frame_sampling: str,
) -> tuple[EncodedFrames, np.random.Generator]:
    """The frames of a random clip, and the generator that draws the rest of it."""
    generator = np.random.default_rng(seed)
    store = FrameStore(folder)
    speed = (1.0, max(1.0, base_length / length))
    indices = random_clip(store.n_frames, length, intervals, generator, speed=speed, starts=frame_sampling)
    return store.fetch(indices), generator


class ValDataset(Dataset[Sample]):
    """The middle clip of each video, its centre, nothing random. One that cannot be read is not replaced."""

    def __init__(self, videos: VideoIndex, *, interval: int, short_side: int) -> None:
        self.videos = videos
        self.interval = interval
        self.short_side = short_side

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, request: ClipSpec) -> Sample:
        label = int(self.videos.labels[request.index])
        try:
            store = FrameStore(self.videos.folder(request.index))
            frames = store.read(center_clip(store.n_frames, request.length, self.interval))
        except FrameStoreError as error:
            bad = BadSample(str(self.videos.folder(request.index)), str(error))
            return Sample(None, label, request.index, [bad])
        clip = validation_clip(frames, size=request.size, short_side=self.short_side)
        return Sample(torch.from_numpy(clip), label, request.index, [])


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack what could be read, perhaps nothing; in a worker, ready to be sent."""
    read = [sample for sample in samples if sample.clip is not None]
    nothing = torch.empty(0, 0, 0, 0, 3, dtype=torch.uint8)
    batch = Batch(
        clips=_stacked([sample.clip for sample in read]) if read else nothing,
        labels=torch.tensor([sample.label for sample in read], dtype=torch.long),
        indices=torch.tensor([sample.index for sample in read], dtype=torch.long),
        bad=[bad for sample in samples for bad in sample.bad],
    )
    return batch if get_worker_info() is None else sent(batch)


def _stacked(clips: Sequence[torch.Tensor]) -> torch.Tensor:
    try:
        return default_collate(clips)  # in a worker, straight into shared memory
    except RuntimeError as error:
        if not is_no_shared_memory(error):
            raise
        return torch.stack(list(clips))


def make_loader(
    clips: Dataset[Sample],
    batches: Sampler[list[ClipSpec]] | Sequence[list[ClipSpec]],
    *,
    workers: int,
    prefetch: int = PREFETCH,
) -> ClipLoader[Batch]:
    """One loader for all shapes of all epochs: requests carry the shapes. 0 workers read in this process."""
    return ClipLoader(
        clips,
        batches,
        collate=collate,
        workers=workers,
        prefetch=prefetch,
        prepare_worker=_prepare_worker,
    )


def _prepare_worker(_: int) -> None:
    # a worker is one of several: OpenCV's and torch's own threads would only fight over the cores
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # these reach all processes; the loop says when to stop
        signal.signal(number, signal.SIG_IGN)
