"""How many cores there are to share."""

import os

import pytest

from data.common.cpus import own_cores, usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Macs hold no process on a core")
def test_cores_are_those_that_the_process_may_use() -> None:
    """A batch job with 2 of a machine's 128 cores started 8 workers."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before)[:1])
        assert usable_cores() == own_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


def test_processes_of_torchrun_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.common.cpus.usable_cores", lambda: 16)
    for processes, own in ((1, 16), (4, 4), (5, 3), (32, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert own_cores() == own


def test_a_machine_that_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Macs have no such call; `python -m data.convert --help` ended in a traceback there."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()
