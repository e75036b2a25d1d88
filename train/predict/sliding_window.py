"""Cut a video of any length into clips with a sliding window, holding the frames of one window at a time."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

from data.video_sampler import center_clip, clip_span
from data.video_transforms import validation_clip


class Window(NamedTuple):
    """A clip, uint8 `(T, size, size, 3)`, BGR, and the indices `(T,)` of its frames in the video."""

    indices: np.ndarray
    clip: np.ndarray


def resample(
    frames: Iterable[np.ndarray], virtual: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each frame with its index, as many times as `virtual`, of `frames_at`, has it; once without."""
    repeats: Iterable[int] = repeat(1) if virtual is None else chain(np.bincount(virtual), repeat(0))
    for index, (frame, times) in enumerate(zip(frames, repeats, strict=False)):
        yield from repeat((index, frame), times)


def sliding_windows(
    frames: Iterable[tuple[int, np.ndarray]], *, length: int, interval: int, stride: int, size: int
) -> Iterator[Window]:
    """Yield a clip of `length` frames every `stride` frames, and one at the end, all preprocessed as in validation.

    Example: 10 frames, length 3, interval 2, stride 4 give the frames 0 2 4, 4 6 8 and 5 7 9. A video shorter than a
    window gives the clip that validation samples. `frames` have their indices, see `resample`.
    """
    span = clip_span(length, interval)
    buffer: deque[tuple[int, np.ndarray]] = deque(maxlen=span)  # of cropped frames
    count = 0
    for count, (index, frame) in enumerate(frames, start=1):
        buffer.append((index, validation_clip(frame[None], size=size)[0]))
        if count >= span and (count - span) % stride == 0:
            yield _window(buffer, range(0, span, interval))
    if 0 < count < span:
        yield _window(buffer, center_clip(count, length, interval))
    elif count and (count - span) % stride:
        yield _window(buffer, range(0, span, interval))


def _window(buffer: Sequence[tuple[int, np.ndarray]], positions: Sequence[int]) -> Window:
    """Return the window of the frames at `positions` in a buffer of frames with their indices."""
    indices, frames = zip(*[buffer[position] for position in positions], strict=True)
    return Window(np.array(indices), np.stack(frames))
