"""Batches from worker processes, which may be killed: others take their place, and no batch is lost or changed.

The only file that imports torch's DataLoader.
"""

import functools
import itertools
import logging
import multiprocessing
import multiprocessing.util
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Listener, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from data.batch_sampler import BatchShape

logger = logging.getLogger(__name__)
SHARED_MEMORY_FOLDER = Path("/dev/shm")
BUDGET = 2 * 10**9  # bytes of it that a loader takes at most
PREFETCH = 2  # batches a worker holds ready, where they fit


def shared_memory_bytes(shapes: Sequence[BatchShape], workers: int, prefetch: int = PREFETCH) -> int:
    """What batches in flight hold of /dev/shm at most: a worker its prefetched ones, and the consumer one."""
    largest = max(shape.batch * shape.length * shape.size**2 * 3 for shape in shapes)
    return (workers * prefetch + 1) * largest if workers else 0


def choose_prefetch_factor(
    shapes: Sequence[BatchShape],
    workers: int,
    *,
    processes: int = 1,
    free: int | None = None,
    flags: str = "--workers or --batch-size",
) -> int:
    """How many batches a worker may hold ready: as many as fit, with those of all `processes` on this machine.

    At most PREFETCH, within BUDGET, and within the `free` bytes of /dev/shm: with a warning where the machine
    has too little, and a ValueError, with the `flags` that lower it, where it has not enough for one batch a worker.
    """
    if free is None:
        folder = SHARED_MEMORY_FOLDER
        free = shutil.disk_usage(folder).free if folder.is_dir() else BUDGET  # Linux, or another

    def needed(prefetch: int) -> int:
        return processes * shared_memory_bytes(shapes, workers, prefetch)

    if needed(1) > free:
        raise ValueError(
            f"{workers} workers need {needed(1) / 1e6:.0f} MB of {SHARED_MEMORY_FOLDER}, which has "
            f"{free / 1e6:.0f} MB free: lower {flags}, or make it larger (docker run --shm-size)"
        )
    wanted = max((count for count in range(1, PREFETCH + 1) if needed(count) <= BUDGET), default=1)
    prefetch = max(count for count in range(1, wanted + 1) if needed(count) <= free)
    if prefetch < wanted:
        logger.warning(
            "%s has %.0f MB free: workers hold %d batches ready, not %d",
            *(SHARED_MEMORY_FOLDER, free / 1e6, prefetch, wanted),
        )
    return prefetch


MAX_DEATHS = 5  # of workers, one after the other, while no batch comes
PATIENCE = 60.0  # seconds without a batch, after which the log says so
Request = TypeVar("Request")
Batch = TypeVar("Batch", bound=tuple[Any, ...])  # a named one


class LoaderError(OSError):
    """No more batches can be had, whatever the videos are; the message says why."""


class _WorkerDiedError(Exception):
    pass


