"""Readers of the annotation lists that each dataset's site distributes, and checks of what they read.

| dataset | files | line |
|---|---|---|
| UCF-101 | `classInd.txt`, `trainlist01.txt`, `testlist01.txt` | `1 ApplyEyeMakeup`, `<class>/<name>.avi 1` |
| HMDB-51 | `<class>_test_split1.txt` | `<name>.avi 1`: 1 is training, 2 is test, 0 is unused |
| Kinetics | `train.csv`, `val.csv` (or `validate.csv`), `test.csv` | `label,youtube_id,time_start,time_end,split` |
| Mini-Kinetics-200 | `train_ytid_list.txt`, `val_ytid_list.txt`, and those of Kinetics-400 | an ID |
| HACS Clips | `HACS_clips_v1.1.1.csv` | `classname,youtube_id,subset,start,end,label`: 1 is positive, -1 negative |
| Moments in Time | `moments_categories.txt` | `<class>,0` |
| | `trainingSet.csv`, `validationSet.csv` | `<class>/<name>.mp4,<class>,3,0` |
| Diving48 V2 | `Diving48_vocab.json`, `Diving48_V2_train.json`, `Diving48_V2_test.json` | `{"vid_name", "label"}` |

Files are searched in the given folder and its subfolders. Readers raise FileNotFoundError for a missing file, and
ValueError with file and line for a file of another format.
"""

import glob
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from data.datasets import DIVING48, HACS, HMDB51, KINETICS, MIT, UCF101, DatasetSpec
from data.label_files import Annotation, Splits, check_annotation, clean, order_classes, read_csv, read_lines

logger = logging.getLogger(__name__)

# a video of several splits stays in the first of these: evaluation data is kept whole
SPLITS = ("test", "val", "train")
MINI_KINETICS = "200"  # a subset of Kinetics-400
HACS_SUBSETS = {"training": "train", "validation": "val", "testing": "test"}


class OfficialLists(NamedTuple):
    """Class names in the order of their numbers, and rows by split: "train", "val" and, if labeled, "test"."""

    classes: list[str]
    splits: Splits


def read_ucf101(folder: Path, split: str) -> OfficialLists:
    classes = _read_classes(folder, "classInd.txt", r"(?P<number>\d+)\s+(?P<name>.+)", first=1)
    files = {"train": f"trainlist0{split}.txt", "val": f"testlist0{split}.txt"}
    return OfficialLists(classes, {name: _read_videos(folder, file, classes) for name, file in files.items()})


def read_mit(folder: Path, _: str) -> OfficialLists:
    classes = _read_classes(folder, "moments_categories.txt", r"(?P<name>.+),\s*(?P<number>\d+)", first=0)
    files = {"train": "trainingSet.csv", "val": "validationSet.csv"}
    return OfficialLists(classes, {name: _read_videos(folder, file, classes) for name, file in files.items()})


def read_hmdb51(folder: Path, split: str) -> OfficialLists:
    suffix = f"_test_split{split}.txt"
    paths = {clean(path.name.removesuffix(suffix)): path for path in _glob(folder, f"*{suffix}")}
    if not paths:
        raise FileNotFoundError(f"{folder}: no <class>{suffix} in it or its subfolders")
    splits: Splits = {"0": [], "1": [], "2": []}
    for label, path in paths.items():
        for location, match in _match_lines(path, r"(?P<video_id>.+)\.\w+\s+(?P<use>[012])"):
            splits[match["use"]].append(Annotation(label, match["video_id"], location=location))
    return OfficialLists(sorted(paths), {"train": splits["1"], "val": splits["2"]})


def read_kinetics(folder: Path, variant: str) -> OfficialLists:
    version = "400" if variant == MINI_KINETICS else variant
    splits: Splits = {}
    for split in ("train", "val", "test"):  # `val` is also called `validate`
        patterns = [f"*{version}*{split}*.csv", f"*{version}*/{split}*.csv", f"{split}*.csv"]
        if split == "test" and not _glob(folder, *patterns):
            continue
        clips = _read_clips(_find(folder, *patterns), "label", "youtube_id", "time_start", "time_end")
        # some versions have no labels of the test split
        splits[split] = [clip for clip, _ in clips if clip.label or split != "test"]
    if variant == MINI_KINETICS:
        files = {split: _find(folder, f"{split}_ytid_list.txt") for split in ("train", "val")}
        splits = {split: _select_listed(splits[split], path) for split, path in files.items()}
    return _with_sorted_classes(splits)


