"""Stopping in order: the first SIGTERM or SIGINT asks the run to save and end, the second ends it at once."""

import logging
import signal
import time
from collections.abc import Sequence
from types import FrameType

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO = 1.0  # seconds: launchers pass on a signal that the batch system has sent to every process already


class StoppedError(Exception):
    """The run was asked to stop, by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


class SignalHandler:
    """Whether somebody asked to stop, and by which signal. In force within `with`."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "SignalHandler":
        self.before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.since = number, time.monotonic()
            logger.warning(
                "%s: saving and stopping after this step; once more to leave now", signal.Signals(number).name
            )
        elif time.monotonic() - self.since > ECHO:
            raise SystemExit(128 + number)

    def asked(self) -> list[bool]:
        """For each of SIGNALS, whether this process has received it."""
        return [self.signal == number for number in SIGNALS]

    def obey(self, counts: Sequence[int]) -> None:
        """Raise StoppedError if somebody asked: `counts`, for each of SIGNALS, the processes that have received it."""
        for number, count in zip(SIGNALS, counts, strict=True):
            if count:
                raise StoppedError(number)
