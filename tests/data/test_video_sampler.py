"""Index arithmetic of clips."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data.video_sampler import (
    RandomSampling,
    SequentialSampling,
    center_clip,
    clip_span,
    fitting_interval,
    frames_at,
    random_clip,
    uniform_clips,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("times", "fps", "frames"),
    [
        ([0, 0.1, 0.2, 0.3], 5, [0, 2]),
        ([0, 0.1, 0.2, 0.3], 20, [0, 0, 1, 1, 2, 2, 3, 3]),
        ([0, 0.033, 0.067, 0.1, 0.133], 60, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]),  # milliseconds, as in WebM
        ([0, 0.04, 1, 1.04], 5, [0, 1, 1, 2, 2]),  # variable: the last one lasts 0.04 s
        ([0, 0.04, 0.08], 0.1, [0]),
        ([0], 25, [0]),
    ],
)
def test_frames_nearest_to_seconds(times: list[float], fps: float, frames: list[int]) -> None:
    assert frames_at(np.array(times), fps).tolist() == frames


@pytest.mark.parametrize("length", [1, 2, 4, 16])
@pytest.mark.parametrize("n_frames", [1, 2, 5, 16, 31, 32, 60, 200])
def test_clips_fit_with_the_largest_interval(n_frames: int, length: int) -> None:
    for interval in (1, 2, 5):
        candidates = [i for i in range(1, interval + 1) if clip_span(length, i) <= n_frames]
        assert fitting_interval(n_frames, length, interval) == max(candidates, default=0)
    for seed in range(50):
        clip = random_clip(n_frames, length, [1, 2, 5], generator(seed))
        assert len(clip) == length
        assert set(clip) <= set(range(n_frames))
        if length <= n_frames:
            assert len({b - a for a, b in itertools.pairwise(clip)}) <= 1


def test_every_frame_can_be_drawn() -> None:
    """The original never drew the last frame."""
    indices = {index for seed in range(2000) for index in random_clip(30, 2, [1, 3], generator(seed))}
    assert indices == set(range(30))


def test_uniform_starts_are_uniform_over_those_that_fit() -> None:
    counts = Counter(random_clip(20, 4, [2], generator(seed))[0] for seed in range(7000))
    assert set(counts) == set(range(14))
    assert max(abs(count - 500) for count in counts.values()) < 100  # 4.6 standard deviations


def test_normal_starts_are_centered() -> None:
    starts = np.array([random_clip(101, 1, [1], generator(seed), starts="normal")[0] for seed in range(2000)])
    assert starts.min() >= 0
    assert starts.max() <= 100
    assert abs(starts.mean() - 50) < 2
    assert (abs(starts - 50) < 25).mean() > 0.6  # uniform starts: 0.5


def test_an_interval_that_does_not_fit_is_lowered() -> None:
    """The original repeated one frame 16 times in videos of 60 frames, where interval 3 fits."""
    assert all(set(np.diff(random_clip(60, 16, [4, 5, 6], generator(seed)))) == {3} for seed in range(20))


def test_a_video_shorter_than_the_clip_is_looped() -> None:
    clip = random_clip(5, 12, [2], generator())
    assert set(np.diff(clip) % 5) == {1}
    assert set(clip) == set(range(5))


@pytest.mark.parametrize(
    ("arguments", "indices"),
    [((11, 3, 2), [3, 5, 7]), ((3, 3, 9), [0, 1, 2]), ((2, 5, 2), [0, 1, 0, 1, 0]), ((7, 1, 4), [3])],
)
def test_center_clip(arguments: tuple[int, int, int], indices: list[int]) -> None:
    assert center_clip(*arguments) == indices
    assert uniform_clips(*arguments, count=1) == [indices]


@pytest.mark.parametrize("n_frames", [1, 2, 5, 9, 16, 31, 100, 257])
@pytest.mark.parametrize("length", [1, 4, 16])
def test_uniform_clips_differ_and_cover_the_video(n_frames: int, length: int) -> None:
    for interval, count in itertools.product([1, 2, 5], [2, 3, 10]):
        clips = uniform_clips(n_frames, length, interval, count)
        assert len({tuple(clip) for clip in clips}) == len(clips)
        assert all(len(clip) == length and set(clip) <= set(range(n_frames)) for clip in clips)
        if n_frames < length:
            assert clips == [center_clip(n_frames, length, interval)]
            continue
        span = clip_span(length, fitting_interval(n_frames, length, interval))
        assert len(clips) == min(count, n_frames - span + 1)
        if len(clips) > 1:
            assert (clips[0][0], clips[-1][-1]) == (0, n_frames - 1)
            distances = np.diff([clip[0] for clip in clips])
            assert max(distances) - min(distances) <= 1
            assert max(distances) <= span or count * span < n_frames  # no gap if they can cover the video


def test_equal_seeds_give_equal_clips() -> None:
    samplers = [RandomSampling(4, interval=[1, 2], seed=seed) for seed in (3, 3, 4)]
    first, again, other = ([sampler.sampling(100) for _ in range(20)] for sampler in samplers)
    assert first == again
    assert first != other


class SampledIndices(Dataset[tuple[int, int]]):
    def __init__(self) -> None:
        self.random, self.sequential = RandomSampling(1), SequentialSampling(1, shuffle=True)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.random.sampling(10**6)[0], self.sequential.sampling(10**4, v_id=index)[0]


def test_each_worker_and_epoch_has_its_own_stream() -> None:
    """Workers are copies of one process: in the original all sampled the same, in every epoch."""
    torch.manual_seed(0)
    loader = DataLoader(SampledIndices(), batch_size=None, num_workers=2)
    samples = [sample for _ in range(2) for sample in loader]
    assert [len({int(sample[kind]) for sample in samples}) for kind in (0, 1)] == [16, 16]
    torch.manual_seed(0)
    assert [sample for _ in range(2) for sample in loader] == samples


def test_sequential_clips_go_through_the_video_and_start_again() -> None:
    sampler = SequentialSampling(3)
    assert [sampler.sampling(10, "a")[0] for _ in range(4)] == [0, 3, 6, 0]
    assert sampler.sampling(10, "b") == [0, 1, 2]
    shuffled = SequentialSampling(2, shuffle=True, seed=1)
    starts = [shuffled.sampling(20, "a")[0] for _ in range(10)]
    assert sorted(starts) == list(range(0, 20, 2)) != starts


def test_fixed_cursor_moves_only_after_a_failure() -> None:
    sampler = SequentialSampling(3, fix_cursor=True)
    assert [sampler.sampling(10, "a")[0] for _ in range(3)] == [0, 0, 0]
    assert [sampler.sampling(10, "a", prev_failed=failed)[0] for failed in (True, False, True)] == [3, 3, 6]


def test_sequential_clips_stay_inside_the_video() -> None:
    """The original kept positions when lengths changed, and asked for frame 56 of 50."""
    sampler = SequentialSampling(4, interval=2)
    for n_frames, num in ((50, 4), (50, 16), (20, 16), (50, 4), (3, 8)):
        sampler.set_num(num)
        for _ in range(9):
            clip = sampler.sampling(n_frames, "a")
            assert len(clip) == num
            assert set(clip) <= set(range(n_frames))
