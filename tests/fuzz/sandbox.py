"""A child process for untrusted inputs, with bounds on memory and time, that reports programs, connections and files.

The child is forked, works through numbered inputs and reports each outcome. If an input kills it or takes too long,
that is the outcome, and another child continues with the next input.
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
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.verdict import Generator, Outcome, Verdict, judge

MAX_ADDRESS_SPACE = 8 * 10**9  # bytes beyond those of the process when it starts
TIMEOUT = 120.0  # seconds for one input, on a busy machine
ALLOWED_PROGRAMS = ("ffmpeg", "fc-list")  # matplotlib finds fonts with the latter
FORBIDDEN_EVENTS = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"),
    *("socket.connect", "socket.bind", "urllib.Request", "ftplib.connect", "ctypes.dlopen"),
}

Numbered = tuple[int, Generator]


def run_in_sandbox(inputs: Sequence[Numbered], folder: Path, seed: int) -> Iterator[tuple[int, Outcome]]:
    """Yield (number, outcome) of each input, in order. An input is a function of (seed, number)."""
    fork = multiprocessing.get_context("fork")  # torch is imported already
    pending = list(inputs)
    while pending:
        receiver, sender = fork.Pipe(duplex=False)
        child = fork.Process(target=_work, args=(pending, folder, seed, sender))
        child.start()
        sender.close()
        alive = True
        while pending and alive:
            number, _ = pending.pop(0)
            alive = receiver.poll(TIMEOUT)
            outcome = Outcome(Verdict.UNCLEAR, f"no end after {TIMEOUT:.0f} s")
            if alive:
                try:
                    outcome = receiver.recv()
                except EOFError:
                    alive = False
                    child.join()
                    output = (folder / "output").read_text(errors="replace")[-600:]
                    outcome = Outcome(
                        Verdict.UNCLEAR, f"killed its process, exit code {child.exitcode}: {output}"
                    )
            yield number, outcome
        with contextlib.suppress(ProcessLookupError):  # including the processes it started
            os.killpg(child.pid, signal.SIGKILL)
        child.join()


def _work(inputs: Sequence[Numbered], folder: Path, seed: int, sender: Connection) -> None:
    os.setsid()
    shutil.rmtree(folder, ignore_errors=True)
    home, cache, place = (folder / name for name in ("outside", "cache", "input"))
    for path in (home, cache):
        path.mkdir(parents=True)
    os.environ.update(HOME=str(home), TMPDIR=str(cache), MPLCONFIGDIR=str(cache), XDG_CACHE_HOME=str(cache))
    logging.raiseExceptions = False  # log records after the command's streams are closed
    with (folder / "output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MAX_ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    watch = Watch()
    for number, generate in inputs:
        place.mkdir()
        os.chdir(place)
        fuzz_input = generate(place, random.Random(f"{seed} {number}"))
        watch.start()
        outcome = judge(fuzz_input)
        violation = watch.stop() or _files_outside(folder)
        sender.send(Outcome(Verdict.UNCLEAR, violation) if violation else outcome)
        os.chdir(folder)
        shutil.rmtree(place)
    sender.close()


def _files_outside(folder: Path) -> str:
    """Return what was written beside the input's folder, and remove it; "" if nothing was."""
    found = [path for path in folder.iterdir() if path.name not in ("outside", "cache", "input", "output")]
    found += (folder / "outside").iterdir()
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return f"wrote outside of its folder: {sorted(path.name for path in found)}" if found else ""


class Watch:
    """An audit hook that notices programs and connections that an input starts."""

    def __init__(self) -> None:
        self.is_on = False
        self.violation = ""
        sys.addaudithook(self._audit)

    def start(self) -> None:
        self.is_on, self.violation = True, ""

    def stop(self) -> str:
        """Return what was forbidden, "" if nothing was."""
        self.is_on = False
        return self.violation

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        is_local = event.startswith("socket.") and isinstance(args[1], str)  # a pool's processes
        if event == "subprocess.Popen" and not Path(str(args[0])).name.startswith(ALLOWED_PROGRAMS):
            self.violation = f"started {args[0]}"
        elif event in FORBIDDEN_EVENTS and not is_local:
            self.violation = f"{event} {str(args)[:100]}"
