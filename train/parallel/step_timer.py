"""Time forward and backward passes on the device without waiting for it."""

import itertools
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch


class StepTimes(NamedTuple):
    """Seconds of the forward and backward passes (the latter with the optimizer step) over `clips` clips."""

    clips: int = 0
    forward: float = 0.0
    backward: float = 0.0

    @classmethod
    def sum(cls, times: Iterable["StepTimes"]) -> "StepTimes":
        return cls(*map(sum, zip(cls(), *times, strict=True)))


class HostEvent:
    """`torch.cuda.Event` for the CPU, complete as soon as it is recorded."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def query(self) -> bool:
        return True

    def elapsed_time(self, end_event: "HostEvent") -> float:
        """Return milliseconds."""
        return 1000 * (end_event.seconds - self.seconds)


class StepTimer:
    """Times steps: call `start`, then `forward_done` and `backward_done` after each pass, then `read` at any time.

    Gradient accumulation has several of each. A second `backward_done` adds what follows the last backward pass, such
    as the optimizer step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._unread: deque[tuple[int, list[tuple[str, Any]]]] = deque()  # clips, events by the pass they end

    def start(self, clips: int) -> None:
        self._unread.append((clips, []))
        self._record("start")

    def forward_done(self) -> None:
        self._record("forward")

    def backward_done(self) -> None:
        self._record("backward")

    def _record(self, name: str) -> None:
        event = torch.cuda.Event(enable_timing=True) if self.device.type == "cuda" else HostEvent()
        event.record()
        self._unread[-1][1].append((name, event))

    def read(self) -> StepTimes:
        """Return the times of all steps that the device has completed since the last call. Does not wait for it."""
        total = StepTimes()
        while self._unread and self._unread[0][1][-1][1].query():
            clips, events = self._unread.popleft()
            seconds = {"forward": 0.0, "backward": 0.0}
            for (_, start), (name, end) in itertools.pairwise(events):
                seconds[name] += start.elapsed_time(end) / 1000
            total = StepTimes.sum((total, StepTimes(clips, **seconds)))
        return total