class ClipLoader(Generic[Batch]):
    """One loader for all shapes of all epochs: iterating gives `collate` of each of `batches`, in their order.

    Its `workers` live until `close` or the end of the process. Where one dies, which is how a machine without memory
    helps itself, all are started anew and read again what had not arrived. `batches` are values, gone through afresh,
    so what comes is the same. Raises LoaderError where that does not help, or where there is no shared memory at all.
    0 workers read in this process.
    """

    def __init__(
        self,
        clips: Dataset[Any],
        batches: Sampler[list[Request]] | Sequence[list[Request]],
        *,
        collate: Callable[[Sequence[Any]], Batch],
        workers: int,
        prefetch: int,
        prepare_worker: Callable[[int], None],
    ) -> None:
        self.dataset = clips
        self.batches = batches
        self.settings = {
            "collate_fn": collate,
            "num_workers": workers,
            "prefetch_factor": prefetch if workers else None,
            "persistent_workers": workers > 0,
            "worker_init_fn": functools.partial(_begin, prepare_worker),
        }
        self._rest = _Rest(batches)
        self._loader = self._made()
        self._workers: list[BaseProcess] = []
        self._warned = False
        multiprocessing.util.Finalize(self, _kill, (self._workers,), exitpriority=10)  # in this process alone

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        arrived = deaths = 0
        while True:
            try:
                batches = self._started(arrived)
                while (batch := self._next(batches)) is not None:
                    arrived, deaths = arrived + 1, 0
                    yield self._received(batch)
                return
            except _WorkerDiedError as death:
                self.close()
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise LoaderError(
                        f"{death}, the {deaths}th time without a batch in between; fewer --workers take less memory"
                    ) from None
                logger.warning("%s; starting all of them again", death)

    def close(self) -> None:
        """End the workers, also those that a signal or a dead disk holds up. The next iteration starts new ones."""
        _kill(self._workers)
        self._loader = self._made()

    def _made(self) -> DataLoader[Batch]:
        # a generator of its own: else each epoch would draw from the one that a checkpoint holds
        return _Loader(self.dataset, batch_sampler=self._rest, generator=torch.Generator(), **self.settings)

    def _started(self, first: int) -> Iterator[Batch]:
        """The batches from the `first` on."""
        self._rest.first = first
        if self.settings["num_workers"] and not self._workers:
            self._check_room()
        before = signal.getsignal(signal.SIGCHLD)
        try:
            with _watched(self._workers):
                batches = iter(self._loader)  # starts workers, or wakes them up
        except OSError as error:
            raise LoaderError(f"workers cannot be started, {error}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                # torch's own answer to a dead worker is an error anywhere, also in the middle of an update
                _answer_as(before)
        self._workers[:] = getattr(batches, "_workers", [])
        return batches

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        if not self._workers:
            return next(batches, None)
        message = "no batch has come for %d s: workers, or the disk that they read, are slow or stopped"
        reminder = threading.Timer(PATIENCE, logger.warning, (message, PATIENCE))
        reminder.start()
        try:
            with _watched(self._workers):
                return next(batches, None)
        finally:
            reminder.cancel()

    def _received(self, batch: Batch) -> Batch:
        arrays = [isinstance(value, np.ndarray) for value in batch]
        if not any(arrays):
            return batch
        if not self._warned:
            logger.warning(
                "%s takes no more: batches come through a pipe, which is slower", SHARED_MEMORY_FOLDER
            )
            self._warned = True
        values = zip(batch, arrays, strict=True)
        return type(batch)(*(torch.from_numpy(value) if array else value for value, array in values))

    def _check_room(self) -> None:
        """LoaderError where there is no room for what workers and this process wait and speak by.

        torch complains without a name, and a second time, with a traceback, when it forgets what it has begun. A worker
        that finds no socket to send from is waited for, for ever.
        """
        try:
            count = 8 + 4 * self.settings["num_workers"]
            _ = [multiprocessing.Semaphore() for _ in range(count)]  # all at once
        except OSError as error:
            raise LoaderError(
                f"{SHARED_MEMORY_FOLDER}: has no room to start workers ({error.strerror}); --workers 0 needs none"
            ) from error
        sockets = "TMPDIR"
        try:
            # for all workers: a killed one leaves none of its own
            sockets = multiprocessing.util.get_temp_dir()
            Listener(family="AF_UNIX").close()
        except OSError as error:
            raise LoaderError(
                f"{sockets}: workers can have no sockets there ({error}); TMPDIR names another folder"
            ) from error


class _Loader(DataLoader[Batch]):
    def _get_iterator(self) -> _BaseDataLoaderIter:
        return _Batches(self) if self.num_workers else super()._get_iterator()


class _Batches(_MultiProcessingDataLoaderIter):
    """torch's, which complains with a traceback where only some of its workers could be started."""

    def _shutdown_workers(self) -> None:
        if hasattr(self, "_workers_status"):  # is made last
            super()._shutdown_workers()
        else:
            _kill(vars(self).get("_workers", []))


def _begin(prepare_worker: Callable[[int], None], number: int) -> None:
    """What a worker does first."""
    prepare_worker(number)
    sys.excepthook = _complain_unless_unheard


def _complain_unless_unheard(kind: type[BaseException], error: BaseException, trace: TracebackType) -> None:
    """multiprocessing prints what happens to its thread that hands shared memory over, also where this only means that
    the training process has turned away, as when another worker died.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


class _Rest(Sampler[list[Request]]):
    """Batches from the `first` on."""

    def __init__(self, batches: Iterable[list[Request]]) -> None:
        self.batches = batches
        self.first = 0

    def __iter__(self) -> Iterator[list[Request]]:
        return itertools.islice(self.batches, self.first, None)


@contextmanager
def _watched(workers: Sequence[BaseProcess]) -> Iterator[None]:
    """Within, the end of one of the workers is a _WorkerDiedError at once."""

    def complain(*_: object) -> None:
        dead = next((worker for worker in workers if worker.exitcode is not None), None)
        if dead is not None:
            raise _WorkerDiedError(f"a worker ended, {_cause(dead.exitcode)}")

    if not workers or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, complain)
    try:
        complain()
        yield
    except (ConnectionError, EOFError, FileNotFoundError) as error:  # the one that sends is going, or gone
        ended = wait([worker.sentinel for worker in workers], timeout=1)
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(timeout=1)  # its files are closed a moment before it has a status
        complain()
        raise _WorkerDiedError(f"a worker broke off, {error}") from error
    except RuntimeError:  # torch may have noticed it first
        complain()
        raise
    finally:
        _answer_as(before)


def _answer_as(before: Callable[..., object] | int | None) -> None:
    """Put back what was done when a child ended. Nothing is a function too: of a signal that came while there was one,
    and finds none, Python complains.
    """
    signal.signal(signal.SIGCHLD, before if callable(before) else _do_nothing)


def _do_nothing(*_: object) -> None:
    pass


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"with status {exit_code}"
    hint = ", which is what a machine that runs out of memory does" if -exit_code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-exit_code).name}{hint}"


def _kill(workers: list[BaseProcess]) -> None:
    """End workers and forget them. They only read, so there is nothing that they would have to finish."""
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(timeout=10)
        remove_shared_memory(worker.pid)
    workers.clear()


def sent(batch: Batch) -> Batch:
    """A batch as a worker sends it: its tensors in shared memory or, where that is full, as arrays, through a pipe."""
    tensors = [isinstance(value, torch.Tensor) for value in batch]
    values = list(zip(batch, tensors, strict=True))
    try:
        return type(batch)(*(value.share_memory_() if tensor else value for value, tensor in values))
    except RuntimeError as error:
        if not is_no_shared_memory(error):
            raise
        return type(batch)(*(value.numpy() if tensor else value for value, tensor in values))


def is_no_shared_memory(error: RuntimeError) -> bool:
    """Whether this is torch's complaint about it. What the try has left there is removed; torch forgets it."""
    failed = "</torch_" in str(error)  # it names the segment, whatever it could not do with it
    if failed:
        remove_shared_memory(os.getpid())
    return failed


def remove_shared_memory(process: int) -> None:
    """Remove the segments that a process of torch's gave a name and did not live to take it away again."""
    for path in SHARED_MEMORY_FOLDER.glob(f"torch_{process}_*"):
        path.unlink(missing_ok=True)
