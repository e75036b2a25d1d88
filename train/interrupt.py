"""Stopping in order: the first SIGTERM or SIGINT asks the run to save and end, the second ends it at once."""

import logging
import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """The run was asked to stop."""


class StopRequest:
    """Whether somebody asked to stop, and by which signal. In force within `with`."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "StopRequest":
        self.before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number
        logger.warning(
            "%s: saving and stopping after this step; once more to leave now", signal.Signals(number).name
        )

    def check(self) -> None:
        """Raise StoppedError if somebody asked."""
        if self.signal is not None:
            raise StoppedError

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until somebody asks to stop."""
        for item in items:
            self.check()
            yield item
