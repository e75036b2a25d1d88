"""Videos frame by frame: what is written is read, as conversion reads it."""

from pathlib import Path

import numpy as np
import pytest

from data.ffmpeg import StoredVideo, VideoFile, VideoStreamError, find_videos, written_video
from data.frame_store import FrameStore
from tests.commands import main_of
from tests.data.helpers import run_maker
from tests.synthetic_frames import indices_of, make_stores, paint

convert = main_of("data.convert")


def write(path: Path, n_frames: int = 6, height: int = 60, width: int = 80, rate: float = 25) -> Path:
    """Painted frames on grey."""
    with written_video(path, height, width, rate, threads=1) as writer:
        for index in range(n_frames):
            frame = np.full((height, width, 3), 90, np.uint8)
            frame[:50, :50] = paint(index)
            writer.write(frame)
    return path


@pytest.mark.parametrize(("height", "width"), [(60, 80), (61, 83)])
def test_what_is_written_is_read(tmp_path: Path, height: int, width: int) -> None:
    video = VideoFile(write(tmp_path / "new" / "video.mp4", height=height, width=width, rate=12.5))
    frames = list(video.frames())
    assert [frame.shape for frame in frames] == [(height, width, 3)] * 6
    assert indices_of(np.stack(frames)[:, :50, :50]) == [0, 1, 2, 3, 4, 5]
    assert abs(int(frames[0][58, 70, 0]) - 90) < 6
    assert (video.rate, video.complaint) == (12.5, "")
    assert [frame.shape for frame in video.frames(short_side=30)] == [(30, round(30 * width / height), 3)] * 6
    assert list((tmp_path / "new").iterdir()) == [video.path]


def test_frames_are_those_that_conversion_stores(tmp_path: Path) -> None:
    path = write(tmp_path / "videos" / "a" / "b.mp4", n_frames=20)
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set"), "--short-side", "54"]) == 0
    store = tmp_path / "set" / "jpg" / "a" / "b"
    stored = FrameStore(store).read(range(20))
    np.testing.assert_array_equal(stored, np.stack(list(VideoFile(path).frames(short_side=54))))
    np.testing.assert_array_equal(stored, np.stack(list(StoredVideo(store).frames())))


def test_frame_of_another_size_is_scaled(tmp_path: Path) -> None:
    """As some files change theirs on the way."""
    with written_video(tmp_path / "video.mp4", 60, 80, 25, threads=1) as writer:
        for size in (60, 120):
            writer.write(np.full((size, 80, 3), 90, np.uint8))
    assert [frame.shape for frame in VideoFile(tmp_path / "video.mp4").frames()] == [(60, 80, 3)] * 2


def test_rest_need_not_be_read(tmp_path: Path) -> None:
    frames = VideoFile(write(tmp_path / "video.mp4")).frames()
    assert next(frames).shape == (60, 80, 3)
    frames.close()


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video " * 100)
    with pytest.raises(VideoStreamError, match="text.mp4: no frame could be decoded, "):
        list(VideoFile(text).frames())
    odd = Path(str(tmp_path) + "/caf\udce9.mp4")
    with pytest.raises(VideoStreamError, match=r"caf.*its name is not UTF-8, rename it"):
        list(VideoFile(odd).frames())


def test_videos_are_found(tmp_path: Path) -> None:
    make_stores(tmp_path / "set", {"a": ["s"]})
    for name in ("x.avi", "deeper/y.mkv", ".hidden.mp4", "notes.txt"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    single = tmp_path / "files" / "x.avi"
    found = find_videos([tmp_path / "set", tmp_path / "files", single])
    names = ["set/jpg/a/s", "files/deeper/y.mkv", "files/x.avi", "files/x.avi"]
    assert [video.path for video in found] == [tmp_path / name for name in names]
    assert [type(video) for video in found] == [StoredVideo, VideoFile, VideoFile, VideoFile]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: holds no videos"):
        find_videos([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="gone.mp4: there is no such video"):
        find_videos([tmp_path / "gone.mp4"])


def test_each_folder_is_looked_into_once(tmp_path: Path) -> None:
    """Where a link leads back up videos were found again and again."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.avi").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [video.path.name for video in find_videos([tmp_path])] == ["x.avi"]


def test_rate_of_a_fast_video(tmp_path: Path) -> None:
    """Of 1,000 frames a second ffmpeg says `1k`: it was taken for unknown."""
    run_maker("-f", "lavfi", "-i", "testsrc=rate=1000:duration=0.1:size=64x48", tmp_path / "v.mp4")
    assert VideoFile(tmp_path / "v.mp4").rate == 1000


def test_half_a_video_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out" / "video.mp4"
    with pytest.raises(ValueError, match="broadcast"):
        write(path, height=40)  # too small for what is painted, which shows within
    assert list(path.parent.iterdir()) == []
    failing = tmp_path / "ffmpeg"
    failing.write_text('#!/bin/sh\necho "No space left" >&2\nexit 1\n')
    failing.chmod(0o755)
    monkeypatch.setattr("data.ffmpeg.ffmpeg_binary", lambda: str(failing))
    with pytest.raises(VideoStreamError, match=r"video.mp4: ffmpeg could not write it, No space left"):
        write(path, n_frames=200)
    assert list(path.parent.iterdir()) == []


def test_real_videos(real_videos: Path) -> None:
    found = {video.path.name: video for video in find_videos([real_videos])}
    counts, shapes = {}, {}
    for name, video in found.items():
        counts[name] = 0
        for frame in video.frames(short_side=32):
            counts[name] += 1
            shapes[name] = frame.shape[:2]
    corrupted = counts.pop("corrupted.mp4")
    assert counts == {
        "apply_eye_makeup.avi": 164,
        "arm_wrestling.mp4": 280,
        "cleaning_pool.mp4": 300,
        "flipping_a_pancake.mkv": 310,
        "h265_10bits.mp4": 30,
        "video_90.mov": 3,
    }
    assert corrupted >= 28
    assert found["corrupted.mp4"].complaint
    assert not found["arm_wrestling.mp4"].complaint
    assert shapes["video_90.mov"][0] > shapes["video_90.mov"][1]  # turned
    assert found["arm_wrestling.mp4"].rate == 28
