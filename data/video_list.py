"""The videos and classes of a dataset: rows of label files whose frame database exists."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.datasets import DatasetSpec
from data.frame_store import DATABASE, has_store
from data.label_files import Annotation, find_label_folder, read_label_csv, read_or_write_classes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoIndex:
    """The videos of a split, as arrays, which data loader workers share without copying.

    `folders`: `(N,)` paths below `root`, as bytes; `labels`: `(N,)` class numbers; `sizes`: `(N,)` bytes of each frame
    database. `missing`: number of videos of the label file without a frame database, by class.
    """

    root: Path
    folders: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    missing: Counter[str]

    def __len__(self) -> int:
        return len(self.folders)

    def folder(self, index: int) -> Path:
        """Return the folder of a video."""
        return self.root / os.fsdecode(self.folders[index])


@dataclass(frozen=True)
class DatasetSplits:
    """The training and validation videos of a dataset. `classes`: names in the order of their numbers."""

    classes: tuple[str, ...]
    train: VideoIndex
    val: VideoIndex

    def summary(self) -> dict[str, Any]:
        """Return counts of videos, missing videos and classes, and the fingerprint."""
        counts = {
            name: {"videos": len(videos), "missing": videos.missing.total()}
            for name, videos in (("train", self.train), ("val", self.val))
        }
        return {**counts, "classes": len(self.classes), "fingerprint": self.fingerprint()}

    def fingerprint(self) -> str:
        """Return a hash of classes, and of folder, label and database size of each video of each split.

        Sizes are known from looking for the databases. A video that is converted again from another copy, at another
        size or quality, or cut short has another number of bytes.
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
) -> DatasetSplits:
    """Read the label files of a variant and find its videos below `root/jpg`.

    Raise FileNotFoundError for missing folders and label files; ValueError for invalid label files, for another number
    of classes than `num_classes`, and if more than the fraction `max_missing` of a split is missing.
    """
    if not (root / "jpg").is_dir():
        raise FileNotFoundError(f"{root}: --dataset must be a folder with jpg/<class>/<video_id>/frames.db")
    folder = find_label_folder(root, spec.train_csv.format(variant=variant), labels)
    train_csv = folder / spec.train_csv.format(variant=variant)
    val_csv = folder / spec.val_csv.format(variant=variant)
    train_rows, val_rows = (read_label_csv(path, spec.timed_ids) for path in (train_csv, val_csv))
    classes = read_or_write_classes(train_csv, train_rows)
    if num_classes is not None and len(classes) != num_classes:
        raise ValueError(
            f"{train_csv}: has {len(classes)} classes, expected {num_classes}; "
            f"--num-classes {len(classes)} accepts it"
        )
    return DatasetSplits(
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
    whose: str = "classes of the training set; if its dictionary.json is older than the label files, remove it",
) -> VideoIndex:
    """Return the rows of label file `path` whose frame database is below `root`; log the missing ones by class.

    Raise ValueError for a class that is not in `classes`; `whose` completes the message.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    for row in rows:
        if row.label not in numbers:
            raise ValueError(f"{row.location}: class {row.label!r} is not one of the {len(classes)} {whose}")
    sizes = [_database_size(root / row.folder) for row in rows]
    found = [(row, size) for row, size in zip(rows, sizes, strict=True) if size is not None]
    missing = Counter(row.label for row, size in zip(rows, sizes, strict=True) if size is None)
    if missing:
        worst = ", ".join(f"{name} {count}" for name, count in missing.most_common(5))
        logger.warning(
            "%s: missing frame databases for %d of %d videos; most in classes %s",
            *(path, missing.total(), len(rows), worst),
        )
    if not found:
        example = root / rows[0].folder / DATABASE
        raise ValueError(f"{path}: none of its {len(rows)} videos has a frame database, such as {example}")
    if missing.total() > max_missing * len(rows):
        raise ValueError(
            f"{path}: missing frame databases for {missing.total()} of {len(rows)} videos, "
            f"more than --max-missing {max_missing:g} allows"
        )
    return VideoIndex(
        root=root,
        folders=np.array([os.fsencode(row.folder) for row, _ in found]),
        labels=np.array([numbers[row.label] for row, _ in found], dtype=np.int64),
        sizes=np.array([size for _, size in found], dtype=np.int64),
        missing=missing,
    )


def _database_size(folder: Path) -> int | None:
    """Return the size in bytes of a folder's frame database, None if there is none."""
    try:
        return os.stat(folder / DATABASE).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def find_stores(root: Path) -> list[Annotation]:
    """Return all stores `<class>/<video_id>` below `root`, sorted."""
    return [
        Annotation(folder.name, path.name)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if has_store(path) and not path.name.startswith(".")
    ]
