"""A training process in a session of its own, what it says, and what it leaves behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
SILENCE = 240.0  # seconds in which a run that is not held up does a step, also on a machine that is busy
COMMAND = ["-m", "train"]
GOING = 20.0  # seconds in which nothing is left of a run that has ended


class BrokenPromiseError(AssertionError):
    """A run did what docs/reliability.md says that none does."""


class Training:
    """`python -m train` with a clock that jumps, in a session of its own. `lines`: what it has said so far."""

    def __init__(self, words: list[str], temporary: Path) -> None:
        temporary.mkdir()
        hooks = os.pathsep.join([str(Path(__file__).parent / "clock"), str(REPOSITORY)])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "PYTHONPATH": hooks}
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, *COMMAND, *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.steps = 0
        self.sent: set[int] = set()
        self.heard = time.monotonic()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        with self.process.stderr as said:
            for line in said:
                self.lines.append(line.rstrip("\n"))
                self.steps += re.search(r" epoch \d+/\d+ step \d+/", line) is not None
                self.heard = time.monotonic()

    @property
    def pid(self) -> int:
        return self.process.pid

    def is_running(self) -> bool:
        """False once it has ended. BrokenPromiseError where it has long done nothing."""
        if self.process.poll() is not None:
            return False
        if time.monotonic() - self.heard > SILENCE:
            self.kill()
            raise BrokenPromiseError(f"silent for {SILENCE:.0f} s: {self.said()}")
        return True

    def wait_until(self, condition: Callable[[], bool], seconds: float = SILENCE) -> bool:
        """Whether it holds before the end of the process and of so many seconds."""
        deadline = time.monotonic() + seconds
        while self.is_running() and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return False

    def workers(self) -> list[int]:
        with suppress(OSError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(child) for child in children.split()]
        return []

    def send(self, number: int, process: int | None = None) -> None:
        """A signal to one process, or to all."""
        self.sent.add(number)
        with suppress(ProcessLookupError):
            if process is None:
                os.killpg(self.pid, number)
            else:
                os.kill(process, number)

    def kill(self) -> None:
        """End it with all that it has started, if it runs; what one leaves that has ended is looked for later."""
        if self.process.poll() is None:
            self.send(signal.SIGKILL)
            self.process.wait()

    def status(self) -> int:
        """How it ended. BrokenPromiseError for a traceback, or an error that is not one line."""
        self._reader.join(timeout=GOING)
        status = self.process.wait()
        if any("Traceback" in line or "Exception ignored" in line for line in self.lines):
            raise BrokenPromiseError(f"a traceback: {self.said()}")
        errors = [line for line in self.lines if line.startswith("python -m train: error: ")]
        if status in (1, 2) and len(errors) != 1:
            raise BrokenPromiseError(f"status {status} with {len(errors)} errors: {self.said()}")
        # asked to stop it says so, or it was ending already and had no handler any more
        stopped = {number: (128 + number, -number) for number in (signal.SIGTERM, signal.SIGINT)}
        allowed = {0, 1, 2, -signal.SIGKILL}.union(*(stopped.get(number, ()) for number in self.sent))
        if status not in allowed:
            raise BrokenPromiseError(f"status {status}: {self.said()}")
        return status

    def said(self) -> str:
        return "\n".join(["", *self.lines[-40:]])

    def check_nothing_is_left(self, owns_shared_memory: bool) -> None:
        """No process of its session, no temporary file and, where others, who may be killed too, have no part in it, no
        named segment of shared memory.
        """
        deadline = time.monotonic() + GOING
        while left := [*_processes_of(self.pid), *(_dead_segments() if owns_shared_memory else [])]:
            if time.monotonic() > deadline:
                raise BrokenPromiseError(f"left behind: {left}{self.said()}")
            time.sleep(0.1)
        # torch keeps what it compiled under the user's name, for the next process
        files = [path for path in self.temporary.iterdir() if not path.name.startswith("torchinductor_")]
        if files and self.process.returncode != -signal.SIGKILL:
            raise BrokenPromiseError(f"left behind: {files}{self.said()}")
        shutil.rmtree(self.temporary)


def _processes_of(session: int) -> list[str]:
    """Processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, state, _, _, in_session = re.match(
                r"\d+ \((.*)\) (\S) (\d+) (\d+) (\d+)", path.read_text(), re.DOTALL
            ).groups()
            if int(in_session) == session and state not in "ZX":
                found.append(f"process {path.parent.name} ({name})")
    return found


def _dead_segments() -> list[str]:
    """Segments of torch's whose process is gone; those of others that run keep their name for microseconds only."""
    named = [(path, re.match(r"torch_(\d+)_", path.name)) for path in SHARED_MEMORY.glob("torch_*")]
    return [str(path) for path, match in named if match and not Path(f"/proc/{match[1]}").exists()]
