"""Writing so that a reader, also one after a crash, sees the old file or the new one and never half of one."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np


def open_without_waiting(path: str, flags: int) -> int:
    """For `open(opener=...)`: a named pipe is empty, instead of keeping its reader waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


LOST_AND_FOUND = "lost+found"  # at the top of many disks, for root alone
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)  # what file systems without them say


def exclusive_lock(file: IO[Any]) -> None:
    """Wait until no other process has a file, which is this one's until it is closed; on a disk without locks, for
    nothing.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk; some file systems cannot say it of folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def atomic_write(path: Path, text: str) -> None:
    """Write a text file beside its place, flush it, and rename it."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            staging.write_bytes(_encoded(text, path))
            flush_to_disk(staging)
            staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an `.npz` beside its place, and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            with staging.open("wb") as file:
                np.savez_compressed(file, **arrays)
            flush_to_disk(staging)
            staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _encoded(text: str, path: Path) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.end]
        raise ValueError(f"{path}: cannot hold a name that is not UTF-8, near {near!a}") from None


def remove_leftovers(folder: Path) -> int:
    """Remove what killed writers left beside its place in a folder where nobody is writing; returns how many."""
    leftovers = [path for path in folder.glob(".*") if re.search(r".\.\d+$", path.name)]
    for path in leftovers:
        path.unlink()
    return len(leftovers)


def atomic_append(path: Path, header: str, lines: str) -> None:
    """Add whole lines to the end of a text file and flush them; where that fails, the file is as it was before.

    Half a line at its end, which only a crash can have left, is dropped first. A file without a line begins with
    `header`.
    """
    with naming(path), path.open("ab+", buffering=0) as file:
        before = _end_of_lines(file)
        file.truncate(before)
        left = memoryview((lines if before else header + lines).encode("utf-8"))
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line of a file ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of writing do not say which file, or name the one beside its place; within, they name `path`."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if error.errno is None or not (named is None or Path(named).name.startswith(f".{path.name}.")):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
