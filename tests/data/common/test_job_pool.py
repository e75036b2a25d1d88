"""Jobs in threads with child processes that never outlive them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from data.common.job_pool import JobTimeoutError, child_process, run_jobs
from tests.data.crash_recovery import is_alive

SECONDS = 1000 + os.getpid()  # of sleeping processes, unlike those of tests that run at the same time


def work(job: str) -> str:
    if job == "raise":
        raise ValueError("no such thing")
    if job.startswith("sleep "):
        with child_process(["sh", "-c", f"{job}; true"], timeout=60) as process:
            return str(process.wait())
    return job.upper()


def test_each_job_is_yielded_with_its_result_and_an_error_is_raised() -> None:
    assert dict(run_jobs(work, ["a", "b", "c"], workers=2)) == {"a": "A", "b": "B", "c": "C"}
    with pytest.raises(ValueError, match="no such thing"):
        list(run_jobs(work, [f"sleep {SECONDS}.6", "raise"], workers=2))
    wait_for(lambda: not is_running(f"sleep {SECONDS}.6"))  # a killed grandchild ends when it is scheduled


def test_jobs_are_taken_when_a_worker_is_free() -> None:
    taken = []
    jobs = (taken.append(job) or job for job in "abcde")
    with closing(run_jobs(work, jobs, workers=2)) as results:
        next(results)
        assert len(taken) <= 4


def test_time_limit_kills_a_child_and_its_children() -> None:
    started = time.monotonic()
    with (
        pytest.raises(JobTimeoutError, match=r"timed out after 0\.5 s"),
        child_process(["sh", "-c", f"sleep {SECONDS}.1; true"], timeout=0.5) as process,
    ):
        raise ValueError(f"failed with exit code {process.wait()}")
    assert time.monotonic() - started < 20
    wait_for(lambda: not is_running(f"sleep {SECONDS}.1"))


def test_leaving_the_iteration_kills_running_children() -> None:
    sleeps = [f"sleep {SECONDS}.2", f"sleep {SECONDS}.3"]
    with closing(run_jobs(work, [*sleeps, "a"], workers=3)) as results:
        assert next(results) == ("a", "A")
        for sleep in sleeps:
            wait_for(lambda sleep=sleep: is_running(sleep))
    wait_for(lambda: not any(is_running(sleep) for sleep in sleeps))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_kill_running_children(repository: Path, number: int) -> None:
    code = (
        "from data.common.job_pool import child_process, interrupted_by_signals, run_jobs\n"
        "def work(job):\n"
        "    with child_process(['sleep', job], timeout=None) as process: process.wait()\n"
        f"with interrupted_by_signals(): list(run_jobs(work, ['{SECONDS}.4', '{SECONDS}.5'], workers=2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=repository, stderr=subprocess.PIPE, text=True
    )
    for job in (f"{SECONDS}.4", f"{SECONDS}.5"):
        wait_for(lambda job=job: is_running(f"sleep {job}"))
    process.send_signal(number)
    process.send_signal(number)  # the second one of an impatient user
    errors = process.communicate(timeout=30)[1]
    assert f"KeyboardInterrupt: {signal.Signals(number).name}" in errors
    wait_for(lambda: not any(is_running(f"sleep {job}") for job in (f"{SECONDS}.4", f"{SECONDS}.5")))


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(command: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if path.read_bytes().split(b"\0")[:-1] == command.encode().split() and is_alive(path.parent.name):
                return True
    return False
