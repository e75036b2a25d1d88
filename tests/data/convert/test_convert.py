"""Converting real files with real ffmpeg."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.ffmpeg import ffmpeg_binary, read_jpegs
from data.frame_store import FrameStore
from data.synthetic.__main__ import write_video
from tests.commands import main_of
from tests.data.helpers import MAKER, make_video, remake
from tests.synthetic_frames import indices_of

main = main_of("data.convert")


def convert(tmp_path: Path, *options: str) -> int:
    return main([str(tmp_path / "videos"), str(tmp_path / "set"), *options])


def test_frames_arrive_whole_and_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b.mp4", "c.mp4"):
        make_video(tmp_path / "videos" / "class a" / name, n_frames=30)
    assert convert(tmp_path) == 0
    assert capsys.readouterr().out == "converted 2\n"
    store = FrameStore(tmp_path / "set" / "jpg" / "class a" / "b")
    assert store.n_frames == 30
    assert indices_of(store.read(range(30))) == list(range(30))


def test_second_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The original deleted the store."""
    make_video(tmp_path / "videos" / "a" / "b.mp4")
    convert(tmp_path)
    path = tmp_path / "set" / "jpg" / "a" / "b" / "frames.db"
    before = path.stat().st_mtime_ns
    assert convert(tmp_path) == 0
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines()[-1] == "done before 1"


