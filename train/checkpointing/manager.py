"""When a run writes which checkpoint."""

import errno
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.common.atomic_io import atomic_path
from train.checkpointing.checkpoint import (
    Content,
    checkpoint_path,
    load_readable,
    save_checkpoint,
    snapshot,
)
from train.csv_log import read_rows
from train.engine import Trainer, TrainingError
from train.options import Options
from train.parallel.distributed import DistContext
from train.state import TrainState

logger = logging.getLogger(__name__)
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass
class CheckpointManager:
    """Writes the checkpoints of a run. All ranks call it, the main process writes, in a thread while training goes on.

    One save is written at a time: the next one and `wait` wait for it. They or `should_save` raise its error.
    `metadata`: what every checkpoint holds besides the state. `last_checkpoint`: the one to resume from, if any.
    """

    folder: Path
    options: Options
    dist: DistContext
    trainer: Trainer
    state: TrainState
    metadata: dict[str, Any]
    last_checkpoint: Path | None = None
    saved_at: float = field(default_factory=time.monotonic)
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=1))
    _written: Future[None] | None = None  # of the save that is being written

    def should_save(self) -> bool:
        """Return whether it is time for a checkpoint within the epoch, by the main process's clock."""
        if self._written and self._written.done():
            self.wait()
        minutes = self.options.save_minutes
        return self.dist.is_main_process and minutes > 0 and time.monotonic() - self.saved_at > 60 * minutes

    def save_epoch(self, epoch: int, top1: float) -> None:
        """Save the checkpoints after an epoch. Killed between the two, `restore_best` completes them."""
        due: list[int | str] = []
        if epoch % self.options.save_frequency == 0 or epoch == self.options.end_epoch:
            due.append(epoch)
        if top1 > self.state.best_top1:
            self.state.best_top1 = top1
            due.append("best")
        if due:
            self.save(*due)

    def restore_best(self) -> None:
        """Copy the best epoch's checkpoint to the best one if that is worse or missing, as after resuming earlier."""
        top1 = -1.0
        if self.dist.is_main_process:
            best, source = self._path("best"), None
            for _, content in load_readable(best):
                top1 = content["metrics"]["best_top1"]
            for row in read_rows(self.folder, "val"):
                if row["Top1"] > top1 and self._path(row["Epoch"]).exists():
                    top1, source = row["Top1"], self._path(row["Epoch"])
            if source:
                with atomic_path(best) as temporary:
                    shutil.copyfile(source, temporary)
                logger.info("%s: copied from %s, the best epoch that has a checkpoint", best, source.name)
        self.state.best_top1 = self.dist.broadcast_object(top1)

    def _path(self, which: int | str) -> Path:
        return checkpoint_path(self.folder, self.options.network, which)

    def save(self, *which: int | str) -> None:
        """Begin to save the checkpoint after epoch `which`, the `last` one within an epoch, or the `best`."""
        self.trainer.check_finite()  # weights after a non-finite loss are useless
        sums = self.dist.all_reduce(self.state.sums)
        self.saved_at = time.monotonic()
        if self.dist.is_main_process:
            self.wait()
            content = snapshot(self.state.state_dict(sums) | self.metadata)
            self._written = self._writer.submit(self._write, [self._path(name) for name in which], content)

    def _write(self, paths: Sequence[Path], content: Content) -> None:
        for path in paths:
            save_checkpoint(path, content)
            self.last_checkpoint = path
            logger.info("saved %s", path)

    def wait(self) -> None:
        """Wait until the last save is written. Raises its error."""
        if self._written:
            self._written.result()

    def resume_hint(self) -> str:
        """Return how to continue after an error, for its message."""
        if self.last_checkpoint is None:
            return "no checkpoint was saved"
        return f"--resume-epoch auto resumes from {self.last_checkpoint}"

    @contextmanager
    def disk_full_guard(self) -> Iterator[None]:
        """Turn the error of a full disk into a TrainingError that names the last good checkpoint."""
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            free = shutil.disk_usage(self.folder).free / 1e6
            raise TrainingError(
                f"{error.filename or self.folder}: {error.strerror}, {free:.0f} MB free; {self.resume_hint()}"
            ) from error
