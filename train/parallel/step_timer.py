"""How long the passes of a step take on the device, read when it has done them: nothing waits for it."""

import itertools
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch


class Times(NamedTuple):
    """Seconds that the passes of `clips` clips took, those backward with the update."""

    clips: int = 0
    forward: float = 0.0
    backward: float = 0.0

    @classmethod
    def sum(cls, times: Iterable["Times"]) -> "Times":
        return cls(*map(sum, zip(cls(), *times, strict=True)))


class Clock(Protocol):
    """Of a device, which does the work that it is given in order, perhaps long after."""

    def mark(self) -> Any:
        """The moment at which the device will have done the work that it was given so far."""

    def is_past(self, moment: Any) -> bool:
        """Whether it has; does not wait."""

    def seconds(self, earlier: Any, later: Any) -> float:
        """Between two moments that are past."""


class HostClock:
    """The CPU has done its work when it is asked."""

    def mark(self) -> float:
        return time.perf_counter()

    def is_past(self, moment: float) -> bool:
        return True

    def seconds(self, earlier: float, later: float) -> float:
        return later - earlier


class CudaClock:
    """A GPU passes events among its work, with the time at which it did."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def is_past(self, moment: torch.cuda.Event) -> bool:
        return moment.query()

    def seconds(self, earlier: torch.cuda.Event, later: torch.cuda.Event) -> float:
        return earlier.elapsed_time(later) / 1000


def clock_of(device: torch.device) -> Clock:
    return CudaClock() if device.type == "cuda" else HostClock()


class StepTimer:
    """Times steps: `start`, then `forward_done` and `backward_done` after each pass, in turn; `read` when it suits.

    A batch that goes through in parts has several of each. What comes after the last backward pass, such as the update,
    counts as backward if `backward_done` follows it once more.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._steps: deque[_Step] = deque()  # that have not been read

    def start(self, clips: int) -> None:
        """Begin a step of so many clips."""
        self._steps.append(_Step(clips, [self.clock.mark()], []))

    def forward_done(self) -> None:
        self._pass_done("forward")

    def backward_done(self) -> None:
        self._pass_done("backward")

    def _pass_done(self, kind: str) -> None:
        step = self._steps[-1]
        step.moments.append(self.clock.mark())
        step.kinds.append(kind)

    def read(self) -> Times:
        """Of all steps that the device has done since the last call. On a GPU that is mostly the one before."""
        done = []
        while self._steps and self.clock.is_past(self._steps[0].moments[-1]):
            done.append(self._times(self._steps.popleft()))
        return Times.sum(done)

    def _times(self, step: "_Step") -> Times:
        seconds = {"forward": 0.0, "backward": 0.0}
        for kind, (earlier, later) in zip(step.kinds, itertools.pairwise(step.moments), strict=True):
            seconds[kind] += self.clock.seconds(earlier, later)
        return Times(step.clips, **seconds)


class _Step(NamedTuple):
    """`kinds` of the passes between one moment and the next."""

    clips: int
    moments: list[Any]
    kinds: list[str]
