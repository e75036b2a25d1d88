"""Time forward and backward passes on the device without waiting for it."""

import itertools
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
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


@dataclass
class _Step:
    """A step with an event before and after each of its passes, which are named "forward" or "backward"."""

    clips: int
    events: list[Any]
    passes: list[str] = field(default_factory=list)

    def is_complete(self) -> bool:
        return self.events[-1].query()

    def times(self) -> StepTimes:
        seconds = {"forward": 0.0, "backward": 0.0}
        for name, (start, end) in zip(self.passes, itertools.pairwise(self.events), strict=True):
            seconds[name] += start.elapsed_time(end) / 1000
        return StepTimes(self.clips, **seconds)


class StepTimer:
    """Times steps: call `start`, then `forward_done` and `backward_done` after each pass, then `read` at any time.

    Gradient accumulation has several of each. A second `backward_done` adds what follows the last backward pass, such
    as the optimizer step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._unread: deque[_Step] = deque()

    def start(self, clips: int) -> None:
        self._unread.append(_Step(clips, [self._record_event()]))

    def forward_done(self) -> None:
        self._pass_done("forward")

    def backward_done(self) -> None:
        self._pass_done("backward")

    def _pass_done(self, name: str) -> None:
        self._unread[-1].events.append(self._record_event())
        self._unread[-1].passes.append(name)

    def _record_event(self) -> torch.cuda.Event | HostEvent:
        event = torch.cuda.Event(enable_timing=True) if self.device.type == "cuda" else HostEvent()
        event.record()
        return event

    def read(self) -> StepTimes:
        """Return the times of all steps that the device has completed since the last call. Does not wait for it."""
        complete = []
        while self._unread and self._unread[0].is_complete():
            complete.append(self._unread.popleft().times())
        return StepTimes.sum(complete)
