"""Malformed checkpoints, huge numbers and unusual names: a one-line error or success, never a traceback."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import NAME, argv_of, assert_fails, load, train


def other_momentum(content: dict[str, Any]) -> None:
    content["optimizer"]["state"][0]["momentum_buffer"] = torch.ones(3)


def nested_lists(content: dict[str, Any]) -> None:
    """2^40 words when printed."""
    value: list[Any] = ["ha"]
    for _ in range(40):
        value = [value, value]
    content["classes"] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_momentum, "invalid checkpoint: shape "),
        (lambda content: content.update(generators={}), "invalid checkpoint: KeyError('cpu')"),
        (lambda content: content["options"].update(network="\x1b[2J"), "saved with --network ?[2J, not tiny"),
        (
            lambda content: content.update(state_dict={"x": torch.ones(1)}),
            "its weights do not fit the network",
        ),
        (lambda content: content.update(options=[]), "invalid checkpoint: "),
        (lambda content: content.update(metrics={"sums": "x"}), "invalid checkpoint: "),
        (lambda content: content.update(normalization={}), "invalid checkpoint: "),
        (nested_lists, "saved for 2 classes, which differ from the 3"),
    ],
)
def test_a_malformed_checkpoint_is_named(
    stores: Path,
    reference_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    content = copy.deepcopy(load(reference_run, "ep-0001"))
    change(content)
    output = tmp_path / f"{NAME}_gates_False"
    output.mkdir()
    torch.save(content, output / f"{NAME}_ep-0001.pth")
    flags = "--end-epoch 2 --resume-epoch 2 --dry-run"
    assert_fails(capsys, 2, f"{NAME}_ep-0001.pth: ", message, run=lambda: train(stores, tmp_path, flags))


def test_no_locale_no_home_and_names_that_are_not_latin(tmp_path: Path, repository: Path) -> None:
    root = tmp_path / "видео_日本"
    make_stores(root, {"é 1": ["ü", "ö"], "日本": ["a b", "c'd"]}, n_frames=4)
    main_of("data.labels")(["folders", str(root), "--val", "0.5"])
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.tiny_network", "train"]
    command += argv_of(root, root / "results", "--batch-size 2 --end-epoch 1")
    done = subprocess.run(
        command, env=environment, cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 classes, 2 training and 2 validation videos" in done.stderr
