"""The lists that the data sets' sites hand out, each in its own format.

| data set | files | a line of them |
|---|---|---|
| UCF-101 | `classInd.txt`, `trainlist01.txt`, `testlist01.txt` | `1 ApplyEyeMakeup`, `<class>/<name>.avi 1` |
| HMDB-51 | `<class>_test_split1.txt` | `<name>.avi 1`: 1 is training, 2 test, 0 neither |
| Kinetics | `train.csv`, `val.csv` (or `validate.csv`), `test.csv` | `label,youtube_id,time_start,time_end,split` |
| Mini-Kinetics-200 | `train_ytid_list.txt`, `val_ytid_list.txt`, and those of Kinetics-400 | an id |
| HACS Clips | `HACS_clips_v1.1.1.csv` | `classname,youtube_id,subset,start,end,label`: 1 is the class, -1 is not |
| Moments in Time | `moments_categories.txt` | `<class>,0` |
| | `trainingSet.csv`, `validationSet.csv` | `<class>/<name>.mp4,<class>,3,0` |
| Diving48 V2 | `Diving48_vocab.json`, `Diving48_V2_train.json`, `Diving48_V2_test.json` | `{"vid_name", "label"}` |

They are looked for in the folder and in the folders within it. Readers raise FileNotFoundError for a file that is not
there, and ValueError with file and line for what is not of the format.
"""

import csv
import glob
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data.datasets import DIVING48, HACS, HMDB51, KINETICS, MIT, UCF101, DatasetSpec
from data.labels.checks import Annotations, Entry

logger = logging.getLogger(__name__)

KINETICS_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "validate", "validation"),
    "test": ("test", "testing"),
}
MINI_KINETICS = "200"  # of Kinetics-400
HACS_SUBSETS = {"training": "train", "validation": "val", "testing": "test"}
HMDB51_SPLITS = {"1": "train", "2": "val", "0": None}


def read_ucf101(folder: Path, split: str) -> Annotations:
    index = _needed(folder, "classInd.txt")
    numbered = (_two(line, None, place) for place, line in _lines(index))
    classes = _in_order(index, ((name, number) for number, name in numbered), first=1)
    # the videos of HandstandPushups are called v_HandStandPushups: some lists call the class so too
    names = {name.casefold(): name for name in classes}
    splits: dict[str, list[Entry]] = {}
    for name, file in (("train", f"trainlist0{split}.txt"), ("val", f"testlist0{split}.txt")):
        splits[name] = []
        for place, line in _lines(_needed(folder, file)):
            video, _, number = line.partition(" ")
            folder_name = PurePosixPath(video).parent.name
            label = names.get(folder_name.casefold(), folder_name)
            if number and label in classes and number.strip() != str(classes.index(label) + 1):
                raise ValueError(f"{place}: {label} is not class {number.strip()} of {index}")
            splits[name].append(Entry(label, PurePosixPath(video).stem, "", "", place))
    return Annotations(classes, splits)


def read_hmdb51(folder: Path, split: str) -> Annotations:
    ending = f"_test_split{split}.txt"
    paths = sorted(folder.glob(f"*{ending}")) or sorted(folder.glob(f"*/*{ending}"))
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no <class>{ending}, nor does a folder in it")
    splits: dict[str, list[Entry]] = {"train": [], "val": []}
    for path in paths:
        for place, line in _lines(path):
            video, _, use = line.rpartition(" ")  # names may hold anything, the number is last
            if not video or use not in HMDB51_SPLITS:
                raise ValueError(f"{place}: {line!r} is not the name of a video and 0, 1 or 2")
            if HMDB51_SPLITS[use] is not None:
                label, name = path.name.removesuffix(ending), PurePosixPath(video.strip()).stem
                splits[HMDB51_SPLITS[use]].append(Entry(label, name, "", "", place))
    # by name: where a file's name goes on, `sword_exercise` comes before `sword`
    return Annotations(sorted(path.name.removesuffix(ending) for path in paths), splits)


