"""Label files: where they are, what is in them, and how classes are numbered.

They are CSVs with a header and the columns `label`, `youtube_id` or `id`, and perhaps `time_start`, `time_end` and
`split`. Class numbers come from `<prefix>dictionary.json` beside the training CSV if it is there (that is how published
weights number their classes), else from the order of first appearance, which is then written there.
"""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TextIO

from data.common.atomic_io import atomic_write, open_without_waiting
from data.common.cli import sanitize
from data.datasets import SPECS, DatasetSpec
from data.frame_store import LONGEST_VALUE

logger = logging.getLogger(__name__)


class Annotation(NamedTuple):
    """A row of a label file: the class, and the video's folder below `jpg/<class>/`."""

    label: str
    video_id: str


def label_folders(root: Path, labels: Path | None) -> list[Path]:
    """Where label files are looked for: `labels` if given, else `root/labels`, else beside the `data` above `root`."""
    if labels is not None:
        return [labels]
    beside = [parent.parent / "labels" for parent in root.absolute().parents if parent.name == "data"]
    return [root / "labels", *beside]


def find_label_folder(root: Path, train_csv: str, labels: Path | None) -> Path:
    """The first of `label_folders` that holds a file of this name."""
    candidates = label_folders(root, labels)
    for candidate in candidates:
        if (candidate / train_csv).is_file():
            return candidate
    places = " and ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(f"label file {train_csv}: not found in {places}; --labels names its folder")


class AnnotationSet(NamedTuple):
    """The label files of a variant of a data set, and their folder."""

    spec: DatasetSpec
    variant: str
    folder: Path

    def paths(self) -> dict[str, Path]:
        """Where the file of each split belongs: training, validation, and test, which few data sets have."""
        train = self.folder / self.spec.train_csv.format(variant=self.variant)
        prefix, _, ending = train.name.rpartition("train")
        val = self.folder / self.spec.val_csv.format(variant=self.variant)
        return {"train": train, "val": val, "test": self.folder / f"{prefix}test{ending}"}


def _label_sets(folder: Path) -> list[AnnotationSet]:
    """All that a folder may hold."""
    return [
        AnnotationSet(spec, variant, folder)
        for spec in SPECS.values()
        for variant in (spec.num_classes or {"": None})
    ]


def has_timed_ids(path: Path) -> bool:
    """Whether training gives ids their times: by the data set that a label file belongs to, as its name says."""
    own = (found for found in _label_sets(path.parent) if path in found.paths().values())
    return next((found.spec.timed_ids for found in own), True)


def find_label_sets(root: Path, labels: Path | None) -> list[AnnotationSet]:
    """The data sets whose training label file is in the first of `label_folders` that has any."""
    for folder in label_folders(root, labels):
        found = [files for files in _label_sets(folder) if files.paths()["train"].is_file()]
        if found:
            return found
    return []


def read_label_csv(path: Path, timed_ids: bool) -> list[Annotation]:
    """The rows of a label file. ValueError with file and line for one that cannot be meant.

    With `timed_ids` a row with times is the folder `<id>_<start>_<end>`, seconds as `%06d`; one without is `<id>`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such label file")
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(
                _lines(file, path), strict=True
            )  # a quote left open takes no rows with it
            columns = reader.fieldnames or []
            id_column = next((name for name in ("youtube_id", "id") if name in columns), None)
            if "label" not in columns or id_column is None:
                raise ValueError(
                    f"{path}: has the columns {sanitize(', '.join(columns))}; needs label, and youtube_id or id"
                )
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                label, video_id = row["label"] or "", row[id_column] or ""
                check_stays_inside(label, place)
                if "/" in label:
                    raise ValueError(
                        f"{place}: class {sanitize(label)!r} has a slash in it; a class is one folder"
                    )
                check_stays_inside(video_id, place)
                if timed_ids:
                    video_id += time_suffix(row.get("time_start"), row.get("time_end"), place)
                rows.append(Annotation(label, video_id))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not a CSV in UTF-8, {sanitize(error)}") from error
    if not rows:
        raise ValueError(f"{path}: has no rows")
    return rows


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Line by line; ValueError for one without an end."""
    while line := file.readline(LONGEST_VALUE):
        if len(line) == LONGEST_VALUE:
            raise ValueError(f"{path}: has a line of more than {LONGEST_VALUE} characters")
        yield line


def dictionary_path(train_csv: Path) -> Path:
    """`kinetics-700_train.csv` -> `kinetics-700_dictionary.json`, whatever the folders above are called."""
    prefix, _, _ = train_csv.name.rpartition("train")
    return train_csv.with_name(f"{prefix}dictionary.json")


