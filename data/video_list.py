"""What training and validation see of a data set: its classes, and the videos of each split that are there."""

import errno
import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.common.cli import sanitize
from data.datasets import DatasetSpec
from data.frame_store import DATABASE, has_store
from data.label_files import Annotation, find_label_folder, read_label_csv, read_or_write_classes

logger = logging.getLogger(__name__)
# what says that there is no file of a name, and can be none
NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class VideoIndex:
    """The videos of a split that are there. Arrays, not lists: workers share them without copying.

    `folders`: `(N,)` paths relative to `jpg/`, as bytes; `labels`: `(N,)` class numbers; `sizes`: `(N,)` bytes of each
    store. `missing`: videos per class in the label file whose store is not there.
    """

    root: Path
    folders: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    missing: Counter[str]

    def __len__(self) -> int:
        return len(self.folders)

    def folder(self, index: int) -> Path:
        return self.root / os.fsdecode(self.folders[index])


@dataclass(frozen=True)
class Dataset:
    """What training and validation see of a data set. `classes` are names in the order of their numbers."""

    classes: tuple[str, ...]
    train: VideoIndex
    val: VideoIndex

    def summary(self) -> dict[str, Any]:
        """Counts of what is there and what is missing, and the fingerprint; plain values."""
        counts = {
            name: {"videos": len(videos), "missing": videos.missing.total()}
            for name, videos in (("train", self.train), ("val", self.val))
        }
        return {**counts, "classes": len(self.classes), "fingerprint": self.fingerprint()}

    def fingerprint(self) -> str:
        """Changes when a video, its label or its split does, or the number of bytes of a store.

        The bytes are known from looking whether the store is there, so half a million videos cost no more than that. A
        video converted anew, from another copy, at another size or quality, or cut short, has another number of them.
        """
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for videos in (self.train, self.val):
            columns = (videos.folders.tolist(), videos.labels.tolist(), videos.sizes.tolist())
            for video in sorted(zip(*columns, strict=True)):
                digest.update(b"\n%s %d %d" % video)
            digest.update(b"\n\n")
        return digest.hexdigest()[:16]


def load_dataset(
    root: Path,
    spec: DatasetSpec,
    variant: str,
    labels: Path | None,
    num_classes: int | None,
    max_missing: float,
) -> Dataset:
    """Read the label files of a variant and find its videos below `root/jpg`.

    Raises FileNotFoundError for folders and label files that are not there, ValueError for label files that make no
    sense, for another number of classes than `num_classes`, and where more than a share of `max_missing` of a split is
    missing.
    """
    if not (root / "jpg").is_dir():
        raise FileNotFoundError(
            f"{root}: --dataset must be a folder that holds jpg/<class>/<video_id>/frames.db"
        )
    folder = find_label_folder(root, spec.train_csv.format(variant=variant), labels)
    train_csv = folder / spec.train_csv.format(variant=variant)
    val_csv = folder / spec.val_csv.format(variant=variant)
    train_rows, val_rows = (read_label_csv(path, spec.timed_ids) for path in (train_csv, val_csv))
    classes = read_or_write_classes(train_csv, train_rows)
    if num_classes is not None and len(classes) != num_classes:
        raise ValueError(
            f"{train_csv}: has {len(classes)} classes where {num_classes} are expected; "
            f"--num-classes {len(classes)} accepts it"
        )
    return Dataset(
        classes=tuple(classes),
        train=find_videos(root / "jpg", train_csv, train_rows, classes, max_missing),
        val=find_videos(root / "jpg", val_csv, val_rows, classes, max_missing),
    )


def find_videos(
    root: Path,
    path: Path,
    rows: Sequence[Annotation],
    classes: Sequence[str],
    max_missing: float,
    whose: str = "of the training set; if its dictionary.json is older than the label files, remove it",
) -> VideoIndex:
    """The rows whose store is below `root`; the others are counted, and logged per class.

    `whose` classes these are is said where a row is of none.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = next((row for row in rows if row.label not in numbers), None)
    if unknown is not None:
        raise ValueError(
            f"{path}: class {sanitize(unknown.label)!r} is not one of the {len(classes)} {whose}"
        )
    sizes = [_store_bytes(root / row.label / row.video_id) for row in rows]
    found = [row for row, size in zip(rows, sizes, strict=True) if size is not None]
    missing = Counter(row.label for row in rows)
    missing.subtract(row.label for row in found)
    missing = +missing
    if missing:
        worst = ", ".join(f"{sanitize(name)} {count}" for name, count in missing.most_common(5))
        logger.warning(
            "%s: %d of %d videos have no store; most in %s", path, missing.total(), len(rows), worst
        )
    if not found:
        first = root / sanitize(rows[0].label) / sanitize(rows[0].video_id)
        raise ValueError(f"{path}: none of its {len(rows)} videos has a store, as {first}")
    if missing.total() > max_missing * len(rows):
        raise ValueError(
            f"{path}: {missing.total()} of {len(rows)} videos have no store, "
            f"more than --max-missing {max_missing:g} allows"
        )
    return VideoIndex(
        root=root,
        folders=np.array([os.fsencode(os.path.join(row.label, row.video_id)) for row in found]),
        labels=np.array([numbers[row.label] for row in found], dtype=np.int64),
        sizes=np.array([size for size in sizes if size is not None], dtype=np.int64),
        missing=missing,
    )


def _store_bytes(folder: Path) -> int | None:
    """Of the database in a video's folder, None where there is none."""
    try:
        status = os.stat(folder / DATABASE)
    except OSError as error:
        if error.errno in NOWHERE:
            return None
        raise
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def find_stores(root: Path) -> list[Annotation]:
    """All stores `<class>/<video_id>` below `root`, in order."""
    return [
        Annotation(folder.name, path.name)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if has_store(path) and not path.name.startswith(".")
    ]
