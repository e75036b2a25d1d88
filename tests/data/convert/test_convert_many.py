"""Conversions of many videos: in parts, in processes that die, by label file, with a ledger, and sources deleted."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.convert.sources import find_jobs
from data.ffmpeg import ffmpeg_binary
from data.frame_store import FrameStore
from data.label_files import Annotation
from data.labels.splits import link_videos
from tests.commands import main_of
from tests.data.crash_recovery import is_alive
from tests.data.helpers import make_video, remake
from tests.data.unprivileged import as_nobody, forbidden, public_folder
from tests.synthetic_frames import indices_of

main = main_of("data.convert")


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty frames, two seconds."""
    return make_video(tmp_path_factory.mktemp("painted") / "source.mp4", n_frames=50, size=60)


def place(source: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def ledger(tmp_path: Path) -> list[tuple[str, ...]]:
    with (tmp_path / "set/converted.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["video", "status", "reason", "frames"]
    return [tuple(row) for row in rows]


def convert(tmp_path: Path, *options: object) -> int:
    return main([str(tmp_path / "videos"), str(tmp_path / "set"), *map(str, options)])


def wrap_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """An ffmpeg that does what `lines` say before it works."""
    wrapper = tmp_path / "ffmpeg"
    wrapper.write_text("\n".join(["#!/bin/sh", *lines, f'exec "{ffmpeg_binary()}" "$@"', ""]))
    wrapper.chmod(0o755)
    monkeypatch.setattr("data.ffmpeg.ffmpeg_binary", lambda: str(wrapper))


def test_ledger_says_what_became_of_each(tmp_path: Path, painted: Path) -> None:
    place(painted, tmp_path / "videos/a, b/x.mp4")
    (tmp_path / "videos/a, b/y.mp4").touch()
    assert convert(tmp_path) == 1
    place(painted, tmp_path / "videos/a, b/y.mp4")
    assert convert(tmp_path) == 0
    rows = ledger(tmp_path)
    assert sorted(rows[:2]) == [
        ("a, b/x", "converted", "", "50"),
        ("a, b/y", "failed", "the file is empty", "0"),
    ]
    assert rows[2:] == [("a, b/y", "converted", "", "50")]


def test_process_that_is_killed_costs_its_video(
    tmp_path: Path, painted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel kills one where memory runs out."""
    place(painted, *(tmp_path / f"videos/a/{name}.mp4" for name in "xyz"))
    wrap_ffmpeg(tmp_path, monkeypatch, 'case "$*" in *y.mp4*) kill -9 $PPID;; esac')
    assert convert(tmp_path, "--workers", 2) == 1
    assert ("a/y", "failed", "its process was killed by SIGKILL", "0") in ledger(tmp_path)
    assert sorted(path.name for path in (tmp_path / "set/jpg/a").iterdir()) == ["x", "z"]


def test_video_that_takes_too_long_is_given_up(
    tmp_path: Path, painted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(painted, *(tmp_path / f"videos/a/{name}.mp4" for name in "xy"))
    wrap_ffmpeg(tmp_path, monkeypatch, f'case "$*" in *x.mp4*) echo $$ > {tmp_path}/pid; sleep 1000;; esac')
    assert convert(tmp_path, "--workers", 1, "--time-limit", 2) == 1
    assert [row[:3] for row in ledger(tmp_path)] == [
        ("a/x", "failed", "not done after 2 s"),
        ("a/y", "converted", ""),
    ]
    assert not is_alive((tmp_path / "pid").read_text().strip())
    assert [path.name for path in (tmp_path / "set/jpg/a").iterdir()] == ["y"]


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
def test_processes_of_a_launcher_share_the_videos(
    tmp_path: Path,
    painted: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each takes its own, whatever the others have deleted by then."""
    place(painted, *(tmp_path / f"videos/a/{i}.mp4" for i in range(8)))
    monkeypatch.setenv(names[1], "2")
    for rank in "01":
        monkeypatch.setenv(names[0], rank)
        assert convert(tmp_path, "--delete-source") == 0
    assert len(list((tmp_path / "set/jpg/a").iterdir())) == 8
    assert len(ledger(tmp_path)) == 8
    counts = [
        int(line.split(",")[0].removeprefix("converted ")) for line in capsys.readouterr().out.splitlines()
    ]
    assert sum(counts) == 8
    assert min(counts) > 0


def test_a_video_that_fails_does_not_end_the_processes_of_torchrun(tmp_path: Path, painted: Path) -> None:
    """It ends the others where one ends with another status than 0: what they had in work was never finished."""
    place(painted, *(tmp_path / f"videos/a/{i}.mp4" for i in range(8)))
    (tmp_path / "videos/a/empty.mp4").touch()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "data.convert", tmp_path / "videos", tmp_path / "set", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a/empty.mp4: the file is empty" in done.stderr
    assert "ends with status 0 though 1 failed, for torchrun not to end the other processes" in done.stderr
    assert len(list((tmp_path / "set/jpg/a").iterdir())) == 8


def test_sources_that_vanish_cost_themselves_alone(
    tmp_path: Path, painted: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They ended the conversion: before their turn, and where another conversion had deleted them already."""
    place(painted, *(tmp_path / f"videos/a/{name}.mp4" for name in "xyz"))
    videos = tmp_path / "videos/a"
    wrap_ffmpeg(tmp_path, monkeypatch, f'case "$*" in *x.mp4*) rm -f {videos}/x.mp4 {videos}/y.mp4;; esac')
    assert convert(tmp_path, "--workers", 1) == 1
    assert [row[1] for row in ledger(tmp_path)] == ["failed", "failed", "converted"]
    assert caplog.text.count("No such file or directory") == 2
    labels = write_labels(tmp_path / "labels.csv", "a,z,0,1")
    monkeypatch.undo()
    wrap_ffmpeg(tmp_path, monkeypatch, f'"{ffmpeg_binary()}" "$@"; s=$?; rm -f {videos}/z.mp4; exit $s')
    assert convert(tmp_path, "--trim", labels, "--delete-source") == 0
    with pytest.raises(SystemExit):
        convert(tmp_path, "--trim", labels)


def test_folder_that_may_not_be_read_is_an_error(painted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its videos were left out without a word."""
    with public_folder() as root:
        place(painted, root / "videos/a/x.mp4", root / "videos/b/y.mp4")
        labels = write_labels(root / "labels.csv", "a,x,0,1")
        with forbidden(root / "videos/b"), as_nobody():
            for words in ([], ["--trim", labels]):
                with pytest.raises(SystemExit):
                    convert(root, *words)
                assert "Permission denied: '" in capsys.readouterr().err
        (root / "videos/b").rename(root / "videos/lost+found")  # which is root's on many disks
        root.chmod(0o777)
        with forbidden(root / "videos/lost+found"), as_nobody():
            jobs, _ = find_jobs(root / "videos", root / "set")
            assert [job.video.name for job in jobs] == ["x.mp4"]
            assert link_videos(root / "videos", root / "links", [Annotation("a", "x")])["linked"] == 1


def test_mistyped_folder_of_sources_is_an_error(
    tmp_path: Path, painted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With all sources deleted there is nothing to do, but a folder that is not there was never deleted by us."""
    place(painted, tmp_path / "videos/a/x.mp4")
    labels = write_labels(tmp_path / "labels.csv", "a,x,0,1")
    assert convert(tmp_path, "--trim", labels, "--delete-source") == 0
    assert convert(tmp_path, "--trim", labels, "--delete-source") == 0
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "vidoes"), str(tmp_path / "set"), "--trim", str(labels), "--delete-source"])
    assert stopped.value.code == 2
    assert "vidoes: is not a folder with <class>/<video> in it" in capsys.readouterr().err


def test_source_of_a_store_of_another_size_is_kept(
    tmp_path: Path, painted: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was deleted after a look at the number of frames alone, and the larger store could not be made any more."""
    place(painted, tmp_path / "videos/a/x.mp4")
    assert convert(tmp_path, "--short-side", 40) == 0
    assert convert(tmp_path, "--short-side", 50, "--delete-source") == 0
    assert (tmp_path / "videos/a/x.mp4").exists()
    assert "x.mp4: not deleted" in caplog.text
    assert (
        "holds frames of 40x40, not 50x50; was it converted with another --short-side than 50?" in caplog.text
    )
    assert convert(tmp_path, "--short-side", 40, "--delete-source") == 0
    assert not (tmp_path / "videos/a/x.mp4").exists()
    assert capsys.readouterr().out.splitlines()[1:] == ["sources kept 1", "sources deleted 1, done before 1"]


def test_rank_that_cannot_be_is_refused(
    tmp_path: Path, painted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place(painted, tmp_path / "videos/a/x.mp4")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        convert(tmp_path)
    assert "RANK 2: must be 0 to WORLD_SIZE - 1, 1" in capsys.readouterr().err


def write_labels(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["label,youtube_id,time_start,time_end", *rows]) + "\n")
    return path


def test_rows_of_label_files_are_cut_out_of_their_sources(
    tmp_path: Path, painted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place(painted, tmp_path / "videos/a/x.mp4", tmp_path / "videos/y.mkv")
    train = write_labels(tmp_path / "train.csv", "a,x,0,1", "b,y,1,2", "a,x,0,1")
    val = write_labels(tmp_path / "val.csv", "a,x,1,2", "b,gone,0,1")
    assert convert(tmp_path, "--trim", train, "--trim", val, "--delete-source") == 0
    assert capsys.readouterr().out == "converted 3, sources deleted 2, without source 1\n"
    for name, first in (("a/x_000000_000001", 0), ("a/x_000001_000002", 25), ("b/y_000001_000002", 25)):
        store = FrameStore(tmp_path / "set/jpg" / name)
        assert indices_of(store.read(range(store.n_frames))) == list(range(first, first + 25))
    assert [path.name for path in tmp_path.glob("videos/**/*.*")] == []


def test_parts_of_open_groups_of_pictures_are_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """ffmpeg complains of frames before the part, which it throws away; that was taken for damage of the video."""
    plain = make_video(tmp_path / "plain.mp4", n_frames=150, size=60)
    remake(plain, tmp_path / "videos/a/x.mp4", "-x264-params", "open-gop=1:bframes=3:keyint=30", "-crf", "10")
    labels = write_labels(tmp_path / "train.csv", "a,x,2,4", "a,x,3,5", "a,x,0,1")
    words = ["--trim", labels, "--damaged", "refuse", "--delete-source"]
    assert convert(tmp_path, *words) == 0
    assert caplog.text == ""
    assert capsys.readouterr().out == "converted 3, sources deleted 1\n"
    for name, first, last in (("2_000004", 50, 100), ("3_000005", 75, 125), ("0_000001", 0, 25)):
        store = FrameStore(tmp_path / f"set/jpg/a/x_00000{name}")
        assert indices_of(store.read(range(store.n_frames))) == list(range(first, last))


def test_the_same_command_once_more_is_no_error_though_all_sources_are_deleted(
    tmp_path: Path, painted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended with status 2, as in a folder that never held a video."""
    place(painted, tmp_path / "videos/a/x.mp4")
    assert convert(tmp_path, "--delete-source") == 0
    assert convert(tmp_path, "--delete-source") == 0
    assert capsys.readouterr().out.splitlines() == ["converted 1, sources deleted 1", "converted 0"]
    with pytest.raises(SystemExit):
        convert(tmp_path)
    (tmp_path / "set/converted.csv").unlink()
    with pytest.raises(SystemExit):
        convert(tmp_path, "--delete-source")


def test_source_stays_until_all_its_rows_are_stores(
    tmp_path: Path, painted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place(painted, tmp_path / "videos/a/x.mp4")
    labels = write_labels(tmp_path / "train.csv", "a,x,0,1", "a,x,7,9")
    assert convert(tmp_path, "--trim", labels, "--delete-source") == 1
    assert capsys.readouterr().out == "converted 1, failed 1\n"
    assert (tmp_path / "videos/a/x.mp4").exists()


def test_source_is_deleted_after_its_store_was_read_back(
    tmp_path: Path, painted: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the store was there before, if it is whole; those that are damaged or short stay."""
    place(painted, *(tmp_path / f"videos/a/{name}.mp4" for name in ("good", "broken", "damaged")))
    data = bytearray(painted.read_bytes())
    middle = data.index(b"mdat") + 1500
    data[middle : middle + 200] = b"\xff" * 200
    (tmp_path / "videos/a/damaged.mp4").write_bytes(data)
    assert convert(tmp_path) == 0
    database = tmp_path / "set/jpg/a/broken/frames.db"
    jpeg = FrameStore(database.parent).fetch([40]).jpegs[40]
    database.write_bytes(database.read_bytes().replace(jpeg, bytes(len(jpeg))))
    place(painted, tmp_path / "videos/a/new.mp4")
    assert convert(tmp_path, "--delete-source") == 0
    assert sorted(path.stem for path in (tmp_path / "videos/a").iterdir()) == ["broken", "damaged"]
    assert capsys.readouterr().out.splitlines() == [
        "converted 3, damaged 1",
        "converted 1, sources deleted 2, sources kept 2, done before 1",
    ]
    assert "broken.mp4: not deleted" in caplog.text
    assert "frame 40 does not decode" in caplog.text


@pytest.mark.parametrize(("choice", "status", "left"), [("keep", 0, ["x"]), ("refuse", 1, [])])
def test_damaged_video_is_kept_or_refused(
    tmp_path: Path, real_videos: Path, choice: str, status: int, left: list[str]
) -> None:
    place(real_videos / "corrupted.mp4", tmp_path / "videos/a/x.mp4")
    assert convert(tmp_path, "--damaged", choice) == status
    assert sorted(path.name for path in (tmp_path / "set/jpg/a").iterdir()) == left
    reason = "Invalid NAL unit size (-1 > 551)."
    expected = ("damaged", reason, "28") if choice == "keep" else ("failed", reason, "0")
    assert ledger(tmp_path) == [("a/x", *expected)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time-limit", "0"], "--time-limit 0: must be above 0"),
        (["--time-limit", "inf"], "--time-limit inf: must be above 0, and at most 1e+06 seconds"),
        (["--time-limit", "1e7"], "--time-limit 1e+07: must be above 0, and at most 1e+06 seconds"),
        (["--damaged", "maybe"], "invalid choice: 'maybe'"),
        (["--trim", "labels.csv"], "videos: holds none of the 1 sources, as a/z.mp4"),
    ],
)
def test_bad_arguments(
    tmp_path: Path,
    painted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    place(painted, tmp_path / "videos/a/x.mp4")
    write_labels(tmp_path / "labels.csv", "a,z,0,1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        convert(tmp_path, *options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_source_that_is_there_twice_is_an_error(
    tmp_path: Path, painted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place(painted, tmp_path / "videos/a/x.mp4", tmp_path / "videos/a/x.avi")
    with pytest.raises(SystemExit):
        convert(tmp_path, "--trim", write_labels(tmp_path / "labels.csv", "a,x,0,1"))
    assert "x.mp4 and x.avi would be one source, x" in capsys.readouterr().err
