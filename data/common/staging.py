"""Folders beside a place, in which something is made before it is moved there; each belongs to one process.

A file in it is locked, not the folder: network file systems hand on locks of files alone, so that a process on another
machine sees them too.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.common.atomic_io import NO_LOCKS

ENDING = ".partial"
CLAIM = "claim"
TRIES = 100  # folders that another process takes for abandoned before they are locked


@contextmanager
def staging_folder(parent: Path, name: str = "") -> Iterator[Path | None]:
    """A folder below `parent` that is this process's alone, and removed in the end.

    None where another process has the one of that `name`; without a name one is found that nobody has.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for _ in range(1 if name else TRIES):
        folder = parent / f".{name or secrets.token_hex(8)}{ENDING}"
        folder.mkdir(exist_ok=True)
        owner = _claimed(folder, without_locks=True)
        if owner is not None:
            break
    else:
        if not name:
            raise OSError(f"{parent}: no folder in it could be locked")
        yield None
        return
    try:
        yield folder
    finally:
        _remove(folder, owner)


def remove_abandoned(root: Path) -> int:
    """Remove such folders `root/<class>/.<any>.partial` whose process was killed; returns their number."""
    removed = 0
    for folder in (path for path in root.glob(f"*/.*{ENDING}/") if not path.is_symlink()):
        with suppress(OSError):  # is gone by now, or holds what no process of ours has put there
            owner = _claimed(folder, without_locks=False)
            if owner is not None:
                _remove(folder, owner)
                removed += 1
    return removed


def _claimed(folder: Path, *, without_locks: bool) -> int | None:
    """The descriptor that holds a folder until it is closed; None where another process holds or has removed it.

    `without_locks`: whether to take it where the file system has none, and so nobody can know.
    """
    claim = folder / CLAIM
    try:
        owner = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = os.path.samestat(os.fstat(owner), claim.stat())
    except (BlockingIOError, FileNotFoundError):
        free = False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(owner)
            raise
        free = without_locks
    if free:
        return owner
    os.close(owner)
    return None


def _remove(folder: Path, owner: int) -> None:
    """The claim last: who takes the folder after that finds nothing in it that is still to be removed."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != CLAIM:
            path.unlink(missing_ok=True)
    (folder / CLAIM).unlink(missing_ok=True)
    os.close(owner)
    with suppress(OSError):  # somebody has taken it again
        folder.rmdir()
