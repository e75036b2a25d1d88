"""Cut a video of any length into clips with a sliding window, holding the frames of one window at a time."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import NamedTuple

import numpy as np

from data.ffmpeg.video_files import DEFAULT_FPS, TimedImage
from data.video_sampler import center_clip, clip_span
from data.video_transforms import validation_clip

Frame = tuple[int, float, np.ndarray]  # its number in the video, counted from 0, and its seconds


class Window(NamedTuple):
    """A clip, uint8 `(T, size, size, 3)`, BGR, the indices `(T,)` of its frames, and its seconds."""

    indices: np.ndarray
    clip: np.ndarray
    start: float
    end: float


def resample(images: Iterable[TimedImage], fps: float | None = None) -> Iterator[Frame]:
    """Yield each frame as often as `frames_at` has it, before the end is known; once without `fps` or known times."""
    held: deque[Frame] = deque()  # of the steps of `fps` before `count`
    count = 0
    durations: Counter[int] = Counter()  # in microseconds: few, unlike frames
    last: Frame | None = None
    for number, (image, seconds) in enumerate(images):
        if fps is None or seconds is None:
            yield number, number / DEFAULT_FPS if seconds is None else seconds, image
            continue
        if last is not None:
            durations[round(1e6 * (seconds - last[1]))] += 1
            while count / fps - 5e-4 <= (last[1] + seconds) / 2:
                held.append(last)
                count += 1
        while held and (count - len(held) + 0.5) / fps < seconds:  # the video lasts longer
            yield held.popleft()
        last = number, seconds, image
    if fps and last:
        end = last[1] + float(np.median([*durations.elements()] or [0])) / 1e6
        left = max(1, round(end * fps)) - count
        yield from islice([*held, *repeat(last, left)], len(held) + left)


def sliding_windows(
    frames: Iterable[Frame], *, length: int, interval: int, stride: int, size: int
) -> Iterator[Window]:
    """Yield a clip of `length` frames every `stride` frames, and one at the end, all preprocessed as in validation.

    Example: 10 frames, length 3, interval 2, stride 4 give the frames 0 2 4, 4 6 8 and 5 7 9. A video shorter than a
    window gives the clip that validation samples.
    """
    span = clip_span(length, interval)
    buffer: deque[Frame] = deque(maxlen=span)  # cropped
    count = 0
    for count, (number, seconds, image) in enumerate(frames, start=1):
        buffer.append((number, seconds, validation_clip(image[None], size=size)[0]))
        if count >= span and (count - span) % stride == 0:
            yield _window(buffer, range(0, span, interval))
    if 0 < count < span:
        yield _window(buffer, center_clip(count, length, interval))
    elif count and (count - span) % stride:
        yield _window(buffer, range(0, span, interval))


def _window(buffer: Sequence[Frame], positions: Sequence[int]) -> Window:
    """Return the window of the frames at `positions` in a buffer."""
    indices, _, images = zip(*[buffer[position] for position in positions], strict=True)
    start, last = buffer[0][1], buffer[-1][1]
    end = last + (last - start) / max(1, len(buffer) - 1)
    return Window(np.array(indices), np.stack(images), start, end)
