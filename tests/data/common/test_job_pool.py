"""Jobs in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from data.common.job_pool import JobCrashedError, run_in_subprocesses
from tests.data.crash_recovery import is_alive


def work(job: str) -> str:
    if job == "raise":
        raise ValueError("no such thing")
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "exit":
        os._exit(3)
    if job.startswith("sleep "):
        subprocess.run(job.split(), check=True)
    return job.upper()


def test_each_ends_with_its_result_its_error_or_its_death() -> None:
    jobs = ["a", "raise", "die", "exit", "b"]
    ended = {one.job: one for one in run_in_subprocesses(work, jobs, workers=2, time_limit=60)}
    assert {name: ended[name].result for name in "ab"} == {"a": "A", "b": "B"}
    assert {name: (type(one.error), str(one.error)) for name, one in ended.items() if one.error} == {
        "raise": (ValueError, "no such thing"),
        "die": (JobCrashedError, "its process was killed by SIGKILL"),
        "exit": (JobCrashedError, "its process ended with status 3"),
    }
    assert "in work" in ended["raise"].error.__notes__[0]  # where it was raised


def test_time_limit_ends_a_job_and_what_it_started() -> None:
    sleep = "sleep 1000.1"
    ended = list(run_in_subprocesses(work, [sleep, "a"], workers=1, time_limit=0.5))
    assert [str(one.error or one.result) for one in ended] == ["not done after 0.5 s", "A"]
    assert not is_running(sleep)


def test_leaving_ends_all_that_is_at_work() -> None:
    sleeps = ["sleep 1000.2", "sleep 1000.3"]
    with closing(run_in_subprocesses(work, [*sleeps, "a"], workers=3, time_limit=60)) as endings:
        assert next(endings).result == "A"
        for sleep in sleeps:
            wait_for(lambda sleep=sleep: is_running(sleep))
    assert not any(is_running(sleep) for sleep in sleeps)


def test_jobs_begin_when_they_may_and_results_come_meanwhile() -> None:
    began: list[float] = []

    def delay() -> float:
        if began and time.monotonic() < began[-1] + 0.3:
            return began[-1] + 0.3 - time.monotonic()
        began.append(time.monotonic())
        return 0.0

    ended = []
    for one in run_in_subprocesses(work, ["a", "b", "c"], workers=3, time_limit=60, delay=delay):
        ended.append((one.job, len(began)))
    assert ended == [("a", 1), ("b", 2), ("c", 3)]


def test_nothing_outlives_a_process_that_is_killed(tmp_path: Path, repository: Path) -> None:
    code = (
        "import subprocess, sys; from pathlib import Path; from data.processes import run_in_subprocesses\n"
        "def work(place):\n"
        "    sleeper = subprocess.Popen(['sleep', '1000'])\n"
        "    Path(place, 'half').write_text(str(sleeper.pid))\n"
        "    Path(place, 'half').rename(Path(place, 'pid'))\n"
        "    sleeper.wait()\n"
        "list(run_in_subprocesses(work, sys.argv[1:], workers=1, time_limit=60))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=repository)
    wait_for((tmp_path / "pid").exists)
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive((tmp_path / "pid").read_text()))


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_running(command: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if path.read_bytes().split(b"\0")[:-1] == command.encode().split() and is_alive(path.parent.name):
                return True
    return False
