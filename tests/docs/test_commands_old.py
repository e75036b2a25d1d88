"""Pages are followed in this process, line by line as they stand there: on little videos, lists in the official form,
and downloads from a server that the test starts. What a shell has to run is in test_in_shell.py.
"""

import importlib
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from data import datasets
from data.datasets import DatasetSpec
from tests.data.http_server import Remote, serving, streamable_video
from tests.docs.fake_datasets import CLASSES, OFFICIAL, put_videos, small_video, write_lists
from tests.docs.markdown import PAGES, ROOT, commands_of
from train.main import main as train
from train.options import Options

DATASETS_PAGE = "docs/datasets.md"
SMALLER = ["--clip-size=32", "--short-side=36", "--clip-length=4", "--end-epoch=1", "--workers=0", "--gpus=0"]
SUBSET = ["--num-classes", str(len(CLASSES))]
# Commands for a shell: they start processes, need large networks, measure for minutes or end by a signal alone.
IN_SHELL = re.compile(
    r"^(torchrun|srun|tensorboard|mount) | -m (data|network|train)\.benchmark"
    r"|--resume-epoch 21|srtg_r3d_101_(hacs|best)\.pth"
)


def spec_of(namespace: dict[str, object]) -> DatasetSpec:
    return next(value for value in namespace.values() if isinstance(value, DatasetSpec))


def is_training(line: str) -> bool:
    return re.match(r"python (train_\w+\.py|-m train) ", line) is not None


def follow(line: str, more: Sequence[str] = ()) -> int:
    """Run a command, and more words of it, in this process."""
    _, *words = [*shlex.split(line), *more]
    if words[0].endswith(".py"):
        namespace = runpy.run_path(str(ROOT / words[0]))
        if words[0].startswith("docs/"):
            return namespace["main"](words[1:])
        return train(spec_of(namespace), namespace["DEFAULTS"], words[1:])
    _, name, *words = words
    if name == "train":
        return train(datasets.CUSTOM, Options(), words)
    return importlib.import_module(name).main(words)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN = "results/my_set/srtg_r3d_18_gates_False"
ABOUT_IT = (
    "annotations_and_checks",
    "data_preparation",
    "evaluation",
    "logging",
    "multigrid",
    "inference",
)  # pages


def lines_about_my_set() -> list[str]:
    """What pages ask of the data set and the networks that the first page makes."""
    pages = [line for page in ABOUT_IT for line in commands_of(f"docs/{page}.md")]
    return [line for line in pages if re.search(r"\b(my_set|said\.mp4|one/scores\.npz)\b", line)]


def lines_of_first_page() -> list[str]:
    return [line for line in commands_of("README.md") if re.search(r"\b(my_set|new)\b", line)]


