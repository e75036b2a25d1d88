"""Label files: CSVs that name the videos of each class, and the class index that numbers the classes.

A label file has a header and the columns `label`, `youtube_id` or `id`, and optionally `time_start`, `time_end` and
`split`. The class index is `<prefix>dictionary.json` beside the training CSV and maps each class to its number, as
published weights expect it. If the file is missing, classes are numbered by first appearance, and training writes it.
Names are read without blanks around them and in one Unicode form, by `clean`.
"""

import csv
import io
import itertools
import json
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from data.common.atomic_io import atomic_write
from data.datasets import SPECS, DatasetSpec

logger = logging.getLogger(__name__)


def clean(name: str) -> str:
    """Return a name without blanks around it, composed (NFC): names that look the same are the same.

    macOS unzips file names decomposed (NFD), an accent behind its letter.
    """
    return unicodedata.normalize("NFC", name).strip()


@dataclass(frozen=True)
class Annotation:
    """A row of a label file: the class of a video, or of its part between two times.

    `source`: the video's ID. `start`, `end`: seconds, as written in the file; "" for a whole video. `location`: file
    and line, for error messages. `group`: what it shares with other videos, such as a person; "" if unknown.
    """

    label: str
    source: str
    start: str = ""
    end: str = ""
    location: str = field(default="", compare=False)
    group: str = field(default="", compare=False)

    @property
    def seconds(self) -> tuple[float, float] | None:
        """Start and end in seconds, None for a whole video. Raise ValueError unless 0 <= start <= end."""
        if not self.start and not self.end:
            return None
        try:
            start, end = float(self.start), float(self.end)
            if 0 <= int(start) <= int(end):
                return start, end
        except (ValueError, OverflowError):
            pass
        raise ValueError(
            f"{self.location}: times {self.start[:40]!r} to {self.end[:40]!r} must be seconds, 0 <= start <= end"
        )

    @cached_property
    def video_id(self) -> str:
        """Name of the video's folder: `<source>`, or `<source>_000015_000017` for the times 15.5 to 17.5."""
        seconds = self.seconds
        return f"{self.source}_{int(seconds[0]):06d}_{int(seconds[1]):06d}" if seconds else self.source

    @cached_property
    def folder(self) -> str:
        """Path of the video's folder below `jpg/`."""
        return f"{self.label}/{self.video_id}"


Splits = dict[str, list[Annotation]]  # by name: "train", "val", "test"


class AnnotationSet(NamedTuple):
    """The label files of one variant of a dataset in a folder."""

    spec: DatasetSpec
    variant: str
    folder: Path

    def paths(self) -> dict[str, Path]:
        """Return the paths of the label files by split, whether or not they exist."""
        fold = self.spec.fold_name(self.variant)
        names = (name.format(variant=self.variant) for name in (self.spec.train_csv, self.spec.val_csv))
        train, val = (self.folder / (f"{fold}_{name}" if fold else name) for name in names)
        prefix, _, suffix = train.name.rpartition("train")
        return {"train": train, "val": val, "test": self.folder / f"{prefix}test{suffix}"}


def label_folders(root: Path, labels: Path | None) -> list[Path]:
    """Return the folders to search: `labels` if given, else `root/labels` and `labels` beside a parent named `data`."""
    if labels is not None:
        return [labels]
    beside = [parent.parent / "labels" for parent in root.absolute().parents if parent.name == "data"]
    return [root / "labels", *beside]


def find_label_folder(root: Path, train_csv: str, labels: Path | None) -> Path:
    """Return the first of `label_folders` with this file. Raise FileNotFoundError if there is none."""
    folders = label_folders(root, labels)
    for folder in folders:
        if (folder / train_csv).is_file():
            return folder
    searched = " and ".join(str(folder) for folder in folders)
    command = f"data.labels folders {root} --folds N" if train_csv.startswith("fold") else "data.labels"
    raise FileNotFoundError(
        f"label file {train_csv}: not found in {searched}; --labels names its folder, {command} makes it"
    )


