"""Checkpoints: tensors and plain values, written beside their place, flushed and renamed: a good one is never lost."""

import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from data.common.atomic_io import flush_to_disk, naming
from data.common.cli import sanitize
from network.pretrained import read_tensors_file
from train.input_norm import ClipNormalizer
from train.metrics import NUM_METRIC_SUMS

logger = logging.getLogger(__name__)

# what a checkpoint holds, and as what
KEYS = {
    "state_dict": Mapping,
    "epoch": int,
    "step": int,
    "options": Mapping,
    "optimizer": Mapping,
    "scaler": Mapping,
    "generators": Mapping,
    "metrics": Mapping,
    "classes": list,
    "normalization": Mapping,
    "dataset": Mapping,
}


METRICS = {"sums": list, "bad_samples": int, "best_top1": float}


def epoch_path(folder: Path, network: str, epoch: int) -> Path:
    """The checkpoint after an epoch."""
    return folder / f"{network}_ep-{epoch:04d}.pth"


def last_path(folder: Path, network: str) -> Path:
    """The checkpoint within an epoch."""
    return folder / f"{network}_last.pth"


def best_path(folder: Path, network: str) -> Path:
    """The checkpoint of the best validation top-1."""
    return folder / f"{network}_best.pth"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: whenever this is interrupted, `path` is the old file or the new one."""
    with _whole(path) as file:
        _write(content, file)


def copy_checkpoint(source: Path, path: Path) -> None:
    """The same bytes under another name, whole or not at all."""
    with _whole(path) as file, source.open("rb") as original:
        shutil.copyfileobj(original, file)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place when what is within is done."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            with staging.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            staging.replace(path)
            flush_to_disk(path.parent)
    finally:
        staging.unlink(missing_ok=True)


def _write(content: dict[str, Any], file: BinaryIO) -> None:
    """As torch.save, which hides the reason why it could not write."""
    try:
        torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of ours, whole. FileNotFoundError or ValueError where it is not."""
    content = read_tensors_file(path)
    absent = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if absent:
        raise ValueError(
            f"{path}: cannot be resumed from, has no {', '.join(absent)}; --pretrained-3d takes its weights"
        )
    odd = [key for key, kind in KEYS.items() if not _is(content[key], kind)]
    odd += [key for key in ("epoch", "step") if key not in odd and content[key] < 0]
    if not odd:
        metrics = content["metrics"]
        odd += [key for key, kind in METRICS.items() if not _is(metrics.get(key), kind)]
        if "sums" not in odd and not _are_sums(metrics["sums"]):
            odd.append("sums")
        odd += [sanitize(name) for name, value in content["options"].items() if not _is_plain(value)]
    if odd:
        raise ValueError(f"{path}: cannot be resumed from, its {odd[0]} is not what a run writes")
    with error_context(path):
        ClipNormalizer.of(content["normalization"])
    return content


def _is(value: Any, kind: type) -> bool:
    """Whether it is of that kind; to Python, True is a number as well."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_sums(values: list[Any]) -> bool:
    return len(values) == NUM_METRIC_SUMS and all(_is(value, float) or _is(value, int) for value in values)


def _is_plain(value: Any) -> bool:
    """Whether it is the value of an option; others have no end to print, if somebody meant them so."""
    values = value if isinstance(value, list) else [value]
    return all(isinstance(item, str | int | float | None) for item in values)


@contextmanager
def error_context(path: Path) -> Iterator[None]:
    """Within, whatever the content of a file makes go wrong is a ValueError that names it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if str(path) in str(error):
            raise
        reason = sanitize(error if isinstance(error, ValueError | RuntimeError) else repr(error))
        raise ValueError(f"{path}: cannot be gone on with, {reason}") from error


def find_latest(folder: Path, network: str) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint furthest by (epoch, step), None where there is none. One that cannot be read is passed over."""
    after_epochs = _after_epochs(folder, network)
    others = ([last_path(folder, network)], [best_path(folder, network)])
    furthest = [_first_readable(paths) for paths in (after_epochs, *others)]
    found = [pair for pair in furthest if pair is not None]
    return max(found, key=lambda pair: (pair[1]["epoch"], pair[1]["step"]), default=None)


def archive_newer(folder: Path, network: str, epoch: int, step: int) -> None:
    """Rename checkpoints further than a start to `<name>.old`, so that this run's own are found after it.

    Where another start has done so before, to `<name>.old2` and so on.
    """
    later = [path for path in _after_epochs(folder, network) if _epoch_in_name(path) > epoch]
    for path in (last_path(folder, network), best_path(folder, network)):  # whose names do not say
        found = _first_readable([path])
        if found is not None and (found[1]["epoch"], found[1]["step"]) > (epoch, step):
            later.append(path)
    for path in later:
        names = (f"{path.name}.old{number}" for number in itertools.chain([""], itertools.count(2)))
        aside = next(place for place in map(path.with_name, names) if not place.exists())
        path.replace(aside)
        logger.info("%s: is further than this run's start, renamed to %s", path, aside.name)


def _after_epochs(folder: Path, network: str) -> list[Path]:
    """Checkpoints after epochs, the last first."""
    paths = [path for path in folder.glob(f"{network}_ep-*.pth") if re.search(r"_ep-\d+\.pth$", path.name)]
    return sorted(paths, key=_epoch_in_name, reverse=True)


def _epoch_in_name(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _first_readable(paths: list[Path]) -> tuple[Path, dict[str, Any]] | None:
    for path in paths:
        if not path.exists():
            continue
        try:
            return path, load_checkpoint(path)
        except ValueError as error:
            logger.warning("passed over: %s", error)
    return None
