"""What happens to machines, as faults that are done to a run and taken back: each is a function that holds it up."""

import fcntl
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fault_injection.processes import SHARED_MEMORY, Training

DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@dataclass
class Scene:
    """Where a fault happens. `owns_shared_memory`: whether /dev/shm is nobody else's."""

    training: Training
    dataset: Path
    results: Path
    randomness: random.Random
    owns_shared_memory: bool

    def stores(self) -> list[Path]:
        return sorted(self.dataset.glob("jpg/*/*"))

    def store(self) -> Path:
        return self.randomness.choice(self.stores())

    def worker(self) -> int | None:
        workers = self.training.workers()
        return self.randomness.choice(workers) if workers else None

    def pause(self, longest: float = 0.6) -> None:
        time.sleep(self.randomness.uniform(0.02, longest))


Fault = Callable[[Scene], bool]  # whether it could be done


def worker_killed(scene: Scene) -> bool:
    worker = scene.worker()
    if worker is not None:
        scene.training.send(scene.randomness.choice(DEADLY), worker)
    return worker is not None


def worker_asked_to_stop(scene: Scene) -> bool:
    """As batch systems do, which send a signal to every process."""
    worker = scene.worker()
    if worker is not None:
        scene.training.send(scene.randomness.choice((signal.SIGTERM, signal.SIGINT)), worker)
    return worker is not None


def worker_stopped_and_continued(scene: Scene) -> bool:
    worker = scene.worker()
    return worker is not None and _stopped(scene, worker)


def reader_stopped_and_continued(scene: Scene) -> bool:
    return _stopped(scene, scene.training.pid)


def run_stopped_and_continued(scene: Scene) -> bool:
    return _stopped(scene, None)


def _stopped(scene: Scene, process: int | None) -> bool:
    scene.training.send(signal.SIGSTOP, process)
    scene.pause()
    scene.training.send(signal.SIGCONT, process)
    return True


def disk_stalls(scene: Scene) -> bool:
    """Whoever opens the store waits, as for a network disk: somebody has a lease of the file."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # how the kernel tells the holder that somebody waits
    with (scene.store() / "frames.db").open("r+b") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:  # it is being read, or this file system has no leases
            return False
        scene.pause(1.5)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def store_replaced_by_its_copy(scene: Scene) -> bool:
    store = scene.store()
    copy = store / "copy"
    shutil.copyfile(store / "frames.db", copy)
    copy.replace(store / "frames.db")
    return True


def disk_full(scene: Scene) -> bool:
    """At any byte of any file that is written meanwhile."""
    limit = int(scene.randomness.choice((0, 10, 1000, 10**5, 10**7)) * scene.randomness.uniform(0, 2.5))
    try:
        resource.prlimit(scene.training.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        scene.pause(1.0)
        resource.prlimit(scene.training.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    except ProcessLookupError:
        return False
    return True


def shared_memory_full(scene: Scene) -> bool:
    if not scene.owns_shared_memory:
        return False
    with shared_memory_filled(scene.randomness.randrange(200_000)):
        scene.pause(1.0)
    return True


@contextmanager
def shared_memory_filled(free: int) -> Iterator[None]:
    """Within, there are about so many bytes of it."""
    filler = SHARED_MEMORY / "filler"
    try:
        with filler.open("wb") as file:
            left = shutil.disk_usage(SHARED_MEMORY).free - free
            os.posix_fallocate(file.fileno(), 0, max(left, 1))
        yield
    except OSError:  # somebody took the rest at the same moment
        yield
    finally:
        filler.unlink(missing_ok=True)


def file_times_jump(scene: Scene) -> bool:
    """As where the clock was wrong when they were written."""
    for path in (*scene.results.rglob("*"), *scene.dataset.rglob("n_frames")):
        if path.exists():
            moment = time.time() + scene.randomness.uniform(-3e8, 3e8)
            os.utime(path, (moment, moment))
    return True


# after these, a run ends as if nothing had been; the weight says how often
HARMLESS: dict[Fault, int] = {
    worker_killed: 6,
    worker_asked_to_stop: 2,
    worker_stopped_and_continued: 2,
    reader_stopped_and_continued: 2,
    run_stopped_and_continued: 2,
    disk_stalls: 4,
    store_replaced_by_its_copy: 3,
    disk_full: 4,
    shared_memory_full: 4,
    file_times_jump: 1,
}


def _ended(scene: Scene, number: int, process: int | None) -> bool:
    scene.training.send(number, process)
    scene.training.wait_until(lambda: False)  # until it has ended
    return True


def run_asked_to_stop(scene: Scene) -> bool:
    process = scene.randomness.choice((None, scene.training.pid))
    return _ended(scene, scene.randomness.choice((signal.SIGTERM, signal.SIGINT)), process)


def run_killed(scene: Scene) -> bool:
    return _ended(scene, signal.SIGKILL, None)


def reader_killed(scene: Scene) -> bool:
    """The process that trains, which is the largest and so the first that is killed where memory runs out."""
    return _ended(scene, signal.SIGKILL, scene.training.pid)


ENDING: dict[Fault, int] = {run_asked_to_stop: 2, run_killed: 1, reader_killed: 1}


def store_damaged(scene: Scene) -> bool:
    """For a while: cut off, overwritten, empty, gone, or a folder instead."""
    path = scene.store() / scene.randomness.choice(("frames.db", "frames.db", "n_frames"))
    kept = path.with_name("kept")
    shutil.copyfile(path, kept)
    size = path.stat().st_size
    match scene.randomness.choice(("cut", "overwritten", "empty", "gone", "folder")):
        case "cut":
            os.truncate(path, scene.randomness.randrange(size))
        case "overwritten":
            with path.open("r+b") as file:
                file.seek(scene.randomness.randrange(size))
                file.write(scene.randomness.randbytes(min(size, 4096)))
        case "empty":
            os.truncate(path, 0)
        case "gone":
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
    scene.pause()
    if path.is_dir():
        path.rmdir()
    kept.replace(path)
    return True


DAMAGING: dict[Fault, int] = {store_damaged: 12, worker_killed: 1, disk_stalls: 1}
