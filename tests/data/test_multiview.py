"""Views of a video: the crops, and the same pixels as when cut out one by one."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data.batch_sampler import ClipSpec
from data.frame_store import FrameStore
from data.fused_engine import scale_short_side
from data.multiview import Crop, MultiViewDataset, spatial_crops, view_loader
from data.store_writer import write_frame_store
from data.video_iterator import ValDataset
from data.video_list import VideoIndex
from data.video_sampler import uniform_clips
from tests.synthetic_frames import indices_of, painted_jpegs


def video_index(root: Path, names: list[str]) -> VideoIndex:
    folders, labels = np.array([name.encode() for name in names]), np.arange(len(names))
    return VideoIndex(root, folders, labels, sizes=np.zeros_like(labels), missing=Counter())


VIDEOS = video_index(Path("unused"), [])


def test_crops_of_wide_tall_and_square_frames() -> None:
    assert spatial_crops(72, 100, 64, 1) == [Crop(4, 18)]
    assert spatial_crops(72, 100, 64, 3) == [Crop(4, 0), Crop(4, 18), Crop(4, 36)]
    assert spatial_crops(100, 72, 64, 3) == [Crop(0, 4), Crop(18, 4), Crop(36, 4)]
    assert spatial_crops(64, 64, 64, 3) == [Crop(0, 0)]
    ten = spatial_crops(72, 100, 64, 10)
    assert ten[:5] == [Crop(0, 0), Crop(0, 36), Crop(8, 0), Crop(8, 36), Crop(4, 18)]
    assert ten[5:] == [crop._replace(flipped=True) for crop in ten[:5]]
    assert spatial_crops(64, 64, 64, 10) == [Crop(0, 0), Crop(0, 0, flipped=True)]
    with pytest.raises(ValueError, match="5 crops: must be one of 1, 3, 10"):
        spatial_crops(64, 64, 64, 5)


def write_noise(folder: Path, n_frames: int, height: int, width: int) -> Path:
    frames = np.random.default_rng(n_frames).integers(0, 256, (n_frames, height, width, 3), dtype=np.uint8)
    write_frame_store(folder, [simplejpeg.encode_jpeg(frame, colorspace="BGR") for frame in frames])
    return folder


@pytest.mark.parametrize(("n_frames", "height", "width"), [(3, 48, 60), (9, 60, 44), (30, 40, 40)])
@pytest.mark.parametrize(("clips", "crops"), [(1, 1), (4, 3), (2, 10)])
def test_views_are_those_cut_out_one_by_one(
    tmp_path: Path, n_frames: int, height: int, width: int, clips: int, crops: int
) -> None:
    folder = write_noise(tmp_path / "v", n_frames, height, width)
    dataset = MultiViewDataset(VIDEOS, interval=2, clips=clips, crops=crops)
    views = dataset.read(folder, ClipSpec(0, 4, 32, seed=0))
    expected = []
    for clip in uniform_clips(n_frames, 4, 2, clips):
        frames = scale_short_side(FrameStore(folder).read(clip), 37)  # 32 is 256/294 of it
        for top, left, flipped in spatial_crops(*frames.shape[1:3], 32, crops):
            part = frames[:, top : top + 32, left : left + 32]
            expected.append(part[:, :, ::-1] if flipped else part)
    np.testing.assert_array_equal(views, np.stack(expected))


def test_frames_that_need_no_scaling_are_not_overwritten(tmp_path: Path) -> None:
    """All frames are decoded into one buffer."""
    write_frame_store(tmp_path / "v", painted_jpegs(20, size=57))  # 50 is 256/294 of it
    dataset = MultiViewDataset(VIDEOS, interval=2, clips=3, crops=1)
    views = dataset.read(tmp_path / "v", ClipSpec(0, 4, 50, seed=0))
    assert [indices_of(view) for view in views] == uniform_clips(20, 4, 2, 3)


def test_a_single_view_is_the_validation_clip(tmp_path: Path) -> None:
    write_noise(tmp_path / "v", 30, 40, 52)
    videos, spec = video_index(tmp_path, ["v"]), ClipSpec(0, 8, 32, seed=0)
    (view,) = MultiViewDataset(videos, interval=3, clips=1, crops=1)[spec].clip
    assert (view == ValDataset(videos, interval=3)[spec].clip).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_yields_one_batch_per_video(tmp_path: Path, workers: int) -> None:
    for number, n_frames in enumerate([3, 20, 6]):
        write_frame_store(tmp_path / f"v{number}", painted_jpegs(n_frames))
    videos = video_index(tmp_path, ["v0", "v1", "gone", "v2"])
    views = MultiViewDataset(videos, interval=1, clips=3, crops=1)
    settings = {"length": 4, "size": 50, "workers": workers, "local_world_size": 1}
    (first,), (missing,), (last,) = view_loader(views, [3, 2, 0], **settings)
    assert first.clips.shape == (1, 3, 4, 50, 50, 3)
    assert [indices_of(view) for view in first.clips[0].numpy()] == uniform_clips(6, 4, 1, 3)
    assert (first.labels.tolist(), first.indices.tolist(), first.bad) == ([3], [3], [])
    assert len(missing.labels) == 0
    assert "gone" in missing.bad[0].reason
    assert last.clips.shape[1] == 1
    assert list(view_loader(views, [], **settings)) == []
