"""A training process in a session of its own: its log, its exit code, and what it leaves behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.commands import REPOSITORY

SILENCE = 240.0  # seconds after which a run without a log line hangs, also on a busy machine
CLEANUP = 20.0  # seconds after which nothing of an ended run may be left
COMMAND = ["-m", "tests.tiny_network", "train"]
FAKE_CLOCK = Path(__file__).parent / "fake_clock"


class BrokenPromiseError(AssertionError):
    """A run did what docs/reliability.md says no run does."""


class TrainingProcess:
    """`python -m train` with a wall clock that jumps. `lines` is its log so far, `steps` the number of logged steps."""

    def __init__(self, args: Sequence[str], temporary: Path) -> None:
        temporary.mkdir()
        path = os.pathsep.join([str(FAKE_CLOCK), str(REPOSITORY)])
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, *COMMAND, *args],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "PYTHONPATH": path},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.steps = 0
        self.signals: set[int] = set()
        self.last_line = time.monotonic()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                self.lines.append(line.rstrip("\n"))
                self.steps += re.search(r" epoch \d+/\d+ step \d+/", line) is not None
                self.last_line = time.monotonic()

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_running(self) -> bool:
        """Return whether it has not ended. Raises BrokenPromiseError if it hangs."""
        if self.process.poll() is not None:
            return False
        if time.monotonic() - self.last_line > SILENCE:
            self.kill()
            raise BrokenPromiseError(f"no log line for {SILENCE:.0f} s: {self.log_tail()}")
        return True

    def wait_until(self, condition: Callable[[], bool], seconds: float = SILENCE) -> bool:
        """Return whether `condition` held before the process ended and the time was up."""
        deadline = time.monotonic() + seconds
        while self.is_running() and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def wait(self) -> int:
        """Wait until it ends, and return `exit_code()`."""
        try:
            self.wait_until(lambda: False, seconds=3600)
        finally:
            self.kill()
        return self.exit_code()

    def workers(self) -> list[int]:
        """Return the process ids of its dataloader workers."""
        with suppress(OSError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(child) for child in children.split()]
        return []

    def send(self, number: int, pid: int | None = None) -> None:
        """Send a signal to one process, or to all of the session."""
        self.signals.add(number)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number) if pid is None else os.kill(pid, number)

    def kill(self) -> None:
        """Kill it with all processes of its session, if it has not ended by itself."""
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
            self.process.wait()

    def exit_code(self) -> int:
        """Return the exit code. Raises BrokenPromiseError for a traceback, or an error that is not one line."""
        self._reader.join(timeout=CLEANUP)
        code = self.process.wait()
        if any("Traceback" in line or "Exception ignored" in line for line in self.lines):
            raise BrokenPromiseError(f"traceback: {self.log_tail()}")
        errors = [line for line in self.lines if line.startswith("python -m train: error: ")]
        if code in (1, 2) and len(errors) != 1:
            raise BrokenPromiseError(f"exit code {code} with {len(errors)} errors: {self.log_tail()}")
        # a signal ends the run with 128 + n; before and after it has a handler, with -n
        allowed = {0, 1, 2, -signal.SIGKILL}
        for number in self.signals & {signal.SIGTERM, signal.SIGINT}:
            allowed |= {128 + number, -number}
        if code not in allowed:
            raise BrokenPromiseError(f"exit code {code}: {self.log_tail()}")
        return code

    def log_tail(self) -> str:
        return "\n".join(["", *self.lines[-40:]])

    def check_cleanup(self) -> None:
        """Raise BrokenPromiseError if processes, or temporary files of a run that was not killed, are left."""
        deadline = time.monotonic() + CLEANUP
        while left := _processes_of(self.pid):
            if time.monotonic() > deadline:
                raise BrokenPromiseError(f"left behind: {left}{self.log_tail()}")
            time.sleep(0.1)
        # torch keeps what it compiled under the user's name, for the next process
        files = [path for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]
        if files and self.process.returncode != -signal.SIGKILL:
            raise BrokenPromiseError(f"left behind: {files}{self.log_tail()}")
        shutil.rmtree(self.temporary)


def _processes_of(session: int) -> list[str]:
    """Return the processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            match = re.match(r"\d+ \((.*)\) (\S) \d+ \d+ (\d+)", path.read_text(), re.DOTALL)
            assert match is not None
            if int(match[3]) == session and match[2] not in "ZX":
                found.append(f"process {path.parent.name} ({match[1]})")
    return found
