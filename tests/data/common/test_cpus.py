"""How many cores there are to share."""

import os

import pytest

from data.common.cpus import available_cpus, cpus_per_rank


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Macs hold no process on a core")
def test_cores_are_those_that_the_process_may_use() -> None:
    """A batch job with 2 of a machine's 128 cores started 8 workers."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before)[:1])
        assert available_cpus() == cpus_per_rank() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert available_cpus() == len(before)


def test_processes_of_torchrun_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.common.cpus.available_cpus", lambda: 16)
    for processes, own in ((1, 16), (4, 4), (5, 3), (32, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert cpus_per_rank() == own


def test_a_machine_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Macs have no such call; `python -m data.convert --help` ended in a traceback there."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cpus() == os.cpu_count()
