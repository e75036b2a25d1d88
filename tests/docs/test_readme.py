"""The commands and names of README and docs, as they stand there."""

import argparse
import importlib
import inspect
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from data import datasets
from network import create_network, list_networks
from tests.docs.markdown import COMMANDS, KNOWN, LINES, PAGES, README
from train.cli import parse_options
from train.options import Options

TRAINING = [line for line in COMMANDS if re.search(r"\btrain_\w+\.py ", line)]
MODULES = [line for line in COMMANDS if " -m " in line]
SCRIPTS = [line for line in COMMANDS if line.startswith("python docs/")]


@pytest.mark.parametrize("line", TRAINING)
def test_training_commands_parse(line: str, repository: Path) -> None:
    """An example of the original's README failed an assertion of its own script."""
    words = shlex.split(line.removesuffix("&"))
    place = next(number for number, word in enumerate(words) if word.endswith(".py"))
    namespace = runpy.run_path(str(repository / words[place]))
    spec = next(
        value
        for value in vars(datasets).values()
        if value in namespace.values() and hasattr(value, "train_csv")
    )
    options = parse_options(spec, namespace["DEFAULTS"], words[place + 1 :])
    assert options.network in list_networks()


class ParsedError(Exception):
    """A command understood its words, and would have begun."""


@pytest.fixture
def parsing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, words: list[str] | None = None) -> None:
        parse(self, words)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


@pytest.mark.usefixtures("parsing_alone")
@pytest.mark.parametrize("line", MODULES)
def test_modules_understand_their_commands(line: str) -> None:
    _, _, rest = line.partition(" -m ")
    name, *words = shlex.split(rest.partition(" # ")[0])
    if name == "train":
        with pytest.raises(ParsedError):
            parse_options(datasets.CUSTOM, Options(), words)
        return
    module = importlib.import_module(name)
    if not words and "argv" not in inspect.signature(module.main).parameters:
        return  # takes no words, as network.table
    with pytest.raises(ParsedError):
        module.main(words)


@pytest.mark.usefixtures("parsing_alone")
@pytest.mark.parametrize("line", SCRIPTS)
def test_scripts_of_the_pages_understand_their_commands(line: str, repository: Path) -> None:
    _, script, *words = shlex.split(line)
    with pytest.raises(ParsedError):
        runpy.run_path(str(repository / script))["main"](words)


def test_there_are_commands_of_each_kind() -> None:
    assert len(TRAINING) >= 6
    assert len(MODULES) >= 10
    assert len(SCRIPTS) >= 1


COMMAND_WORDS = (
    *("python", "python3", "pip", "torchrun", "make", "bash", "sh", "source", "export", "cd", "mkdir", "ln"),
    *(
        "docker",
        "sudo",
        "mount",
        "srun",
        "sbatch",
        "tensorboard",
        "git",
        "curl",
        "wget",
        "tar",
        "unzip",
        "unrar",
    ),
)


def test_no_command_is_of_an_unknown_kind() -> None:
    """What looks like a command is one that these tests look at."""
    for line in LINES:
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if word in COMMAND_WORDS or word.startswith("./"):
            assert line.startswith(KNOWN), line
            if word == "python":
                assert line in MODULES or line in TRAINING or line in SCRIPTS, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    for target in ("".join(pair) for pair in targets):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        place = page.parent / path if path else page
        assert place.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, (
                target
            )


def test_make_targets_exist(repository: Path) -> None:
    for line in LINES:
        if line.startswith("make "):
            target = line.split()[1]
            subprocess.run(["make", "--dry-run", target], cwd=repository, check=True, capture_output=True)


def test_every_network_named_exists() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    for pattern in re.findall(
        r"`((?:r3d|r2plus1d|wide|ir_csn|ip_csn|mtnet|srtg)\w*(?:\{[\w,]+\})?\w*)`", text
    ):
        if pattern in ("srtg_", "mtnet_"):  # spoken of as prefixes
            continue
        prefix, _, rest = pattern.partition("{")
        names = [prefix + end for end in rest.rstrip("}").split(",")] if rest else [pattern]
        for name in names:
            assert name in list_networks(), name


def test_the_example_in_python_builds(repository: Path) -> None:
    assert 'create_network("srtg_r3d_34", num_classes=400, gates="soft")' in README.read_text("utf-8")
    assert create_network("srtg_r3d_34", num_classes=400, gates="soft").fc.out_features == 400
