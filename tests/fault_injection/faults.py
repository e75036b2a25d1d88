"""Faults of machines, injected into a run: each function injects one, and returns whether it could be done."""

import fcntl
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fault_injection.process import TrainingProcess

# SIGTERM and SIGINT also reach workers: batch systems send them to every process of a job
WORKER_SIGNALS = (
    signal.SIGKILL,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGABRT,
    signal.SIGTERM,
    signal.SIGINT,
)
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@dataclass
class Target:
    """A run and its dataset."""

    training: TrainingProcess
    dataset: Path
    rng: random.Random

    def random_store(self) -> Path:
        return self.rng.choice(sorted(self.dataset.glob("jpg/*/*")))

    def random_worker(self) -> int | None:
        workers = self.training.workers()
        return self.rng.choice(workers) if workers else None

    def sleep(self, longest: float = 0.6) -> None:
        time.sleep(self.rng.uniform(0.02, longest))

    def send_last(self, number: int, pid: int | None) -> bool:
        """Send a signal and wait for the end of the run."""
        self.training.send(number, pid)
        self.training.wait_until(lambda: False)
        return True


Fault = Callable[[Target], bool]


def worker_killed(target: Target) -> bool:
    worker = target.random_worker()
    if worker is not None:
        target.training.send(target.rng.choice(WORKER_SIGNALS), worker)
    return worker is not None


def process_paused(target: Target) -> bool:
    """SIGSTOP, then SIGCONT, for a worker, the training process or all of them."""
    pid = target.rng.choice((target.random_worker(), target.training.pid, None))
    target.training.send(signal.SIGSTOP, pid)
    target.sleep()
    target.training.send(signal.SIGCONT, pid)
    return True


def disk_stalled(target: Target) -> bool:
    """Opening a store takes long, as on a network disk: a lease makes whoever opens it wait."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # sent to the holder of the lease
    with (target.random_store() / "frames.db").open("r+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:  # the file is being read, or its file system has no leases
            return False
        target.sleep(1.5)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def disk_full(target: Target) -> bool:
    """For a second no file can grow beyond a random size: writing fails at any byte. The run may end."""
    limit = int(
        target.rng.choice((1000, 10**4, 10**6)) * target.rng.uniform(0.1, 2.5)
    )  # semaphores need less
    try:
        resource.prlimit(target.training.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        target.sleep(1.0)
        resource.prlimit(target.training.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    except ProcessLookupError:
        return False
    return True


def run_stopped(target: Target) -> bool:
    pid = target.rng.choice((None, target.training.pid))
    return target.send_last(target.rng.choice((signal.SIGTERM, signal.SIGINT)), pid)


def run_killed(target: Target) -> bool:
    """Either all its processes or the one that trains, the largest, as when memory runs out."""
    return target.send_last(signal.SIGKILL, target.rng.choice((None, target.training.pid)))


def store_damaged(target: Target) -> bool:
    """For a moment a file of a store is truncated, overwritten, empty, missing or a folder."""
    path = target.random_store() / target.rng.choice(("frames.db", "frames.db", "n_frames"))
    original = path.with_name("original")
    shutil.copyfile(path, original)
    size = path.stat().st_size
    match target.rng.choice(("truncated", "overwritten", "empty", "missing", "folder")):
        case "truncated":
            os.truncate(path, target.rng.randrange(size))
        case "overwritten":
            with path.open("r+b") as file:
                file.seek(target.rng.randrange(size))
                file.write(target.rng.randbytes(min(size, 4096)))
        case "empty":
            os.truncate(path, 0)
        case "missing":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
    target.sleep()
    if path.is_dir():
        path.rmdir()
    original.replace(path)
    return True


# fault -> relative frequency. These change nothing in the results of a run, once it has been resumed to its end.
HARMLESS: dict[Fault, float] = {worker_killed: 4, process_paused: 3, disk_stalled: 2}
ENDING: dict[Fault, float] = {disk_full: 0.5, run_stopped: 0.25, run_killed: 0.25}
# while these last, samples are corrupt, so that the weights are others
DAMAGING: dict[Fault, float] = {store_damaged: 12, worker_killed: 1, disk_stalled: 1}
