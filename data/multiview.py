"""Several views of a video, to be judged together: clips along its time, squares in its frames, one decode for all.

read_views(folder, length=16, interval=2, clips=10, crops=3, size=224, short_side=294)  # (30, 16, 224, 224, 3)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from data.augmentation import scale_short_side
from data.batch_sampler import BatchShape, ClipSpec
from data.clip_loader import ClipLoader, choose_prefetch_factor
from data.frame_store import FrameStore, FrameStoreError
from data.video_iterator import BadSample, Batch, Sample, make_loader
from data.video_list import VideoIndex
from data.video_sampler import uniform_clips

CROPS = (1, 3, 10)


class Square(NamedTuple):
    """Part of a frame, as large as a clip."""

    top: int
    left: int
    mirrored: bool = False


def squares(height: int, width: int, size: int, crops: int) -> list[Square]:
    """1: the centre. 3: both ends and the middle of the longer side. 10: the corners and the centre, and mirrored.

    Different ones alone: frames of the size of a clip have one. ValueError for another number.
    """
    bottom, right = height - size, width - size
    middle = Square(bottom // 2, right // 2)
    if crops == 1:
        return [middle]
    if crops == 3:
        ends = (
            [(0, middle.left), (bottom, middle.left)]
            if height > width
            else [(middle.top, 0), (middle.top, right)]
        )
        first, last = (Square(*end) for end in ends)
        return list(dict.fromkeys([first, middle, last]))
    if crops == 10:
        corners = [Square(top, left) for top in (0, bottom) for left in (0, right)]
        five = dict.fromkeys([*corners, middle])
        return [*five, *(square._replace(mirrored=True) for square in five)]
    raise ValueError(f"{crops} crops: must be one of {', '.join(map(str, CROPS))}")


def read_views(
    folder: Path, *, length: int, interval: int, clips: int, crops: int, size: int, short_side: int
) -> np.ndarray:
    """The views of one video, at most `clips` x `crops`: uint8 `(V, length, size, size, 3)`, BGR, clip by clip.

    Frames are scaled as in validation, whose clip is the one view of `clips=1, crops=1`. Raises FrameStoreError where
    the store in `folder` cannot be read.
    """
    store = FrameStore(folder)
    along_time = uniform_clips(store.n_frames, length, interval, clips)
    needed = sorted({index for clip in along_time for index in clip})
    scaled = {}
    for (place,), frame in store.fetch(needed).decode_each(halved=False):
        # a copy, as the frame is overwritten by the next
        scaled[needed[place]] = scale_short_side(frame[None].copy(), max(short_side, size))[0]
    windows = squares(*scaled[needed[0]].shape[:2], size, crops)
    views = np.empty((len(along_time) * len(windows), length, size, size, 3), np.uint8)
    pairs = ((clip, window) for clip in along_time for window in windows)
    for view, (clip, (top, left, mirrored)) in zip(views, pairs, strict=True):
        for target, index in zip(view, clip, strict=True):
            square = scaled[index][top : top + size, left : left + size]
            target[:] = square[:, ::-1] if mirrored else square
    return views


class MultiViewDataset(Dataset[Sample]):
    """All views of each video as one sample, its clip being `(V, T, H, W, 3)`. One that cannot be read has none."""

    def __init__(self, videos: VideoIndex, *, interval: int, clips: int, crops: int, short_side: int) -> None:
        self.videos = videos
        self.interval = interval
        self.clips = clips
        self.crops = crops
        self.short_side = short_side

    def __getitem__(self, request: ClipSpec) -> Sample:
        folder, label = self.videos.folder(request.index), int(self.videos.labels[request.index])
        try:
            views = read_views(
                folder,
                length=request.length,
                interval=self.interval,
                clips=self.clips,
                crops=self.crops,
                size=request.size,
                short_side=self.short_side,
            )
        except FrameStoreError as error:
            return Sample(None, label, request.index, [BadSample(str(folder), str(error))])
        return Sample(torch.from_numpy(views), label, request.index, [])


def view_loader(
    views: MultiViewDataset,
    indices: Sequence[int],
    *,
    length: int,
    size: int,
    workers: int,
    processes: int,
) -> ClipLoader[Batch]:
    """A batch for each of the videos `indices`, in order: its views `(1, V, length, size, size, 3)`.

    `processes`: how many on this machine do the same at the same time, for the memory that they share.
    """
    requests = [[ClipSpec(index, length, size, seed=0)] for index in indices]
    shape = BatchShape(views.clips * views.crops, length, size)
    flags = "--workers, --clips or --crops"
    prefetch = choose_prefetch_factor([shape], workers, processes=processes, flags=flags)
    return make_loader(views, requests, workers=workers, prefetch=prefetch)
