"""Copy the next batch to the GPU while it computes the last one."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from data.clip_batch import Batch, Chunks, gather

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


class BufferRing:
    """Double buffering: one buffer is filled while the other is copied. `allocate(n)` returns one of n bytes."""

    def __init__(self, allocate: Callable[[int], Tensor]) -> None:
        self.allocate = allocate
        self.buffers: deque[tuple[Tensor, torch.Event | None]] = deque([(allocate(0), None)] * 2)

    def take(self, shape: Sequence[int], copied: torch.Event) -> Tensor:
        """Return the next buffer in a shape, once it was copied; it is reused after `copied`. It grows if needed."""
        buffer, copied_before = self.buffers.popleft()
        if copied_before is not None:
            copied_before.synchronize()
        if len(buffer) < (size := math.prod(shape)):
            buffer = self.allocate(size)
        self.buffers.append((buffer, copied))
        return buffer[:size].view(*shape)


class DevicePrefetcher:
    """Yields batches with clips and labels on a device; for a GPU they are one batch ahead, on a stream of their own.

    Memory is pinned here, as the DataLoader's pin-memory thread can hang when a worker is killed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.ring = BufferRing(partial(torch.empty, dtype=torch.uint8, pin_memory=self.stream is not None))

    def __call__(self, batches: Iterable[Chunks]) -> Iterator[Batch]:
        """Yield each of the batches, which come in chunks."""
        if self.stream is None:
            yield from map(gather, batches)
            return
        for batch, copied in lookahead(batches, self._copy):
            compute_stream = torch.cuda.current_stream(self.device)
            compute_stream.wait_event(copied)
            for tensor in (batch.clips, batch.labels):
                tensor.record_stream(compute_stream)  # keeps its memory until the computation has used it
            yield batch

    def _copy(self, chunks: Chunks) -> tuple[Batch, torch.Event]:
        copied = torch.cuda.Event()
        on_cpu = chunks[0].clips.device.type == "cpu"
        batch = gather(chunks, partial(self.ring.take, copied=copied) if on_cpu else None)
        with torch.cuda.stream(self.stream):
            clips, labels = (t.to(self.device, non_blocking=True) for t in (batch.clips, batch.labels))
            copied.record()
        return batch._replace(clips=clips, labels=labels), copied
