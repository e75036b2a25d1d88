"""The videos and classes of a dataset: rows of label files whose frame database exists."""

import glob
import hashlib
import json
import logging
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np

from data.common.atomic_io import atomic_path
from data.datasets import DatasetSpec
from data.frame_store import DATABASE, has_store
from data.label_files import (
    Annotation,
    AnnotationSet,
    class_index_path,
    clean,
    find_label_folder,
    read_classes,
    read_splits,
    write_classes,
)

logger = logging.getLogger(__name__)

CACHE = "video_list.npz"  # in the dataset folder
MIN_CACHED = 20_000  # videos; fewer are found in half a second


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

    def empty_classes(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the classes without a video."""
        labels = set(self.labels.tolist())
        return [name for number, name in enumerate(classes) if number not in labels]


@dataclass(frozen=True)
class DatasetSplits:
    """The training and validation videos of a dataset. `classes`: names in the order of the class index, if any yet."""

    classes: tuple[str, ...]
    train: VideoIndex
    val: VideoIndex
    class_index: Path

    def write_class_index(self) -> None:
        """Write the class index if there is none, so that class numbers never change; log if it cannot be written."""
        try:
            if not self.class_index.exists():
                write_classes(self.class_index, self.classes)
        except OSError as error:
            logger.warning("%s: class index not written, %s", self.class_index, error)

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
            columns = (videos.folders, videos.labels, videos.sizes)
            order = np.lexsort(columns[::-1])  # by folder
            rows = zip(*(column[order].tolist() for column in columns), strict=True)
            digest.update(b"".join(b"\n%s %d %d" % row for row in rows) + b"\n\n")
        return digest.hexdigest()[:16]


def load_dataset(
    root: Path,
    spec: DatasetSpec,
    variant: str,
    labels: Path | None,
    num_classes: int | None,
    max_missing: float | str,
    may_be_empty: bool = False,
) -> DatasetSplits:
    """Read the label files of a variant and find its videos below `root/jpg`.

    The list of a large dataset is cached in its folder, and read from there while the times of label files and class
    folders, and the options, stay the same. Who adds or changes a database in a folder that exists must set the time of
    its class folder.

    Raise FileNotFoundError for missing folders and label files; ValueError for invalid label files, for another number
    of classes than `num_classes`, if more of a split is missing than `max_missing` allows, and for a class without
    training videos, unless `max_missing` is its name, any `may_be_empty`, or `num_classes` is the number of the others.
    """
    if not (root / "jpg").is_dir():
        raise FileNotFoundError(f"{root}: --dataset must be a folder with jpg/<class>/<video_id>/frames.db")
    name = AnnotationSet(spec, variant, root).paths()["train"].name
    files = AnnotationSet(spec, variant, find_label_folder(root, name, labels))
    train_csv, val_csv, _ = files.paths().values()
    index = class_index_path(train_csv)
    logger.debug("labels: %s and %s, class index: %s", train_csv, val_csv, index)
    checks = (num_classes, max_missing, may_be_empty)
    # a folder's time changes when something in it is added, removed, renamed or replaced
    paths = filter(os.path.exists, (train_csv, val_csv, root / "jpg", *os.scandir(root / "jpg")))
    times = {os.fspath(path): os.stat(path).st_mtime_ns for path in paths}
    key = json.dumps([spec.timed_ids, spec.untrained_classes, checks, times])
    indexed = read_classes(index) if index.exists() else None
    if cached := _read_cache(root, key, indexed, index):
        return cached
    warnings = BufferingHandler(capacity=1_000)
    warnings.setLevel(logging.WARNING)
    package = logging.getLogger(__package__)
    package.addHandler(warnings)
    try:
        dataset = _read_dataset(root, files, *checks)
    finally:
        package.removeHandler(warnings)
    if len(dataset.train) + len(dataset.val) >= MIN_CACHED:
        _write_cache(root, key, indexed, dataset, [record.getMessage() for record in warnings.buffer])
    return dataset


def _read_dataset(
    root: Path, files: AnnotationSet, num_classes: int | None, max_missing: float | str, may_be_empty: bool
) -> DatasetSplits:
    train_csv, val_csv, _ = files.paths().values()
    rows = read_splits(dict.fromkeys((train_csv, val_csv), files.spec.timed_ids))
    index = class_index_path(train_csv)
    named = dict.fromkeys(row.label for row in rows[train_csv])
    classes = read_classes(index) if index.exists() else list(named)
    train, val = (find_videos(root / "jpg", path, rows[path], classes, max_missing) for path in rows)
    empty = train.empty_classes(classes)
    num_trained = len(classes) - len(empty)
    if num_classes not in (None, len(classes), num_trained):
        raise ValueError(
            f"{train_csv}: has {len(classes)} classes, expected {num_classes}; "
            f"--num-classes {len(classes)} accepts it"
        )
    if files.spec.untrained_classes:
        empty = [name for name in empty if name in named]
    if num_classes != num_trained and not may_be_empty and not {*empty} <= {max_missing}:
        raise ValueError(
            f"{train_csv}: no videos of {len(empty)} of {len(classes)} classes, such as {empty[:5]}; "
            f"--num-classes {num_trained}, or for one class --max-missing {shlex.quote(empty[0] + '=1')}, leaves "
            f"their outputs untrained; remove {index.name} if it is older than the label files"
        )
    if num_trained == 1:
        logger.warning("%s: has videos of a single class, %r", train_csv, classes[int(train.labels[0])])
    return DatasetSplits(tuple(classes), train, val, index)


def _write_cache(
    root: Path, key: str, indexed: Sequence[str] | None, dataset: DatasetSplits, warnings: Sequence[str]
) -> None:
    splits = (dataset.train, dataset.val)
    about = json.dumps([key, indexed, dataset.classes, warnings, *(videos.missing for videos in splits)])
    columns = [column for videos in splits for column in (videos.folders, videos.labels, videos.sizes)]
    with suppress(OSError), atomic_path(root / CACHE) as temporary, temporary.open("wb") as file:
        np.savez(file, np.array(about), *columns)


def _read_cache(root: Path, key: str, indexed: Sequence[str] | None, index: Path) -> DatasetSplits | None:
    """Return the cached list and log its warnings again; None if it is of another `key` or cannot be read."""
    try:
        with np.load(root / CACHE) as arrays:
            about, *columns = arrays.values()
        cached_key, cached_indexed, classes, warnings, *missing = json.loads(str(about))
    except Exception:  # the file may hold anything, and NumPy, zipfile and zlib raise many
        return None
    # training writes the class index after the list was cached
    if cached_key != key or indexed not in (cached_indexed, classes):
        return None
    for message in warnings:
        logger.warning("%s", message)
    train, val = (
        VideoIndex(root / "jpg", folders, labels, sizes, Counter(counts))
        for (folders, labels, sizes), counts in zip((columns[:3], columns[3:]), missing, strict=True)
    )
    return DatasetSplits(tuple(classes), train, val, index)


def find_videos(
    root: Path,
    path: Path,
    rows: Sequence[Annotation],
    classes: Sequence[str],
    max_missing: float | str,
    whose: str = "classes of the training set; if its dictionary.json is older than the label files, remove it",
) -> VideoIndex:
    """Return the rows of label file `path` whose frame database is below `root`; log the missing ones by class.

    Raise ValueError if more than a fraction, `max_missing`, is missing; if that is the name of a class, of the others
    more than 0.2; and for a class that is not in `classes`: `whose` completes the message.
    """
    allowed = 0.2 if isinstance(max_missing, str) else max_missing
    numbers = {name: number for number, name in enumerate(classes)}
    for row in rows:
        if row.label not in numbers:
            raise ValueError(f"{row.location}: class {row.label!r} is not one of the {len(classes)} {whose}")
    folders = [row.folder for row in rows]
    sizes = [_database_size(root, folder) for folder in folders]
    if None in sizes and (spelled := other_spellings(root)):
        folders = [spelled.get(folder, folder) for folder in folders]
        sizes = [_database_size(root, folder) for folder in folders]
    found = [i for i, size in enumerate(sizes) if size is not None]
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
    num_missing = sum(count for name, count in missing.items() if name != max_missing)
    num_rows = sum(row.label != max_missing for row in rows)
    if num_missing > allowed * num_rows:
        raise ValueError(
            f"{path}: missing frame databases for {num_missing} of {num_rows} videos, "
            f"more than --max-missing {allowed:g} allows"
        )
    videos = VideoIndex(
        root=root,
        folders=np.array([os.fsencode(folders[i]) for i in found]),
        labels=np.array([numbers[rows[i].label] for i in found]),
        sizes=np.array([sizes[i] for i in found]),
        missing=missing,
    )
    if empty := videos.empty_classes(classes):
        logger.warning("%s: no videos of %d of %d classes: %s", path, len(empty), len(classes), empty[:5])
    return videos


def other_spellings(root: Path) -> dict[str, str]:
    """Return the folders `<class>/<video_id>` below `root` whose names are not `clean`, by their clean names."""
    labels = glob.iglob("*/", root_dir=root)
    names = ((label[:-1], video) for label in labels for video in glob.iglob("*", root_dir=root / label))
    cleaned = ((f"{clean(label)}/{clean(video)}", f"{label}/{video}") for label, video in names)
    return {name: other for name, other in cleaned if name != other and not has_store(root / name)}


def _database_size(root: Path, folder: str) -> int | None:
    """Return the size in bytes of a folder's frame database, None if there is none."""
    path = f"{root}/{folder}/{DATABASE}"  # making a Path takes longer than the call
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def find_stores(root: Path) -> list[Annotation]:
    """Return all stores `<class>/<video_id>` below `root`, sorted."""
    return [
        Annotation(clean(folder.name), clean(path.name))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for path in sorted(folder.iterdir())
        if has_store(path) and not path.name.startswith(".")
    ]
