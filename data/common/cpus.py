"""The number of CPUs for worker processes and threads."""

import os


def available_cpus() -> int:
    """Return the number of CPUs this process may use: in batch jobs and containers fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpus_per_rank() -> int:
    """Return the number of CPUs for each rank that torchrun started on this machine, at least 1."""
    return max(1, available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
