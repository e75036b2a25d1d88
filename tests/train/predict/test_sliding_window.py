"""Sliding windows over a video: which frames they have, how many frames are held, and frames at another rate."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from data.ffmpeg.video_files import TimedImage
from data.video_sampler import center_clip, clip_span, frames_at
from data.video_transforms import validation_clip
from tests.synthetic_frames import indices_of, paint
from train.predict.sliding_window import resample, sliding_windows


def window_indices(num_frames: int, length: int, interval: int, stride: int) -> list[list[int]]:
    frames = ((paint(index), None) for index in range(num_frames))
    geometry = {"length": length, "interval": interval, "stride": stride, "size": 50}
    windows = list(sliding_windows(resample(frames), **geometry))
    for window in windows:
        assert indices_of(window.clip) == window.indices.tolist()
    return [window.indices.tolist() for window in windows]


def test_example_of_the_docstring() -> None:
    assert window_indices(10, 3, 2, 4) == [[0, 2, 4], [4, 6, 8], [5, 7, 9]]
    assert window_indices(0, 3, 2, 4) == []


@pytest.mark.parametrize("num_frames", [1, 2, 6, 7, 8, 13, 14, 28, 29, 39])
@pytest.mark.parametrize(
    ("length", "interval", "stride"), [(4, 2, 7), (4, 3, 1), (3, 1, 5), (1, 2, 1), (8, 4, 29)]
)
def test_windows_start_every_stride_and_end_with_the_video(
    num_frames: int, length: int, interval: int, stride: int
) -> None:
    span = clip_span(length, interval)
    found = window_indices(num_frames, length, interval, stride)
    if num_frames < span:
        assert found == [center_clip(num_frames, length, interval)]
        return
    starts = [*range(0, num_frames - span + 1, stride)]
    if starts[-1] != num_frames - span:
        starts.append(num_frames - span)
    assert found == [[start + interval * i for i in range(length)] for start in starts]


def test_clips_are_preprocessed_as_in_validation() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 60, 90, 3), np.uint8)
    images = zip(frames, np.arange(9) / 10, strict=True)
    (window,) = sliding_windows(resample(images), length=5, interval=2, stride=9, size=32)
    np.testing.assert_array_equal(window.clip, validation_clip(frames[::2], size=32))
    assert (window.start, window.end) == (0, pytest.approx(0.9))  # with the last frame


@pytest.mark.parametrize("fps", [None, 5, 30, 50])
def test_only_the_frames_of_a_window_are_held(fps: float | None) -> None:
    references: list[weakref.ref[np.ndarray]] = []
    held: list[int] = []

    def frames() -> Iterator[TimedImage]:
        for index in range(300):
            frame = np.zeros((16, 16, 3), np.uint8)
            references.append(weakref.ref(frame))
            held.append(sum(reference() is not None for reference in references))
            yield frame, index / 30

    windows = sliding_windows(resample(frames(), fps), length=4, interval=2, stride=3, size=16)
    count = sum(1 for _ in windows)
    assert max(held) <= clip_span(4, 2) + 2 + (fps is not None) * 4  # and those of half a step of fps
    if fps in (None, 30):
        assert count == 1 + 97 + 1  # the first, one per 3 of the other 293 frames, the last


@pytest.mark.parametrize("fps", [0.5, 4, 12.5, 25, 60])
def test_resampled_frames_are_those_of_a_video_read_at_once(fps: float) -> None:
    """`frames_at` knows all times beforehand; a stream does not."""
    random = np.random.default_rng(0)
    for num_frames in (*range(1, 40), 300):
        constant = np.arange(num_frames) / random.choice([15, 25, 29.97, 60])
        variable = random.exponential(0.04, num_frames).cumsum() + constant
        for seconds in (constant, variable - variable[0]):
            times = seconds.round(6)
            images = ((np.zeros(0), float(time)) for time in times)
            assert [number for number, _, _ in resample(images, fps)] == frames_at(times, fps).tolist()
