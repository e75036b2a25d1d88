"""Checkpoint files: save atomically, load safely, and find the latest."""

import copy
import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.common.atomic_io import atomic_path
from data.common.cli import sanitize
from network.pretrained import read_tensors_file
from train.parallel.distributed import map_tensors

logger = logging.getLogger(__name__)

Content = dict[str, Any]

# Tensors and plain values only, so that a checkpoint loads with weights_only=True. `state_dict` is what was validated:
# the EMA if there is one. `epoch`: completed epochs, `step`: completed steps of the next one.
KEYS: tuple[str, ...] = ("state_dict", "epoch", "step", "options", "optimizer", "scaler", "generators")
KEYS += ("metrics", "classes", "normalization", "dataset")


def checkpoint_path(folder: Path, network: str, which: int | str) -> Path:
    """Return the path of the checkpoint after epoch `which`, of the `last` one within an epoch, or of the `best`."""
    return folder / f"{network}_{f'ep-{which:04d}' if isinstance(which, int) else which}.pth"


def save_checkpoint(path: Path, content: Content) -> None:
    """Write a checkpoint atomically: if interrupted, `path` is still the old file."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch hides why it could not write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def snapshot(content: Content) -> Content:
    """Return a copy on the CPU that training does not change. Tensors there that share memory still do in the copy."""
    copies: dict[int, Any] = {}

    def leave_gpu(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cpu":  # deepcopy would copy it where it is
            copies[id(tensor)] = tensor.cpu()
        return tensor

    map_tensors(content, leave_gpu)
    return copy.deepcopy(content, copies)


def load_checkpoint(path: Path) -> Content:
    """Load a checkpoint onto the CPU. Raises FileNotFoundError, or ValueError if it is not a checkpoint of ours."""
    content = read_tensors_file(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a checkpoint but a {type(content).__name__}")
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise ValueError(
            f"{path}: cannot resume from this file, it has no {', '.join(missing)}; --pretrained-3d loads weights"
        )
    if not all(isinstance(content[key], int) for key in ("epoch", "step")):
        raise ValueError(f"{path}: invalid checkpoint: epoch or step is not a number")
    return content


@contextmanager
def error_context(path: Path) -> Iterator[None]:
    """Turn errors caused by the content of a checkpoint into a ValueError that names the file."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if str(path) in str(error):
            raise
        reason = sanitize(error if isinstance(error, ValueError | RuntimeError) else repr(error))
        raise ValueError(f"{path}: invalid checkpoint: {reason}") from error


def load_readable(*paths: Path) -> Iterator[tuple[Path, Content]]:
    """Yield the checkpoints among `paths`, with a warning for files that cannot be read."""
    for path in paths:
        try:
            if path.exists():
                yield path, load_checkpoint(path)
        except ValueError as error:
            logger.warning("checkpoint skipped: %s", error)


def find_latest(folder: Path, network: str) -> tuple[Path, Content] | None:
    """Return the latest readable checkpoint by (epoch, step), and its path."""
    by_epoch = sorted(_epoch_checkpoints(folder, network).items(), reverse=True)
    latest_epoch = itertools.islice(load_readable(*(path for _, path in by_epoch)), 1)
    others = load_readable(*(checkpoint_path(folder, network, which) for which in ("last", "best")))
    return max([*latest_epoch, *others], key=lambda pair: _progress(pair[1]), default=None)


def archive_newer(folder: Path, network: str, epoch: int, step: int) -> None:
    """Rename checkpoints later than (epoch, step) to `<name>.old`, so that the next resume ignores them."""
    newer = [path for number, path in _epoch_checkpoints(folder, network).items() if number > epoch]
    others = load_readable(*(checkpoint_path(folder, network, which) for which in ("last", "best")))
    newer += [path for path, content in others if _progress(content) > (epoch, step)]
    for path in newer:
        archived = path.replace(path.with_name(f"{path.name}.old"))
        logger.info("%s: newer than the resume point, renamed to %s", path, archived.name)


def _progress(content: Content) -> tuple[int, int]:
    return content["epoch"], content["step"]


def _epoch_checkpoints(folder: Path, network: str) -> dict[int, Path]:
    """Return epoch -> its own checkpoint."""
    numbers = (
        (re.search(r"_ep-(\d+)\.pth$", path.name), path) for path in folder.glob(f"{network}_ep-*.pth")
    )
    return {int(match[1]): path for match, path in numbers if match}
