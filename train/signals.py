"""Signal handling: the first SIGTERM or SIGINT saves and stops the run, the second exits at once."""

import logging
import signal
import time
from collections.abc import Sequence
from types import FrameType
from typing import Self

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SIGNAL_DEBOUNCE_S = 1.0  # launchers forward a signal that the batch system has already sent to every process


class StoppedError(Exception):
    """The run was asked to stop by a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum}")
        self.signum = signum


class SignalHandler:
    """Context manager that records the first of SIGNALS; a second one raises SystemExit."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self.received_at = 0.0

    def __enter__(self) -> Self:
        self.previous = {signum: signal.signal(signum, self._handle) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, _: FrameType | None) -> None:
        if self.signum is None:
            self.signum, self.received_at = signum, time.monotonic()
            name = signal.Signals(signum).name
            logger.warning("%s: saving and stopping after this step; send it again to exit at once", name)
        elif time.monotonic() - self.received_at > SIGNAL_DEBOUNCE_S:
            raise SystemExit(128 + signum)

    def received(self) -> list[bool]:
        """Return for each of SIGNALS whether this process received it."""
        return [self.signum == signum for signum in SIGNALS]

    def raise_if_requested(self, counts: Sequence[int]) -> None:
        """Raise StoppedError if any rank received a signal; `counts`: number of ranks, for each of SIGNALS."""
        for signum, count in zip(SIGNALS, counts, strict=True):
            if count:
                raise StoppedError(signum)
