"""The number of CPUs for workers."""

import os

import pytest

from data.common.cpus import available_cpus, cpus_per_rank


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="macOS has no CPU affinity")
def test_available_cpus_are_those_of_the_process() -> None:
    """A batch job with 2 of a machine's 128 CPUs started 8 workers."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before)[:1])
        assert available_cpus() == cpus_per_rank() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cpus() == len(before)


def test_ranks_on_one_machine_share_its_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.common.cpus.available_cpus", lambda: 16)
    for ranks, share in ((1, 16), (4, 4), (5, 3), (32, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert cpus_per_rank() == share