def read_or_write_classes(train_csv: Path, rows: Sequence[Annotation]) -> list[str]:
    """Class names in the order of their numbers. The dictionary maps each name to its number, from 0 without a gap."""
    path = dictionary_path(train_csv)
    if path.exists():
        return read_classes(path)
    classes = list(dict.fromkeys(row.label for row in rows))
    try:
        write_classes(path, classes)
    except OSError as error:
        logger.warning("%s: the numbers of the classes could not be written, %s", path, error)
    return classes


def read_classes(path: Path) -> list[str]:
    """The names of a dictionary in the order of their numbers. ValueError for one that makes no sense."""
    try:
        with open(path, encoding="utf-8-sig", opener=open_without_waiting) as file:
            numbers = json.loads(file.read(LONGEST_VALUE))
        "".join(numbers).encode()  # JSON may hold halves of characters
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: is not a JSON object of class names and numbers, {sanitize(error)}"
        ) from error
    if not isinstance(numbers, dict) or any(type(number) is not int for number in numbers.values()):
        raise ValueError(f"{path}: is not a JSON object of class names and whole numbers")
    if sorted(numbers.values()) != list(range(len(numbers))):
        raise ValueError(
            f"{path}: the numbers of {len(numbers)} classes must be 0 to {len(numbers) - 1}, each once"
        )
    return sorted(numbers, key=numbers.__getitem__)


def write_classes(path: Path, classes: Sequence[str]) -> None:
    numbers = {name: number for number, name in enumerate(classes)}
    atomic_write(path, json.dumps(numbers, indent=1, ensure_ascii=False))


def write_label_csv(path: Path, rows: Sequence[Annotation], split: str) -> None:
    write_csv(path, ("label", "id", "split"), ((*row, split) for row in rows))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int | float]]) -> None:
    """The file is there as a whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text.getvalue())


def time_suffix(start: str | None, end: str | None, place: str) -> str:
    """`_000015_000017` for the times 15.5 and 17.5, in whole seconds rounded down; "" where there are none."""
    times = [(time or "").strip() for time in (start, end)]
    if not any(times):
        return ""
    try:
        first, last = (int(float(time)) for time in times)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{place}: times {sanitize(times[0])!r} to {sanitize(times[1])!r} are not two numbers of seconds"
        ) from None
    if not 0 <= first <= last:
        raise ValueError(f"{place}: times {sanitize(times[0])} to {sanitize(times[1])} must rise from 0 on")
    return f"_{first:06d}_{last:06d}"


def check_stays_inside(name: str, place: str) -> None:
    """A label or id becomes a folder: it must not climb out of the data set."""
    if not name.strip():
        raise ValueError(f"{place}: label or id is empty")
    if any(character < " " for character in name):
        raise ValueError(f"{place}: {sanitize(name)!r} has a line break or the like; is a quote left open?")
    if name.startswith("/") or not {".", ".."}.isdisjoint(name.split("/")):
        raise ValueError(f"{place}: {sanitize(name)!r} leaves the data set's folder")
    if PurePosixPath(name).parts == ():
        raise ValueError(f"{place}: {sanitize(name)!r} names no folder")


class Segment(NamedTuple):
    """A row of a label file: of the video `source`, what lies within `seconds` (start, end), or all of it."""

    label: str
    video_id: str
    source: str
    seconds: tuple[float, float] | None


def read_segments(paths: Sequence[Path]) -> list[Segment]:
    """The rows of label files, each store once. Errors of `read_label_csv`, and ValueError where nothing is to be cut.

    Rows within the same whole seconds are one store: the first is taken, as data.labels does, and a warning says how
    many others there are.
    """
    segments: dict[tuple[str, str], Segment] = {}
    others: set[Segment] = set()
    for segment in (segment for path in paths for segment in _rows(path)):
        if segments.setdefault((segment.label, segment.video_id), segment) != segment:
            others.add(segment)
    if others:
        logger.warning("left out %d rows within the seconds of another one", len(others))
    return list(segments.values())


def _rows(path: Path) -> Iterator[Segment]:
    rows = read_label_csv(path, timed_ids=True)
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row, raw in zip(rows, csv.DictReader(file), strict=True):
            source = raw["youtube_id"] if "youtube_id" in raw else raw["id"]
            seconds = None
            if row.video_id != source:
                seconds = float(raw["time_start"]), float(raw["time_end"])
                if seconds[0] >= seconds[1]:
                    raise ValueError(f"{path}: {row.video_id} has nothing between its start and its end")
            yield Segment(row.label, row.video_id, source, seconds)
