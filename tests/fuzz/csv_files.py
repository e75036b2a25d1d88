"""Label files, dictionaries and results from strangers."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from data.datasets import CUSTOM
from data.video_list import load_dataset
from tests.fuzz.mutation import WORDS, mutated
from tests.fuzz.verdict import Input
from train.plot import read_rows

CLASSES = ("a", "c d", "日本")
IDS = ("x", "é 'q'")
TIMES = ["", "3", "3.5", "-1", "nan", "inf", "1e300", "9" * 400, "0x3", "３", "4 ", "1e18"]
NUMBERS = [
    "0",
    "1",
    "0.0",
    "0.9",
    "true",
    "null",
    '"0"',
    "-1",
    "1e999",
    "NaN",
    "9" * 5000,
    "[]",
    "{}",
    "1e2",
    "4",
]


def _write_dataset(root: Path) -> None:
    """Stores that are looked for only, a training and a validation file, and the dictionary."""
    for name in CLASSES:
        for video in IDS:
            folder = root / "jpg" / name / video
            folder.mkdir(parents=True)
            (folder / "frames.db").touch()
    (root / "labels").mkdir()
    for split in ("train", "val"):
        (root / "labels" / f"{split}.csv").write_text(_table(_rows()), "utf-8", newline="")
    numbers = {name: number for number, name in enumerate(CLASSES)}
    (root / "labels" / "dictionary.json").write_text(json.dumps(numbers), "utf-8")


def _rows() -> list[list[str]]:
    return [["label", "id", "time_start", "time_end", "split"]] + [
        [name, video, "", "", "train"] for name in CLASSES for video in IDS
    ]


def _table(rows: list[list[str]], end: str = "\n") -> str:
    return "".join(",".join('"' + field.replace('"', '""') + '"' for field in row) + end for row in rows)


def _open(root: Path, rows: int | None) -> Callable[[], None]:
    """As a run does, with whatever share of videos missing; `rows`: how many videos the training file has."""

    def use() -> None:
        dataset = load_dataset(root, CUSTOM, variant="", labels=None, num_classes=None, max_missing=1.0)
        for videos in (dataset.train, dataset.val):
            for index in range(len(videos)):
                folder = videos.folder(index)
                assert folder.resolve().is_relative_to(root.resolve() / "jpg"), folder
                assert (
                    dataset.classes[videos.labels[index]]
                    == os.fsdecode(folder.relative_to(root / "jpg")).split("/")[0]
                )
            assert ((videos.labels >= 0) & (videos.labels < len(dataset.classes))).all()
        if rows is not None:
            assert len(dataset.train) + dataset.train.missing.total() == rows
        dataset.fingerprint()

    return use


def _input(root: Path, kind: str, rows: int | None = None, must_refuse: bool = False) -> Input:
    return Input(kind, (f"{root}/labels",), _open(root, rows), must_refuse)


def changed_bytes(place: Path, generator: random.Random) -> Input:
    _write_dataset(place)
    path = place / "labels" / generator.choice(["train.csv", "val.csv", "dictionary.json"])
    path.write_bytes(mutated(path.read_bytes(), generator))
    return _input(place, f"{path.suffix[1:]}, bytes changed")


def hostile_rows(place: Path, generator: random.Random) -> Input:
    """Fields that should not be there, in files that are else in order."""
    _write_dataset(place)
    rows = _rows()
    field = generator.choice(["label", "id", "id", "time_start", "header", "short", "long"])
    row = rows[generator.randrange(1, len(rows))]
    if field in ("label", "id"):
        row[0 if field == "label" else 1] = generator.choice(WORDS)
    elif field == "time_start":
        row[2:4] = generator.choices(TIMES, k=2)
    elif field == "header":
        rows[0][generator.randrange(5)] = generator.choice([*WORDS, "label", "id", "youtube_id", "Label"])
    elif field == "short":
        del row[generator.randrange(5) :]
    else:
        row += generator.choices(WORDS, k=3)
    if generator.random() < 0.3:
        (place / "labels" / "dictionary.json").unlink()
    path = place / "labels" / generator.choice(["train.csv", "val.csv"])
    path.write_text(_table(rows, generator.choice(["\n", "\r\n", "\r"])), "utf-8", newline="")
    return _input(place, "csv, hostile rows")


def a_million_rows(place: Path, generator: random.Random) -> Input:
    """All but a few of videos that are not there."""
    _write_dataset(place)
    with (place / "labels" / "train.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"a,{number:07},,,train\n" for number in range(10**6))
    return _input(place, "csv, a million rows", rows=len(_rows()) - 1 + 10**6)


def climbing_names(place: Path, generator: random.Random) -> Input:
    """Out of the data set, where there is something to find."""
    root = place / "set"
    _write_dataset(root)
    for folder in (place, place / "x", root, root / "jpg"):
        folder.mkdir(exist_ok=True)
        (folder / "frames.db").touch()
    climbs = [
        "..",
        ".",
        "../..",
        "../../x",
        "a/../..",
        "./..",
        f"{place}/x",
        "/",
        "//",
        "a/../../../x",
        "x/.",
        "../jpg/a/x",
    ]
    rows = _rows()
    rows[generator.randrange(1, len(rows))][generator.randrange(2)] = generator.choice(climbs)
    (root / "labels" / generator.choice(["train.csv", "val.csv"])).write_text(_table(rows), "utf-8")
    (root / "labels" / "dictionary.json").unlink()
    return _input(root, "csv, climbing names", must_refuse=True)


def quote_left_open(place: Path, generator: random.Random) -> Input:
    """The rest of the file, or what is before the next such row, is one field."""
    _write_dataset(place)
    rows = [",".join(row) for row in _rows()]
    for _ in range(generator.choice([1, 2])):
        row = generator.randrange(1, len(rows))
        rows[row] = rows[row].replace(",", ',"', 1) if '"' not in rows[row] else rows[row]
    (place / "labels" / "train.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return _input(place, "csv, a quote left open", must_refuse=True)


def other_encoding(place: Path, generator: random.Random) -> Input:
    _write_dataset(place)
    path = place / "labels" / generator.choice(["train.csv", "val.csv", "dictionary.json"])
    text = path.read_text("utf-8")
    encoding = generator.choice(["utf-8-sig", "utf-16", "utf-32", "gb18030", "shift-jis", "utf-7"])
    path.write_bytes(text.encode(encoding, errors="replace"))
    return _input(place, "csv and json, other encodings")


def no_label_file(place: Path, generator: random.Random) -> Input:
    """Anything but a file by its name."""
    _write_dataset(place)
    path = place / "labels" / generator.choice(["train.csv", "val.csv", "dictionary.json"])
    path.unlink()
    ways: list[Callable[[], object]] = [
        *(
            path.mkdir,
            lambda: path.symlink_to(path),
            lambda: os.mkfifo(path),
            lambda: path.symlink_to("/dev/zero"),
        ),
        *(lambda: path.write_bytes(generator.randbytes(5000)), path.touch, lambda: path.write_text("\n\n\n")),
        lambda: path.touch() or os.truncate(path, 2**40),
    ]
    generator.choice(ways)()
    return _input(place, "csv and json, not a file")


def hostile_dictionary(place: Path, generator: random.Random) -> Input:
    """Numbers and names that make no classes."""
    _write_dataset(place)
    path = place / "labels" / "dictionary.json"
    numbers = [str(number) for number in range(len(CLASSES))]
    names = [json.dumps(name) for name in CLASSES]
    for _ in range(generator.choice([1, 1, 2])):
        if generator.random() < 0.7:
            numbers[generator.randrange(len(CLASSES))] = generator.choice(NUMBERS)
        else:
            names[generator.randrange(len(CLASSES))] = generator.choice(
                [*map(json.dumps, WORDS), '"\\ud800"', "a", '"a"', "1"]
            )
    text = "{" + ",".join(f"{name}:{number}" for name, number in zip(names, numbers, strict=True)) + "}"
    deep = ["[" * 100_000, '{"a":' * 100_000, "[" * 500 + "]" * 500, '"a"', "0", "[]", "{}", "null"]
    path.write_text(generator.choice([text] * 20 + deep), "utf-8")
    return _input(place, "json, hostile numbers and names")


def results_to_plot(place: Path, generator: random.Random) -> Input:
    path = place / "train_results_s0001.csv"
    rows = [["Epoch", "Top1", "Top5", "Loss"]] + [[str(epoch), "0.5", "0.9", "1.25"] for epoch in range(1, 6)]
    if generator.random() < 0.5:
        rows[generator.randrange(len(rows))][generator.randrange(4)] = generator.choice(WORDS)
        path.write_text(_table(rows), "utf-8", newline="")
    else:
        path.write_bytes(mutated(_table(rows).encode(), generator))
    return Input("results to plot", (str(path), str(place)), lambda: read_rows(place, "train") and None)
