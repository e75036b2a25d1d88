"""The CSV with the result of each video."""

import threading
from pathlib import Path

import pytest

from data.common.manifest import Manifest

COLUMNS = ("video", "status", "reason")


def test_last_row_of_a_video_counts(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "new" / "x.csv", COLUMNS)
    assert manifest.read() == {}
    manifest.append("a/1", "failed", 'said "no", twice\nand left')
    manifest.append("a/\udcff", "failed", "")
    manifest.append("a/1", "done", "")
    assert manifest.read()["a/1"] == {"video": "a/1", "status": "done", "reason": ""}
    assert manifest.path.read_text().splitlines() == [
        "video,status,reason",
        'a/1,failed,"said ""no"", twice and left"',
        "a/\\udcff,failed,",
        "a/1,done,",
    ]


def test_incomplete_rows_are_ignored(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "x.csv", COLUMNS)
    manifest.path.touch()
    assert manifest.read() == {}
    manifest.append("a/1", "done", "")
    with manifest.path.open("a") as file:
        file.write("b/2,do")
    assert list(manifest.read()) == ["a/1"]
    manifest.append("b/3", "done", "")  # on the same line
    manifest.append("b/4", "done", "")
    assert list(manifest.read()) == ["a/1", "b/4"]


def test_concurrent_writers_lose_no_row(tmp_path: Path) -> None:
    def write(name: int) -> None:
        for i in range(20):
            Manifest(tmp_path / "x.csv", COLUMNS).append(f"{name}/{i}", "done", "x" * 100)

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Manifest(tmp_path / "x.csv", COLUMNS).read()) == 80


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("label,id\n")
    with pytest.raises(
        ValueError, match=r"x.csv: not a manifest, its first line must be video,status,reason"
    ):
        Manifest(tmp_path / "x.csv", COLUMNS).read()
