"""A disk that is full: the run stops, or goes on without what could not be written."""

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from train.loop import TrainingError

logger = logging.getLogger(__name__)

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FullDisk:
    """What a full disk means to a run that writes to `folder`. `last_good`: the checkpoint to go on from, if any."""

    def __init__(self, folder: Path, goes_on: bool) -> None:
        self.folder = folder
        self.goes_on = goes_on
        self.last_good: Path | None = None

    @contextmanager
    def met(self) -> Iterator[None]:
        """Within, an error of a full disk stops the run with a TrainingError, or is logged; others pass."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            message = f"{error.filename or self.folder}: {error.strerror}, {self._state()}"
            if not self.goes_on:
                raise TrainingError(
                    f"{message}; with more space --resume-epoch auto goes on, --on-full-disk continue does without"
                ) from error
            logger.error("%s; going on without", message)

    def _state(self) -> str:
        free = shutil.disk_usage(self.folder).free / 1e6
        good = f"{self.last_good} is whole" if self.last_good else "there is no checkpoint before it"
        return f"{free:.0f} MB are free; {good}"
