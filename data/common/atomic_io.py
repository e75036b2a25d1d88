"""Write files so that a reader, also after a crash, finds the old content or the new, never half of it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def flush_to_disk(path: Path) -> None:
    """Flush a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed writers from a folder that nobody is writing to."""
    for path in folder.glob(".*"):
        if re.search(r".\.\d+$", path.name):
            path.unlink()


def atomic_write(path: Path, text: str) -> None:
    """Write a text file in UTF-8; bytes of file names that are not UTF-8 are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8", "backslashreplace")


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write NumPy arrays as a compressed `.npz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
