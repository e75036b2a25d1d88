"""Writing so that a reader, also one after a crash, sees the old file or the new one and never half of one."""

import os
from pathlib import Path


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a text file beside its place, flush it, and rename it."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staging.write_text(text, "utf-8", newline="")
        flush_to_disk(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
