"""Video files as frames, read and written."""

import itertools
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from data.ffmpeg.decoding import VideoStreamError, ffmpeg_command, read_jpegs
from data.ffmpeg.encoding import video_writer
from data.ffmpeg.video_files import StoredVideo, VideoFile, open_videos
from data.frame_store import FrameStore
from data.store_writer import write_frame_store
from tests.commands import main_of
from tests.data.helpers import run_ffmpeg
from tests.synthetic_frames import indices_of, make_stores, paint, painted_jpegs

convert = main_of("data.convert")


def write(path: Path, n_frames: int = 6, height: int = 60, width: int = 80, fps: float = 25) -> Path:
    """Write painted frames on gray, and a gray one."""
    with video_writer(path, height, width, threads=1) as writer:
        for index in range(n_frames):
            frame = np.full((height, width, 3), 90, np.uint8)
            frame[:50, :50] = paint(index)
            writer.write(frame, index / fps)
        gray = np.full((2 * height, width, 3), 90, np.uint8)  # is scaled to the size of the others
        writer.write(gray, n_frames / fps)
    return path


@pytest.mark.parametrize(("height", "width"), [(60, 80), (61, 83)])
def test_written_frames_are_read(tmp_path: Path, height: int, width: int) -> None:
    video = VideoFile(write(tmp_path / "new" / "video.mp4", height=height, width=width, fps=12.5))
    frames, times = zip(*video.frames(), strict=True)
    assert [frame.shape for frame in frames] == [(height, width, 3)] * 7
    assert indices_of(np.stack(frames)[:6, :50, :50]) == [0, 1, 2, 3, 4, 5]
    assert abs(int(frames[0][58, 70, 0]) - 90) < 6
    assert (times, video.num_frames, video.decode_error) == (pytest.approx(np.arange(7) / 12.5), 7, "")
    assert next(video.frames(short_side=30))[0].shape == (30, round(30 * width / height), 3)
    assert list((tmp_path / "new").iterdir()) == [video.path]


def test_frames_equal_those_that_conversion_stores(tmp_path: Path) -> None:
    path = write(tmp_path / "videos" / "a" / "b.mp4", n_frames=20)
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set"), "--short-side", "54"]) == 0
    store = tmp_path / "set" / "jpg" / "a" / "b"
    stored = FrameStore(store).read(range(21))
    for frames in (VideoFile(path).frames(short_side=54), StoredVideo(store).frames()):
        np.testing.assert_array_equal(stored, np.stack([frame for frame, _ in frames]))


def test_unreadable_video_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video " * 100)
    with pytest.raises(VideoStreamError, match=r"text.mp4: no frame could be decoded, "):
        list(VideoFile(text).frames())


def test_videos_are_found_in_order(tmp_path: Path) -> None:
    make_stores(tmp_path / "set", {"a": ["s"]})
    for name in ("x.avi", "deeper/y.mkv", ".hidden.mp4", "notes.txt"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = open_videos([tmp_path / "set", tmp_path / "files", tmp_path / "files/x.avi"])
    names = ["set/jpg/a/s", "files/deeper/y.mkv", "files/x.avi", "files/x.avi"]
    assert [video.path for video in found] == [tmp_path / name for name in names]
    assert [type(video) for video in found] == [StoredVideo, VideoFile, VideoFile, VideoFile]
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "no videos in this folder"), ("gone.mp4", "no such file or folder")):
        with pytest.raises(FileNotFoundError, match=f"{name}: {message}"):
            open_videos([tmp_path / name])


@pytest.mark.parametrize("name", ["x.webm", "x.mkv"])
def test_times_are_those_of_the_frames(tmp_path: Path, name: str) -> None:
    """A variable rate, and a cover before the video, which ffmpeg does not decode but prints first."""
    steps = "if(lt(N,5),N*0.02,N*0.1)"  # 5 frames in 0.1 s, the others 10 a second
    options = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=0.8"]
    if name == "x.mkv":
        options += ["-f", "lavfi", "-i", "color=red:size=32x32:rate=25:duration=0.04", "-map", "1"]
        options += ["-c:v:0", "png", "-disposition:v:0", "0"]
    filters = f"settb=1/1000,setpts='({steps}+3)/TB'"
    options += ["-map", "0", "-vf", filters, "-fps_mode", "passthrough", "-enc_time_base", "1:1000"]
    run_ffmpeg(*options, tmp_path / name)
    video = VideoFile(tmp_path / name)
    expected = [index * 0.02 if index < 5 else index * 0.1 for index in range(20)]
    times = [seconds for _, seconds in video.frames()]
    np.testing.assert_allclose(times, expected, atol=0.002)
    first = [seconds for _, seconds in itertools.islice(video.frames(), 3)]  # known while frames are read
    assert (first, video.num_frames) == (times[:3], 20)  # of the last complete iteration


def test_times_of_a_store(tmp_path: Path) -> None:
    """Old stores and those of the original have none."""
    jpegs = painted_jpegs(3)
    write_frame_store(tmp_path / "new", jpegs, [0, 0.5, 0.6])
    write_frame_store(tmp_path / "old", jpegs)
    for name, times in (("new", [0, 0.5, 0.6]), ("old", [None] * 3)):
        assert [seconds for _, seconds in StoredVideo(tmp_path / name).frames()] == times


def test_failed_writing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out" / "video.mp4"
    with pytest.raises(ValueError, match="broadcast"):
        write(path, height=40)  # too small for the painted square
    assert list(path.parent.iterdir()) == []
    failing = tmp_path / "ffmpeg"
    failing.write_text('#!/bin/sh\necho "No space left" >&2\nexit 1\n')
    failing.chmod(0o755)
    monkeypatch.setattr("data.ffmpeg.encoding.ffmpeg_binary", lambda: str(failing))
    with pytest.raises(VideoStreamError, match=r"video.mp4: ffmpeg could not write it, No space left"):
        write(path, n_frames=200)
    assert list(path.parent.iterdir()) == []


def test_stream_cut_within_an_image_yields_the_complete_ones(tmp_path: Path) -> None:
    header = b"--f\r\nContent-type: image/jpeg\r\nContent-length: %d\r\n\r\n"
    (tmp_path / "stream").write_bytes(header % 3 + b"abc\r\n" + header % 9 + b"xyz")
    with (tmp_path / "stream").open("rb") as stream:
        assert list(read_jpegs(stream)) == [b"abc"]


def test_disguised_playlist_opens_no_network_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        path = tmp_path / "x.mp4"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        done = subprocess.run(ffmpeg_command(path, 64, 3), capture_output=True, timeout=60, check=False)
        assert (done.returncode != 0, done.stdout) == (True, b"")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_real_videos(real_videos: Path) -> None:
    found = {video.path.name: video for video in open_videos([real_videos])}
    whole, corrupted, rotated = (
        found[name] for name in ("arm_wrestling.mp4", "corrupted.mp4", "video_90.mov")
    )
    times = [seconds for _, seconds in whole.frames(short_side=32)]
    np.testing.assert_allclose(times, np.arange(280) / 28, atol=0.001)
    assert (whole.decode_error, whole.expected_frames) == ("", 280)
    assert sum(1 for _ in corrupted.frames(short_side=32)) == 28
    assert corrupted.decode_error.startswith("28 of about ")
    height, width, _ = next(rotated.frames(short_side=32))[0].shape
    assert height > width


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    """One video was found 42 times."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "video.mp4").touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [video.path for video in open_videos([tmp_path])] == [tmp_path / "a" / "video.mp4"]
