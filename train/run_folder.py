"""The output folder of a run: its name, lock and log file, and the checkpoint to resume from."""

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from filelock import FileLock, Timeout
from humanfriendly.terminal import ansi_strip

from data.common.cli import sanitize
from data.datasets import DatasetSpec
from data.label_files import clean, describe_difference
from data.video_list import DatasetSplits
from network.pretrained import read_tensors_file
from network.published import weights_path
from train.checkpointing.checkpoint import (
    Content,
    checkpoint_path,
    error_context,
    find_latest,
    load_checkpoint,
)
from train.optimizer import is_fine_tuning
from train.options import NETWORK_OPTIONS, Options

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
# options that a resumed run must share with its checkpoint; those of the second list, to resume within an epoch
SAME_NETWORK = ["network", *NETWORK_OPTIONS, "optimizer", "variant"]
SAME_BATCHES = ["batch_size", "clip_length", "clip_size", "long_cycles", "short_cycles", "random_seed"]
SAME_BATCHES += ["long_cycle_period", "batch_scaling"]
SAME_LR_STAGES = ["lr_steps", "lr_schedule", "end_epoch"]


def run_folder(spec: DatasetSpec, options: Options) -> Path:
    """Return `<model-dir>/[fold<number>/]<network>_gates_<gates>`, followed by `_<task name>` if there is one."""
    assert options.dataset is not None
    name = spec.results_name.format(variant=options.variant, dataset=options.dataset.resolve().name)
    root = options.model_dir or Path("results") / name
    task = f"_{options.task_name}" if options.task_name else ""
    return root / spec.fold_name(options.variant) / f"{options.network}_gates_{options.gates}{task}"


def find_resume_point(
    folder: Path, options: Options, spec: DatasetSpec, dataset: DatasetSplits
) -> tuple[Path, Content] | tuple[None, None]:
    """Return the path and content of the checkpoint to resume from, None to start at epoch 1.

    Raises FileNotFoundError for a missing checkpoint, and ValueError for one of another network, epoch, split or set of
    classes, and for a fresh start into a folder with results: nothing is overwritten by mistake.
    """
    if options.resume_epoch is None:
        if any(folder.glob("*.pth")) or any(folder.glob("*.csv")):
            raise ValueError(
                f"{folder}: output directory is not empty; --resume-epoch auto resumes, --task-name starts another run"
            )
        _check_order(options.pretrained_3d, list(dataset.classes))
        return None, None
    if options.resume_epoch != "auto":
        path, checkpoint = _load_epoch(folder, options, int(options.resume_epoch) - 1)
    elif found := find_latest(folder, options.network):
        path, checkpoint = found
    elif any(folder.glob(f"{options.network}_*.pth")):
        raise ValueError(f"{folder}: none of its checkpoints can be read; --task-name starts another run")
    else:
        logger.info("%s: no checkpoint, starting at epoch 1", folder)
        _check_order(options.pretrained_3d, list(dataset.classes))
        return None, None
    with error_context(path):
        for mismatch in _mismatches(checkpoint, options, spec, dataset):
            raise ValueError(f"{path}: {mismatch}")
        if checkpoint["dataset"]["fingerprint"] != dataset.fingerprint():
            logger.warning("%s: the dataset changed since", path)
    logger.info("%s: resuming from epoch %d, step %d", path, checkpoint["epoch"] + 1, checkpoint["step"] + 1)
    return path, checkpoint


def _check_order(path: Path | None, classes: list[str]) -> None:
    """Raise ValueError for a file of pretrained weights whose classes are these under other numbers."""
    content = read_tensors_file(weights_path(path)) if path else None
    names = content.get("classes") if isinstance(content, dict) else None
    saved = [clean(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if sorted(saved) == sorted(classes) and saved != classes:
        how = describe_difference(saved, classes, ("the file", "the dataset"))
        raise ValueError(f"{path}: {how}; copy the dictionary.json it was trained with")


def _load_epoch(folder: Path, options: Options, epoch: int) -> tuple[Path, Content]:
    """Return the checkpoint after an epoch: `--pretrained-3d`, by default the folder's own.

    If fine-tuning, the folder's own comes first, as `--pretrained-3d` names the weights that the run started from.
    """
    path = checkpoint_path(folder, options.network, epoch)
    if options.pretrained_3d and not (options.fine_tune and path.is_file()):
        path = options.pretrained_3d
    checkpoint = load_checkpoint(path)
    if (checkpoint["epoch"], checkpoint["step"]) != (epoch, 0):
        raise ValueError(
            f"{path}: saved in epoch {checkpoint['epoch'] + 1} at step {checkpoint['step']}, "
            f"--resume-epoch {epoch + 1} resumes from the end of epoch {epoch}"
        )
    return path, checkpoint


def _mismatches(
    checkpoint: Content, options: Options, spec: DatasetSpec, dataset: DatasetSplits
) -> Iterator[str]:
    """Yield what a checkpoint and the run that would resume from it do not share."""
    names = SAME_NETWORK
    if checkpoint["step"]:
        names = SAME_NETWORK + SAME_BATCHES
        if options.long_cycle_period == "lr-stage":
            names += SAME_LR_STAGES
    current = options.to_dict()
    before = Options().to_dict() | checkpoint["options"]
    for name in names:
        if (saved := before[name]) != current[name]:
            flag = (name == "variant" and spec.variant_flag) or name.replace("_", "-")
            yield f"saved with --{flag} {sanitize(saved)}, not {current[name]}; --task-name starts another run"
    if options.fine_tune and not is_fine_tuning(checkpoint["optimizer"]):
        yield "saved by a run without --fine-tune, leave it out"
    saved = checkpoint["normalization"]["channel_order"]
    if options.channel_order not in (None, saved):
        yield f"saved with --channel-order {saved}, not {options.channel_order}"
    old, new = list(map(clean, checkpoint["classes"])), list(dataset.classes)
    if old != new:
        how = describe_difference(old, new, ("the file", "the dataset"))
        yield f"saved for {len(old)} classes, which differ from the {len(new)} of this dataset: {how}"
    if checkpoint["step"] and checkpoint["dataset"]["fingerprint"] != dataset.fingerprint():
        yield "the dataset changed since, cannot resume within an epoch"


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold `run.lock`, which the system releases with the process. ValueError if another run holds it."""
    try:
        with FileLock(folder / "run.lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"{folder}: another run is writing to it now; --task-name starts another run"
        ) from None


class LogFile(MemoryHandler):
    """A logging handler for the log file of a run; it keeps records until `open` names the file."""

    def __init__(self) -> None:
        super().__init__(capacity=100_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)

    def open(self, path: Path) -> None:
        """Append all records so far to a file, and from now on each at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        file.setFormatter(_PlainFormatter(LOG_FORMAT))
        self.setTarget(file)
        self.flushLevel = logging.NOTSET
        self.flush()

    def write_error(self, error: Exception) -> None:
        """Append the error that ends the run, unless it ends before `open`."""
        self.handle(logger.makeRecord(__name__, logging.ERROR, "", 0, "%s", (error,), None))

    def close(self) -> None:
        if self.target:
            with contextlib.suppress(OSError):  # of a full disk
                self.target.close()
        super().close()


class _PlainFormatter(logging.Formatter):
    """Removes the colors of a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return ansi_strip(super().format(record))
