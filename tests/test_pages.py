"""Pages of docs are followed, line by line as they stand there: on little videos, and lists in the official form."""

import importlib
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from data import datasets
from data.datasets import DatasetSpec
from data.motions import render
from data.synthetic import write_video
from tests.data.test_official import WRITERS, write_mini_kinetics
from tests.pages import code_lines
from tests.test_readme import KNOWN, PAGES, ROOT
from train.options import Options
from train.run import main as train

DATASETS_PAGE = ROOT / "docs" / "datasets.md"
SMALLER = ["--clip-size=32", "--short-side=36", "--clip-length=4", "--end-epoch=1", "--workers=0", "--gpus=0"]


def commands_of(page: Path, section: str = "") -> list[str]:
    """The commands of a page, or of one of its sections, that are Python's."""
    text = page.read_text("utf-8")
    if section:
        text = re.split(r"^## ", text.partition(f"\n## {section}\n")[2], flags=re.MULTILINE)[0]
    return [line for line in code_lines(text) if line.startswith("python ")]


def spec_of(namespace: dict[str, object]) -> DatasetSpec:
    return next(value for value in namespace.values() if isinstance(value, DatasetSpec))


def follow(line: str, training: Sequence[str] = ()) -> int:
    """Run a command in this process; training with more words, which make it small."""
    _, *words = shlex.split(line)
    if words[0].endswith(".py"):
        namespace = runpy.run_path(str(ROOT / words[0]))
        if words[0].startswith("docs/"):
            return namespace["main"](words[1:])
        return train(spec_of(namespace), namespace["DEFAULTS"], [*words[1:], *training])
    _, name, *words = words
    if name == "train":
        return train(datasets.OWN, Options(), [*words, *training])
    return importlib.import_module(name).main(words)


def small_video(path: Path, motion: str = "left") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, render(motion, np.random.default_rng(1), 10, 48))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN = "results/my_set/srtg_r3d_18_gates_False"
ABOUT_IT = ("data", "converting", "evaluating", "monitoring", "multigrid", "predicting")  # pages


def lines_about_my_set() -> list[str]:
    """What pages ask of the data set and the networks that the first page makes."""
    pages = [line for page in ABOUT_IT for line in commands_of(ROOT / "docs" / f"{page}.md")]
    return [line for line in pages if re.search(r"\b(my_set|said\.mp4|one/scores\.npz)\b", line)]


def lines_of_first_page() -> list[str]:
    return [line for line in commands_of(ROOT / "README.md") if re.search(r"\b(my_set|new)\b", line)]


