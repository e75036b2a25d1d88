"""What batches in flight take of shared memory, through which workers send them, and how many of them fit."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from data.batching import BatchShape

logger = logging.getLogger(__name__)

SHARED_MEMORY_FOLDER = Path("/dev/shm")
BUDGET = 2 * 10**9  # bytes of it that a loader takes at most
PREFETCH = 2  # batches a worker holds ready, where they fit


def shared_memory_bytes(shapes: Sequence[BatchShape], workers: int, prefetch: int = PREFETCH) -> int:
    """What batches in flight hold of /dev/shm at most: a worker its prefetched ones, and the consumer one."""
    largest = max(shape.batch * shape.length * shape.size**2 * 3 for shape in shapes)
    return (workers * prefetch + 1) * largest if workers else 0


def fitting_prefetch(
    shapes: Sequence[BatchShape],
    workers: int,
    *,
    processes: int = 1,
    free: int | None = None,
    flags: str = "--workers or --batch-size",
) -> int:
    """How many batches a worker may hold ready: as many as fit, with those of all `processes` on this machine.

    At most PREFETCH, within BUDGET, and within the `free` bytes of /dev/shm: with a warning where the machine
    has too little, and a ValueError, with the `flags` that lower it, where it has not enough for one batch a worker.
    """
    if free is None:
        folder = SHARED_MEMORY_FOLDER
        free = shutil.disk_usage(folder).free if folder.is_dir() else BUDGET  # Linux, or another

    def needed(prefetch: int) -> int:
        return processes * shared_memory_bytes(shapes, workers, prefetch)

    if needed(1) > free:
        raise ValueError(
            f"{workers} workers need {needed(1) / 1e6:.0f} MB of {SHARED_MEMORY_FOLDER}, which has "
            f"{free / 1e6:.0f} MB free: lower {flags}, or make it larger (docker run --shm-size)"
        )
    wanted = max((count for count in range(1, PREFETCH + 1) if needed(count) <= BUDGET), default=1)
    prefetch = max(count for count in range(1, wanted + 1) if needed(count) <= free)
    if prefetch < wanted:
        logger.warning(
            "%s has %.0f MB free: workers hold %d batches ready, not %d",
            *(SHARED_MEMORY_FOLDER, free / 1e6, prefetch, wanted),
        )
    return prefetch
