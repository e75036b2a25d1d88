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

from network import create_network
from tests.commands import error_of, main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import NAME, argv_of, assert_fails, load, train
from train.inference import load_inference_model


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
        (nested_lists, "invalid checkpoint: TypeError('normalize() argument 2 must be str"),
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


PAGE = "w.pth: this is a web page, not a file of weights: open its address in a browser"


def test_a_web_page_in_the_place_of_weights(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a download from a page that asks first leaves; each command names it."""
    path = tmp_path / "w.pth"
    path.write_text("<!DOCTYPE html><html><title>Virus scan warning</title></html>")
    commands = {
        "train.predict": [path, stores / "jpg"],
        "train.evaluate": [path, "--dataset", stores],
        "train.export": [path, "-o", tmp_path / "w.onnx"],
    }
    for command, words in commands.items():
        assert PAGE in error_of(main_of(command), *words)
    assert_fails(capsys, 2, PAGE, run=lambda: train(stores, tmp_path / "new", f"--pretrained-3d {path}"))
    flags = f"--pretrained-3d {path} --resume-epoch 2"
    assert_fails(capsys, 2, PAGE, run=lambda: train(stores, tmp_path / "resumed", flags))


def test_weights_of_another_network(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path, run = tmp_path / "w.pth", f"--pretrained-3d {tmp_path / 'w.pth'} --end-epoch 1 --fine-tune"
    weights = create_network("srtg_tiny", 9).state_dict()
    torch.save({name: value for name, value in weights.items() if ".sar." not in name}, path)
    assert train(stores, tmp_path / "hint", run, "--network srtg_tiny") == 0
    assert f"{path}: this is a plain tiny: --network tiny" in caplog.text
    torch.save({name: value for name, value in weights.items() if name.startswith(("stem.1", "fc"))}, path)
    message = f"{path}: 5 of tiny's 74 tensors were loaded"
    assert_fails(capsys, 2, message, "--allow-partial", run=lambda: train(stores, tmp_path / "few", run))
    assert train(stores, tmp_path / "forced", run, "--allow-partial") == 0
    assert f"{message}: is it of another network?" in caplog.text


def test_a_network_without_pooling_after_the_stem(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints record it. Those of before the option have pooling, and resume."""
    assert train(stores, tmp_path / "a", "--end-epoch 1 --stem-pool False") == 0
    checkpoint = tmp_path / "a" / f"{NAME}_gates_False" / f"{NAME}_ep-0001.pth"
    assert isinstance(load_inference_model(checkpoint, torch.device("cpu")).network.pool, torch.nn.Identity)
    flags = "--end-epoch 2 --resume-epoch 2 --dry-run"
    message = "saved with --stem-pool False, not True"
    assert_fails(capsys, 2, message, run=lambda: train(stores, tmp_path / "a", flags))
    content = torch.load(checkpoint, weights_only=True)
    del content["options"]["stem_pool"]
    torch.save(content, checkpoint)
    assert train(stores, tmp_path / "a", flags) == 0


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
