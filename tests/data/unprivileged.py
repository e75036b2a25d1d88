"""Folders and files that may not be read, also where tests are run by root, who may read everything."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_nobody() -> Iterator[None]:
    """Within, this process is somebody else, if it was root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """Within, nobody may read this."""
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(0o755)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A new one that everybody may read; pytest's are for those who run it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
