"""data.convert --half-level and --add-half-level."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from data.frame_store import FrameStore
from tests.commands import error_of, main_of
from tests.data.helpers import make_video
from tests.data.test_frame_store import write_foreign_store
from tests.synthetic_frames import painted_jpegs

main = main_of("data.convert")


def has_half_level(folder: Path, n_frames: int) -> bool:
    with closing(sqlite3.connect(folder / "frames.db")) as connection:
        sizes = connection.execute("SELECT height, width FROM HalfImages").fetchall()
    return sizes == [FrameStore(folder).read([0]).shape[1:3]] * n_frames


def test_half_level_is_written_or_added_to_stores_that_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    convert = [str(tmp_path / "videos"), str(tmp_path / "set")]
    (tmp_path / "videos/a/frames").mkdir(parents=True)
    make_video(tmp_path / "videos/a/with.mp4", n_frames=12)
    for number, jpeg in enumerate(painted_jpegs(3)):
        (tmp_path / f"videos/a/frames/img_{number:05d}.jpg").write_bytes(jpeg)
    assert main([*convert, "--half-level"]) == 0
    for name in ("without", "corrupt"):
        shutil.copy(tmp_path / "videos/a/with.mp4", tmp_path / f"videos/a/{name}.mp4")
    assert main(convert) == 0
    write_foreign_store(tmp_path / "set/jpg/b/theirs", painted_jpegs(3))
    (tmp_path / "set/jpg/a/corrupt/frames.db").write_bytes(b"not a database" * 99)
    capsys.readouterr()
    command = ["--add-half-level", str(tmp_path / "set"), "--workers", "2"]
    assert main(command) == 1
    printed = capsys.readouterr().out.strip().split(", ")
    assert sorted(printed) == ["done before 2", "failed 1", "foreign 1", "half level added 1"]
    assert "set/jpg/a/corrupt: half level not added, " in caplog.text
    shutil.rmtree(tmp_path / "set/jpg/a/corrupt")
    assert main(command) == 0
    assert "done before 3" in capsys.readouterr().out
    for name, n_frames in (("with", 12), ("without", 12), ("frames", 3)):
        assert has_half_level(tmp_path / "set/jpg/a" / name, n_frames)


def test_half_level_of_no_stores_or_of_videos_is_an_error(tmp_path: Path) -> None:
    message = "has no stores jpg/<class>/<id>/frames.db"
    assert message in error_of(main, "--add-half-level", str(tmp_path))
    assert "unrecognized arguments: set" in error_of(main, "videos", "set", "--add-half-level")
    assert "unrecognized arguments: --half-level" in error_of(main, "--add-half-level", "set", "--half-level")
    assert "required: DATASET" in error_of(main, "--half-level", "set")
