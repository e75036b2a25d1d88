"""Which frames make a clip. Index arithmetic only: no files, no clock, randomness as an argument."""

from collections.abc import Hashable, Sequence

import numpy as np
from torch.utils.data import get_worker_info

START_DISTRIBUTIONS = ("uniform", "normal")


def clip_span(length: int, interval: int) -> int:
    """Frames from the first to the last of a clip, both included: 4 frames, interval 2: f.f.f.f -> 7."""
    return interval * (length - 1) + 1


def fitting_interval(n_frames: int, length: int, interval: int) -> int:
    """The largest interval up to `interval` with which a clip fits into the video, 0 where even 1 does not."""
    if length == 1:
        return interval
    return min(interval, (n_frames - 1) // (length - 1))


def clip_indices(n_frames: int, length: int, interval: int, start: int) -> list[int]:
    """`length` frames from `start` on. Interval 0 loops the video: 3 frames, length 5, start 1: 1 2 0 1 2."""
    if interval == 0:
        return [(start + i) % n_frames for i in range(length)]
    return [start + i * interval for i in range(length)]


def center_clip(n_frames: int, length: int, interval: int) -> list[int]:
    """The clip in the middle of the video, as validation sees it."""
    interval = fitting_interval(n_frames, length, interval)
    start = (n_frames - clip_span(length, interval)) // 2 if interval else 0
    return clip_indices(n_frames, length, interval, start)


def uniform_clips(n_frames: int, length: int, interval: int, count: int) -> list[list[int]]:
    """`count` clips, evenly from the video's first frame to its last; one alone is the middle one.

    9 frames, length 3, interval 1, count 3: 012 345 678. They leave no gap where `count` spans are as long as the
    video. There are fewer where fewer different ones fit, and one where the video is shorter than a clip.
    """
    interval = fitting_interval(n_frames, length, interval)
    last_start = n_frames - clip_span(length, interval) if interval else 0
    count = min(count, last_start + 1)
    if count == 1:
        return [center_clip(n_frames, length, interval or 1)]
    return [
        clip_indices(n_frames, length, interval, number * last_start // (count - 1))
        for number in range(count)
    ]


def random_clip(
    n_frames: int,
    length: int,
    intervals: Sequence[int],
    generator: np.random.Generator,
    *,
    speed: tuple[float, float] = (1.0, 1.0),
    starts: str = "uniform",
) -> list[int]:
    """A random clip: one of `intervals`, times a random speed, at a random start.

    Uniform starts are uniform over every start that fits, so each frame of the video can be drawn (the original's last
    one never was). Normal ones lie about the middle, with a quarter of the range as deviation. An interval that does
    not fit falls back to the largest that does, then to looping the video, where the original repeated a single frame.
    """
    interval = round(intervals[generator.integers(len(intervals))] * generator.uniform(*speed))
    interval = fitting_interval(n_frames, length, max(1, interval))
    last_start = n_frames - clip_span(length, interval) if interval else n_frames - 1
    if starts == "uniform":
        start = int(generator.integers(0, last_start + 1))
    else:
        start = round(float(np.clip(generator.normal(last_start / 2, last_start / 4), 0, last_start)))
    return clip_indices(n_frames, length, interval, start)


class WorkerStream:
    """A stream of random numbers; in each worker of a torch DataLoader another one, and in each epoch.

    Workers are copies of one process, so they would all draw the same (the original's did).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._worker: int | None = None
        self._generator = np.random.default_rng(seed)

    def generator(self) -> np.random.Generator:
        """The one of this process, always the same."""
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker:
            self._worker = worker.seed
            self._generator = np.random.default_rng((self.seed, worker.seed))
        return self._generator


class RandomSampling:
    """Random clips of `num` frames; calls draw from one stream seeded by `seed`, in a loader's worker from its own.

    `interval` is a number or several to choose from; each is multiplied by a number drawn uniformly from `speed`.
    """

    def __init__(
        self,
        num: int,
        interval: int | Sequence[int] = 1,
        speed: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
    ) -> None:
        self.intervals = _positive_intervals(interval)
        if not 0 < speed[0] <= speed[1]:
            raise ValueError(f"speed {speed}: must be two positive numbers, the lower one first")
        self.speed = speed
        self.stream = WorkerStream(seed)
        self.set_num(num)

    def set_num(self, num: int) -> None:
        """Change the length of the clips to come."""
        self.num = _positive_length(num)

    def sampling(self, range_max: int, v_id: Hashable = None, prev_failed: bool = False) -> list[int]:
        """`num` indices below `range_max`, the number of frames. A clip after a failed one is drawn like any other."""
        _check_range(range_max, v_id)
        return random_clip(range_max, self.num, self.intervals, self.stream.generator(), speed=self.speed)


class SequentialSampling:
    """Clips one after the other through each video, without overlap, and again; `shuffle` mixes their order.

    With `fix_cursor` a video gives the same clip each time, and the next one only after a failure. A video too short
    for two clips gives the one in its middle. The place in a video is forgotten when its length or `num` changes (the
    original kept it, and drew frames beyond the end).
    """

    def __init__(
        self,
        num: int,
        interval: int | Sequence[int] = 1,
        shuffle: bool = False,
        fix_cursor: bool = False,
        seed: int = 0,
    ) -> None:
        self.intervals = _positive_intervals(interval)
        self.shuffle = shuffle
        self.fix_cursor = fix_cursor
        self.stream = WorkerStream(seed)
        self.set_num(num)

    def set_num(self, num: int) -> None:
        """Change the length of the clips to come."""
        self.num = _positive_length(num)
        self.cursors: dict[tuple[Hashable, int], tuple[int, list[list[int]]]] = {}

    def sampling(self, range_max: int, v_id: Hashable = None, prev_failed: bool = False) -> list[int]:
        """`num` indices below `range_max`, the number of frames of the video `v_id`."""
        _check_range(range_max, v_id)
        if (v_id, range_max) not in self.cursors:
            self.cursors[v_id, range_max] = (0, self._clips(range_max))
        cursor, clips = self.cursors[v_id, range_max]
        if prev_failed and self.fix_cursor:
            cursor += 1
        following = cursor if self.fix_cursor else cursor + 1
        self.cursors[v_id, range_max] = (following, clips)
        return list(clips[cursor % len(clips)])

    def _clips(self, n_frames: int) -> list[list[int]]:
        generator = self.stream.generator()
        interval = int(generator.choice(self.intervals))
        span = clip_span(self.num, interval)
        starts = list(range(0, n_frames - span + 1, span))
        if len(starts) < 2:
            return [center_clip(n_frames, self.num, interval)]
        if self.shuffle:
            generator.shuffle(starts)
        return [clip_indices(n_frames, self.num, interval, start) for start in starts]


def _positive_length(num: int) -> int:
    if num < 1:
        raise ValueError(f"clip length {num}: must be at least 1")
    return num


def _positive_intervals(interval: int | Sequence[int]) -> list[int]:
    intervals = [interval] if isinstance(interval, int) else list(interval)
    if not intervals or min(intervals) < 1:
        raise ValueError(f"interval {interval}: must be at least 1")
    return intervals


def _check_range(range_max: int, v_id: Hashable) -> None:
    if range_max < 1:
        raise ValueError(f"video {v_id}: has {range_max} frames, needs at least 1")
