"""Rows that survive a kill."""

import errno
import threading
from pathlib import Path

import pytest

from data.common.manifest import Manifest

COLUMNS = ("video", "status", "reason")


def test_the_last_row_of_a_video_counts(tmp_path: Path) -> None:
    ledger = Manifest(tmp_path / "new" / "x.csv", COLUMNS)
    assert ledger.read() == {}
    ledger.add("a/1", "failed", 'said "no", twice\nand left')
    ledger.add("a/2", "done", "")
    ledger.add("a/1", "done", "")
    assert ledger.read()["a/1"] == {"video": "a/1", "status": "done", "reason": ""}
    lines = ledger.path.read_text().splitlines()
    assert lines[:2] == ["video,status,reason", 'a/1,failed,"said ""no"", twice and left"']


def test_half_a_row_is_forgotten(tmp_path: Path) -> None:
    ledger = Manifest(tmp_path / "x.csv", COLUMNS)
    ledger.add("a/1", "done", "")
    with ledger.path.open("a") as file:
        file.write("a/2,do")
    assert list(ledger.read()) == ["a/1"]
    ledger.add("a/3", "done", "")
    assert list(ledger.read()) == ["a/1", "a/3"]


def test_rows_are_written_where_a_disk_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as Lustre without `flock`: a conversion ended after its first video."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("data.common.atomic_io.fcntl.flock", refuse)
    ledger = Manifest(tmp_path / "x.csv", COLUMNS)
    ledger.add("a/1", "done", "")
    assert list(ledger.read()) == ["a/1"]


def test_names_that_are_no_utf_8_are_spelt_out(tmp_path: Path) -> None:
    ledger = Manifest(tmp_path / "x.csv", COLUMNS)
    ledger.add("a/\udcff", "failed", "")
    assert list(ledger.read()) == ["a/\\udcff"]


def test_several_writers_lose_no_row(tmp_path: Path) -> None:
    def write(name: int) -> None:
        for i in range(20):
            Manifest(tmp_path / "x.csv", COLUMNS).add(f"{name}/{i}", "done", "x" * 100)

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Manifest(tmp_path / "x.csv", COLUMNS).read()) == 80


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("label,id\n")
    with pytest.raises(ValueError, match="x.csv: is no ledger, its first line must be video,status,reason"):
        Manifest(tmp_path / "x.csv", COLUMNS).read()
