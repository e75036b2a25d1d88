"""A small valid dataset, of which a generator then damages a part, and the commands that read it."""

import csv
import io
import json
import shlex
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import tests.tiny_network  # noqa: F401 - registers srtg_tiny
from data.store_writer import write_frame_store
from tests.synthetic_frames import painted_jpegs

CLASSES = ("a", "c d", "日本")
IDS = ("x", "é 'q'")
N_FRAMES = 6
HEADER = ("label", "id", "time_start", "time_end", "split")
CLIP = shlex.split("--clip-length 4 --clip-size 32 --short-side 36")
TRAIN = ["train", "--network", "srtg_tiny", *CLIP]
TRAIN += shlex.split(
    "--batch-size 4 --workers 0 --gpus 0 --augment none --end-epoch 1 --lr-steps 1 --lr-base 0.01"
)
TRAIN_ON_SET = [*TRAIN, "--dataset", "set", "--model-dir", "results"]
VERIFY = ["data.verify", "set", "--workers", "1"]
BROWSE = ["data.browse", "set", "-o", "clips.png", *CLIP]


@cache
def jpegs(n_frames: int = N_FRAMES) -> list[bytes]:
    return painted_jpegs(n_frames)


@cache
def _store_files(n_frames: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        write_frame_store(Path(folder) / "v", jpegs(n_frames))
        return {path.name: path.read_bytes() for path in (Path(folder) / "v").iterdir()}


def write_store(folder: Path, n_frames: int = N_FRAMES) -> None:
    folder.mkdir(parents=True)
    for name, content in _store_files(n_frames).items():
        (folder / name).write_bytes(content)


def rows(classes: Sequence[str] = CLASSES, ids: Sequence[str] = IDS) -> list[list[str]]:
    """Return the rows of a label file, the header first."""
    return [list(HEADER), *([name, video, "", "", "train"] for name in classes for video in ids)]


def as_csv(table: Sequence[Sequence[str]], end: str = "\n") -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(table)
    return text.getvalue()


def write_dataset(
    root: Path, classes: Sequence[str] = CLASSES, ids: Sequence[str] = IDS, n_frames: int = N_FRAMES
) -> None:
    """Write the stores of `ids` in each class, all of them both for training and validation."""
    for name in classes:
        for video in ids:
            write_store(root / "jpg" / name / video, n_frames)
    (root / "labels").mkdir()
    for split in ("train", "val"):
        (root / "labels" / f"{split}.csv").write_text(as_csv(rows(classes, ids)), "utf-8", newline="")
    numbers = {name: number for number, name in enumerate(classes)}
    (root / "labels" / "dictionary.json").write_text(json.dumps(numbers), "utf-8")
