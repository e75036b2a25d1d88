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
    clip_indices,
    clip_span,
    fitting_interval,
    random_clip,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_span_and_indices() -> None:
    assert clip_span(4, 2) == 7
    assert clip_span(1, 9) == 1
    assert clip_indices(10, 4, 2, start=3) == [3, 5, 7, 9]
    assert clip_indices(3, 5, 0, start=1) == [1, 2, 0, 1, 2]


@pytest.mark.parametrize("length", [1, 2, 4, 16])
@pytest.mark.parametrize("interval", [1, 2, 5])
@pytest.mark.parametrize("n_frames", [1, 2, 5, 16, 31, 32, 60, 200])
def test_largest_interval_that_fits(n_frames: int, length: int, interval: int) -> None:
    fitting = fitting_interval(n_frames, length, interval)
    candidates = [i for i in range(1, interval + 1) if clip_span(length, i) <= n_frames]
    assert fitting == max(candidates, default=0)


@pytest.mark.parametrize("length", [1, 4, 16])
@pytest.mark.parametrize("n_frames", [1, 3, 16, 31, 60, 200])
def test_clips_stay_inside_and_keep_their_interval(n_frames: int, length: int) -> None:
    for seed in range(50):
        clip = random_clip(n_frames, length, [1, 2, 5], generator(seed))
        assert len(clip) == length
        assert all(0 <= index < n_frames for index in clip)
        if length <= n_frames:
            assert len({b - a for a, b in itertools.pairwise(clip)}) <= 1


def test_every_frame_can_be_drawn() -> None:
    """The original never drew the last frame."""
    drawn = {index for seed in range(2000) for index in random_clip(30, 2, [1, 3], generator(seed))}
    assert drawn == set(range(30))


def test_starts_are_uniform_over_those_that_fit() -> None:
    counts = Counter(random_clip(20, 4, [2], generator(seed))[0] for seed in range(7000))
    assert set(counts) == set(range(14))
    assert max(abs(count - 500) for count in counts.values()) < 100  # 4.6 standard deviations


def test_normal_starts_lie_about_the_middle() -> None:
    starts = np.array([random_clip(101, 1, [1], generator(seed), starts="normal")[0] for seed in range(2000)])
    assert starts.min() >= 0
    assert starts.max() <= 100
    assert abs(starts.mean() - 50) < 2
    assert (abs(starts - 50) < 25).mean() > 0.6  # uniform starts: 0.5


def test_interval_that_does_not_fit_is_shortened_not_frozen() -> None:
    """The original repeated one frame 16 times for 60 frames at its own Kinetics intervals, where interval 3 fits."""
    for seed in range(20):
        clip = random_clip(60, 16, [4, 5, 6], generator(seed))
        assert set(np.diff(clip)) == {3}


def test_video_shorter_than_the_clip_is_looped() -> None:
    clip = random_clip(5, 12, [2], generator())
    assert set(np.diff(clip) % 5) == {1}
    assert set(clip) == set(range(5))


def test_speed_stretches_the_interval_up_to_its_factor() -> None:
    intervals = {
        int(np.diff(random_clip(500, 4, [2], generator(seed), speed=(1.0, 4.0)))[0]) for seed in range(500)
    }
    assert intervals == {2, 3, 4, 5, 6, 7, 8}


def test_center_clip() -> None:
    assert center_clip(11, 3, 2) == [3, 5, 7]
    assert center_clip(3, 3, 9) == [0, 1, 2]
    assert center_clip(2, 5, 2) == [0, 1, 0, 1, 0]
    assert center_clip(7, 1, 4) == [3]


def test_equal_seeds_equal_clips_and_another_seed_others() -> None:
    streams = [RandomSampling(4, interval=[1, 2], seed=seed) for seed in (3, 3, 4)]
    first, again, other = ([sampler.sampling(100) for _ in range(20)] for sampler in streams)
    assert first == again
    assert first != other


class _Drawing(Dataset):
    def __init__(self) -> None:
        self.random, self.sequential = RandomSampling(1), SequentialSampling(1, shuffle=True)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.random.sampling(10**6)[0], self.sequential.sampling(10**4, v_id=index)[0]


def test_workers_of_a_loader_draw_clips_of_their_own_and_others_each_epoch() -> None:
    """They are copies of one process: all drew the same, and the same again in the next epoch."""
    torch.manual_seed(0)
    loader = DataLoader(_Drawing(), batch_size=None, num_workers=2)
    drawn = [clip for _ in range(2) for clip in loader]
    assert [len({int(clip[kind]) for clip in drawn}) for kind in (0, 1)] == [16, 16]
    torch.manual_seed(0)
    assert [clip for _ in range(2) for clip in loader] == drawn


def test_random_sampling_changes_length() -> None:
    sampler = RandomSampling(4, interval=2)
    sampler.set_num(9)
    clip = sampler.sampling(100, v_id="a", prev_failed=True)
    assert len(clip) == 9
    assert set(np.diff(clip)) == {2}


def test_sequential_clips_walk_through_the_video_and_start_again() -> None:
    sampler = SequentialSampling(3)
    assert [sampler.sampling(10, "a")[0] for _ in range(4)] == [0, 3, 6, 0]
    assert sampler.sampling(10, "b") == [0, 1, 2]


def test_sequential_clips_shuffled_cover_the_same() -> None:
    sampler = SequentialSampling(2, shuffle=True, seed=1)
    starts = [sampler.sampling(20, "a")[0] for _ in range(10)]
    assert sorted(starts) == list(range(0, 20, 2)) != starts


def test_fixed_cursor_moves_only_after_a_failure() -> None:
    sampler = SequentialSampling(3, fix_cursor=True)
    assert [sampler.sampling(10, "a")[0] for _ in range(3)] == [0, 0, 0]
    assert [sampler.sampling(10, "a", prev_failed=failed)[0] for failed in (True, False, True)] == [3, 3, 6]


def test_sequential_clips_never_leave_the_video() -> None:
    """The original remembered places across set_num and lengths, and asked for frame 56 of 50."""
    sampler = SequentialSampling(4, interval=2)
    for n_frames, num in ((50, 4), (50, 16), (20, 16), (50, 4), (3, 8)):
        sampler.set_num(num)
        for _ in range(9):
            clip = sampler.sampling(n_frames, "a")
            assert len(clip) == num
            assert 0 <= min(clip) <= max(clip) < n_frames


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSampling(0), "clip length 0: must be at least 1"),
        (lambda: RandomSampling(4, interval=0), "interval 0: must be at least 1"),
        (lambda: RandomSampling(4, interval=[]), r"interval \[\]: must be at least 1"),
        (lambda: RandomSampling(4, speed=(2.0, 1.0)), r"speed \(2.0, 1.0\): must be two positive"),
        (lambda: RandomSampling(4).sampling(0, "abc"), "video abc: has 0 frames"),
        (lambda: SequentialSampling(4).sampling(0, "abc"), "video abc: has 0 frames"),
    ],
)
def test_nonsense_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
