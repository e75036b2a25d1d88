"""Staging folders: those of killed processes are removed, those in use are not."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from data.common.staging import remove_abandoned, staging_folder
from data.frame_store import has_store
from data.store_writer import write_frame_store
from tests.synthetic_frames import painted_jpegs


def test_folders_of_killed_writers_are_removed_and_those_in_use_kept(tmp_path: Path) -> None:
    folder = tmp_path / "jpg" / "class"

    def killed() -> Iterator[bytes]:
        yield from painted_jpegs(2)
        os._exit(9)

    if (child := os.fork()) == 0:
        write_frame_store(folder / "killed", killed())
    os.waitpid(child, 0)
    assert len(list(folder.iterdir())) == 1

    def in_progress() -> Iterator[bytes]:
        yield from painted_jpegs(2)
        if (child := os.fork()) == 0:
            remove_abandoned(tmp_path / "jpg")
            os._exit(0)
        os.waitpid(child, 0)
        assert len(list(folder.iterdir())) == 1

    write_frame_store(folder / "complete", in_progress())
    assert [path.name for path in folder.iterdir()] == ["complete"]
    assert has_store(folder / "complete")


def test_staging_folder_is_removed_with_its_content(tmp_path: Path) -> None:
    with staging_folder(tmp_path / "class") as first, staging_folder(tmp_path / "class") as second:
        assert first != second
        (first / "a" / "b").mkdir(parents=True)
        (first / "link").symlink_to(tmp_path)
    assert list((tmp_path / "class").iterdir()) == []


def test_folder_that_another_process_removes_while_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversion beside another one ended with a missing lock file."""
    attempts: list[FileLock] = []
    acquire = FileLock.acquire

    def fail_once(lock: FileLock, **options: Any) -> Any:
        attempts.append(lock)
        if len(attempts) == 1:
            raise FileNotFoundError(lock.lock_file)
        return acquire(lock, **options)

    monkeypatch.setattr(FileLock, "acquire", fail_once)
    with staging_folder(tmp_path / "class") as folder:
        assert Path(attempts[1].lock_file).parent == folder
