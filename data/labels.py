"""python -m data.labels folders DATASET [--val 0.2] [--seed 1] [--overwrite]

Write DATASET/labels/train.csv and val.csv for the stores in DATASET/jpg/<class>/<id>, a share of each class for
validation.

This module also reads label files: CSVs with a header and the columns `label`, `youtube_id` or `id`, and perhaps
`time_start`, `time_end` and `split`. Class numbers come from `<prefix>dictionary.json` beside the training CSV if it is
there (that is how published weights number their classes), else from the order of first appearance, which is then
written there.
"""

import csv
import hashlib
import json
import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from data.command_line import OneLineParser
from data.datasets import DatasetSpec
from data.files import write_whole
from data.frame_store import has_store

logger = logging.getLogger(__name__)


class LabelRow(NamedTuple):
    """A row of a label file: the class, and the video's folder below `jpg/<class>/`."""

    label: str
    video_id: str


@dataclass(frozen=True)
class VideoList:
    """The videos of a split that are there. Arrays, not lists: workers share them without copying.

    `folders`: `(N,)` paths relative to `jpg/`, as bytes; `labels`: `(N,)` class numbers. `missing`: videos per class in
    the label file whose store is not there.
    """

    root: Path
    folders: np.ndarray
    labels: np.ndarray
    missing: Counter[str]

    def __len__(self) -> int:
        return len(self.folders)

    def folder(self, index: int) -> Path:
        return self.root / os.fsdecode(self.folders[index])


@dataclass(frozen=True)
class Dataset:
    """What training and validation see of a data set. `classes` are names in the order of their numbers."""

    classes: tuple[str, ...]
    train: VideoList
    val: VideoList

    def summary(self) -> dict[str, Any]:
        """Counts of what is there and what is missing, and the fingerprint; plain values."""
        counts = {
            name: {"videos": len(videos), "missing": videos.missing.total()}
            for name, videos in (("train", self.train), ("val", self.val))
        }
        return {**counts, "classes": len(self.classes), "fingerprint": self.fingerprint()}

    def fingerprint(self) -> str:
        """Changes when a video, its label or its split does."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for videos in (self.train, self.val):
            for folder, label in sorted(zip(videos.folders.tolist(), videos.labels.tolist(), strict=True)):
                digest.update(b"\n%s %d" % (folder, label))
            digest.update(b"\n\n")
        return digest.hexdigest()[:16]


def open_dataset(
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


def find_label_folder(root: Path, train_csv: str, labels: Path | None) -> Path:
    """`labels` if given, else `root/labels`, else `labels` beside the `data` folder above `root`."""
    if labels is not None:
        candidates = [labels]
    else:
        candidates = [root / "labels"]
        candidates += [
            parent.parent / "labels" for parent in root.absolute().parents if parent.name == "data"
        ]
    for candidate in candidates:
        if (candidate / train_csv).is_file():
            return candidate
    places = " and ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(f"label file {train_csv}: not found in {places}; --labels names its folder")


def read_label_csv(path: Path, timed_ids: bool) -> list[LabelRow]:
    """The rows of a label file. ValueError with file and line for one that cannot be meant.

    With `timed_ids` a row with times is the folder `<id>_<start>_<end>`, seconds as `%06d`; one without is `<id>`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such label file")
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            id_column = next((name for name in ("youtube_id", "id") if name in columns), None)
            if "label" not in columns or id_column is None:
                raise ValueError(
                    f"{path}: has the columns {', '.join(columns)}; needs label, and youtube_id or id"
                )
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                label, video_id = row["label"] or "", row[id_column] or ""
                _check_stays_inside(label, place)
                _check_stays_inside(video_id, place)
                if timed_ids:
                    video_id += _time_suffix(row, place)
                rows.append(LabelRow(label, video_id))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not a CSV in UTF-8, {error}") from error
    if not rows:
        raise ValueError(f"{path}: has no rows")
    return rows


def dictionary_path(train_csv: Path) -> Path:
    """`kinetics-700_train.csv` -> `kinetics-700_dictionary.json`, whatever the folders above are called."""
    prefix, _, _ = train_csv.name.rpartition("train")
    return train_csv.with_name(f"{prefix}dictionary.json")