def test_first_page_can_be_followed_and_those_about_what_it_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From videos in folders to a picture of where the network looked, and whatever else it can be asked."""
    for motion in ("left", "grow", "clockwise"):
        for number in "ab":
            small_video(folder / "videos" / motion / f"{number}.mp4", motion)
    small_video(folder / "new.mp4")
    for line in lines_of_first_page():
        assert follow(line, SMALLER) == 0, line
    out = capsys.readouterr().out
    for said in (
        "converted 6\n",
        "my_set/labels/train.csv: 3 videos of 3 classes",
        "new.mp4: 10 frames, 2 windows",
    ):
        assert said in out

    for network in ("mtnet_xs", "r3d_18"):  # runs that pages speak of, in smaller ones' stead
        assert follow(f"python -m train --dataset my_set --network {network}", SMALLER) == 0
    (folder / "results/my_set/mtnet_xs_gates_False").rename("results/my_set/mtnet_s_gates_False")
    (folder / "results/my_set/r3d_18_gates_False").rename("results/my_set/srtg_r3d_34_gates_False")
    for line in lines_about_my_set():
        if "one/scores.npz" in line:
            for name in ("one", "other"):
                shutil.copytree(f"{RUN}/srtg_r3d_18_best_val_10x3", name)
        assert follow(line, SMALLER) == 0, line
    for name in (
        *("curves.png", "both.svg", "said.mp4", "seen.mp4", "report.json", "stores.csv", "clips.jpg"),
        *("clips.mp4", "schedule.png", "answers.json", "filmstrip.png"),
        *("model.safetensors", "model.pt2", "model.onnx"),
        f"{RUN}/srtg_r3d_18_best_val_10x3/confusion.png",
        "one/average/confusion.png",
    ):
        assert (folder / name).stat().st_size > 100, name


class Official(NamedTuple):
    """A section of docs/datasets.md: who writes its lists, where, and the videos that its site hands out."""

    write: Callable[[Path, int], None]
    lists: str
    videos: Sequence[str]


CLASSES = range(2)
OFFICIAL = {
    "UCF-101": Official(
        WRITERS["ucf101"],
        "ucfTrainTestlist",
        [
            f"UCF-101/Class{i:03d}/v_Class{i:03d}_{clip}.avi"
            for i in CLASSES
            for clip in ("g01_c01", "g02_c01", "g03_c01", "g09_c01", "g09_c02", "g09_c03")
        ],
    ),
    "HMDB-51": Official(
        WRITERS["hmdb51"],
        "testTrainMulti_7030_splits",
        [f"hmdb51_org/class_{i}/a_class_{i}_{n}.avi" for i in CLASSES for n in range(4)],
    ),
    "Diving48 V2": Official(
        WRITERS["diving48"],
        "lists",
        [f"rgb/{split}_{i:05d}.mp4" for i in CLASSES for split in ("train", "test")],
    ),
    "HACS Clips": Official(
        WRITERS["hacs"],
        ".",
        [
            f"HACS_downloads/Class {i}/{split}_{i}_000015_000017.mp4"
            for i in CLASSES
            for split in ("trai", "vali")
        ],
    ),
    "Kinetics-700, 600, 400": Official(
        WRITERS["kinetics"],
        "annotations",
        [
            f"kinetics_copies/{split}/{split}_{i:06d}_000010_000020.mp4"
            for i in CLASSES
            for split in ("train", "val")
        ],
    ),
    "Mini-Kinetics-200": Official(write_mini_kinetics, "annotations_400", []),
    "Moments in Time": Official(
        WRITERS["mit"],
        "Moments_in_Time",
        [
            f"Moments_in_Time/{place}/adult+class{i}/yt-{split}adult+class{i}_26.mp4"
            for i in CLASSES
            for place, split in (("training", "train"), ("validation", "val"))
        ],
    ),
}


PLACES = {  # what other pages call them
    "UCF-101": "data/UCF-101",
    "HACS Clips": "data/HACS_videos",
    "Kinetics-700, 600, 400": "data/kinetics",
}

# why a command is run by no test here
CANNOT = {
    r"^(srun|docker|mount) ": "it needs a cluster, or changes the machine",
    r"^torchrun ": "it takes long, or several machines; test_distributed.py and test_evaluate.py start processes",
    r" -m data\.download ": "it needs the network; test_download.py has a server of its own",
    r" --trim ": "it needs long videos; test_convert_many.py cuts small ones",
    r" -m (data|network|train)\.benchmark": "it takes minutes; tests of the benchmarks run them smaller",
    r"^tensorboard ": "it serves until it is stopped; make demo-full inspects what it would show",
    r"--resume-epoch 21|srtg_r3d_101_(hacs|best)\.pth": "it needs a long run; tests/train makes and uses small ones",
    r"^make (demo|demo-full|test)\b": "it is what runs all this",
}


def is_possible(line: str) -> bool:
    return not any(re.search(pattern, line) for pattern in CANNOT)


def lines_of_section(section: str) -> list[str]:
    """Of docs/datasets.md, and then what other pages do with the same data set."""
    own = commands_of(DATASETS_PAGE, section)
    pages = [line for page in PAGES if page != DATASETS_PAGE for line in commands_of(page)]
    others = [line for line in pages if PLACES.get(section, "nowhere") in line]
    return [line for line in dict.fromkeys([*own, *others]) if is_possible(line)]


@pytest.mark.parametrize("section", OFFICIAL)
def test_page_of_data_sets_can_be_followed(
    section: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the lists and videos of a site to the plan of a run, but for downloads: what those leave is put there."""
    official = OFFICIAL[section]
    official.write(folder / official.lists, len(CLASSES))
    small_video(folder / "video.mp4")
    for name in official.videos:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(folder / "video.mp4")
    if section == "Mini-Kinetics-200":  # its stores are those of Kinetics-400
        for i in range(0, 2 * len(CLASSES), 2):
            for split in ("train", "val"):
                small_video(folder / "videos" / f"class {i}" / f"{split}_{i:06d}_000010_000020.mp4")
        assert follow("python -m data.convert videos data/kinetics") == 0

    subset = ["--num-classes", str(len(CLASSES))]
    plans = 0
    for line in lines_of_section(section):
        capsys.readouterr()
        is_of_lists = " data.labels " in line and " link " not in line
        whole = shlex.join([*shlex.split(line), *subset]) if is_of_lists else line
        assert follow(whole, [*subset, "--dry-run"]) == 0, line
        if re.search(r"python train_\w+\.py ", line):
            plan = json.loads(capsys.readouterr().out)
            assert plan["dataset"]["train"]["missing"] == plan["dataset"]["val"]["missing"] == 0
            assert plan["dataset"]["classes"] == len(CLASSES)
            plans += 1
    assert plans


def test_every_command_of_every_page_is_followed_or_cannot_be() -> None:
    followed = {*lines_of_first_page(), *lines_about_my_set()}
    followed |= {line for section in OFFICIAL for line in lines_of_section(section)}
    for page in PAGES:
        for line in code_lines(page.read_text("utf-8")):
            if line.startswith(KNOWN) and is_possible(line):
                assert line in followed, f"{page.name}: {line}"
