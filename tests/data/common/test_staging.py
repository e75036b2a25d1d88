"""Folders in which something is made: those of killed processes are removed, those in work are not."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.common.staging import CLAIM, remove_abandoned, staging_folder
from data.frame_store import has_store, write_frame_store
from tests.synthetic_frames import painted_jpegs


def test_what_a_killed_writer_left_is_removed_but_not_work_in_progress(tmp_path: Path) -> None:
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
        assert remove_abandoned(tmp_path / "jpg") == 1

    write_frame_store(folder / "alive", in_progress())
    assert [path.name for path in folder.iterdir()] == ["alive"]
    assert has_store(folder / "alive")


def test_what_is_locked_is_a_file_as_network_disks_pass_on_no_other_locks(tmp_path: Path) -> None:
    """Folders were locked: on NFS another machine saw nothing of it, and removed what this one had in work."""
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with staging_folder(tmp_path / "class") as folder:
        assert (folder / CLAIM).is_file()
        other = subprocess.run(
            [sys.executable, "-c", code, str(folder / CLAIM)], capture_output=True, text=True, check=False
        )
        assert "BlockingIOError" in other.stderr
    assert list((tmp_path / "class").iterdir()) == []


def test_a_named_folder_belongs_to_one_at_a_time(tmp_path: Path) -> None:
    with staging_folder(tmp_path, "x") as first, staging_folder(tmp_path, "x") as second:
        assert first == tmp_path / ".x.partial"
        assert second is None
    with staging_folder(tmp_path, "x") as third:
        assert third == first


def test_what_is_removed_is_empty_before_another_can_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim could go first: who took the folder then lost what it had begun there."""
    left: list[str] = []  # when the lock was given back, which is the last to be closed
    close = os.close

    def closed(descriptor: int) -> None:
        left[:] = [path.name for path in (tmp_path / ".x.partial").iterdir()]
        close(descriptor)

    with staging_folder(tmp_path, "x") as folder:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "c").touch()
        (folder / "z").symlink_to(tmp_path)
        monkeypatch.setattr(os, "close", closed)
    monkeypatch.undo()
    assert left == []
    assert list(tmp_path.iterdir()) == []


def test_without_locks_work_goes_on_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lustre has none unless it is asked for them."""

    def unsupported(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / "jpg" / "a" / ".left.partial").mkdir(parents=True)
    with staging_folder(tmp_path / "jpg" / "a") as folder:
        assert folder.is_dir()
        assert remove_abandoned(tmp_path / "jpg") == 0
    assert [path.name for path in (tmp_path / "jpg" / "a").iterdir()] == [".left.partial"]


def test_a_link_in_place_of_a_half_written_store_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / "jpg" / "a").mkdir(parents=True)
    (tmp_path / "jpg" / "a" / ".x.partial").symlink_to(target)
    os.mkfifo(tmp_path / "jpg" / "a" / ".y.partial")
    assert remove_abandoned(tmp_path / "jpg") == 0
    assert target.is_dir()


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_claim_that_no_process_of_ours_made(tmp_path: Path, kind: str) -> None:
    claim = tmp_path / "jpg" / "a" / ".x.partial" / CLAIM
    claim.parent.mkdir(parents=True)
    if kind == "link":
        claim.symlink_to(tmp_path / "elsewhere")
    else:
        claim.mkdir()
    assert remove_abandoned(tmp_path / "jpg") == 0
    assert not (tmp_path / "elsewhere").exists()
