"""What README.md and docs/*.md name exists: files, links, figures, flags, networks and make targets."""

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from network import create_network, list_networks
from tests.commands import REPOSITORY, run_command
from tests.docs.markdown import PAGES, README, commands

COMMANDS = [
    *("data.convert", "data.download", "data.labels", "data.verify", "data.browse", "data.synthetic"),
    *("data.benchmark", "network.benchmark", "train", "train.evaluate", "train.predict", "train.benchmark"),
    *("train.plot", "train.export", "train_kinetics.py", "train_ucf101.py", "data.labels folders"),
    *("data.labels ucf101", "data.labels kinetics", "data.labels link", "train.cross_validate"),
    *("train.report", "network.zoo"),
]
FOREIGN_FLAGS = {
    "--nproc-per-node",
    "--nnodes",
    "--max-restarts",
    "--cpus-per-task",
    "--ntasks",
    "--shm-size",
    "--user",
}


@cache
def known_flags() -> set[str]:
    texts = [run_command(*command.split(), "--help").output for command in COMMANDS]
    flags = {flag for text in texts for flag in re.findall(r"--[a-z][a-z0-9_-]*", text)}
    return FOREIGN_FLAGS | flags | {f"--no-{flag[2:]}" for flag in flags}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    flags = {
        flag for code in re.findall(r"`([^`]+)`", text) for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", code)
    }
    assert flags - known_flags() == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_figures_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", page.read_text("utf-8")):
        path, _, anchor = "".join(link).partition("#")
        if path.startswith(("https://", "http://")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert anchor in anchors, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    """Such as those of README's table `Where things are`; migrating.md also names files of the original code."""
    if page.name == "migrating.md":
        return
    paths = re.findall(
        r"`((?:network|data|train|tools|tests)/[\w/.*-]*|train_\w+\.py)`", page.read_text("utf-8")
    )
    for path in paths:
        is_data = path.startswith("data/") and not path.endswith(".py")  # a folder of a dataset
        assert is_data or list(REPOSITORY.glob(path)), path


def test_make_targets_exist() -> None:
    for page in PAGES:
        for line in commands(page):
            if line.startswith("make "):
                dry_run = ["make", "--dry-run", *line.split()[1:]]
                subprocess.run(dry_run, cwd=REPOSITORY, check=True, capture_output=True)


def test_networks_exist() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    for name in re.findall(r"`((?:r3d|r2plus1d|wide|ir_csn|ip_csn|mtnet|srtg)_\w+)`", text):
        assert name in list_networks(), name


def test_the_python_example_builds() -> None:
    assert 'create_network("srtg_r3d_34", num_classes=400, gates="soft")' in README.read_text("utf-8")
    assert create_network("srtg_r3d_34", num_classes=400, gates="soft").fc.out_features == 400