def _select_listed(rows: list[Annotation], path: Path) -> list[Annotation]:
    """Return the rows that a list of IDs names; log the number of IDs without a row, whose videos are gone."""
    by_id = {row.source: row for row in rows}
    ids = [video_id for _, video_id in read_lines(path)]
    selected = [by_id[video_id] for video_id in ids if video_id in by_id]
    if len(selected) < len(ids):
        num_missing = len(ids) - len(selected)
        logger.warning("%s: %d of %d IDs are not in the list of Kinetics-400", path, num_missing, len(ids))
    return selected


def read_hacs(folder: Path, _: str) -> OfficialLists:
    splits: Splits = {"train": [], "val": [], "test": []}
    path = _find(folder, "HACS_clips_v1.1.1.csv", "HACS_clips_v1.1.csv")
    for clip, row in _read_clips(path, "classname", "youtube_id", "start", "end", "subset", "label"):
        if row["subset"] not in HACS_SUBSETS:
            raise ValueError(f"{clip.location}: subset {row['subset']!r} is not one of {list(HACS_SUBSETS)}")
        if row["label"] == "1":
            splits[HACS_SUBSETS[row["subset"]]].append(clip)
    return _with_sorted_classes(splits)


def read_diving48(folder: Path, _: str) -> OfficialLists:
    vocabulary = _find(folder, "Diving48_vocab.json")
    words = [entry if isinstance(entry, list) else [entry] for entry in _read_list(vocabulary)]
    numbers = {_class_name("_".join(map(str, entry))): number for number, entry in enumerate(words)}
    classes = order_classes(vocabulary, numbers)
    names = dict(enumerate(classes))
    splits: Splits = {"train": [], "val": []}
    for split, file in (("train", "Diving48_V2_train.json"), ("val", "Diving48_V2_test.json")):
        path = _find(folder, file)
        for number, video in enumerate(_read_list(path), start=1):
            location = f"{path}, video {number}"
            try:
                label, video_id = names[video["label"]], clean(video["vid_name"])
            except (KeyError, TypeError):
                raise ValueError(f"{location}: needs vid_name, and a label below {len(names)}") from None
            splits[split].append(Annotation(label, video_id, location=location))
    return OfficialLists(classes, splits)


class Format(NamedTuple):
    """Reader of a dataset's lists, called with their folder and the variant."""

    spec: DatasetSpec
    read: Callable[[Path, str], OfficialLists]


FORMATS = {
    "ucf101": Format(UCF101, read_ucf101),
    "hmdb51": Format(HMDB51, read_hmdb51),
    "kinetics": Format(KINETICS, read_kinetics),
    "hacs": Format(HACS, read_hacs),
    "mit": Format(MIT, read_mit),
    "diving48": Format(DIVING48, read_diving48),
}


def check_classes(lists: OfficialLists, fmt: Format, variant: str, num_classes: int | None) -> list[str]:
    """Return the class names: all of a dataset, or of a subset `num_classes` with training videos.

    Raise ValueError with file and line for a row of another class, and ValueError for another number of classes or,
    unless `spec.untrained_classes`, for a class without training videos.
    """
    name = f"{fmt.spec.name} {variant}".strip()
    for split in ("train", "val"):
        if not lists.splits.get(split):
            raise ValueError(f"{name}: the lists have no rows for {split}")
    trained = {row.label for row in lists.splits["train"]}
    classes = [label for label in lists.classes if num_classes is None or label in trained]
    known = set(classes)
    for row in chain(*lists.splits.values()):
        if row.label not in known:
            raise ValueError(f"{row.location}: class {row.label!r} is not one of the {len(known)} classes")
    expected = num_classes or fmt.spec.num_classes[variant]
    if len(classes) != expected or (len(trained) < expected and not fmt.spec.untrained_classes):
        raise ValueError(
            f"{name}: has training videos of {len(trained)} classes, expected {expected}; "
            f"--num-classes {len(trained)} accepts a subset"
        )
    return classes


