"""A process of its own for hostile input: little memory, a deadline, and eyes on what it does.

The child forks, works through numbered inputs and reports each. One that kills it, or that it does not come back
from, is counted, and another child goes on after it.
"""

import contextlib
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.verdict import Maker, Outcome, Verdict, judge

ADDRESSES = 8 * 10**9  # bytes that may be asked for, beyond those of the process when it starts
MEMORY = 10**9  # of these, bytes that may be used
DEADLINE = 120.0  # seconds that one input may take, on a machine that has other things to do
PROGRAMS = {"ffmpeg", "fc"}  # fc-list, by which matplotlib finds fonts
CACHES = ("TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")

Numbered = tuple[int, str, Maker]


def run_confined(inputs: Sequence[Numbered], folder: Path, seed: int) -> Iterator[tuple[int, Outcome]]:
    """(number, outcome) of each, in order, made and used in `folder`. An input is a function of (seed, number)."""
    fork = multiprocessing.get_context("fork")  # torch is imported already
    todo = list(inputs)
    while todo:
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=_work, args=(todo, folder, seed, sender))
        child.start()
        sender.close()
        while todo:
            if not receiver.poll(DEADLINE):
                end = f"no end after {DEADLINE:.0f} s"
            else:
                try:
                    yield todo[0][0], receiver.recv()
                    todo = todo[1:]
                    continue
                except EOFError:
                    child.join(5)
                    end = f"its process died with status {child.exitcode}: {_end_of(folder / 'output')}"
            yield todo[0][0], Outcome(todo[0][1], Verdict.UNCLEAR, end)
            todo = todo[1:]
            break
        with contextlib.suppress(ProcessLookupError):  # with the processes that it has started
            os.killpg(child.pid, signal.SIGKILL)
        child.join()


def _work(inputs: Sequence[Numbered], folder: Path, seed: int, sender: Connection) -> None:
    os.setsid()
    outside = folder / "outside"
    shutil.rmtree(folder, ignore_errors=True)
    outside.mkdir(parents=True)
    os.chdir(outside)
    temporary = folder / "temporary"
    temporary.mkdir()
    os.environ.update(HOME=str(outside), **dict.fromkeys(CACHES, str(temporary)))
    tempfile.tempdir = None
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with (folder / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_addresses()
    watch = Watch(temporary)
    for number, _, make in inputs:
        place = folder / "input"
        place.mkdir()
        attempt = make(place, random.Random(f"{seed} {number}"))
        with watch.on(place):
            outcome = judge(attempt)
        offence = watch.offence or _left_outside(outside)
        if watch.memory > MEMORY:
            offence = f"took {watch.memory / 1e9:.1f} GB of memory"
        sender.send(outcome._replace(verdict=Verdict.UNCLEAR, detail=offence) if offence else outcome)
        _remove(place)
    sender.close()
    os._exit(0)


def _end_of(path: Path) -> str:
    return path.read_text(errors="replace")[-600:] if path.exists() else ""


def _limit_addresses() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _left_outside(outside: Path) -> str:
    left = sorted(path.name for path in outside.iterdir())
    for path in outside.iterdir():
        _remove(path)
    return f"wrote outside of its folder: {left}" if left else ""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _memory(name: str) -> int:
    """Bytes that this process has now (VmRSS), or has had at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


class Watch:
    """Sees, by an audit hook, files written outside of a folder, programs that start, and connections; and memory."""

    WRITES = {
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.symlink",
        "os.link",
        "os.truncate",
        "os.chmod",
    }
    STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"}
    CONNECTS = {"socket.connect", "socket.bind", "urllib.Request", "ftplib.connect", "ctypes.dlopen"}

    def __init__(self, temporary: Path) -> None:
        self.temporary = str(temporary)
        self.place = ""
        self.offence = ""
        self.memory = 0
        sys.addaudithook(self._see)

    @contextmanager
    def on(self, place: Path) -> Iterator[None]:
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
        self.place, self.offence = str(place), ""
        try:
            yield
        finally:
            self.place = ""
            self.memory = _memory("VmHWM") - before

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.place:
            return
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | bytes) and self._is_outside(path):
                self.offence = f"opened {path!r} to write"
        elif event in self.WRITES:
            paths = [path for path in arguments if isinstance(path, str | bytes)]
            if paths and self._is_outside(paths[-1], arguments[-1]):
                self.offence = f"{event} {paths!r}"
        elif event == "subprocess.Popen":
            if Path(str(arguments[0])).name.split("-")[0] not in PROGRAMS:
                self.offence = f"started {arguments[0]}"
        elif event in self.STARTS | self.CONNECTS:
            self.offence = f"{event} {str(arguments)[:100]}"

    def _is_outside(self, path: str | bytes, folder: object = -1) -> bool:
        """`folder` is the descriptor of the one that the path begins at, where it is not -1."""
        path = os.fsdecode(path)
        if path == os.devnull or "__pycache__" in path:  # imports that come late
            return False
        if isinstance(folder, int) and folder >= 0:
            path = os.path.join(f"/proc/self/fd/{folder}", path)
        return not os.path.realpath(path).startswith((self.place, self.temporary))
