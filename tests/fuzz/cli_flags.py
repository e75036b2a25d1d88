"""What careless users type: flags with values that are none, flags that contradict one another, and odd data sets."""

import contextlib
import importlib
import logging
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from functools import cache
from io import StringIO
from pathlib import Path

from data.common.cli import sanitize
from data.datasets import CUSTOM
from data.frame_store import write_frame_store
from data.label_files import Annotation, write_label_csv
from tests.fuzz.mutation import WORDS
from tests.fuzz.verdict import Input, RefusalError
from tests.synthetic_frames import painted_jpegs
from train.main import main as train
from train.options import Options

# as paths these stay below where the user is
VALUES = [word for word in WORDS if "\0" not in word and not word.startswith(("/", "~")) and ".." not in word]
VALUES += [
    *("0", "1", "2", "3", "7", "0.5", "1.5", "-0.1", "1e-300", "1e400", "99999999999", "9223372036854775807"),
    *(
        "True",
        "true",
        "auto",
        "None",
        "none",
        "cuda",
        "x" * 300,
        "1,2",
        "[1 2]",
        "2 1",
        "sgd",
        "adamw",
        "soft",
    ),
]
SMALL = [
    *(
        "--network",
        "ir_csn_50",
        "--clip-length",
        "4",
        "--clip-size",
        "32",
        "--short-side",
        "36",
        "--gpus",
        "0",
    ),
    *("--batch-size", "4", "--workers", "0", "--augment", "none", "--end-epoch", "1", "--lr-steps", "1"),
    *("--lr-base", "0.01"),
]
# what a value of one's own means: a program that is compiled, windows, other people's machines
LEFT_OUT = {"compile", "gpus", "log_file"}
TOOLS = {
    "data.labels": ["folders", "set", "--overwrite"],
    "data.verify": ["set", "--workers", "1"],
    "data.convert": ["videos", "converted"],
    "data.browse": [
        "set",
        "-o",
        "clips.png",
        "--clip-length",
        "2",
        "--clip-size",
        "32",
        "--short-side",
        "36",
    ],
    "train.plot": ["results", "-o", "curves.png"],
    "train.evaluate": ["x.pth", "--dataset", "set"],
    "train.predict": ["x.pth", "v.mp4"],
    "train.export": ["x.pth", "x.onnx"],
}


@cache
def _jpegs(n_frames: int) -> list[bytes]:
    return painted_jpegs(n_frames)


def _write_set(root: Path, videos: dict[str, int], val: Sequence[str], n_frames: int) -> None:
    """`videos`: how many each class has for training; one more in each class of `val`."""
    rows: dict[str, list[Annotation]] = {"train": [], "val": []}
    for label, count in videos.items():
        for number in range(count + (label in val)):
            row = Annotation(label, f"{label} {number}")
            write_frame_store(root / "jpg" / label / row.video_id, _jpegs(n_frames))
            rows["train" if number < count else "val"].append(row)
    for split, listed in rows.items():
        write_label_csv(root / "labels" / f"{split}.csv", listed, split)


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _command(place: Path, main: Callable[[], int | None]) -> Callable[[], None]:
    """Status 0, or another with one line that says `error:`."""

    def use() -> None:
        out, errors = StringIO(), StringIO()
        logging.disable(logging.NOTSET)
        try:
            with _in(place), redirect_stdout(out), redirect_stderr(errors):
                try:
                    status = main()
                except SystemExit as end:
                    status = end.code
        finally:
            logging.disable(logging.CRITICAL)
        if not status:
            return
        said = errors.getvalue()
        lines = [line for line in said.splitlines() if "error:" in line or " ERROR " in line] or [said[-300:]]
        assert "Traceback" not in said, said[-300:]
        raise RefusalError(lines[-1])

    return use


def _forms(words: Sequence[str]) -> list[str]:
    """What a message shows of what was typed."""
    forms = [
        (f"{sanitize(word, 40)}: ", f": {sanitize(word, 40)}", repr(word), ascii(word)[1:-1][:40])
        for word in words
    ]
    forms += [(f" {word[2:]};",) for word in words if word.startswith("--")]  # an option of the network's
    forms += [(f"{Path(word)}: ",) for word in words if "/" in word]  # a//b is a/b
    return [form for several in forms for form in several if form]


def one_flag(place: Path, generator: random.Random) -> Input:
    """A flag of training with a value that may be none."""
    _write_set(place / "set", {"a": 3, "b": 3}, ["a", "b"], n_frames=6)
    names = [field.name for field in fields(Options) if field.name not in LEFT_OUT | {"variant", "dataset"}]
    words, flags = [], []
    for _ in range(generator.choice([1, 1, 2, 3])):
        flags.append("--" + generator.choice(names).replace("_", "-"))
        words += [flags[-1], *generator.choice(VALUES).split(" ")]
    command = ["--dataset", "set", "--model-dir", "results", *SMALL, *words, "--dry-run"]
    use = _command(place, lambda: train(CUSTOM, Options(), command, "train"))
    kind = "training, a flag" if len(flags) == 1 else "training, several flags"
    return Input(kind, (*flags, *_forms(words)), use)


def odd_set(place: Path, generator: random.Random) -> Input:
    """Few videos, short ones, unequal ones, and a place with an odd name; trained on for an epoch."""
    counts = generator.choice(
        [{"a": 1}, {"a": 2}, {"a": 1, "b": 1}, {"a": 5, "b": 1}, {"a": 3, "b": 3, "日 本": 3}]
    )
    name = generator.choice(["set", "a b", "日本", "a'b", "%s", "é", "{x}", "[x]"])
    n_frames = generator.choice([1, 1, 2, 6])
    _write_set(place / name, counts, generator.choice([["a"], list(counts)]), n_frames)
    words = generator.choice(
        [
            *(
                [],
                ["--batch-size", "1"],
                ["--batch-size", "64"],
                ["--clip-length", "16"],
                ["--clip-length", "1"],
            ),
            *(
                ["--short-cycles"],
                ["--long-cycles"],
                ["--ema-decay", "0.9"],
                ["--mixup", "0.2"],
                ["--sub-bn-size", "2"],
            ),
        ]
    )
    command = ["--dataset", name, "--model-dir", f"results of {name}", *SMALL, *words]
    use = _command(place, lambda: train(CUSTOM, Options(), command, "train"))
    return Input("training, odd sets", (name, "training set", "--clip-size", "--lr-base"), use)


@cache
def _flags(tool: str) -> list[str]:
    with redirect_stdout(StringIO()) as text, contextlib.suppress(SystemExit):
        importlib.import_module(tool).main([*TOOLS[tool][:1], "--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text.getvalue())) - {"--help", "--workers"})


def tool_flag(place: Path, generator: random.Random) -> Input:
    """A flag of another command, or what it works on, with a value that may be none."""
    tool = generator.choice(list(TOOLS))
    _write_set(place / "set", {"a": 2}, ["a"], n_frames=2)
    for name in ("videos", "results"):
        (place / name).mkdir()
    (place / "x.pth").write_bytes(b"x")
    words = list(TOOLS[tool])
    if generator.random() < 0.3 or not _flags(tool):
        changed = generator.randrange(len(words))
        words[changed] = generator.choice(VALUES)
        named = words[changed][:40]
    else:
        named = generator.choice(_flags(tool))
        words += [named, *generator.choice(VALUES).split(" ")]
    words = [word for word in words if word] or ["x"]
    use = _command(place, lambda: importlib.import_module(tool).main(words))
    return Input(tool, ("argument", named, *_forms(words)), use)
