"""The folder that a run writes to, and what is there already: where to start from, where to log."""

import fcntl
import json
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from humanfriendly.terminal import ansi_strip

from data.common.atomic_io import NO_LOCKS, atomic_write
from data.common.cli import sanitize
from data.datasets import DatasetSpec
from data.video_list import Dataset
from train.checkpointing.checkpoint import epoch_path, error_context, find_latest, load_checkpoint
from train.optimizer import fine_tunes
from train.options import NETWORK_KWARGS, Options

logger = logging.getLogger(__name__)

LOCK = "run.lock"


def run_folder(spec: DatasetSpec, options: Options) -> Path:
    """`<model-dir>/<network>_gates_<gates>`, and `_<task name>` if there is one."""
    name = spec.results_name.format(variant=options.variant, dataset=options.dataset.resolve().name)
    root = options.model_dir or Path("results") / name
    task = f"_{options.task_name}" if options.task_name else ""
    return root / f"{options.network}_gates_{options.gates}{task}"


class Start(NamedTuple):
    """A checkpoint to go on from."""

    path: Path
    content: dict[str, Any]


def find_resume_point(folder: Path, options: Options, spec: DatasetSpec, dataset: Dataset) -> Start | None:
    """The checkpoint to go on from, None for a start at epoch 1.

    Raises FileNotFoundError for a checkpoint that is not there, ValueError for one of another network, epoch, split or
    set of classes, and for a fresh start into a folder that has results: nothing is overwritten, and nothing starts
    anew by mistake.
    """
    if options.resume_epoch is None:
        present = next(
            (path for pattern in ("*.pth", "*.csv") for path in sorted(folder.glob(pattern))), None
        )
        if present is not None:
            raise ValueError(
                f"{present}: a run has been here; --resume-epoch auto goes on with it, "
                "--task-name starts another beside it"
            )
        return None
    if options.resume_epoch == "auto":
        found = find_latest(folder, options.network)
        if found is None and any(folder.glob(f"{options.network}_*.pth")):
            raise ValueError(
                f"{folder}: none of its checkpoints can be read; --task-name starts another run beside it"
            )
        if found is None:
            logger.info("%s: no checkpoint, starting at epoch 1", folder)
            return None
        path, content = found
    else:
        path, content = _after_epoch(folder, options, options.resume_epoch - 1)
    with error_context(path):
        _check_fits(path, content, options, spec, dataset)
    logger.info("%s: going on with epoch %d, step %d", path, content["epoch"] + 1, content["step"] + 1)
    return Start(path, content)


def _after_epoch(folder: Path, options: Options, epoch: int) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of the end of an epoch: the one that is named, else the folder's own.

    With --fine-tune, where there is one of its own, what is named are the weights that the run began with.
    """
    own = epoch_path(folder, options.network, epoch)
    goes_on_itself = options.pretrained_3d is None or (options.fine_tune and own.is_file())
    path = own if goes_on_itself else options.pretrained_3d
    hint = f"; without --pretrained-3d the run goes on from {own}" if path != own and own.is_file() else ""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such checkpoint, --resume-epoch {epoch + 1} goes on from it{hint}"
        )
    try:
        content = load_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{error}{hint}") from None
    if (content["epoch"], content["step"]) != (epoch, 0):
        raise ValueError(
            f"{path}: was written in epoch {content['epoch'] + 1} at step {content['step']}, "
            f"--resume-epoch {epoch + 1} goes on from the end of epoch {epoch}{hint}"
        )
    return path, content


def _check_fits(
    path: Path, content: dict[str, Any], options: Options, spec: DatasetSpec, dataset: Dataset
) -> None:
    names = ["network", *NETWORK_KWARGS, "optimizer", "variant"]
    if content["step"]:  # the plan of an epoch that has begun must stay as it was
        names += ["batch_size", "clip_length", "clip_size", "long_cycles", "short_cycles", "random_seed"]
        names += ["long_cycle_period", "batch_scaling"]
        if options.long_cycle_period == "stage":
            names += ["lr_steps", "lr_schedule", "end_epoch"]
    now_plain, defaults = options.plain(), Options().plain()
    for name in names:
        before, now = content["options"].get(name, defaults[name]), now_plain[name]
        if before != now:
            raise ValueError(
                f"{path}: was written with --{_flag(name, spec)} {sanitize(before)}, not {now}; "
                "--task-name starts another run beside it"
            )
    if options.fine_tune and not fine_tunes(content["optimizer"]):
        raise ValueError(
            f"{path}: was not written by a run that fine-tunes, and goes on as it began; leave --fine-tune out"
        )
    before = content["normalization"]["channel_order"]
    if options.channel_order not in (None, before):
        raise ValueError(f"{path}: was written with --channel-order {before}, not {options.channel_order}")
    if list(content["classes"]) != list(dataset.classes):
        raise ValueError(
            f"{path}: was written for {len(content['classes'])} classes, "
            f"which are not the {len(dataset.classes)} of this data set"
        )
    if content["dataset"]["fingerprint"] != dataset.fingerprint():
        if content["step"]:
            raise ValueError(
                f"{path}: was written within an epoch of other videos than those that are here now"
            )
        logger.warning("%s: was written for other videos than those that are here now", path)


def _flag(name: str, spec: DatasetSpec) -> str:
    return spec.variant_flag if name == "variant" and spec.variant_flag else name.replace("_", "-")


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within, the folder is this run's. ValueError where another run has it, on this machine or over the network.

    The claim ends with the process, however it ends: it is a record lock, which workers do not inherit, on an empty
    file that stays. On a disk without locks there is none, and a warning.
    """
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ValueError(
                f"{folder}: another run is writing there now; --task-name starts one beside it"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning("%s: the disk has no locks, start no second run into this folder", folder)
        yield


@contextmanager
def kept_log() -> Iterator[MemoryHandler]:
    """Keep what is logged within, until `logged_to` knows a file for it."""
    handler = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def logged_to(path: Path, early: MemoryHandler) -> Iterator[None]:
    """Within, all that is logged also goes to the end of a file, without the colors that a terminal gets.

    So does what was kept before, and the error that ends it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(path)
    handler.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    early.setTarget(handler)
    early.flush()
    logging.getLogger().removeHandler(early)
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Exception as error:
        handler.handle(logger.makeRecord(__name__, logging.ERROR, "", 0, "%s", (error,), None))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def write_run_json(folder: Path, options: Options, dataset_summary: dict[str, Any]) -> None:
    """`run.json`: resolved options, versions, and which data."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    content = {"options": options.plain(), "versions": versions, "dataset": dataset_summary}
    atomic_write(folder / "run.json", json.dumps(content, indent=1) + "\n")


class _LogFile(logging.FileHandler):
    """A log that cannot be written, as on a full disk, is no reason to stop: it is said once, on standard error."""

    has_failed = False

    def handleError(self, record: logging.LogRecord | None) -> None:  # noqa: N802  logging's name
        if not self.has_failed:
            sys.stderr.write(f"{self.baseFilename}: log lines are lost, {sys.exc_info()[1]}\n")
        self.has_failed = True

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            self.handleError(None)


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return ansi_strip(super().format(record))