def read_or_write_classes(train_csv: Path, rows: Sequence[LabelRow]) -> list[str]:
    """Class names in the order of their numbers. The dictionary maps each name to its number, from 0 without a gap."""
    path = dictionary_path(train_csv)
    if not path.exists():
        classes = list(dict.fromkeys(row.label for row in rows))
        try:
            write_whole(
                path, json.dumps({name: i for i, name in enumerate(classes)}, indent=1, ensure_ascii=False)
            )
        except OSError as error:
            logger.warning("%s: the numbers of the classes could not be written, %s", path, error)
        return classes
    try:
        numbers = {str(name): int(number) for name, number in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is not a JSON object of class names and numbers, {error}") from error
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise ValueError(
            f"{path}: the numbers of {len(numbers)} classes must be 0 to {len(numbers) - 1}, each once"
        )
    return sorted(numbers, key=numbers.__getitem__)


def find_videos(
    root: Path, path: Path, rows: Sequence[LabelRow], classes: Sequence[str], max_missing: float
) -> VideoList:
    """The rows whose store is below `root`; the others are counted, and logged per class."""
    numbers = {name: number for number, name in enumerate(classes)}
    unknown = next((row for row in rows if row.label not in numbers), None)
    if unknown is not None:
        raise ValueError(
            f"{path}: class {unknown.label!r} is not one of the {len(classes)} of the training set; "
            "if its dictionary.json is older than the label files, remove it"
        )
    found = [row for row in rows if has_store(root / row.label / row.video_id)]
    missing = Counter(row.label for row in rows)
    missing.subtract(row.label for row in found)
    missing = +missing
    if missing:
        worst = ", ".join(f"{name} {count}" for name, count in missing.most_common(5))
        logger.warning(
            "%s: %d of %d videos have no store; most in %s", path, missing.total(), len(rows), worst
        )
    if not found:
        raise ValueError(
            f"{path}: none of its {len(rows)} videos has a store, as {root / rows[0].label / rows[0].video_id}"
        )
    if missing.total() > max_missing * len(rows):
        raise ValueError(
            f"{path}: {missing.total()} of {len(rows)} videos have no store, "
            f"more than --max-missing {max_missing:g} allows"
        )
    return VideoList(
        root=root,
        folders=np.array([os.fsencode(os.path.join(row.label, row.video_id)) for row in found]),
        labels=np.array([numbers[row.label] for row in found], dtype=np.int64),
        missing=missing,
    )


def split_folders(root: Path, val_share: float, seed: int) -> tuple[list[LabelRow], list[LabelRow]]:
    """Training and validation rows for the stores below `root`: a share of every class, at least one on each side."""
    training, validation = [], []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        ids = sorted(
            path.name for path in folder.iterdir() if has_store(path) and not path.name.startswith(".")
        )
        if not ids:
            continue
        if len(ids) < 2:
            raise ValueError(f"{folder}: has 1 video, a class needs one for training and one for validation")
        random.Random(f"{seed} {folder.name}").shuffle(ids)
        count = min(max(round(val_share * len(ids)), 1), len(ids) - 1)
        validation += [LabelRow(folder.name, video_id) for video_id in ids[:count]]
        training += [LabelRow(folder.name, video_id) for video_id in ids[count:]]
    if not training:
        raise ValueError(f"{root}: holds no <class>/<video_id>/frames.db")
    return training, validation


def _time_suffix(row: dict[str, str], place: str) -> str:
    times = [(row.get(name) or "").strip() for name in ("time_start", "time_end")]
    if not any(times):
        return ""
    try:
        start, end = (int(float(time)) for time in times)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{place}: times {times[0]!r} to {times[1]!r} are not two numbers of seconds"
        ) from None
    if not 0 <= start <= end:
        raise ValueError(f"{place}: times {start} to {end} must rise from 0 on")
    return f"_{start:06d}_{end:06d}"


def _check_stays_inside(name: str, place: str) -> None:
    """A label or id becomes a folder: it must not climb out of the data set."""
    if not name.strip():
        raise ValueError(f"{place}: label or id is empty")
    if "\0" in name or name.startswith("/") or not {".", ".."}.isdisjoint(name.split("/")):
        raise ValueError(f"{place}: {name!r} leaves the data set's folder")
    if PurePosixPath(name).parts == ():
        raise ValueError(f"{place}: {name!r} names no folder")


def write_label_csv(path: Path, rows: Sequence[LabelRow], split: str) -> None:
    lines = ["label,id,split"]
    for row in rows:
        lines.append(",".join('"' + field.replace('"', '""') + '"' for field in (*row, split)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m data.labels", description=__doc__.split("\n\n")[1])
    commands = parser.add_subparsers(dest="command", required=True)
    folders = commands.add_parser("folders", help="label files for a data set of one's own, from its folders")
    folders.add_argument("dataset", type=Path, metavar="DATASET", help="the folder that holds jpg/")
    folders.add_argument(
        "--val", type=float, default=0.2, help="share of each class for validation (default: 0.2)"
    )
    folders.add_argument("--seed", type=int, default=1, help="which videos are chosen (default: 1)")
    folders.add_argument("--overwrite", action="store_true", help="replace label files that are there")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.val < 1:
        parser.error(f"--val {arguments.val}: must be between 0 and 1")
    targets = [arguments.dataset / "labels" / f"{split}.csv" for split in ("train", "val")]
    present = [path for path in targets if path.exists()]
    if present and not arguments.overwrite:
        parser.error(f"{present[0]} exists; --overwrite replaces it")
    try:
        splits = split_folders(arguments.dataset / "jpg", arguments.val, arguments.seed)
        for path, rows in zip(targets, splits, strict=True):
            write_label_csv(path, rows, path.stem)
            print(f"{path}: {len(rows)} videos of {len({row.label for row in rows})} classes")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
