"""Dataloader whose worker processes are restarted when one dies, and the shared memory that its chunks need.

The only file that imports torch's DataLoader.
"""

import logging
import multiprocessing
import multiprocessing.util
import shutil
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from data.batch_sampler import BatchShape, RankShard
from data.clip_batch import Batch, Sample, collate

logger = logging.getLogger(__name__)
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_BUDGET = 2 * 10**9  # bytes that the chunks of one machine's loaders may hold
PREFETCH_FACTOR = 2  # chunks that each worker loads in advance, if they fit
MAX_DEATHS = 5  # of workers, without a chunk in between
STALL_SECONDS = 60.0
STALLED = "dataloader stalled for %.0f s: workers or the disk are slow or stopped"


def plan_prefetch(
    shapes: Sequence[BatchShape],
    workers: int,
    *,
    local_world_size: int = 1,
    free: int | None = None,
    flags: str = "--batch-size",
) -> tuple[int, int]:
    """Return how many chunks each worker prefetches, and the most bytes of shared memory that all local ranks need.

    `shapes`: of batches as workers send them. PREFETCH_FACTOR, or 1 if with the batch in use that exceeds
    SHARED_MEMORY_BUDGET or the `free` bytes of /dev/shm (by default those free now). Raises ValueError, naming the
    `flags` to lower, if not even 1 fits.
    """
    if not workers:
        return PREFETCH_FACTOR, 0
    if free is None:
        free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else SHARED_MEMORY_BUDGET
    in_use = max(batch * length * size**2 * 3 for batch, length, size in shapes)
    chunk = max(-(-batch // workers) * length * size**2 * 3 for batch, length, size in shapes)
    least, most = (local_world_size * (workers * factor * chunk + in_use) for factor in (1, PREFETCH_FACTOR))
    if least > free:
        raise ValueError(
            f"{workers} workers need {least / 1e6:.0f} MB of {SHARED_MEMORY}, which has {free / 1e6:.0f} MB "
            f"free: lower {flags}, or enlarge it (docker run --shm-size)"
        )
    return (PREFETCH_FACTOR, most) if most <= min(free, SHARED_MEMORY_BUDGET) else (1, least)


class LoaderError(OSError):
    """Workers cannot be started or keep dying; the message is one line with the reason."""


class JointDataset(Dataset[Sample]):
    """Several datasets as one: a sample index is the number of a dataset and the sample index there.

    torch's ConcatDataset counts through them, but here sample indices are not numbers.
    """

    def __init__(self, *datasets: Dataset[Sample]) -> None:
        self.datasets = datasets

    def __getitem__(self, index: tuple[int, Any]) -> Sample:
        number, own = index
        return self.datasets[number][own]


class ClipLoader(Iterator[list[Batch]]):
    """Reads batches of sample indices in order, ahead of who takes them; each item is a batch, in chunks.

    All workers share a batch: it is cut into one chunk for each, or for each clip if there are fewer.

    Worker processes persist until `close` or exit. If one dies, typically killed for lack of memory, all are restarted
    with the chunks that have not arrived, so none is lost, repeated or changed. Raises LoaderError if that happens
    MAX_DEATHS times without a chunk in between, or if workers cannot start. 0 workers read in this process, not ahead.
    """

    def __init__(
        self,
        clips: Dataset[Sample],
        batches: Iterable[list[Any]],
        *,
        workers: int,
        prefetch_factor: int = PREFETCH_FACTOR,
    ) -> None:
        self.dataset = clips
        self._batches = iter(batches)
        # chunks that have not arrived, with the number of those after it in its batch
        self._pending: deque[tuple[list[Any], int]] = deque()
        self._settings: dict[str, Any] = {
            "collate_fn": collate,
            "num_workers": workers,
            "prefetch_factor": prefetch_factor if workers else None,
            "persistent_workers": workers > 0,  # also after the last chunk: killed, not waited for
            "worker_init_fn": _worker_init,
            "generator": torch.Generator(),  # otherwise a start draws from torch's global one, which is saved
        }
        self._iterator: Iterator[Batch] | None = None
        self._workers: list[BaseProcess] = []
        # forked workers inherit this process's folder for sockets; of their own, killed ones would leave theirs behind
        multiprocessing.util.get_temp_dir()
        # at exit Python would wait for workers, which may ignore its SIGTERM or be stopped
        multiprocessing.util.Finalize(self, _kill, (self._workers,), exitpriority=10)

    def __next__(self) -> list[Batch]:
        chunks: list[Batch] = []
        left = 1
        timer = threading.Timer(STALL_SECONDS, logger.warning, (STALLED, STALL_SECONDS))
        timer.start()
        try:
            while left:
                chunks.append(self._next_chunk())
                _, left = self._pending.popleft()
        finally:
            timer.cancel()
        return chunks

    def close(self) -> None:
        """Kill the workers, also stopped or blocked ones. The next item starts new ones."""
        _kill(self._workers)
        self._iterator = None

    def _next_chunk(self) -> Batch:
        deaths = 0
        while True:
            try:
                if self._iterator is None:
                    self._iterator = self._start()
                return next(self._iterator)
            except StopIteration:
                raise
            except Exception as error:
                reason = self._reason_to_restart(error)
                deaths += 1
                self.close()
                if deaths == MAX_DEATHS:
                    raise LoaderError(f"{reason}, {deaths} times in a row: lower --workers") from None
                logger.warning("restarting workers: %s", reason)

    def _start(self) -> Iterator[Batch]:
        """Start the workers at the first chunk that has not arrived."""
        others = multiprocessing.active_children()
        try:
            return iter(DataLoader(self.dataset, batch_sampler=self._requests(), **self._settings))
        finally:
            self._workers += [child for child in multiprocessing.active_children() if child not in others]
            if threading.current_thread() is threading.main_thread():
                # torch's handler, which its first loader in a process leaves behind, raises wherever the process is
                # when a worker dies, e.g. in the middle of an optimizer step
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _requests(self) -> Iterator[list[Any]]:
        """Yield chunks for workers to read: again those that have not arrived, then those of further batches."""
        yield from [indices for indices, _ in self._pending]
        for batch in self._batches:
            count = max(1, min(len(batch), self._settings["num_workers"]))
            chunks = [batch[RankShard(number, count).slice_of(len(batch))] for number in range(count)]
            self._pending += zip(chunks, reversed(range(count)), strict=True)
            yield from chunks

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


def _kill(workers: list[BaseProcess]) -> None:
    """Kill workers and forget them. They only read, so nothing is left unfinished."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(timeout=10)
        for path in SHARED_MEMORY.glob(f"torch_{worker.pid}_*"):  # allocations that were cut short
            path.unlink(missing_ok=True)
    workers.clear()
