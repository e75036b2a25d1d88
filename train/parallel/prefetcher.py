"""Copy the next batch to the GPU while it computes the last one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from data.clip_batch import Batch

T = TypeVar("T")
Prepared = TypeVar("Prepared")


def lookahead(items: Iterable[T], prepare: Callable[[T], Prepared]) -> Iterator[Prepared]:
    """Yield `prepare(item)` of each item; a thread prepares the next one while the caller uses the last.

    Items are taken by the caller's thread, and while the other is idle, as a loader may fork. An error of either
    is raised once all earlier items were yielded.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1) as thread:

        def submit_next() -> Future[Prepared]:
            try:
                return thread.submit(prepare, next(iterator))
            except Exception as error:
                failed: Future[Prepared] = Future()
                failed.set_exception(error)
                return failed

        future = submit_next()
        while True:
            try:
                prepared = future.result()
            except StopIteration:
                return
            future = submit_next()
            yield prepared


class DevicePrefetcher:
    """Yields batches with clips and labels on a device; for a GPU they are one batch ahead, on a stream of their own.

    Memory is pinned here, as the DataLoader's pin-memory thread can hang when a worker is killed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        if self.stream is None:
            yield from batches
            return
        for batch, copied in lookahead(batches, self._copy):
            compute_stream = torch.cuda.current_stream(self.device)
            compute_stream.wait_event(copied)
            for tensor in (batch.clips, batch.labels):
                tensor.record_stream(compute_stream)  # keeps its memory until the computation has used it
            yield batch

    def _copy(self, batch: Batch) -> tuple[Batch, torch.Event]:
        with torch.cuda.stream(self.stream):
            batch = batch._replace(clips=self._to_device(batch.clips), labels=self._to_device(batch.labels))
            return batch, torch.cuda.current_stream(self.device).record_event()

    def _to_device(self, tensor: Tensor) -> Tensor:
        pinned = tensor.pin_memory() if tensor.device.type == "cpu" else tensor
        return pinned.to(self.device, non_blocking=True)
