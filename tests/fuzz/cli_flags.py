"""Wrong command lines: flags with invalid values, contradictory flags, and datasets that are too small."""

import random
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path

from data.common.cli import sanitize
from tests.commands import run_command
from tests.fuzz.dataset import TRAIN, TRAIN_ON_SET, write_dataset
from tests.fuzz.mutation import WORDS
from tests.fuzz.verdict import FuzzInput
from train.options import Options

# as paths these lie in the current folder
VALUES = [word for word in WORDS if "\0" not in word and not word.startswith(("/", "~")) and ".." not in word]
VALUES += ["0", "1", "2", "3", "7", "0.5", "1.5", "-0.1", "1e-300", "1e400", "9223372036854775807", "1,2"]
VALUES += ["true", "auto", "None", "none", "cuda", "[1 2]", "2 1", "sgd", "adamw", "soft"]
# what takes long, needs a GPU, or writes where it is told to
EXCLUDED = {"compile", "gpus", "log_file", "variant", "dataset"}
TOOLS = {
    "data.labels": "folders set --overwrite",
    "data.verify": "set",
    "data.convert": "videos converted",
    "data.browse": "set -o clips.png --clip-length 2 --clip-size 32 --short-side 36",
    "train.plot": "results -o curves.png",
    "train.evaluate": "x.pth --dataset set",
    "train.predict": "x.pth v.mp4",
    "train.export": "x.pth -o x.onnx",
}
TRAINING_FLAGS = ["", "--short-cycles", "--long-cycles", "--ema-decay 0.9", "--mixup 0.2", "--sub-bn-size 2"]
TRAINING_FLAGS += ["--batch-size 1", "--batch-size 64", "--clip-length 16", "--clip-length 1"]


def _names(args: Sequence[str]) -> list[str]:
    """Return the forms in which a message may quote an argument."""
    names = []
    for arg in args:
        short = sanitize(arg, 40)
        names += [f"{short}: ", f": {short}", repr(arg), ascii(arg)[1:-1][:40]]
        if arg.startswith("--"):
            names.append(f" {arg[2:]};")  # an option of the network
        if "/" in arg:
            names += [f"{Path(arg)}: ", repr(str(Path(arg)))]  # a//b is a/b
    return [name for name in names if name]


def training_flags(folder: Path, rng: random.Random) -> FuzzInput:
    """One to three flags of training, each with a value that may be invalid for it."""
    write_dataset(folder / "set", ["a", "b"])
    names = [field.name for field in fields(Options) if field.name not in EXCLUDED]
    args: list[str] = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        args += ["--" + rng.choice(names).replace("_", "-"), *rng.choice(VALUES).split(" ")]
    flags = [arg for arg in args if arg.startswith("--")]
    return FuzzInput([*TRAIN_ON_SET, *args, "--dry-run"], [*flags, *_names(args)])


def small_dataset(folder: Path, rng: random.Random) -> FuzzInput:
    """An epoch on few and short videos, in a folder with an odd name."""
    name = rng.choice(["set", "a b", "日本", "a'b", "%s", "é", "{x}", "[x]"])
    classes = rng.choice([["a"], ["a", "b"], ["a", "b", "日 本"]])
    write_dataset(
        folder / name, classes, rng.choice([["x"], ["x", "y", "z"]]), n_frames=rng.choice([1, 1, 2, 6])
    )
    args = ["--dataset", name, "--model-dir", f"results of {name}", *rng.choice(TRAINING_FLAGS).split()]
    return FuzzInput([*TRAIN, *args], [name, "training set", "--clip-size", "--lr-base"])


@cache
def _flags_of(tool: str) -> list[str]:
    help_text = run_command(tool, *TOOLS[tool].split()[:1], "--help").output
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", help_text)) - {"--help", "--workers"})


def tool_flags(folder: Path, rng: random.Random) -> FuzzInput:
    """A flag of another command, or one of its arguments, with a value that may be invalid."""
    tool = rng.choice(list(TOOLS))
    write_dataset(folder / "set", ["a"], n_frames=2)
    for name in ("videos", "results"):
        (folder / name).mkdir()
    (folder / "x.pth").write_bytes(b"x")
    args = TOOLS[tool].split()
    if rng.random() < 0.3:
        changed = [rng.choice(VALUES)]
        args[rng.randrange(len(args))] = changed[0]
    else:
        changed = [rng.choice(_flags_of(tool)), *rng.choice(VALUES).split(" ")]
        args += changed
    args = [arg for arg in args if arg] or ["x"]
    return FuzzInput([tool, *args], ["argument", changed[0][:40] or "argument", *_names(args)])
