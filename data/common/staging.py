"""Temporary folders, locked by the process that writes to them, so that those of killed processes can be removed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

SUFFIX = ".partial"


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Yield a new locked folder `parent/.<random>.partial`, and remove it at the end of the block.

    Write there and rename the result into `parent`, which is on the same file system.
    """
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=".", suffix=SUFFIX, dir=parent))
        with suppress(Timeout, FileNotFoundError):  # `remove_abandoned` of another process was faster
            lock = _lock(folder)
            break
    try:
        yield folder
    finally:
        _remove(folder, lock)


def remove_abandoned(root: Path) -> None:
    """Remove the staging folders `root/<class>/.<random>.partial` of killed processes."""
    for folder in root.glob(f"*/.*{SUFFIX}"):
        with suppress(OSError):  # in use (Timeout), or of another user
            _remove(folder, _lock(folder))


def _lock(folder: Path) -> FileLock:
    """Lock a file in a folder, as network file systems do not lock folders. Raises Timeout where it is locked."""
    lock = FileLock(folder / "lock", timeout=0)
    lock.acquire()
    return lock


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    with suppress(OSError):  # left where NFS keeps an open file
        folder.rmdir()
