"""A window that slides over a video: which frames, and how many are held."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from data.video_sampler import center_clip, clip_span
from data.video_transforms import validation_clip
from tests.synthetic_frames import indices_of, paint
from train.predict.sliding_window import sliding_windows


def windows(n_frames: int, length: int, interval: int, stride: int) -> list[list[int]]:
    found = sliding_windows(
        (paint(index) for index in range(n_frames)),
        length=length,
        interval=interval,
        stride=stride,
        size=50,
        short_side=50,
    )
    indices = []
    for window in found:
        assert indices_of(window.clip) == window.indices.tolist()
        indices.append(window.indices.tolist())
        seen = window.seen
    assert not indices or seen == n_frames
    return indices


def test_example() -> None:
    assert windows(10, 3, 2, 4) == [[0, 2, 4], [4, 6, 8], [5, 7, 9]]


@pytest.mark.parametrize("n_frames", range(1, 40))
@pytest.mark.parametrize(
    ("length", "interval", "stride"), [(4, 2, 7), (4, 3, 1), (3, 1, 5), (1, 2, 1), (8, 4, 29)]
)
def test_every_frame_is_within_a_window(n_frames: int, length: int, interval: int, stride: int) -> None:
    span = clip_span(length, interval)
    found = windows(n_frames, length, interval, stride)
    if n_frames < span:
        assert found == [center_clip(n_frames, length, interval)]
        return
    starts = [*range(0, n_frames - span + 1, stride)]
    if starts[-1] != n_frames - span:
        starts.append(n_frames - span)
    assert found == [[start + interval * i for i in range(length)] for start in starts]


def test_nothing_is_no_window() -> None:
    assert windows(0, 4, 2, 3) == []


def test_clips_are_those_of_validation() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 60, 90, 3), np.uint8)
    (window,) = sliding_windows(frames, length=5, interval=2, stride=9, size=32, short_side=40)
    np.testing.assert_array_equal(window.clip, validation_clip(frames[::2], size=32, short_side=40))


def test_a_long_video_needs_no_more_memory_than_a_window() -> None:
    born: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for _ in range(300):
            frame = np.zeros((16, 16, 3), np.uint8)
            born.append(weakref.ref(frame))
            alive.append(sum(reference() is not None for reference in born))
            yield frame

    found = sliding_windows(frames(), length=4, interval=2, stride=3, size=16, short_side=16)
    assert sum(1 for _ in found) == 1 + 97 + 1  # the first, one each 3 of the other 293 frames, the last
    assert max(alive) <= clip_span(4, 2) + 2
