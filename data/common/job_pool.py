"""A thread pool whose jobs run child processes, which a time limit, an error or Ctrl-C kills."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Job = TypeVar("Job")
Result = TypeVar("Result")

_running_children: set[subprocess.Popen[bytes]] = set()


class JobTimeoutError(Exception):
    """A child process that was killed because its time limit passed."""


@contextmanager
def child_process(
    command: Sequence[str], *, timeout: float | None = None, stdin: Any = subprocess.DEVNULL, **options: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a running process; kill it and all its children at the end of the block or after `timeout` seconds.

    Raises JobTimeoutError, instead of any error of the block, where the time limit has passed.
    """
    process = subprocess.Popen(command, stdin=stdin, start_new_session=True, **options)
    timed_out = threading.Event()

    def time_out() -> None:
        timed_out.set()
        _kill(process)

    timer = threading.Timer(timeout or 0, time_out)
    _running_children.add(process)
    try:
        if timeout is not None:
            timer.start()
        yield process
    finally:
        timer.cancel()
        _kill(process)
        _running_children.discard(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()
        if timed_out.is_set():
            raise JobTimeoutError(f"timed out after {timeout:g} s")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):  # has ended
        os.killpg(process.pid, signal.SIGKILL)


def run_jobs(
    work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int
) -> Generator[tuple[Job, Result], None, None]:
    """Run `work(job)` in at most `workers` threads at once; yield each job with its result when it has finished.

    When the iteration ends early, as where a job raises an error, the child processes of running jobs are killed and
    their threads joined.
    """
    waiting = iter(jobs)
    running: dict[Future[Result], Job] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                for job in islice(waiting, workers - len(running)):
                    running[pool.submit(work, job)] = job
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            while wait(running, timeout=0.02).not_done:  # a job may start another child after this one
                for process in tuple(_running_children):
                    _kill(process)


@contextmanager
def interrupted_by_signals(stop: Callable[[], object] | None = None) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block, or call `stop`, on the first SIGINT or SIGTERM, and ignore further ones."""

    def interrupt(number: int, _: object) -> None:
        for stop_signal in STOP_SIGNALS:
            signal.signal(stop_signal, signal.SIG_IGN)
        if stop is None:
            raise KeyboardInterrupt(signal.Signals(number).name)
        stop()

    handlers = {number: signal.signal(number, interrupt) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
