"""A data set as its site describes it: checked, cut to the classes that are meant, and written as label files."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from data.label_files import (
    check_stays_inside,
    dictionary_path,
    read_classes,
    time_suffix,
    write_classes,
    write_csv,
)

# A video of several splits belongs to the first of these: what is measured on is kept whole.
SPLITS = ("test", "val", "train")


class Entry(NamedTuple):
    """A video of an official list. `start`, `end`: seconds as they stand there, "" for a whole video.

    `label` is also the name of its class's folder. `place`: file and line, for errors.
    """

    label: str
    video_id: str
    start: str
    end: str
    place: str

    def store(self) -> tuple[str, str]:
        """Class and name of the folder that its frames go to."""
        return self.label, self.video_id + time_suffix(self.start, self.end, self.place)


class Annotations(NamedTuple):
    """`classes` in the order of their numbers; `splits`: videos of "train", "val" and, where there are any, "test"."""

    classes: list[str]
    splits: dict[str, list[Entry]]


class _Seen(NamedTuple):
    split: str
    entry: Entry


def check(annotations: Annotations, *, leave_out_conflicts: bool) -> tuple[Annotations, Counter[str]]:
    """The annotations where every video is of a class of theirs and of one split, and every store is named once.

    Raises ValueError with file and line for what is not, unless `leave_out_conflicts`: then videos of several splits
    stay in the first of SPLITS only, and rows that stand twice once. What is left out is counted. Clips that begin and
    end within the same seconds are one store: that is no conflict, the first is taken and the others are counted.
    """
    known, left_out = set(annotations.classes), Counter[str]()
    videos: dict[str, _Seen] = {}
    stores: dict[tuple[str, str], Entry] = {}
    splits = {}
    for split in (name for name in SPLITS if name in annotations.splits):
        splits[split] = kept = []
        for entry in annotations.splits[split]:
            _check_entry(entry, known)
            video, twin = videos.setdefault(entry.video_id, _Seen(split, entry)), stores.get(entry.store())
            if video.split != split:
                conflict = f"is in {split}, and in {video.split} by {video.entry.place}"
                reason = f"{split} rows whose video is in {video.split}"
            elif twin is None:
                stores[entry.store()] = entry
                kept.append(entry)
                continue
            elif (entry.start, entry.end) != (twin.start, twin.end):
                left_out[f"{split} clips within the seconds of another one"] += 1
                continue
            else:
                conflict, reason = f"stands twice, first in {twin.place}", f"{split} rows that stand twice"
            if not leave_out_conflicts:
                raise ValueError(
                    f"{entry.place}: {entry.video_id} {conflict}; --leave-out-conflicts goes on without it"
                )
            left_out[reason] += 1
    return annotations._replace(splits={name: splits[name] for name in annotations.splits}), left_out


def _check_entry(entry: Entry, known: set[str]) -> None:
    check_stays_inside(entry.label, entry.place)
    check_stays_inside(entry.video_id, entry.place)
    _check_class(entry, known)


def _check_class(entry: Entry, known: set[str]) -> None:
    if entry.label not in known:
        raise ValueError(f"{entry.place}: class {entry.label!r} is not one of the {len(known)} of the set")


def cut_to_classes(
    annotations: Annotations, name: str, expected: int, num_classes: int | None, *, may_lack: bool
) -> Annotations:
    """The annotations where their classes are as many as the data set has, `expected`.

    `num_classes` says that a subset is meant, and how large: then only classes with training videos are left. Raises
    ValueError where the numbers differ, or where a class has no training video (`may_lack`: the official list has such
    classes).
    """
    trained = {entry.label for entry in annotations.splits["train"]}
    classes = annotations.classes
    if num_classes is not None:
        classes = [label for label in classes if label in trained]
        if len(classes) != num_classes:
            raise ValueError(f"{name}: has training videos of {len(classes)} classes, not {num_classes}")
        for entry in (entry for entries in annotations.splits.values() for entry in entries):
            _check_class(entry, trained)
        return annotations._replace(classes=classes)
    lacking = [] if may_lack else [label for label in classes if label not in trained]
    if len(classes) != expected or lacking:
        has = f"{len(trained)} of {len(classes)} classes" if lacking else f"{len(classes)} classes"
        raise ValueError(
            f"{name}: has training videos of {has} where {expected} are expected; "
            f"--num-classes {len(trained)} says that a subset is meant"
        )
    return annotations


def check_dictionary(annotations: Annotations, paths: dict[str, Path]) -> None:
    """ValueError where there is one of other classes."""
    dictionary = dictionary_path(paths["train"])
    if dictionary.exists() and set(read_classes(dictionary)) != set(annotations.classes):
        raise ValueError(
            f"{dictionary}: numbers other classes than these {len(annotations.classes)}; "
            "remove it if nothing was trained with it"
        )


def write_annotations(annotations: Annotations, paths: dict[str, Path], *, timed: bool) -> list[Path]:
    """Write the label files and, where there is none yet, the dictionary of class numbers; what was written.

    A dictionary of the same classes (see `check_dictionary`) stays as it is: weights may have been trained with its
    numbers.
    """
    dictionary = dictionary_path(paths["train"])
    is_there = dictionary.exists()
    for split, entries in annotations.splits.items():
        if timed:
            columns = ("label", "youtube_id", "time_start", "time_end", "split")
            rows = [(*entry[:4], split) for entry in entries]
        else:
            columns, rows = ("label", "id", "split"), [(*entry[:2], split) for entry in entries]
        write_csv(paths[split], columns, rows)
    if not is_there:
        write_classes(dictionary, annotations.classes)
    return [paths[split] for split in annotations.splits] + [dictionary] * (not is_there)