def resolve_conflicts(splits: Splits, *, leave_out: bool) -> tuple[Splits, Counter[str]]:
    """Return the splits with each video in one of them and each clip once, and the number of dropped rows by reason.

    Raise ValueError with both locations for a duplicate row and a video of several splits, unless `leave_out` drops
    them. Of clips in the same whole seconds, whose frames would be in the same folder, the first is kept.
    """
    dropped = Counter[str]()
    videos: dict[str, tuple[str, Annotation]] = {}
    clips: dict[str, Annotation] = {}
    kept: Splits = {split: [] for split in splits}
    for split in (name for name in SPLITS if name in splits):
        for row in map(check_annotation, splits[split]):
            video_split, video = videos.setdefault(row.source, (split, row))
            clip = clips.setdefault(row.folder, row)
            other = clip if video_split == split else video
            if other is row:
                kept[split].append(row)
            elif video_split == split and other != row:
                dropped[f"{split} rows in the same seconds as another one"] += 1
            elif leave_out:
                same = f"whose video is in {video_split}" if video_split != split else "that are duplicates"
                dropped[f"{split} rows {same}"] += 1
            else:
                raise ValueError(
                    f"{row.location}: {row.source} is also in {other.location}; --leave-out-conflicts drops this row"
                )
    return kept, dropped


def _class_name(label: str) -> str:
    """Return a label as the name of a folder: it may contain spaces, quotes and brackets, but no slash."""
    return clean(label).replace("/", "_")


def _with_sorted_classes(splits: Splits) -> OfficialLists:
    classes = sorted({row.label for row in splits["train"]})
    return OfficialLists(classes, {split: rows for split, rows in splits.items() if rows})


def _match_lines(path: Path, pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    for location, line in read_lines(path):
        match = re.fullmatch(pattern, line)
        if match is None:
            raise ValueError(f"{location}: unexpected format, {line!r}")
        yield location, match


def _read_classes(folder: Path, file: str, pattern: str, first: int) -> list[str]:
    """Return class names in the order of their numbers, which count from `first`."""
    path = _find(folder, file)
    matches = [match for _, match in _match_lines(path, pattern)]
    return order_classes(path, {_class_name(match["name"]): int(match["number"]) for match in matches}, first)


def _read_videos(folder: Path, file: str, classes: list[str]) -> list[Annotation]:
    """Return the rows of a list whose lines begin with `<class>/<video_id>.<suffix>`."""
    pattern = r"(?P<label>[^/]+?)\s*/\s*(?P<video_id>.+)\.\w+([\s,].*)?"
    matches = _match_lines(_find(folder, file), pattern)
    # some lists of UCF-101 write HandStandPushups for the class HandstandPushups
    names = {name.casefold(): name for name in classes}
    return [
        Annotation(names.get(match["label"].casefold(), match["label"]), match["video_id"], location=location)
        for location, match in matches
    ]


def _read_clips(path: Path, *columns: str) -> Iterator[tuple[Annotation, dict[str, str]]]:
    """Yield the rows of a CSV whose first four `columns` are the class, which may be missing, ID, start and end."""
    for location, row in read_csv(path, columns[1:]):
        label, source, start, end = (row.get(name, "") for name in columns[:4])
        yield Annotation(_class_name(label), source, start, end, location), row


def _glob(folder: Path, *patterns: str) -> list[Path]:
    """Return the files, but hidden ones, of the first pattern with any, in the folder or else in its subfolders."""
    for pattern in patterns:
        if names := glob.glob(pattern, root_dir=folder) or glob.glob(f"*/{pattern}", root_dir=folder):
            return sorted(folder / name for name in names)
    return []


def _find(folder: Path, *patterns: str) -> Path:
    """Return the only file of `_glob`. Raise FileNotFoundError if there is none, ValueError if there are several."""
    paths = _glob(folder, *patterns)
    if not paths:
        raise FileNotFoundError(f"{folder}: no {' or '.join(patterns)} in it or its subfolders")
    if len(paths) > 1:
        raise ValueError(f"{paths[0]} and {paths[1]}: either could be used; name the folder of one")
    return paths[0]


def _read_list(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON, {error}") from error
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path}: has no rows")
    return content
