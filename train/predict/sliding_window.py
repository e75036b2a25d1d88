"""A long video as clips: a window slides over its frames, of which no more than one window is held."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data.video_sampler import center_clip, clip_span
from data.video_transforms import validation_clip


class Window(NamedTuple):
    """A clip, uint8 `(T, size, size, 3)`, BGR, of the video's frames `indices` `(T,)`.

    `seen`: how many frames have passed; with the last window all.
    """

    indices: np.ndarray
    clip: np.ndarray
    seen: int


def sliding_windows(
    frames: Iterable[np.ndarray], *, length: int, interval: int, stride: int, size: int, short_side: int
) -> Iterator[Window]:
    """Clips of `length` frames as validation prepares them, one each `stride` frames, the last up to the video's end.

    10 frames, length 3, interval 2, stride 4: frames 0 2 4, 4 6 8, 5 7 9. A video shorter than a window is one clip,
    as validation takes it.
    """
    span = clip_span(length, interval)
    held: deque[np.ndarray] = deque(maxlen=span)  # as small as the network sees them
    count = 0
    for count, frame in enumerate(frames, start=1):
        held.append(validation_clip(frame[None], size=size, short_side=short_side)[0])
        if count >= span and (count - span) % stride == 0:
            yield _window(held, count, range(0, span, interval))
    if 0 < count < span:
        yield _window(held, count, center_clip(count, length, interval))
    elif count and (count - span) % stride:
        yield _window(held, count, range(0, span, interval))


def _window(held: Sequence[np.ndarray], count: int, places: Sequence[int]) -> Window:
    """Of the frames held, which are the last of `count`."""
    return Window(np.array(places) + count - len(held), np.stack([held[place] for place in places]), count)