def find_folds(folder: Path) -> list[str]:
    """Return the numbers of the folds that a folder has label files of, in order."""
    names = (re.fullmatch(r"fold([1-9]\d*)_train\.csv", path.name) for path in folder.glob("fold*"))
    return sorted((name[1] for name in names if name), key=int)


def find_label_sets(root: Path, labels: Path | None) -> list[AnnotationSet]:
    """Return the sets whose training label file is in the first of `label_folders` that has any."""
    for folder in label_folders(root, labels):
        possible = [
            AnnotationSet(spec, variant, folder)
            for spec in SPECS.values()
            for variant in spec.num_classes or ["", *find_folds(folder)]
        ]
        found = [files for files in possible if files.paths()["train"].is_file()]
        if found:
            return found
    return []


def read_csv(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield file and line, and the values by column, of each row of a CSV that is not blank.

    Raise ValueError for a file that is not a CSV in UTF-8 or has no rows, and with file and line for a header without
    the `required` columns and a row with more or fewer values than the header; empty ones at its end do not count.
    """
    number = 0
    columns: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)  # strict: an open quote is an error
            for number, values in enumerate(filter(any, (list(map(clean, row)) for row in reader))):
                location = f"{path}, line {reader.line_num}"
                columns = columns or values
                if number == 0 and not set(required) <= set(columns):
                    raise ValueError(
                        f"{location}: needs {', '.join(required)}; columns, separated by commas, are {columns}"
                    )
                if len(values) < len(columns) or any(values[len(columns) :]):
                    raise ValueError(
                        f"{location}: has {len(values)} values for {len(columns)} columns, separated by commas; "
                        'quote a value with a comma: "turn, left"'
                    )
                if number > 0:
                    yield location, dict(zip(columns, values, strict=False))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV in UTF-8, {error}") from error
    if number == 0:
        raise ValueError(f"{path}: has no rows")


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Return file and line, and the text, of each line that is not blank.

    Raise ValueError if the file is not UTF-8 or has no such line.
    """
    try:
        lines = enumerate(map(clean, path.read_text("utf-8-sig").splitlines()), start=1)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8, {error}") from error
    rows = [(f"{path}, line {number}", line) for number, line in lines if line]
    if not rows:
        raise ValueError(f"{path}: has no rows")
    return rows


def read_label_csv(path: Path, timed_ids: bool) -> list[Annotation]:
    """Return the rows of a label file, with times if `timed_ids` and the row has any.

    Raise ValueError with file and line for an invalid row, and as `read_csv`.
    """
    rows = []
    for location, row in read_csv(path, ["label"]):
        source = row.get("youtube_id", row.get("id"))
        if source is None:
            raise ValueError(f"{location}: needs youtube_id or id; columns are {list(row)}")
        start, end = (row.get("time_start", ""), row.get("time_end", "")) if timed_ids else ("", "")
        annotation = Annotation(row["label"], source, start, end, location, row.get("group", ""))
        rows.append(check_annotation(annotation))
    return rows


def read_splits(files: Mapping[Path, bool]) -> dict[Path, list[Annotation]]:
    """Return the rows of label files, by path with their `timed_ids`, without repeated ones. Raise as `read_label_csv`.

    Log what two files share whose names differ only in their split: videos, whole or in part, and groups.
    """
    splits = {path: drop_repeats(read_label_csv(path, timed_ids)) for path, timed_ids in files.items()}
    for one, other in itertools.combinations(splits, 2):
        if re.split("train|val|test", one.name)[0] != re.split("train|val|test", other.name)[0]:
            continue
        for kind, key in (("videos", "{0.label}/{0.source}"), ("groups", "{0.group}")):
            if shared := set(map(key.format, splits[one])) & set(map(key.format, splits[other])) - {""}:
                counts = len(shared), kind, min(shared)
                logger.warning("%s and %s: %d %s in both, such as %s", one, other, *counts)
    return splits


def drop_repeats(rows: Sequence[Annotation]) -> list[Annotation]:
    """Return the first row of each video folder; log how many others there are, such as in the same whole seconds."""
    first: dict[str, Annotation] = {}
    if repeats := [row for row in rows if first.setdefault(row.folder, row) is not row]:
        example = repeats[0].folder, repeats[0].location
        logger.warning(
            "%d of %d rows repeat a video, used once, such as %s in %s", len(repeats), len(rows), *example
        )
    return list(first.values())


def check_annotation(row: Annotation) -> Annotation:
    """Return the row. Raise ValueError with file and line for invalid times and names outside the dataset folder."""
    for name in (row.label, row.video_id):
        if not name.strip() or "\0" in name:
            raise ValueError(f"{row.location}: label or ID is empty or contains a null character")
        if name.startswith("/") or ("." in name and not {".", ".."}.isdisjoint(name.split("/"))):
            raise ValueError(f"{row.location}: {name!r} is outside the dataset folder")
    if "/" in row.label:
        raise ValueError(f"{row.location}: class {row.label!r} contains a slash")
    return row


def read_annotations(paths: Iterable[Path]) -> list[Annotation]:
    """Return the rows of label files, one for each video folder. Raise as `read_label_csv`, and for empty intervals."""
    rows = [row for path in paths for row in read_label_csv(path, timed_ids=True)]
    for row in rows:
        if row.seconds and row.seconds[0] >= row.seconds[1]:
            raise ValueError(f"{row.location}: {row.video_id} has no time between its start and its end")
    return drop_repeats(rows)


def class_index_path(train_csv: Path) -> Path:
    """Return the path of the class index: `kinetics-700_train.csv` -> `kinetics-700_dictionary.json`."""
    prefix, _, _ = train_csv.name.rpartition("train")
    return train_csv.with_name(f"{prefix}dictionary.json")


def read_classes(path: Path) -> list[str]:
    """Return the class names of a class index in the order of their numbers. Raise ValueError if it is invalid."""
    try:
        numbers = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON, {error}") from error
    if not isinstance(numbers, dict) or any(type(number) is not int for number in numbers.values()):
        raise ValueError(f"{path}: not a JSON object of class names and numbers")
    return order_classes(path, {clean(name): number for name, number in numbers.items()})


def order_classes(path: Path, numbers: Mapping[str, int], first: int = 0) -> list[str]:
    """Return names in the order of their numbers. Raise ValueError unless these count from `first` without a gap."""
    if not numbers or sorted(numbers.values()) != list(range(first, first + len(numbers))):
        raise ValueError(f"{path}: classes must be numbered {first}, {first + 1}, ..., each once")
    return sorted(numbers, key=numbers.__getitem__)


def describe_difference(one: Sequence[str], other: Sequence[str], where: tuple[str, str]) -> str:
    """Return where two different lists of names, found at `where`, first differ: in a name, None at the end of one."""
    pairs = enumerate(itertools.zip_longest(one, other))
    number, (a, b) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    return f"number {number} is {a!r} in {where[0]}, {b!r} in {where[1]}"


def write_classes(path: Path, classes: Sequence[str]) -> None:
    """Write a class index."""
    numbers = {name: number for number, name in enumerate(classes)}
    atomic_write(path, json.dumps(numbers, indent=1, ensure_ascii=False))


def write_label_csv(path: Path, rows: Sequence[Annotation], split: str) -> None:
    """Write a label file, with times if any row has times, and with groups if any row has a group."""
    times = ("time_start", "time_end") if any(row.start for row in rows) else ()
    group = ("group",) if any(row.group for row in rows) else ()
    columns = ("label", "youtube_id" if times else "id", *times, "split", *group)
    values = (
        (row.label, row.source, *(row.start, row.end)[: len(times)], split, *(row.group,)[: len(group)])
        for row in rows
    )
    write_csv(path, columns, values)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV atomically, creating its folder."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.getvalue())
