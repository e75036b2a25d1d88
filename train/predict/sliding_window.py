"""Cut a video of any length into clips with a sliding window, holding the frames of one window at a time."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data.video_sampler import center_clip, clip_span
from data.video_transforms import validation_clip


class Window(NamedTuple):
    """A clip, uint8 `(T, size, size, 3)`, BGR, and the indices `(T,)` of its frames in the video.

    `frames_read`: the number of frames read so far; all frames of the video for its last window.
    """

    indices: np.ndarray
    clip: np.ndarray
    frames_read: int


def sliding_windows(
    frames: Iterable[np.ndarray], *, length: int, interval: int, stride: int, size: int
) -> Iterator[Window]:
    """Yield a clip of `length` frames every `stride` frames, and one at the end, all preprocessed as in validation.

    Example: 10 frames, length 3, interval 2, stride 4 give the frames 0 2 4, 4 6 8 and 5 7 9. A video shorter than a
    window gives the clip that validation samples.
    """
    span = clip_span(length, interval)
    buffer: deque[np.ndarray] = deque(maxlen=span)  # of cropped frames
    count = 0
    for count, frame in enumerate(frames, start=1):
        buffer.append(validation_clip(frame[None], size=size)[0])
        if count >= span and (count - span) % stride == 0:
            yield _window(buffer, count, range(0, span, interval))
    if 0 < count < span:
        yield _window(buffer, count, center_clip(count, length, interval))
    elif count and (count - span) % stride:
        yield _window(buffer, count, range(0, span, interval))


def _window(buffer: Sequence[np.ndarray], count: int, positions: Sequence[int]) -> Window:
    """Return the window of the frames at `positions` in a buffer of the last frames of `count`."""
    indices = np.array(positions) + count - len(buffer)
    return Window(indices, np.stack([buffer[position] for position in positions]), count)
