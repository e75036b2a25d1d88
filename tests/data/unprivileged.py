"""Files and folders without read permission, also where root, who may read everything, runs the tests."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run the block as another user if this one is root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """Remove all permissions of a path during the block."""
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(0o755)


@contextmanager
def public_folder() -> Iterator[Path]:
    """Yield a new folder that everybody may read, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