def read_kinetics(folder: Path, variant: str) -> Annotations:
    splits = {}
    for split, names in KINETICS_SPLITS.items():
        entries = _kinetics_split(folder, "400" if variant == MINI_KINETICS else variant, split, names)
        if entries and not (variant == MINI_KINETICS and split == "test"):
            splits[split] = entries
    if variant == MINI_KINETICS:
        splits = {split: _listed(entries, folder, split) for split, entries in splits.items()}
    return Annotations(_alphabetical(splits["train"]), splits)


def _kinetics_split(folder: Path, variant: str, split: str, names: Sequence[str]) -> list[Entry]:
    """The rows of a split; none where it is the test split and nobody has said what is in it."""
    titles = [f"kinetics-{variant}_", f"kinetics{variant}_", f"kinetics_{variant}_", f"k{variant}_", ""]
    files = [f"{title}{name}.csv" for title in titles for name in names]
    folders = [folder, *(path for path in sorted(folder.glob(f"*{variant}*")) if path.is_dir())]
    path = next((path for place in folders for file in files if (path := place / file).is_file()), None)
    if path is None:
        if split == "test":
            return []
        raise FileNotFoundError(f"{folder}: holds no {files[0]} nor {names[0]}.csv of Kinetics-{variant}")
    columns = ("label", "youtube_id", "time_start", "time_end")
    entries = []
    for place, row in _rows(path, columns[1:] if split == "test" else columns):
        if row.get("split") and row["split"] not in names:
            raise ValueError(f"{place}: split {row['split']!r} is not {' or '.join(names)}")
        if row.get("label") or split != "test":
            entries.append(Entry(_folder_name(row["label"]), *(row[name] for name in columns[1:]), place))
    return entries


def _listed(entries: Sequence[Entry], folder: Path, split: str) -> list[Entry]:
    """Those of Kinetics-400 that Mini-Kinetics-200 lists; ids that are no longer among them are counted."""
    path = _needed(folder, f"{split}_ytid_list.txt")
    rows = {entry.video_id: entry for entry in entries}
    listed = [(place, rows.get(video_id)) for place, video_id in _lines(path)]
    gone = sum(entry is None for _, entry in listed)
    if gone:
        logger.warning("%s: %d of %d ids are not in Kinetics-400's list any more", path, gone, len(listed))
    return [entry._replace(place=place) for place, entry in listed if entry is not None]


def read_hacs(folder: Path, _: str) -> Annotations:
    path = _needed(folder, "HACS_clips_v1.1.1.csv", "HACS_clips_v1.1.csv")
    splits: dict[str, list[Entry]] = {"train": [], "val": []}
    for place, row in _rows(path, ("classname", "youtube_id", "subset", "start", "end", "label")):
        if row["subset"] not in HACS_SUBSETS:
            raise ValueError(f"{place}: subset {row['subset']!r} is not one of {', '.join(HACS_SUBSETS)}")
        if row["label"] not in ("1", "-1") and row["subset"] != "testing":  # which may be withheld
            raise ValueError(f"{place}: label {row['label']!r} is not 1 or -1")
        if row["label"] == "1":
            times = (row["start"], row["end"])
            entry = Entry(_folder_name(row["classname"]), row["youtube_id"], *times, place)
            splits.setdefault(HACS_SUBSETS[row["subset"]], []).append(entry)
    return Annotations(_alphabetical(splits["train"]), splits)


def read_mit(folder: Path, _: str) -> Annotations:
    categories = _needed(folder, "moments_categories.txt")
    classes = _in_order(categories, (_two(line, ",", place) for place, line in _lines(categories)), first=0)
    splits: dict[str, list[Entry]] = {}
    for split, file in (("train", "trainingSet.csv"), ("val", "validationSet.csv")):
        splits[split] = []
        for place, row in _bare_rows(_needed(folder, file)):
            video, label = PurePosixPath(row[0]), row[1] if len(row) > 1 else ""
            if video.parent.name != label:
                raise ValueError(f"{place}: {row[0]!r} does not lie in the folder of its class {label!r}")
            splits[split].append(Entry(label, video.stem, "", "", place))
    return Annotations(classes, splits)


