"""How many cores there are to share."""

import os


def available_cpus() -> int:
    """Those that this process may use: fewer than the machine has in many batch jobs and containers."""
    if hasattr(os, "sched_getaffinity"):  # not on a Mac
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpus_per_rank() -> int:
    """This process's share of them, where torchrun started several on this machine; at least 1."""
    return max(1, available_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
