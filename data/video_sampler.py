"""Which frames make a clip: pure index arithmetic, with the random generator as an argument."""

from collections.abc import Hashable, Sequence

import numpy as np
from torch.utils.data import get_worker_info

START_DISTRIBUTIONS = ("uniform", "normal")


def clip_span(length: int, interval: int) -> int:
    """Return the frames from the first to the last of a clip, both included: 4 frames, interval 2: f.f.f.f -> 7."""
    return interval * (length - 1) + 1


def fitting_interval(n_frames: int, length: int, interval: int) -> int:
    """Return the largest interval up to `interval` with which a clip fits into the video; 0 if 1 is too large."""
    if length == 1:
        return interval
    return min(interval, (n_frames - 1) // (length - 1))


def clip_indices(n_frames: int, length: int, interval: int, start: int) -> list[int]:
    """Return `length` indices from `start` on. Interval 0 loops the video: 3 frames, length 5, start 1: 1 2 0 1 2."""
    if interval == 0:
        return [(start + i) % n_frames for i in range(length)]
    return [start + i * interval for i in range(length)]


def frames_at(times: np.ndarray, fps: float) -> np.ndarray:
    """Return the frame nearest to each second k / fps of a video, whose frames begin at `times`, ascending from 0.

    Frames at 0, 0.1, 0.2 and 0.3 s: at 5 fps 0 2, at 20 fps 0 0 1 1 2 2 3 3, as ties go to the earlier one. The last
    frame lasts as long as the median of the others.
    """
    duration = times[-1] + np.median(np.diff(times)) if len(times) > 1 else 0
    seconds = np.arange(max(1, round(duration * fps))) / fps
    return np.searchsorted((times[:-1] + times[1:]) / 2, seconds - 5e-4)  # some files have milliseconds


def center_clip(n_frames: int, length: int, interval: int) -> list[int]:
    """Return the clip in the middle of the video, which validation uses."""
    interval = fitting_interval(n_frames, length, interval)
    start = (n_frames - clip_span(length, interval)) // 2 if interval else 0
    return clip_indices(n_frames, length, interval, start)


def uniform_clips(n_frames: int, length: int, interval: int, count: int) -> list[list[int]]:
    """Return `count` evenly spaced clips, from the first frame to the last; a single one is the center clip.

    9 frames, length 3, interval 1, count 3: 012 345 678. They cover the video if `count` spans are as long. There are
    fewer if fewer different clips fit, and one if the video is shorter than a clip.
    """
    interval = fitting_interval(n_frames, length, interval)
    last_start = n_frames - clip_span(length, interval) if interval else 0
    count = min(count, last_start + 1)
    if count == 1:
        return [center_clip(n_frames, length, interval or 1)]
    starts = [i * last_start // (count - 1) for i in range(count)]
    return [clip_indices(n_frames, length, interval, start) for start in starts]


def random_clip(
    n_frames: int,
    length: int,
    intervals: Sequence[int],
    generator: np.random.Generator,
    *,
    speed: tuple[float, float] = (1.0, 1.0),
    starts: str = "uniform",
) -> list[int]:
    """Return a clip with one of `intervals`, times a random `speed`, and a random start.

    Uniform starts are uniform over all that fit, so that every frame can be drawn (the original never drew the last).
    Normal starts are centered, with a quarter of the range as standard deviation. An interval that does not fit is
    lowered to the largest that does; a video that is too short is looped (the original repeated one frame).
    """
    interval = round(intervals[int(generator.integers(len(intervals)))] * generator.uniform(*speed))
    interval = fitting_interval(n_frames, length, max(1, interval))
    last_start = n_frames - clip_span(length, interval) if interval else n_frames - 1
    if starts == "uniform":
        start = int(generator.integers(0, last_start + 1))
    else:
        start = round(float(np.clip(generator.normal(last_start / 2, last_start / 4), 0, last_start)))
    return clip_indices(n_frames, length, interval, start)


class _Sampler:
    """What the two samplers share: clip length, intervals, and a random stream.

    Each dataloader worker has another stream in each epoch. Workers are copies of one process, so that in the original
    they all sampled the same.
    """

    def __init__(self, num: int, interval: int | Sequence[int], seed: int) -> None:
        self.intervals = [interval] if isinstance(interval, int) else list(interval)
        self.seed = seed
        self._worker_seed: int | None = None
        self._generator = np.random.default_rng(seed)
        self.set_num(num)

    def set_num(self, num: int) -> None:
        """Change the length of the following clips."""
        self.num = num

    @property
    def generator(self) -> np.random.Generator:
        """The random stream of this process."""
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker_seed:
            self._worker_seed = worker.seed
            self._generator = np.random.default_rng((self.seed, worker.seed))
        return self._generator


class RandomSampling(_Sampler):
    """Random clips of `num` frames; all calls sample from one stream, seeded by `seed`.

    `interval` is a number or several to choose from; each is multiplied by a number drawn uniformly from `speed`.
    """

    def __init__(
        self,
        num: int,
        interval: int | Sequence[int] = 1,
        speed: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(num, interval, seed)
        self.speed = speed

    def sampling(self, range_max: int, v_id: Hashable = None, prev_failed: bool = False) -> list[int]:
        """Return `num` indices below `range_max`, the number of frames. `prev_failed` changes nothing."""
        return random_clip(range_max, self.num, self.intervals, self.generator, speed=self.speed)


class SequentialSampling(_Sampler):
    """Consecutive clips of each video without overlap, then from the start again; `shuffle` mixes their order.

    With `fix_cursor` a video gives the same clip until one fails, then the next one. A video too short for two clips
    gives its center clip. The position in a video is reset when its length or `num` changes (the original kept it, and
    sampled frames beyond the end).
    """

    def __init__(
        self,
        num: int,
        interval: int | Sequence[int] = 1,
        shuffle: bool = False,
        fix_cursor: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(num, interval, seed)
        self.shuffle = shuffle
        self.fix_cursor = fix_cursor

    def set_num(self, num: int) -> None:
        """Change the length of the following clips."""
        super().set_num(num)
        self.cursors: dict[tuple[Hashable, int], tuple[int, list[list[int]]]] = {}

    def sampling(self, range_max: int, v_id: Hashable = None, prev_failed: bool = False) -> list[int]:
        """Return `num` indices below `range_max`, the number of frames of the video `v_id`."""
        if (v_id, range_max) not in self.cursors:
            self.cursors[v_id, range_max] = (0, self._clips(range_max))
        cursor, clips = self.cursors[v_id, range_max]
        if prev_failed and self.fix_cursor:
            cursor += 1
        self.cursors[v_id, range_max] = (cursor if self.fix_cursor else cursor + 1, clips)
        return list(clips[cursor % len(clips)])

    def _clips(self, n_frames: int) -> list[list[int]]:
        interval = int(self.generator.choice(self.intervals))
        span = clip_span(self.num, interval)
        starts = list(range(0, n_frames - span + 1, span))
        if len(starts) < 2:
            return [center_clip(n_frames, self.num, interval)]
        if self.shuffle:
            self.generator.shuffle(starts)
        return [clip_indices(n_frames, self.num, interval, start) for start in starts]