def read_diving48(folder: Path, _: str) -> Annotations:
    vocabulary = _needed(folder, "Diving48_vocab.json")
    try:
        named = ["_".join([words] if isinstance(words, str) else words) for words in _json_list(vocabulary)]
    except TypeError:
        raise ValueError(f"{vocabulary}: is not a list of classes, a word or a list of words each") from None
    classes = _in_order(vocabulary, ((name, str(number)) for number, name in enumerate(named)), first=0)
    splits: dict[str, list[Entry]] = {}
    for split, file in (("train", "Diving48_V2_train.json"), ("val", "Diving48_V2_test.json")):
        path = _needed(folder, file)
        splits[split] = []
        for number, video in enumerate(_json_list(path), start=1):
            place = f"{path}, video {number}"
            try:
                name, label = str(video["vid_name"]), int(video["label"])
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{place}: has no vid_name and label") from None
            if not 0 <= label < len(classes):
                raise ValueError(f"{place}: label {label} is not one of the {len(classes)} classes")
            splits[split].append(Entry(classes[label], name, "", "", place))
    return Annotations(classes, splits)


class Format(NamedTuple):
    """How a data set's lists are read, given their folder and the variant.

    `may_lack`: the list of classes may have some without training videos.
    """

    spec: DatasetSpec
    read: Callable[[Path, str], Annotations]
    may_lack: bool = False


FORMATS = {
    form.spec.name: form
    for form in (
        Format(UCF101, read_ucf101),
        Format(HMDB51, read_hmdb51),
        Format(KINETICS, read_kinetics),
        Format(HACS, read_hacs),
        Format(MIT, read_mit),
        Format(DIVING48, read_diving48, may_lack=True),  # V2 corrected labels under the first vocabulary
    )
}


def _folder_name(label: str) -> str:
    """A class is a folder: what else may be in a name, spaces, quotes and brackets, stays; a slash cannot."""
    return label.strip().replace("/", "_")


def _alphabetical(entries: Iterable[Entry]) -> list[str]:
    return sorted({entry.label for entry in entries})


def _in_order(path: Path, numbered: Iterable[tuple[str, str]], first: int) -> list[str]:
    """The names of (name, number) in the order of their numbers, which count from `first`."""
    pairs = list(numbered)
    names = {number: _folder_name(name) for name, number in pairs}
    wanted = [str(number) for number in range(first, first + len(pairs))]
    if not pairs:
        raise ValueError(f"{path}: has no classes")
    if set(names) != set(wanted) or len(set(names.values())) < len(pairs):
        raise ValueError(
            f"{path}: its {len(pairs)} classes must each have a name and a number of their own, {first} to {wanted[-1]}"
        )
    return [names[number] for number in wanted]


def _needed(folder: Path, *names: str) -> Path:
    """The file of the first of these names, in a folder or a folder within it."""
    for name in names:
        found = [path for path in (folder / name, *folder.glob(f"*/{glob.escape(name)}")) if path.is_file()]
        if len(found) > 1:
            raise ValueError(f"{found[0]} and {found[1]}: either could be meant, name the folder of one")
        if found:
            return found[0]
    raise FileNotFoundError(f"{folder}: holds no {' nor '.join(names)}, nor does a folder in it")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file and line, text) of the lines that are not empty."""
    try:
        for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
            if line.strip():
                yield f"{path}, line {number}", line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8, {error}") from error


def _two(line: str, separator: str | None, place: str) -> tuple[str, str]:
    parts = [part.strip() for part in line.split(separator, maxsplit=1)]
    if len(parts) != 2:
        raise ValueError(f"{place}: {line!r} is not two values")
    return parts[0], parts[1]


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, row) of a CSV with a header that has these columns."""
    rows = _bare_rows(path)
    _, header = next(rows, ("", []))
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(f"{path}: has the columns {', '.join(header)}; needs {', '.join(columns)}")
    for place, row in rows:
        if len(row) < len(header):
            raise ValueError(f"{place}: has {len(row)} values, not {len(header)}")
        yield place, {name: value.strip() for name, value in zip(header, row, strict=False)}


def _bare_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if row:
                    yield f"{path}, line {reader.line_num}", row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not a CSV in UTF-8, {error}") from error


def _json_list(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is not JSON, {error}") from error
    if not isinstance(content, list):
        raise ValueError(f"{path}: is not a JSON list")
    return content
