"""Views of a video: which frames, which squares, and the same pixels as cut out one by one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data.augmentation import scale_short_side
from data.batch_sampler import BatchShape, ClipSpec
from data.frame_store import FrameStore, write_frame_store
from data.multiview import MultiViewDataset, Square, read_views, squares, view_loader
from data.video_iterator import ValDataset
from data.video_list import VideoIndex
from data.video_sampler import center_clip, clip_span, fitting_interval, uniform_clips
from tests.synthetic_frames import indices_of, painted_jpegs


@pytest.mark.parametrize("n_frames", [1, 2, 5, 9, 16, 31, 100, 257])
@pytest.mark.parametrize("length", [1, 4, 16])
def test_clips_are_different_and_reach_from_end_to_end(n_frames: int, length: int) -> None:
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
            apart = np.diff([clip[0] for clip in clips])
            assert max(apart) - min(apart) <= 1
            assert max(apart) <= span or count * span < n_frames  # no gap where they can do without


def test_one_clip_is_the_middle_one() -> None:
    assert uniform_clips(50, 8, 3, 1) == [center_clip(50, 8, 3)]


def test_the_clips_of_the_docstring() -> None:
    assert uniform_clips(9, 3, 1, 3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert uniform_clips(3, 5, 2, 10) == [[0, 1, 2, 0, 1]]
    assert uniform_clips(5, 4, 2, 10) == [[0, 1, 2, 3], [1, 2, 3, 4]]  # interval 2 does not fit


def test_squares_of_wide_and_tall_frames() -> None:
    assert squares(72, 100, 64, 1) == [Square(4, 18)]
    assert squares(72, 100, 64, 3) == [Square(4, 0), Square(4, 18), Square(4, 36)]
    assert squares(100, 72, 64, 3) == [Square(0, 4), Square(18, 4), Square(36, 4)]
    assert squares(64, 64, 64, 3) == [Square(0, 0)]
    ten = squares(72, 100, 64, 10)
    assert ten[:5] == [Square(0, 0), Square(0, 36), Square(8, 0), Square(8, 36), Square(4, 18)]
    assert ten[5:] == [square._replace(mirrored=True) for square in ten[:5]]
    assert squares(64, 64, 64, 10) == [Square(0, 0), Square(0, 0, mirrored=True)]
    with pytest.raises(ValueError, match="5 crops: must be one of 1, 3, 10"):
        squares(64, 64, 64, 5)


def noise_store(folder: Path, n_frames: int, height: int, width: int) -> Path:

    frames = np.random.default_rng(n_frames).integers(0, 256, (n_frames, height, width, 3), dtype=np.uint8)
    write_frame_store(folder, [simplejpeg.encode_jpeg(frame, colorspace="BGR") for frame in frames])
    return folder


@pytest.mark.parametrize(("n_frames", "height", "width"), [(3, 48, 60), (9, 60, 44), (30, 40, 40)])
@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (4, 3), (2, 10)])
def test_views_are_those_cut_out_one_by_one(
    tmp_path: Path, n_frames: int, height: int, width: int, clips: int, crops: int
) -> None:
    folder = noise_store(tmp_path / "v", n_frames, height, width)
    views = read_views(folder, length=4, interval=2, clips=clips, crops=crops, size=32, short_side=36)
    expected = []
    for clip in uniform_clips(n_frames, 4, 2, clips):
        frames = scale_short_side(FrameStore(folder).read(clip), 36)
        for top, left, mirrored in squares(*frames.shape[1:3], 32, crops):
            part = frames[:, top : top + 32, left : left + 32]
            expected.append(part[:, :, ::-1] if mirrored else part)
    np.testing.assert_array_equal(views, np.stack(expected))


def test_frames_of_the_clips_size_are_not_mixed_up(tmp_path: Path) -> None:
    """Nothing is scaled then, and the frame that was decoded last must not stand everywhere."""
    write_frame_store(tmp_path / "v", painted_jpegs(20))
    views = read_views(tmp_path / "v", length=4, interval=2, clips=3, crops=3, size=50, short_side=50)
    assert [indices_of(view) for view in views] == uniform_clips(20, 4, 2, 3)


def video_list(root: Path, names: list[str]) -> VideoIndex:
    folders, numbers = np.array([name.encode() for name in names]), np.arange(len(names))
    return VideoIndex(root, folders, numbers, sizes=np.zeros_like(numbers), missing={})


def test_one_view_is_validations_clip(tmp_path: Path) -> None:
    noise_store(tmp_path / "v", 30, 40, 52)
    videos = video_list(tmp_path, ["v"])
    request = ClipSpec(0, 8, 32, seed=0)
    (view,) = MultiViewDataset(videos, interval=3, clips=1, crops=1, short_side=36)[request].clip
    assert (view == ValDataset(videos, interval=3, short_side=36)[request].clip).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_gives_each_video_by_itself(tmp_path: Path, workers: int) -> None:
    for number, n_frames in enumerate([3, 20, 6]):
        write_frame_store(tmp_path / f"v{number}", painted_jpegs(n_frames))
    videos = video_list(tmp_path, ["v0", "v1", "gone", "v2"])
    views = MultiViewDataset(videos, interval=1, clips=3, crops=1, short_side=50)
    shape = BatchShape(1, 4, 50)
    settings = {"length": shape.length, "size": shape.size, "workers": workers, "processes": 1}
    loader = view_loader(views, [3, 2, 0], **settings)
    first, missing, last = loader
    assert first.clips.shape == (1, 3, 4, 50, 50, 3)
    assert [indices_of(view) for view in first.clips[0].numpy()] == uniform_clips(6, 4, 1, 3)
    assert (first.labels.tolist(), first.indices.tolist(), first.bad) == ([3], [3], [])
    assert len(missing.labels) == 0
    assert "gone" in missing.bad[0].reason
    assert last.clips.shape[1] == 1
    assert list(view_loader(views, [], **settings)) == []
