"""The README's commands and names, as they stand there."""

import importlib.util
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from data import datasets
from network import create_network, list_networks
from train.command_line import parse_options

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", README.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
TRAINING = [line for line in LINES if line.startswith("python train_")]
MODULES = [line for line in LINES if " -m " in line]


@pytest.mark.parametrize("line", TRAINING)
def test_training_commands_parse(line: str, repository: Path) -> None:
    """An example of the original's README failed an assertion of its own script."""
    _, script, *arguments = shlex.split(line)
    namespace = runpy.run_path(str(repository / script))
    spec = next(
        value
        for value in vars(datasets).values()
        if value in namespace.values() and hasattr(value, "train_csv")
    )
    options = parse_options(spec, namespace["DEFAULTS"], arguments)
    assert options.network in list_networks()


@pytest.mark.parametrize("line", MODULES)
def test_modules_exist(line: str) -> None:
    words = shlex.split(line)
    name = words[words.index("-m") + 1]
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is None or importlib.util.find_spec(f"{name}.__main__")


def test_there_are_commands_of_each_kind() -> None:
    assert len(TRAINING) >= 4
    assert len(MODULES) >= 4


def test_make_targets_exist(repository: Path) -> None:
    for line in LINES:
        if line.startswith("make "):
            target = line.split()[1]
            subprocess.run(["make", "--dry-run", target], cwd=repository, check=True, capture_output=True)


def test_every_network_named_exists() -> None:
    text = README.read_text("utf-8")
    for pattern in re.findall(
        r"`((?:r3d|r2plus1d|wide|ir_csn|ip_csn|mtnet|srtg)\w*(?:\{[\w,]+\})?\w*)`", text
    ):
        if pattern in ("srtg_", "mtnet_"):  # spoken of as prefixes
            continue
        prefix, _, rest = pattern.partition("{")
        names = [prefix + end for end in rest.rstrip("}").split(",")] if rest else [pattern]
        for name in names:
            assert name in list_networks(), name


def test_pictures_exist(repository: Path) -> None:
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)|<img src=\"([^\"]+)\"", README.read_text("utf-8")):
        assert (repository / "".join(path)).is_file()


def test_the_example_in_python_builds(repository: Path) -> None:
    assert 'create_network("srtg_r3d_34", num_classes=400, gates="soft")' in README.read_text("utf-8")
    assert create_network("srtg_r3d_34", num_classes=400, gates="soft").fc.out_features == 400
