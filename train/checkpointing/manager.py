"""When a run writes which checkpoint."""

import errno
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from train.callbacks import Callback
from train.checkpointing.checkpoint import best_path, copy_checkpoint, epoch_path, last_path, save_checkpoint
from train.csv_log import validation_scores
from train.engine import Trainer, TrainingError
from train.options import Options
from train.parallel.distributed import DistContext
from train.state import TrainState

logger = logging.getLogger(__name__)
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullGuard:
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


@dataclass
class CheckpointManager:
    """Writes the checkpoints of a run. All its processes call, the first one writes.

    `constant` is what every checkpoint has besides the state (see train.checkpointing.checkpoint.KEYS).
    """

    folder: Path
    options: Options
    dist: DistContext
    disk: DiskFullGuard
    trainer: Trainer
    state: TrainState
    callbacks: Sequence[Callback]
    constant: dict[str, Any]
    saved_at: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        """Whether it is time for one within an epoch, by the clock of the first process."""
        minutes = self.options.save_minutes
        return self.dist.is_main_process and minutes > 0 and time.monotonic() - self.saved_at > 60 * minutes

    def keeps(self, epoch: int) -> bool:
        """Whether there is one after an epoch."""
        return epoch % self.options.save_frequency == 0 or epoch == self.options.end_epoch

    def save_last(self) -> bool:
        """The one within an epoch; whether it was written."""
        return self._save(last_path(self.folder, self.options.network))

    def save_epoch(self, epoch: int, top1: float) -> None:
        """Those after an epoch. The best first: a kill between the two leaves what `repair_epoch_checkpoint` goes on from."""
        if top1 > self.state.best_top1:
            before, self.state.best_top1 = self.state.best_top1, top1
            saved = self._save(best_path(self.folder, self.options.network))
            if any(self.dist.add(not saved)):  # the best is that of those that found space
                self.state.best_top1 = before
        if self.keeps(epoch):
            path = epoch_path(self.folder, self.options.network, epoch)
            if not self._save(path) and epoch == self.options.end_epoch:
                raise TrainingError(f"{path}: the result of the last epoch could not be written")

    def keep_best(self) -> None:
        """Where there is no best checkpoint, as after going back to before it: a copy of the best that is left."""
        state, network = self.state, self.options.network
        best, top1 = best_path(self.folder, network), state.best_top1
        if self.dist.is_main_process and not best.exists():
            top1 = -1.0  # whatever comes is better than nothing
            scored = validation_scores(self.folder).items()
            kept = [(score, epoch_path(self.folder, network, epoch)) for epoch, score in scored]
            kept = [(score, path) for score, path in kept if not math.isnan(score) and path.exists()]
            if kept:
                score, path = max(kept, key=itemgetter(0))
                with self.disk.met():
                    copy_checkpoint(path, best)
                    logger.info("%s: the best that is left, copied to %s", path, best.name)
                    top1 = score
        state.best_top1 = self.dist.broadcast_object(top1)

    def repair_epoch_checkpoint(self) -> None:
        """Write the one after the epoch before this start, where it should be there and only the best one is.

        A copy of that: this run's own state may be less, as without `--ema-decay` it has forgotten the average.
        """
        state, options = self.state, self.options
        if options.resume_epoch != "auto" or state.step or not self.dist.is_main_process:
            return
        path = epoch_path(self.folder, options.network, state.epochs_done)
        if state.epochs_done and self.keeps(state.epochs_done) and not path.exists():
            with self.disk.met():
                copy_checkpoint(self.disk.last_good, path)  # what this run starts from
                self._saved(path)

    def _save(self, path: Path) -> bool:
        """Everything needed to continue, to evaluate and to predict. False where a full disk is gone on with."""
        self.trainer.check_finite()  # weights after a loss that is no number are worth nothing
        sums = self.dist.sum(self.state.sums)
        self.saved_at = time.monotonic()
        if not self.dist.is_main_process:
            return True
        with self.disk.met():
            for callback in self.callbacks:
                callback.on_save()
            save_checkpoint(path, {**self.state.content(sums), **self.constant})
            self._saved(path)
            return True
        return False

    def _saved(self, path: Path) -> None:
        self.disk.last_good = path
        logger.info("saved %s", path)
