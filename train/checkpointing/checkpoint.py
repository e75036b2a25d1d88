"""Checkpoint files: save atomically, load safely, and find the latest."""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from data.common.atomic_io import atomic_path
from data.common.cli import sanitize
from network.pretrained import read_tensors_file

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


def copy_checkpoint(source: Path, path: Path) -> None:
    """Copy a checkpoint atomically."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


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


def load_readable(path: Path) -> Content | None:
    """Load a checkpoint; return None if there is none, or, with a warning, if it cannot be read."""
    try:
        return load_checkpoint(path) if path.exists() else None
    except ValueError as error:
        logger.warning("checkpoint skipped: %s", error)
        return None


def find_latest(folder: Path, network: str) -> tuple[Path, Content] | None:
    """Return the latest readable checkpoint by (epoch, step), and its path."""
    found: list[tuple[Path, Content]] = []
    for path in _epoch_checkpoints(folder, network):
        if content := load_readable(path):
            found.append((path, content))
            break
    for path in (checkpoint_path(folder, network, which) for which in ("last", "best")):
        if content := load_readable(path):
            found.append((path, content))
    return max(found, key=lambda pair: _progress(pair[1]), default=None)


def archive_newer(folder: Path, network: str, epoch: int, step: int) -> None:
    """Rename checkpoints later than (epoch, step) to `<name>.old`, so that the next resume ignores them."""
    newer = [path for path in _epoch_checkpoints(folder, network) if _epoch_in_name(path) > epoch]
    for path in (checkpoint_path(folder, network, which) for which in ("last", "best")):
        content = load_readable(path)
        if content is not None and _progress(content) > (epoch, step):
            newer.append(path)
    for path in newer:
        archived = path.replace(path.with_name(f"{path.name}.old"))
        logger.info("%s: newer than the resume point, renamed to %s", path, archived.name)


def _progress(content: Content) -> tuple[int, int]:
    return content["epoch"], content["step"]


def _epoch_checkpoints(folder: Path, network: str) -> list[Path]:
    """Return the checkpoints after epochs, the latest first."""
    paths = [path for path in folder.glob(f"{network}_ep-*.pth") if re.search(r"_ep-\d+\.pth$", path.name)]
    return sorted(paths, key=_epoch_in_name, reverse=True)


def _epoch_in_name(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