def test_first_page_can_be_followed_and_those_about_what_it_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From videos in folders to a picture of where the network looked, and whatever else it can be asked."""
    for motion in ("left", "grow", "clockwise"):
        for number in "ab":
            small_video(folder / "videos" / motion / f"{number}.mp4", motion)
    small_video(folder / "new.mp4")
    for line in lines_of_first_page():
        assert follow(line, SMALLER if is_training(line) else []) == 0, line
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
        assert follow(line, SMALLER if is_training(line) else []) == 0, line
    for name in (
        *("curves.png", "both.svg", "said.mp4", "seen.mp4", "report.json", "stores.csv", "clips.jpg"),
        *("clips.mp4", "schedule.png", "answers.json", "filmstrip.png"),
        *("model.safetensors", "model.pt2", "model.onnx"),
        f"{RUN}/srtg_r3d_18_best_val_10x3/confusion.png",
        "one/average/confusion.png",
    ):
        assert (folder / name).stat().st_size > 100, name


PLACES = {  # what other pages call them
    "UCF-101": "data/UCF-101",
    "HACS Clips": "data/HACS_videos",
    "Kinetics-700, 600, 400": "data/kinetics",
}
FROM_ELSEWHERE = re.compile(r" -m data\.download | --trim ")


def lines_of_other_pages(section: str) -> list[str]:
    """What they do with the data set of a section of docs/datasets.md."""
    pages = [path.relative_to(ROOT).as_posix() for path in PAGES]
    lines = [line for page in pages if page != DATASETS_PAGE for line in commands_of(page)]
    others = [line for line in lines if PLACES.get(section, "nowhere") in line]
    return [line for line in others if not IN_SHELL.search(line) and not FROM_ELSEWHERE.search(line)]


def ways_of_section(section: str) -> list[list[str]]:
    """Its commands; twice where videos may be downloaded instead of linked."""
    own = commands_of(DATASETS_PAGE, section)
    downloads = [line for line in own if " -m data.download " in line]
    links = [line for line in own if " -m data.labels link " in line]
    if not (downloads and links):
        return [own]
    linked = [line for line in own if line not in downloads]
    place = linked.index(links[0])
    return [linked, [*linked[:place], *downloads, *linked[place + len(links) :]]]


WAYS = [(section, number) for section in OFFICIAL for number in range(len(ways_of_section(section)))]


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """Any video of any site is 21 seconds."""
    with serving(streamable_video(tmp_path_factory.mktemp("remote"), 21 * 25, 48)) as server:
        yield server


def instead_of_youtube(remote: Remote) -> list[str]:
    return ["--url", remote.url, "--pause", "0"]


@pytest.mark.parametrize(("section", "way"), WAYS)
def test_page_of_data_sets_can_be_followed(
    section: str, way: int, folder: Path, remote: Remote, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the lists and videos of a site to the plan of a run."""
    write_lists(section, folder)
    lines = ways_of_section(section)[way]
    if not any(" -m data.download " in line for line in lines):
        put_videos(folder, OFFICIAL[section].videos)
    (folder / "cookies.txt").write_text("# Netscape HTTP Cookie File\n")
    if section == "Mini-Kinetics-200":  # its stores are those of Kinetics-400
        for i in range(0, 2 * len(CLASSES), 2):
            for split in ("train", "val"):
                small_video(folder / "videos" / f"class {i}" / f"{split}_{i:06d}_000010_000020.mp4")
        assert follow("python -m data.convert videos data/kinetics") == 0

    plans = 0
    for line in dict.fromkeys([*lines, *lines_of_other_pages(section)]):
        capsys.readouterr()
        more = []
        if " -m data.download " in line:
            more = instead_of_youtube(remote)
        elif is_training(line):
            more = [*SUBSET, "--dry-run"]
        elif " -m data.labels " in line and " link " not in line:
            more = SUBSET
        assert follow(line, more) == 0, line
        if is_training(line):
            plan = json.loads(capsys.readouterr().out)
            assert plan["dataset"]["train"]["missing"] == plan["dataset"]["val"]["missing"] == 0
            assert plan["dataset"]["classes"] == len(CLASSES)
            plans += 1
    assert plans


def lines_from_elsewhere() -> list[str]:
    return [line for line in commands_of("docs/data_preparation.md") if FROM_ELSEWHERE.search(line)]


def test_rows_of_label_files_are_cut_from_whole_videos_or_downloaded(
    folder: Path, remote: Remote, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lists("HACS Clips", folder)
    assert follow("python -m data.labels hacs HACS_v1.1.1 .", SUBSET) == 0
    for i in CLASSES:
        for split in ("trai", "vali"):
            path = folder / "videos" / f"Class {i}" / f"{split}_{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(remote.body)
    for line in lines_from_elsewhere():
        assert follow(line, instead_of_youtube(remote) if " -m data.download " in line else []) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == ["converted 4", "done 4"]
    frames = folder / "data/HACS_videos/jpg/Class 0/trai_0_000015_000017/n_frames"
    assert int(frames.read_text()) == 50


FOLLOWED = {
    *lines_of_first_page(),
    *lines_about_my_set(),
    *lines_from_elsewhere(),
    *(line for section in OFFICIAL for way in ways_of_section(section) for line in way),
    *(line for section in OFFICIAL for line in lines_of_other_pages(section)),
}