def test_variable_frame_rate_neither_repeats_nor_drops_frames(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", n_frames=20)
    uneven = "setpts='(N + gt(N,5)*7 + gt(N,11)*0.2)/25/TB'"
    remake(source, tmp_path / "videos" / "a" / "b.mkv", "-vf", uneven, "-fps_mode", "passthrough")
    convert(tmp_path)
    assert indices_of(FrameStore(tmp_path / "set/jpg/a/b").read(range(20))) == list(range(20))


def test_rotation_in_the_metadata_is_applied(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4")
    turned = tmp_path / "videos" / "a" / "b.mp4"
    turned.parent.mkdir(parents=True)
    command = [
        MAKER,
        "-loglevel",
        "error",
        "-display_rotation",
        "90",
        "-i",
        str(source),
        "-c",
        "copy",
    ]
    subprocess.run([*command, str(turned)], check=True)
    convert(tmp_path)
    frame = FrameStore(tmp_path / "set/jpg/a/b").read([5])[0]
    assert indices_of([np.rot90(frame, k=-1)]) == [5]


@pytest.mark.parametrize(
    ("filters", "height", "width"),
    [("scale=200:120", 60, 100), ("scale=90:150", 100, 60), ("scale=40:30", 30, 40)],
)
def test_short_side_shrinks_and_never_grows(tmp_path: Path, filters: str, height: int, width: int) -> None:
    source = make_video(tmp_path / "source.mp4", n_frames=3)
    remake(source, tmp_path / "videos" / "a" / "b.mp4", "-vf", filters)
    assert convert(tmp_path, "--short-side", "60") == 0
    assert FrameStore(tmp_path / "set/jpg/a/b").read([0]).shape == (1, height, width, 3)


def test_quality_changes_the_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 128, 128, 3), dtype=np.uint8)
    (tmp_path / "videos" / "a").mkdir(parents=True)
    write_video(tmp_path / "videos" / "a" / "b.mp4", noise)
    sizes = []
    for quality in ("2", "31"):
        main([str(tmp_path / "videos"), str(tmp_path / quality), "--quality", quality])
        sizes.append((tmp_path / quality / "jpg/a/b/frames.db").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_colours_survive(tmp_path: Path) -> None:
    frames = np.full((3, 64, 64, 3), (200, 40, 20), np.uint8)  # blue, in BGR
    (tmp_path / "videos" / "a").mkdir(parents=True)
    write_video(tmp_path / "videos" / "a" / "b.mp4", frames)
    convert(tmp_path)
    assert (
        abs(FrameStore(tmp_path / "set/jpg/a/b").read([1])[0, 32, 32].astype(int) - (200, 40, 20)).max() < 12
    )


@pytest.mark.parametrize(
    "name", ["#1 of 50%?.mp4", 'it\'s "so" [1]{2}.mp4', "日本 ü.mp4", "-i.mp4", "a:b|c.mp4", "two.dots.mp4"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    make_video(tmp_path / "videos" / "a & b" / "x.mp4", n_frames=2)
    (tmp_path / "videos" / "a & b" / "x.mp4").rename(tmp_path / "videos" / "a & b" / name)
    assert convert(tmp_path) == 0
    assert FrameStore(tmp_path / "set/jpg/a & b" / Path(name).stem).n_frames == 2


def test_what_is_no_video_fails_by_name_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    make_video(tmp_path / "videos" / "a" / "good.mp4")
    (tmp_path / "videos" / "a" / "bad.mp4").write_bytes(b"not a video" * 100)
    (tmp_path / "videos" / "a" / "empty.mp4").touch()
    (tmp_path / "videos" / "a" / "notes.txt").write_text("not even by name")
    assert convert(tmp_path) == 1
    assert capsys.readouterr().out == "converted 1, failed 2, no videos 1\n"
    failures = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(failures) == 2
    assert f"{tmp_path}/videos/a/bad.mp4: moov atom not found" in failures
    assert [path.name for path in (tmp_path / "set/jpg/a").iterdir()] == ["good"]


def test_file_without_pictures_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "videos" / "a" / "sound.mp4"
    target.parent.mkdir(parents=True)
    command = [ffmpeg_binary(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=d=1", str(target)]
    subprocess.run(command, check=True)
    assert convert(tmp_path) == 1
    assert "sound.mp4: " in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quality", "1"], "--quality 1: must be 2 to 31"),
        (["--short-side", "3"], "--short-side 3: must be at least 16"),
        (["--workers", "0"], "--workers 0: must be at least 1"),
        ([], "videos: is not a folder"),
    ],
)
def test_bad_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        convert(tmp_path, *options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_any_container_is_tried_and_hidden_folders_are_not(tmp_path: Path) -> None:
    """Files were once chosen by mimetypes, which takes .ts for a text."""
    source = make_video(tmp_path / "source.mp4", n_frames=5)
    for ending in ("ts", "gif", "mxf", "webm"):
        remake(source, tmp_path / "videos" / "a" / f"{ending}.{ending}", "-r", "25")
    make_video(tmp_path / "videos" / ".thumbs" / "x.mp4")
    assert convert(tmp_path) == 0
    assert sorted(path.name for path in (tmp_path / "set/jpg").glob("*/*")) == ["gif", "mxf", "ts", "webm"]


def test_something_in_the_way_of_one_store_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b", "c"):
        make_video(tmp_path / "videos" / "a" / f"{name}.mp4")
    (tmp_path / "set/jpg/a/b").mkdir(parents=True)
    (tmp_path / "set/jpg/a/b/n_frames").write_text("7")
    assert convert(tmp_path) == 1
    assert "b.mp4: " in caplog.text
    assert "jpg/a/b: something is there already" in caplog.text
    assert FrameStore(tmp_path / "set/jpg/a/c").n_frames == 12
    assert (tmp_path / "set/jpg/a/b/n_frames").read_text() == "7"


def test_two_conversions_at_once_do_each_video_once(tmp_path: Path) -> None:
    for i in range(12):
        make_video(tmp_path / "videos" / "a" / f"{i}.mp4", n_frames=30)
    command = [sys.executable, "-m", "data.convert", str(tmp_path / "videos"), str(tmp_path / "set")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(list((tmp_path / "set/jpg/a").iterdir())) == 12


def test_two_files_for_one_store_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos" / "a" / "b.mp4")
    shutil.copy(tmp_path / "videos" / "a" / "b.mp4", tmp_path / "videos" / "a" / "b.avi")
    with pytest.raises(SystemExit):
        convert(tmp_path)
    assert "b.mp4 and b.avi would be one store" in capsys.readouterr().err


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that takes a while to convert."""
    return make_video(tmp_path_factory.mktemp("big") / "big.mp4", n_frames=600, size=400)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_conversion_leaves_nothing_half_written_and_goes_on(
    big: Path, tmp_path: Path, signal_number: int
) -> None:
    for i in range(3):
        (tmp_path / "videos" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / "a" / f"{i}.mp4").symlink_to(big)
    command = [
        sys.executable,
        "-m",
        "data.convert",
        str(tmp_path / "videos"),
        str(tmp_path / "set"),
        "--workers",
        "2",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = tmp_path / "set/jpg/a"
    until = time.monotonic() + 30
    while (
        not (folder.is_dir() and any(folder.glob(".*.partial/store/frames.db"))) and time.monotonic() < until
    ):
        time.sleep(0.01)
    process.send_signal(signal_number)
    assert process.wait(timeout=30) != 0
    for path in folder.iterdir():
        if not path.name.startswith("."):
            assert FrameStore(path).n_frames == 600
    if signal_number != signal.SIGKILL:
        assert not list(folder.glob(".*"))
    assert convert(tmp_path) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "2"]
    assert {FrameStore(path).n_frames for path in folder.iterdir()} == {600}


def test_video_whose_decoder_dies_is_refused_not_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What came before the end would look like a whole video."""
    make_video(tmp_path / "videos" / "a" / "b.mp4", n_frames=40)
    dying = tmp_path / "ffmpeg"
    dying.write_text(f'#!/bin/sh\n"{ffmpeg_binary()}" "$@"\n[ "$1" = -version ] || kill -9 $$\n')
    dying.chmod(0o755)
    monkeypatch.setattr("data.ffmpeg.ffmpeg_binary", lambda: str(dying))
    assert convert(tmp_path) == 1
    assert "b.mp4: ffmpeg failed with status -9" in caplog.text
    assert list((tmp_path / "set/jpg/a").iterdir()) == []


def test_disk_that_cannot_be_written_stops_the_conversion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_video(tmp_path / "videos" / "a" / "b.mp4")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "jpg").write_text("in the way")
    with pytest.raises(SystemExit) as stopped:
        convert(tmp_path)
    assert stopped.value.code == 2
    assert "set/jpg" in capsys.readouterr().err


def test_stream_cut_within_an_image_gives_the_whole_ones() -> None:
    read, write = os.pipe()
    os.write(
        write,
        b"--f\r\nContent-type: image/jpeg\r\nContent-length: 3\r\n\r\nabc\r\n--f\r\nContent-length: 9\r\n\r\nxyz",
    )
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        assert list(read_jpegs(stream)) == [b"abc"]


def test_real_videos(tmp_path: Path, real_videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "real").symlink_to(real_videos)
    assert convert(tmp_path) == 0
    counts = {path.name: FrameStore(path).n_frames for path in (tmp_path / "set/jpg/real").iterdir()}
    corrupted = counts.pop("corrupted")
    assert counts == {
        "arm_wrestling": 280,
        "cleaning_pool": 300,
        "apply_eye_makeup": 164,
        "flipping_a_pancake": 310,
        "video_90": 3,
        "h265_10bits": 30,
    }
    assert corrupted == 28  # behind which it is damaged
    assert "corrupted.mp4: converted as far as it decodes" in caplog.text
    for name in ("arm_wrestling.mp4", "video_90.mov"):  # the second is turned
        source = cv2.VideoCapture(str(real_videos / name))
        for frame in FrameStore(tmp_path / "set/jpg/real" / Path(name).stem).read([0, 1]):
            expected = source.read()[1]
            resized = cv2.resize(expected, frame.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert cv2.PSNR(resized, frame) > 28, name
