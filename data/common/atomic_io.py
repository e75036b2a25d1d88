"""Write files so that a reader, also after a crash, finds the old content or the new, never half of it."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def flush_to_disk(path: Path) -> None:
    """Flush a file or folder to the disk; some network file systems refuse folders, which is no error."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end of the block, flush the file there and rename it to `path`.

    After an error `path` is unchanged and the temporary file removed. An OSError names `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> int:
    """Remove temporary files of killed writers from a folder that nobody is writing to; return their number."""
    leftovers = [path for path in folder.glob(".*") if re.search(r".\.\d+$", path.name)]
    for path in leftovers:
        path.unlink()
    return len(leftovers)


def atomic_write(path: Path, text: str) -> None:
    """Write a text file. Raises ValueError for text that UTF-8 cannot encode."""
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = text[max(0, error.start - 20) : error.end]
        raise ValueError(f"{path}: cannot hold a name that is not UTF-8, near {near!a}") from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write NumPy arrays as a compressed `.npz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
