"""The command data.convert: many videos, failures, interruptions, cuts by label file, deleting sources."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.ffmpeg.binary import ffmpeg_binary
from data.frame_store import FrameStore
from data.synthetic.shapes import write_video
from tests.commands import error_of, main_of
from tests.data.crash_recovery import is_alive
from tests.data.helpers import make_video, transcode
from tests.synthetic_frames import indices_of, paint

main = main_of("data.convert")


@pytest.fixture(scope="session")
def two_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames."""
    return make_video(tmp_path_factory.mktemp("video") / "source.mp4", n_frames=50, size=60)


def copy_to(source: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def convert(tmp_path: Path, *options: object) -> int:
    return main([str(tmp_path / "videos"), str(tmp_path / "set"), *map(str, options)])


def stores(tmp_path: Path, label: str = "a") -> list[str]:
    return sorted(path.name for path in (tmp_path / "set/jpg" / label).iterdir())


def manifest(tmp_path: Path) -> list[tuple[str, ...]]:
    with (tmp_path / "set/converted.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["video", "status", "reason", "frames"]
    return [tuple(row) for row in rows]


def write_labels(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["label,youtube_id,time_start,time_end", *rows]) + "\n")
    return path


def wrap_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Replace ffmpeg by a script that runs `lines` first."""
    wrapper = tmp_path / "ffmpeg"
    wrapper.write_text("\n".join(["#!/bin/sh", *lines, f'exec "{ffmpeg_binary()}" "$@"', ""]))
    wrapper.chmod(0o755)
    monkeypatch.setattr("data.ffmpeg.decoding.ffmpeg_binary", lambda: str(wrapper))


def test_second_run_changes_nothing(
    tmp_path: Path, two_seconds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The original deleted the store."""
    copy_to(two_seconds, *(tmp_path / "videos" / "class a" / name for name in ("b.mp4", "c.mp4")))
    assert convert(tmp_path) == 0
    path = tmp_path / "set/jpg/class a/b/frames.db"
    before = path.stat().st_mtime_ns
    assert convert(tmp_path) == 0
    assert path.stat().st_mtime_ns == before
    assert capsys.readouterr().out.splitlines() == ["converted 2", "done before 2"]


def test_manifest_has_the_result_of_each_video(
    tmp_path: Path,
    two_seconds: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    copy_to(two_seconds, tmp_path / "videos/a, b/x.mp4")
    (tmp_path / "videos/a, b/y.mp4").touch()
    (tmp_path / "videos/a, b/z.mp4").write_bytes(b"not a video" * 100)
    (tmp_path / "videos/a, b/notes.txt").touch()
    assert convert(tmp_path) == 1
    assert capsys.readouterr().out == "converted 1, failed 2, passed over 1\n"
    assert f"{tmp_path}/videos/a, b/z.mp4: moov atom not found" in caplog.text
    copy_to(two_seconds, tmp_path / "videos/a, b/y.mp4", tmp_path / "videos/a, b/z.mp4")
    assert convert(tmp_path) == 0
    rows = manifest(tmp_path)
    assert sorted(rows[:3]) == [
        ("a, b/x", "converted", "", "50"),
        ("a, b/y", "failed", "the file is empty", "0"),
        ("a, b/z", "failed", "moov atom not found", "0"),
    ]
    assert sorted(rows[3:]) == [("a, b/y", "converted", "", "50"), ("a, b/z", "converted", "", "50")]


def test_quality_changes_the_size(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 128, 128, 3), dtype=np.uint8)
    write_video(tmp_path / "videos/a/b.mp4", noise)
    sizes = []
    for quality in ("2", "31"):
        main([str(tmp_path / "videos"), str(tmp_path / quality), "--quality", quality])
        sizes.append((tmp_path / quality / "jpg/a/b/frames.db").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize(
    "name", ["#1 of 50%?.mp4", 'it\'s "so" [1]{2}.mp4', "日本 ü.mp4", "-i.mp4", "a:b|c.d.mp4"]
)
def test_special_characters_in_names(tmp_path: Path, two_seconds: Path, name: str) -> None:
    copy_to(two_seconds, tmp_path / "videos/a & b" / name)
    assert convert(tmp_path) == 0
    assert FrameStore(tmp_path / "set/jpg/a & b" / Path(name).stem).n_frames == 50


def test_any_suffix_is_tried_and_hidden_folders_are_not(tmp_path: Path, two_seconds: Path) -> None:
    """mimetypes calls .ts a text."""
    for suffix in ("ts", "gif", "mxf", "webm"):
        transcode(two_seconds, tmp_path / "videos/a" / f"{suffix}.{suffix}", "-r", "25", "-t", "0.8")
    copy_to(two_seconds, tmp_path / "videos/.thumbs/x.mp4")
    assert convert(tmp_path) == 0
    assert [path.name for path in (tmp_path / "set/jpg").iterdir()] == ["a"]
    assert stores(tmp_path) == ["gif", "mxf", "ts", "webm"]


def test_side_files_are_passed_over(
    tmp_path: Path,
    two_seconds: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They had the store of the video, or failed for ever. A file that claims to be a video still fails."""
    folder = tmp_path / "videos/a"
    copy_to(two_seconds, folder / "x.mp4", folder / "noname", folder / "whole.mkv")
    names = (
        "x.description",
        "x.info.json",
        "x.mp4:Zone.Identifier",
        "x.mp4.part-Frag3",
        "x.temp.mp4",
        "Thumbs.db",
    )
    for name in (*names, "README", "x.unheard", "y.unheard", "._x.mp4"):
        (folder / name).write_text("no video")
    transcode(two_seconds, folder / "x.ogg", "-f", "lavfi", "-i", "sine=d=1", "-map", "1", "-c:a", "flac")
    for name in ("x.THM", "GOPR1.THM"):  # images of cameras, beside their videos or left of them
        Image.new("RGB", (64, 64)).save(folder / name, "JPEG")
    (folder / "half.mp4").write_bytes(two_seconds.read_bytes()[:100])
    assert convert(tmp_path) == 1
    assert stores(tmp_path) == ["noname", "whole", "x"]
    assert capsys.readouterr().out == "converted 3, failed 1, passed over 12\n"
    assert "passed over files beside the videos: .thm 2, .unheard 2, " in caplog.text
    assert "half.mp4: " in caplog.text

    (folder / "half.mp4").unlink()
    assert convert(tmp_path) == 0
    assert convert(tmp_path, "--delete-source") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "sources deleted 3, done before 3, passed over 12",
    ]
    assert {"x.unheard", "x.temp.mp4"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("trim", [False, True])
def test_several_videos_of_one_name_fail_alone(
    tmp_path: Path,
    two_seconds: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    trim: bool,
) -> None:
    folder = tmp_path / "videos/a"
    copy_to(two_seconds, folder / "good.mp4", folder / "two.mp4")
    copy_to(two_seconds, folder / "merged.f137.mp4", folder / "streams.f137.mp4", folder / "broken.mkv")
    for name in ("two.avi", "merged.mp4", "frames.mp4"):
        transcode(two_seconds, folder / name, "-t", "1")
    (folder / "streams.f251.webm").write_bytes(b"broken")
    (folder / "broken.avi").write_bytes(b"broken")
    names = ("good", "two", "merged", "streams", "broken")
    options = (
        ["--trim", write_labels(tmp_path / "l.csv", *(f"a,{name},0,2" for name in names))] if trim else []
    )
    (folder / "frames").mkdir()
    cv2.imwrite(str(folder / "frames/1.jpg"), np.zeros((20, 20, 3), np.uint8))
    assert convert(tmp_path, *options) == 1
    end = "_000000_000002" if trim else ""
    assert stores(tmp_path) == sorted(f"{name}{end}" for name in names if name != "two")
    assert FrameStore(tmp_path / f"set/jpg/a/merged{end}").n_frames == 25
    assert FrameStore(tmp_path / f"set/jpg/a/streams{end}").n_frames == 50
    assert (
        f"a/two.avi and {folder}/two.mp4 are the same video: delete or rename one of the two" in caplog.text
    )
    assert trim or f"a/frames and {folder}/frames.mp4 are the same video" in caplog.text
    assert "passed over 3\n" in capsys.readouterr().out  # not those that fail


def test_animated_webp_is_a_video_and_a_still_one_is_not(tmp_path: Path) -> None:
    images = [Image.fromarray(paint(i, size=64)[..., ::-1]) for i in range(6)]
    (tmp_path / "videos/a").mkdir(parents=True)
    images[0].save(tmp_path / "videos/a/x.webp", save_all=True, append_images=images[1:], duration=40)
    images[0].save(tmp_path / "videos/a/y.webp")
    assert convert(tmp_path) == 0
    assert stores(tmp_path) == ["x"]
    assert indices_of(FrameStore(tmp_path / "set/jpg/a/x").read(range(6))) == list(range(6))


def test_slow_or_killed_decoder_fails_its_video_alone(
    tmp_path: Path, two_seconds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames that a killed decoder wrote would look like a complete video."""
    copy_to(two_seconds, *(tmp_path / f"videos/a/{name}.mp4" for name in ("slow", "killed", "good")))
    slow = f"*slow.mp4*) echo $$ > {tmp_path}/pid; sleep 1000;;"
    killed = f'*killed.mp4*) "{ffmpeg_binary()}" "$@"; kill -9 $$;;'
    wrap_ffmpeg(tmp_path, monkeypatch, f'case "$*" in {slow} {killed} esac')
    assert convert(tmp_path, "--workers", 2, "--time-limit", 3) == 1
    assert sorted(manifest(tmp_path)) == [
        ("a/good", "converted", "", "50"),
        ("a/killed", "failed", "ffmpeg was killed by signal 9", "0"),
        ("a/slow", "failed", "timed out after 3 s", "0"),
    ]
    assert not is_alive((tmp_path / "pid").read_text().strip())
    assert stores(tmp_path) == ["good"]


def test_existing_folder_is_not_replaced(
    tmp_path: Path, two_seconds: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy_to(two_seconds, *(tmp_path / f"videos/a/{name}.mp4" for name in "bc"))
    (tmp_path / "set/jpg/a/b").mkdir(parents=True)
    (tmp_path / "set/jpg/a/b/n_frames").write_text("7")
    assert convert(tmp_path) == 1
    assert "b.mp4: " in caplog.text
    assert FrameStore(tmp_path / "set/jpg/a/c").n_frames == 50
    assert (tmp_path / "set/jpg/a/b/n_frames").read_text() == "7"


def test_unwritable_dataset_stops_the_conversion(tmp_path: Path, two_seconds: Path) -> None:
    copy_to(two_seconds, tmp_path / "videos/a/b.mp4")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/jpg").write_text("in the way")
    assert "set/jpg" in error_of(main, tmp_path / "videos", tmp_path / "set")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_conversion_leaves_no_half_written_store_and_resumes(tmp_path: Path, number: int) -> None:
    source = make_video(tmp_path / "source.mp4", n_frames=600, size=400)
    (tmp_path / "videos/a").mkdir(parents=True)
    for i in range(3):
        (tmp_path / f"videos/a/{i}.mp4").symlink_to(source)
    command = [sys.executable, "-m", "data.convert", tmp_path / "videos", tmp_path / "set", "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder, deadline = tmp_path / "set/jpg/a", time.monotonic() + 30
    while not any(folder.glob(".*.partial/store/frames.db")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=30) == (-number if number == signal.SIGKILL else 130)
    for path in folder.iterdir():
        if not path.name.startswith("."):
            assert FrameStore(path).n_frames == 600
    if number != signal.SIGKILL:
        assert not list(folder.glob(".*"))
    assert convert(tmp_path) == 0
    assert stores(tmp_path) == ["0", "1", "2"]
    assert {FrameStore(path).n_frames for path in folder.iterdir()} == {600}


def test_concurrent_conversions_store_each_video_once(tmp_path: Path, two_seconds: Path) -> None:
    copy_to(two_seconds, *(tmp_path / f"videos/a/{i}.mp4" for i in range(12)))
    command = [sys.executable, "-m", "data.convert", tmp_path / "videos", tmp_path / "set"]
    for process in [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(stores(tmp_path)) == 12


def test_failed_video_does_not_end_the_ranks_of_torchrun(tmp_path: Path, two_seconds: Path) -> None:
    """torchrun kills the other ranks when one exits with a code other than 0."""
    copy_to(two_seconds, *(tmp_path / f"videos/a/{i}.mp4" for i in range(8)))
    (tmp_path / "videos/a/empty.mp4").touch()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "data.convert", tmp_path / "videos", tmp_path / "set", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a/empty.mp4: the file is empty" in done.stderr
    assert "1 failed; exit code 0, as torchrun would kill the other ranks" in done.stderr
    assert len(stores(tmp_path)) == 8


def test_label_files_cut_stores_from_their_sources(
    tmp_path: Path, two_seconds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_to(two_seconds, tmp_path / "videos/a/x.mp4", tmp_path / "videos/y.mkv")
    train = write_labels(tmp_path / "train.csv", "a,x,0,1", "b,y,1,2", "a,x,0,1")
    val = write_labels(tmp_path / "val.csv", "a,x,1,2", "b,gone,0,1")
    assert convert(tmp_path, "--trim", train, "--trim", val, "--delete-source") == 0
    assert capsys.readouterr().out == "converted 3, sources deleted 2, without source 1\n"
    for name, first in (("a/x_000000_000001", 0), ("a/x_000001_000002", 25), ("b/y_000001_000002", 25)):
        store = FrameStore(tmp_path / "set/jpg" / name)
        assert indices_of(store.read(range(store.n_frames))) == list(range(first, first + 25))
    assert [path.name for path in tmp_path.glob("videos/**/*.*")] == []


def test_source_is_kept_until_all_its_rows_have_stores(
    tmp_path: Path, two_seconds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_to(two_seconds, tmp_path / "videos/a/x.mp4")
    labels = write_labels(tmp_path / "train.csv", "a,x,0,1", "a,x,7,9")
    assert convert(tmp_path, "--trim", labels, "--delete-source") == 1
    assert capsys.readouterr().out == "converted 1, failed 1\n"
    assert (tmp_path / "videos/a/x.mp4").exists()


def test_source_is_deleted_after_its_store_was_read_back(
    tmp_path: Path, two_seconds: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Sources of existing stores too, unless the store is corrupt, damaged or not in the manifest."""
    names = ("good", "corrupt", "damaged", "foreign")
    copy_to(two_seconds, *(tmp_path / f"videos/a/{name}.mp4" for name in names))
    data = bytearray(two_seconds.read_bytes())
    middle = data.index(b"mdat") + 1500
    data[middle : middle + 200] = b"\xff" * 200
    (tmp_path / "videos/a/damaged.mp4").write_bytes(data)
    assert convert(tmp_path) == 0
    rows = (tmp_path / "set/converted.csv").read_text().splitlines(keepends=True)
    (tmp_path / "set/converted.csv").write_text("".join(row for row in rows if "foreign" not in row))
    database = tmp_path / "set/jpg/a/corrupt/frames.db"
    jpeg = FrameStore(database.parent).fetch([40]).jpegs[40]
    database.write_bytes(database.read_bytes().replace(jpeg, bytes(len(jpeg))))
    copy_to(two_seconds, tmp_path / "videos/a/new.mp4")
    assert convert(tmp_path, "--delete-source") == 1
    left = sorted(path.stem for path in (tmp_path / "videos/a").iterdir())
    assert left == ["corrupt", "damaged", "foreign"]
    assert capsys.readouterr().out.splitlines() == [
        "converted 4, damaged 1",
        "converted 1, failed 1, sources deleted 2, sources kept 2, done before 1",
    ]
    assert "foreign.mp4: not deleted, its store is not listed as converted in converted.csv" in caplog.text
    assert "frame 40 does not decode" in caplog.text


def test_real_videos(tmp_path: Path, real_videos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a").symlink_to(real_videos)
    assert convert(tmp_path) == 0
    assert {name: FrameStore(tmp_path / "set/jpg/a" / name).n_frames for name in stores(tmp_path)} == {
        "arm_wrestling": 280,
        "cleaning_pool": 300,
        "apply_eye_makeup": 164,
        "flipping_a_pancake": 310,
        "video_90": 3,
        "h265_10bits": 30,
        "corrupted": 28,  # damaged after them
    }
    reason = "28 of about 50 frames, Invalid NAL unit size (-1 > 551)."
    assert f"corrupted.mp4: converted up to the damage, {reason}" in caplog.text
    assert ("a/corrupted", "damaged", reason, "28") in manifest(tmp_path)
    for name in ("arm_wrestling.mp4", "video_90.mov"):  # the second is rotated
        source = cv2.VideoCapture(str(real_videos / name))
        for frame in FrameStore(tmp_path / "set/jpg/a" / Path(name).stem).read([0, 1]):
            expected = source.read()[1]
            resized = cv2.resize(expected, frame.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert cv2.PSNR(resized, frame) > 28, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quality", "1"], "--quality: '1' is not a whole number from 2 to 31"),
        (["--short-side", "3"], "--short-side: '3' is not a whole number of at least 16"),
        (["--workers", "0"], "--workers: '0' is not a whole number of at least 1"),
        (["--time-limit", "inf"], "--time-limit: 'inf' is not a number of seconds above 0, at most 1000000"),
        (["--damaged", "maybe"], "invalid choice: 'maybe'"),
        (["--trim", "labels.csv"], "videos: has none of the 1 sources, such as a/z.mp4"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, two_seconds: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    copy_to(two_seconds, tmp_path / "videos/a/x.mp4")
    write_labels(tmp_path / "labels.csv", "a,z,0,1")
    monkeypatch.chdir(tmp_path)
    assert message in error_of(main, "videos", "set", *options)
    assert "vidoes" in error_of(main, "vidoes", "set")
