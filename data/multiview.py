"""Multi-view testing: several clips along a video and several crops of each, with one decode per frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.batch_sampler import BatchShape, ClipSpec
from data.clip_loader import ClipLoader, plan_prefetch
from data.frame_store import FrameStore
from data.fused_engine import scale_short_side
from data.video_iterator import ValDataset, virtual_frames
from data.video_sampler import uniform_clips
from data.video_transforms import validation_short_side

CROPS = (1, 3, 10)


class Crop(NamedTuple):
    """Position of a square of the clip's size in a frame."""

    top: int
    left: int
    flipped: bool = False


def spatial_crops(height: int, width: int, size: int, crops: int) -> list[Crop]:
    """Return 1 crop: the center; 3: center and both ends of the longer side; 10: center and corners, and these flipped.

    Duplicates are left out: frames of the size of a clip have one. Raises ValueError for another number.
    """
    bottom, right = height - size, width - size
    center = Crop(bottom // 2, right // 2)
    if crops == 1:
        return [center]
    if crops == 3 and height > width:
        return list(dict.fromkeys([Crop(0, center.left), center, Crop(bottom, center.left)]))
    if crops == 3:
        return list(dict.fromkeys([Crop(center.top, 0), center, Crop(center.top, right)]))
    if crops == 10:
        corners = [Crop(top, left) for top in (0, bottom) for left in (0, right)]
        five = dict.fromkeys([*corners, center])
        return [*five, *(crop._replace(flipped=True) for crop in five)]
    raise ValueError(f"{crops} crops: must be one of {', '.join(map(str, CROPS))}")


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiViewDataset(ValDataset):
    """At most `clips` x `crops` views of each video as one sample, `(V, T, H, W, 3)`, clip by clip.

    With `clips=1, crops=1` the view is the validation clip.
    """

    clips: int
    crops: int

    def read(self, folder: Path, spec: ClipSpec) -> np.ndarray:
        """Return the views, uint8 `(V, length, size, size, 3)`, BGR. Raise FrameStoreError if the video is corrupt."""
        store, size = FrameStore(folder), spec.size
        virtual = virtual_frames(store, self.target_fps)
        clips = uniform_clips(len(virtual), spec.length, self.interval, self.clips)
        clips = [[virtual[index] for index in clip] for clip in clips]
        needed = sorted({index for clip in clips for index in clip})
        scaled = {}
        for (position,), frame in store.fetch(needed).decode_each(halved=False):
            # a copy, as the frame is overwritten by the next one
            scaled[needed[position]] = scale_short_side(frame[None].copy(), validation_short_side(size))[0]
        height, width = scaled[needed[0]].shape[:2]
        crops = spatial_crops(height, width, size, self.crops)
        views = np.empty((len(clips), len(crops), spec.length, size, size, 3), np.uint8)
        for clip, clip_views in zip(clips, views, strict=True):
            for (top, left, flipped), view in zip(crops, clip_views, strict=True):
                for index, target in zip(clip, view, strict=True):
                    square = scaled[index][top : top + size, left : left + size]
                    target[:] = square[:, ::-1] if flipped else square
        return views.reshape(-1, spec.length, size, size, 3)


def view_loader(
    views: MultiViewDataset,
    indices: Sequence[int],
    *,
    length: int,
    size: int,
    workers: int,
    local_world_size: int,
) -> ClipLoader:
    """Return a loader of one chunk, `(1, V, length, size, size, 3)`, per video of `indices`, in order."""
    shape = BatchShape(1, views.clips * views.crops * length, size)
    flags = "--workers, --clips or --crops"
    prefetch, _ = plan_prefetch([shape], workers, local_world_size=local_world_size, flags=flags)
    batches = [[ClipSpec(index, length, size, seed=0)] for index in indices]
    return ClipLoader(views, batches, workers=workers, prefetch_factor=prefetch)
