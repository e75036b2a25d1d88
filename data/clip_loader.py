"""Dataloader whose worker processes are restarted when one dies, and the shared memory that its batches need.

The only file that imports torch's DataLoader.
"""

import itertools
import logging
import multiprocessing
import multiprocessing.util
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from data.batch_sampler import BatchShape, ClipSpec
from data.clip_batch import Batch, Sample, collate

logger = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BUDGET = 2 * 10**9  # bytes that the batches of one machine's loaders may hold
PREFETCH_FACTOR = 2  # batches that each worker loads in advance, if they fit
MAX_DEATHS = 5  # of workers, without a batch in between
STALL_SECONDS = 60.0

Batches = Sampler[list[ClipSpec]] | Sequence[list[ClipSpec]]


def shared_memory_bytes(
    shapes: Sequence[BatchShape], workers: int, prefetch_factor: int = PREFETCH_FACTOR
) -> int:
    """Return the most that uint8 batches in flight hold: those prefetched by workers, and the one in use."""
    largest = max(shape.batch * shape.length * shape.size**2 * 3 for shape in shapes)
    return (workers * prefetch_factor + 1) * largest if workers else 0


def choose_prefetch_factor(
    shapes: Sequence[BatchShape],
    workers: int,
    *,
    local_world_size: int = 1,
    free: int | None = None,
    flags: str = "--workers or --batch-size",
) -> int:
    """Return how many batches each worker may prefetch so that those of all local ranks fit into shared memory.

    PREFETCH_FACTOR, or 1 if that exceeds SHARED_MEMORY_BUDGET or the `free` bytes of /dev/shm (by default those free
    now). Raises ValueError, naming the `flags` to lower, if not even 1 fits.
    """
    if free is None:
        free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else SHARED_MEMORY_BUDGET
    least, most = (
        local_world_size * shared_memory_bytes(shapes, workers, factor) for factor in (1, PREFETCH_FACTOR)
    )
    if least > free:
        raise ValueError(
            f"{workers} workers need {least / 1e6:.0f} MB of {SHARED_MEMORY}, which has {free / 1e6:.0f} MB "
            f"free: lower {flags}, or enlarge it (docker run --shm-size)"
        )
    return PREFETCH_FACTOR if most <= min(free, SHARED_MEMORY_BUDGET) else 1


class LoaderError(OSError):
    """Workers cannot be started or keep dying; the message is one line with the reason."""


class ResumableBatchSampler(Sampler[list[ClipSpec]]):
    """The batches of another batch sampler from number `first` on."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.first = 0

    def __iter__(self) -> Iterator[list[ClipSpec]]:
        return itertools.islice(self.batches, self.first, None)


class ClipLoader:
    """One loader for all shapes of all epochs: each iteration yields the clips of every one of `batches`, in order.

    Worker processes persist until `close` or exit. If one dies, typically killed for lack of memory, all are restarted
    from the first batch that has not arrived, so no batch is lost, repeated or changed. Raises LoaderError if that
    happens MAX_DEATHS times without a batch in between, or if workers cannot start. 0 workers read in this process.
    """

    def __init__(
        self,
        clips: Dataset[Sample],
        batches: Batches,
        *,
        workers: int,
        prefetch_factor: int = PREFETCH_FACTOR,
    ) -> None:
        self.dataset = clips
        self.batches = batches
        self._batch_sampler = ResumableBatchSampler(batches)
        self._settings: dict[str, Any] = {
            "batch_sampler": self._batch_sampler,
            "collate_fn": collate,
            "num_workers": workers,
            "prefetch_factor": prefetch_factor if workers else None,
            "persistent_workers": workers > 0,
            "worker_init_fn": _worker_init,
            "generator": torch.Generator(),  # otherwise each epoch draws from torch's global one, which is saved
        }
        self._loader: DataLoader[Sample] | None = None
        self._workers: list[BaseProcess] = []
        # forked workers inherit this process's folder for sockets; of their own, killed ones would leave theirs behind
        multiprocessing.util.get_temp_dir()
        # at exit Python would wait for workers, which may ignore its SIGTERM or be stopped
        multiprocessing.util.Finalize(self, _kill, (self._workers,), exitpriority=10)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # torch's Sampler declares no length

    def __iter__(self) -> Iterator[Batch]:
        arrived = deaths = 0
        iterator: Iterator[Batch] | None = None
        while True:
            try:
                with _stall_warning():
                    if iterator is None:
                        iterator = self._start(arrived)
                    batch = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                reason = self._reason_to_restart(error)
                iterator, deaths = None, deaths + 1
                self.close()
                if deaths == MAX_DEATHS:
                    raise LoaderError(f"{reason}, {deaths} times in a row: lower --workers") from None
                logger.warning("restarting workers: %s", reason)
            else:
                arrived, deaths = arrived + 1, 0
                yield batch

    def close(self) -> None:
        """Kill the workers, also stopped or blocked ones. The next iteration starts new ones."""
        _kill(self._workers)
        self._loader = None

    def _start(self, first: int) -> Iterator[Batch]:
        """Start the workers, or wake them up, at batch number `first`."""
        self._batch_sampler.first = first
        if self._loader is None:
            self._loader = DataLoader(self.dataset, **self._settings)
        others, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
        try:
            return iter(self._loader)
        finally:
            self._workers += [child for child in multiprocessing.active_children() if child not in others]
            if threading.current_thread() is threading.main_thread():
                # torch's own handler raises wherever this process is, e.g. in the middle of an optimizer step
                signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)

    def _reason_to_restart(self, error: Exception) -> str:
        """Return what happened to a worker. Raise LoaderError or `error` itself if new workers would not help."""
        has_died = any(worker.exitcode is not None for worker in self._workers)
        if has_died or (self._workers and isinstance(error, ConnectionError | EOFError | FileNotFoundError)):
            return "a DataLoader worker died (out of memory?)"
        if self._settings["num_workers"] and (isinstance(error, OSError) or "shared memory" in str(error)):
            reason = str(error).strip().splitlines()[-1]
            raise LoaderError(f"DataLoader workers failed, is {SHARED_MEMORY} full? {reason}") from error
        raise error


def _worker_init(_: int) -> None:
    cv2.setNumThreads(0)  # there are several workers, so threads would only compete for cores
    torch.set_num_threads(1)
    # these are sent to all processes, and the training loop decides when to stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def _stall_warning() -> Iterator[None]:
    """Log a warning if the body takes longer than STALL_SECONDS."""
    message = "dataloader stalled for %.0f s: workers or the disk are slow or stopped"
    timer = threading.Timer(STALL_SECONDS, logger.warning, (message, STALL_SECONDS))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill(workers: list[BaseProcess]) -> None:
    """Kill workers and forget them. They only read, so nothing is left unfinished."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(timeout=10)
        for path in SHARED_MEMORY.glob(f"torch_{worker.pid}_*"):  # allocations that were cut short
            path.unlink(missing_ok=True)
    workers.clear()
