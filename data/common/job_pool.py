"""Jobs in processes of their own, so that a crash, a leak or a hang of one costs that one alone."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, NamedTuple, TypeVar

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
LONGEST_WAIT = 1e6  # seconds: the system's calls count milliseconds, in 32 bits

Job = TypeVar("Job")
Result = TypeVar("Result")


class JobCrashedError(Exception):
    """A job whose process was killed, died, or took too long; the message says which."""


class Ended(NamedTuple, Generic[Job, Result]):
    """A job that is over: what it returned, or what it raised. JobCrashedError where its process could do neither."""

    job: Job
    result: Result | None
    error: Exception | None


class _Running(NamedTuple, Generic[Job]):
    job: Job
    process: BaseProcess
    since: float


def run_in_subprocesses(
    work: Callable[[Job], Result],
    jobs: Iterable[Job],
    *,
    workers: int,
    time_limit: float,
    delay: Callable[[], float] = lambda: 0.0,
) -> Iterator[Ended[Job, Result]]:
    """Do `work(job)` in a process each, at most `workers` at a time and `time_limit` seconds long; yields what ended.

    Before a job is taken, `delay()` says how many seconds to wait yet; it is then taken when it says 0. A process is
    killed with all that it started: when its job is over, when it takes too long, when the iteration is left in any
    way, and when this process is killed itself.
    """
    waiting = iter(jobs)
    running: dict[Connection, _Running[Job]] = {}
    lifeline = os.pipe()  # its writing end is open as long as this process lives, and nobody else has it
    exhausted = False
    try:
        while True:
            until_next = None
            while not exhausted and len(running) < workers:
                until_next = delay()
                if until_next > 0:
                    break
                try:
                    job = next(waiting)
                except StopIteration:
                    exhausted = True
                    break
                results, started = _start(work, job, lifeline)
                running[results] = started
            if exhausted and not running:
                return
            now = time.monotonic()
            ends = [one.since + time_limit - now for one in running.values()]
            timeout = min([*ends, *([until_next] if until_next else [])])
            for results in wait(list(running), max(timeout, 0)):
                yield _harvest(results, running.pop(results))
            for results, one in list(running.items()):
                if time.monotonic() - one.since >= time_limit:
                    _kill(running.pop(results).process)
                    results.close()
                    yield Ended(one.job, None, JobCrashedError(f"not done after {time_limit:g} s"))
    finally:
        for one in running.values():
            _kill(one.process)
        for descriptor in lifeline:
            os.close(descriptor)


def _start(
    work: Callable[[Job], Result], job: Job, lifeline: tuple[int, int]
) -> tuple[Connection, _Running[Job]]:
    context = multiprocessing.get_context("fork")
    results, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, job, sender, lifeline), daemon=True)
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, STOP_SIGNALS
    )  # a signal comes before it is there, or after
    try:
        process.start()
        _lead_group(process.pid)
    finally:
        sender.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return results, _Running(job, process, time.monotonic())


def _run(work: Callable[[Job], Result], job: Job, sender: Connection, lifeline: tuple[int, int]) -> None:
    """What the process does."""
    _lead_group(0)
    for number in STOP_SIGNALS:  # the parent decides
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    reading, writing = lifeline
    os.close(writing)
    threading.Thread(target=_die_with_parent, args=(reading,), daemon=True).start()
    try:
        answer = (work(job), None)
    except Exception as error:
        error.add_note(traceback.format_exc())
        answer = (None, error)
    sender.send(answer)


def _lead_group(pid: int) -> None:
    """Parent and child both do this, so that it is done whoever comes first."""
    with suppress(PermissionError, ProcessLookupError):  # the child is further already
        os.setpgid(pid, pid)


def _die_with_parent(reading: int) -> None:
    os.read(reading, 1)
    os.killpg(0, signal.SIGKILL)


def _harvest(results: Connection, one: _Running[Job]) -> Ended[Job, Result]:
    try:
        result, error = results.recv()
    except (EOFError, OSError):  # closed, perhaps within an answer, as only the end of a process does
        result, error = None, JobCrashedError(_cause_of_death(one.process))
    finally:
        results.close()
        _kill(one.process)
    return Ended(one.job, result, error)


def _cause_of_death(process: BaseProcess) -> str:
    process.join()
    if process.exitcode >= 0:
        return f"its process ended with status {process.exitcode}"
    return f"its process was killed by {signal.Signals(-process.exitcode).name}"


def _kill(process: BaseProcess) -> None:
    """A process and all that it started, which may be alive where it is not; waits until it has gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    process.close()


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Within, SIGINT and SIGTERM raise KeyboardInterrupt, also where a shell's background job ignores SIGINT."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = [(number, signal.signal(number, interrupt)) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
