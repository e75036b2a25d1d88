"""Untrusted label files, class indexes (`dictionary.json`) and CSV files of results."""

import json
import random
from pathlib import Path

from tests.fuzz.dataset import BROWSE, CLASSES, IDS, TRAIN_ON_SET, VERIFY, as_csv, rows, write_dataset
from tests.fuzz.mutation import WORDS, mutate
from tests.fuzz.verdict import FuzzInput

FIELDS = [word for word in WORDS if "\0" not in word and len(word) < 1000]
LABELS = ("train.csv", "val.csv")
FILES = (*LABELS, "dictionary.json")
TIMES = ["", "3", "3.5", "-1", "nan", "inf", "1e300", "9" * 400, "0x3", "３", "4 ", "1e18"]
JSON_NUMBERS = ["0", "1", "0.9", "true", "null", '"0"', "-1", "1e999", "NaN", "9" * 5000, "[]", "{}", "4"]
# climbs out of `set/jpg` to folders that exist and hold a store
CLIMBS = ["..", ".", "../..", "../../x", "a/../..", "./..", "/", "//", "a/../../../x", "x/.", "../jpg/a/x"]


def _read_set(rng: random.Random, must_fail: bool = False) -> FuzzInput:
    """A command that reads the label files, with whatever share of videos missing."""
    train = [*TRAIN_ON_SET, "--dry-run", "--max-missing", "1"]
    command = train if must_fail else rng.choice([train, train, VERIFY, BROWSE])
    videos = [*(f"{name}/" for name in CLASSES), *(f"/{video}: " for video in IDS)]  # findings of data.verify
    return FuzzInput(command, ["set/labels", "set/jpg", "set: ", "the training set has", *videos], must_fail)


def mutated_bytes(folder: Path, rng: random.Random) -> FuzzInput:
    write_dataset(folder / "set")
    path = folder / "set/labels" / rng.choice(FILES)
    path.write_bytes(mutate(path.read_bytes(), rng))
    return _read_set(rng)


def unexpected_fields(folder: Path, rng: random.Random) -> FuzzInput:
    """Fields that do not belong there, in files that are otherwise valid."""
    write_dataset(folder / "set")
    table = rows()
    row = table[rng.randrange(1, len(table))]
    match rng.choice(["label", "id", "id", "time", "header", "short", "long"]):
        case "label":
            row[0] = rng.choice(FIELDS)
        case "id":
            row[1] = rng.choice(FIELDS)
        case "time":
            row[2:4] = rng.choices(TIMES, k=2)
        case "header":
            table[0][rng.randrange(5)] = rng.choice([*FIELDS, "label", "id", "youtube_id", "Label"])
        case "short":
            del row[rng.randrange(5) :]
        case "long":
            row += rng.choices(FIELDS, k=3)
    if rng.random() < 0.3:
        (folder / "set/labels/dictionary.json").unlink()
    text = as_csv(table, rng.choice(["\n", "\r\n", "\r"]))
    (folder / "set/labels" / rng.choice(LABELS)).write_text(text, "utf-8", newline="")
    return _read_set(rng)


def paths_outside(folder: Path, rng: random.Random) -> FuzzInput:
    write_dataset(folder / "set")
    for path in (folder, folder / "x", folder / "set", folder / "set/jpg"):
        path.mkdir(exist_ok=True)
        (path / "frames.db").touch()
    table = rows()
    table[rng.randrange(1, len(table))][rng.randrange(2)] = rng.choice([*CLIMBS, f"{folder}/x"])
    (folder / "set/labels" / rng.choice(LABELS)).write_text(as_csv(table), "utf-8")
    (folder / "set/labels/dictionary.json").unlink()
    return _read_set(rng, must_fail=True)


def open_quote(folder: Path, rng: random.Random) -> FuzzInput:
    """A quote that is not closed: the rest of the file would be one field, and its videos lost."""
    write_dataset(folder / "set")
    lines = [",".join(row) for row in rows()]
    row = rng.randrange(1, len(lines))
    lines[row] = lines[row].replace(",", ',"', 1)
    (folder / "set/labels/train.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return _read_set(rng, must_fail=True)


def other_encoding(folder: Path, rng: random.Random) -> FuzzInput:
    write_dataset(folder / "set")
    path = folder / "set/labels" / rng.choice(FILES)
    encoding = rng.choice(["utf-8-sig", "utf-16", "utf-32", "gb18030", "shift-jis", "utf-7"])
    path.write_bytes(path.read_text("utf-8").encode(encoding, errors="replace"))
    return _read_set(rng)


def not_a_file(folder: Path, rng: random.Random) -> FuzzInput:
    write_dataset(folder / "set")
    path = folder / "set/labels" / rng.choice(FILES)
    path.unlink()
    ways = [
        path.mkdir,
        lambda: path.symlink_to(path),
        lambda: path.write_text("\n\n\n"),
        path.touch,
        lambda: None,
    ]
    rng.choice(ways)()
    return _read_set(rng)


def class_index(folder: Path, rng: random.Random) -> FuzzInput:
    """A `dictionary.json` with other numbers, other names, or other JSON."""
    write_dataset(folder / "set")
    numbers = [str(number) for number in range(len(CLASSES))]
    names = [json.dumps(name) for name in CLASSES]
    for _ in range(rng.choice([1, 1, 2])):
        if rng.random() < 0.7:
            numbers[rng.randrange(len(CLASSES))] = rng.choice(JSON_NUMBERS)
        else:
            names[rng.randrange(len(CLASSES))] = rng.choice([*map(json.dumps, WORDS), '"\\ud800"', "a", "1"])
    text = "{" + ",".join(f"{name}:{number}" for name, number in zip(names, numbers, strict=True)) + "}"
    others = ["[" * 500 + "]" * 500, "[" * 500, '"a"', "0", "[]", "{}", "null"]
    (folder / "set/labels/dictionary.json").write_text(rng.choice([text] * 20 + others), "utf-8")
    return _read_set(rng)


def results_to_plot(folder: Path, rng: random.Random) -> FuzzInput:
    table = [
        ["Epoch", "Top1", "Top5", "Loss"],
        *([str(epoch), "0.5", "0.9", "1.25"] for epoch in range(1, 6)),
    ]
    paths = [folder / "results" / f"{split}_results_s0001.csv" for split in ("train", "val")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_text(as_csv(table))
    if rng.random() < 0.5:
        table[rng.randrange(len(table))][rng.randrange(4)] = rng.choice(FIELDS)
        rng.choice(paths).write_text(as_csv(table), "utf-8", newline="")
    else:
        rng.choice(paths).write_bytes(mutate(as_csv(table).encode(), rng))
    return FuzzInput(["train.plot", "results", "-o", "curves.png"], ["results"])
