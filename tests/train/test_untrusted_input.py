"""Checkpoints from strangers, and careless users: what once ended in a traceback, a riddle, or two runs in a folder."""

import errno
import multiprocessing
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
from tests.train.helpers import NAME, SMALL, fails, folder, train
from train.checkpointing.checkpoint import load_checkpoint, save_checkpoint
from train.input_norm import ClipNormalizer
from train.plot import read_rows
from train.run_folder import claimed

labels_main = main_of("data.labels")


@pytest.fixture(scope="module")
def checkpoint(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    results = tmp_path_factory.mktemp("results")
    assert train(stores, results, "--end-epoch", "1", "--lr-steps", "1") == 0
    return torch.load(folder(results) / f"{NAME}_ep-0001.pth", weights_only=True)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"epoch": "3"}, "epoch"),
        ({"step": -1}, "step"),
        ({"options": []}, "options"),
        ({"options": {"network": [["x"]]}}, "network"),
        ({"metrics": {"sums": [0.0] * 4, "bad_samples": [1], "best_top1": 0.5}}, "bad_samples"),
        ({"metrics": {"sums": [0.0] * 5, "bad_samples": 1, "best_top1": 0.5}}, "sums"),
        ({"metrics": {"sums": [0.0] * 3 + [True], "bad_samples": 1, "best_top1": 0.5}}, "sums"),
        ({"epoch": True}, "epoch"),
        ({"classes": "abc"}, "classes"),
        ({"normalization": {}}, "normalization"),
    ],
)
def test_a_checkpoint_holds_what_a_run_writes(
    checkpoint: dict[str, Any], tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    """Lists within lists may be 2^40 words long where they are printed."""
    path = tmp_path / "x.pth"
    save_checkpoint(path, checkpoint | change)
    with pytest.raises(ValueError, match=rf"x\.pth: .* its {what} is not"):
        load_checkpoint(path)


def other_moments(content: dict[str, Any]) -> None:
    content["optimizer"]["state"][0]["momentum_buffer"] = torch.ones(3)


def no_generator(content: dict[str, Any]) -> None:
    content["generators"] = {}


def a_name_with_escapes(content: dict[str, Any]) -> None:
    content["options"] = {**content["options"], "network": "\x1b[2J"}


def other_weights(content: dict[str, Any]) -> None:
    content["state_dict"] = {"x": torch.ones(1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_moments, "moments are not as large as the parameters"),
        (no_generator, "KeyError('cpu')"),
        (a_name_with_escapes, "was written with --network ?[2J, not ir_csn_50"),
        (other_weights, "the checkpoint does not fit the network"),
    ],
)
def test_what_cannot_be_gone_on_with_is_named(
    stores: Path,
    checkpoint: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    content = {**checkpoint, "optimizer": {**checkpoint["optimizer"]}}
    content["optimizer"]["state"] = {k: dict(v) for k, v in content["optimizer"]["state"].items()}
    change(content)
    results = tmp_path / f"{NAME}_gates_False"
    results.mkdir()
    save_checkpoint(results / f"{NAME}_ep-0001.pth", content)
    words = ["--end-epoch", "2", "--lr-steps", "1", "--resume-epoch", "2", "--dry-run"]
    fails(capsys, 2, f"{NAME}_ep-0001.pth: ", message, run=lambda: train(stores, tmp_path, *words))


@pytest.mark.parametrize(
    "change",
    [
        {"means": [0.5, 0.5]},
        {"deviations": [0.5, 0.0, 0.5]},
        {"means": [float("nan")] * 3},
        {"means": "abc"},
        {"channel_order": "hsv"},
        {"channel_order": None},
    ],
)
def test_a_normalisation_is_one(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its normalization is not three means"):
        ClipNormalizer.of(ClipNormalizer().plain() | change)
    assert ClipNormalizer.of(ClipNormalizer().plain()) == ClipNormalizer()


def test_two_runs_do_not_write_to_one_folder(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each would have cut the other's rows and replaced its checkpoints."""
    place = tmp_path / f"{NAME}_gates_False"
    place.mkdir()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()

    def hold() -> None:
        with claimed(place):
            there.send("held")
            there.recv()

    other = fork.Process(target=hold, daemon=True)
    other.start()
    assert here.recv() == "held"
    words = ["--end-epoch", "1", "--resume-epoch", "auto", "--lr-steps", "1"]
    fails(capsys, 2, str(place), "another run is writing there", run=lambda: train(stores, tmp_path, *words))
    assert [path.name for path in place.iterdir()] == ["run.lock"]
    other.kill()  # with the process its claim has gone
    other.join()
    assert train(stores, tmp_path, *words) == 0


def test_on_a_disk_without_locks_a_run_goes_on_with_a_warning(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as Lustre without `flock`: nothing could be trained there, and no file was named."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("train.run_folder.fcntl.lockf", refuse)
    assert train(stores, tmp_path, "--end-epoch", "1", "--lr-steps", "1") == 0
    assert "_gates_False: the disk has no locks, start no second run" in caplog.text


def test_a_gpu_that_is_full_already_is_one_line(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a traceback, and after `--resume-epoch auto` the fault of the checkpoint."""
    words = ["--resume-epoch", "auto", "--lr-steps", "1", "--end-epoch"]
    assert train(stores, tmp_path, *words, "1") == 0

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(torch.nn.Module, "to", fail)
    for results in (tmp_path, tmp_path / "new"):
        fails(
            capsys, 2, "error: cpu: has too little memory left for the network",
            run=lambda results=results: train(stores, results, *words, "2"),
        )  # fmt: skip


def test_a_norm_with_one_value_says_which_flags_to_raise(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--batch-size", "1", "--clip-length", "1", "--end-epoch", "1", "--lr-steps", "1"]
    message = "raise --batch-size or --clip-size"
    fails(capsys, 1, "epoch 1, step 1", message, run=lambda: train(stores, tmp_path, *words))


def test_a_folder_that_cannot_be_written_to_is_named(
    stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """/proc is one for root, too."""
    results = Path("/proc/results")
    fails(capsys, 2, str(results), run=lambda: train(stores, results, "--end-epoch", "1", "--lr-steps", "1"))


@pytest.mark.parametrize(
    ("flag", "value", "rule"),
    [
        ("--clip-size", "9223372036854775807", "a whole number from 1 to 65536"),
        ("--clip-length", "65537", "a whole number from 1 to 65536"),
        ("--end-epoch", "99999999999", "a whole number from 1 to 1000000"),
    ],
)
def test_numbers_that_no_run_could_end_with_are_refused(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, rule: str
) -> None:
    """The first ended in a traceback, the last planned epochs for hours."""
    with pytest.raises(SystemExit):
        train(stores, tmp_path, flag, value, "--dry-run")
    assert f"argument {flag}: '{value}' is not {rule}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"Epoch,Top1\n\xff\xfe,1\n", "is not a row"), (b'Epoch,Top1,Top5,Loss\n1,"0.5', "is no CSV")],
)
def test_tables_that_are_none_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train_results_s0001.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train_results_s0001\.csv: .*{message}"):
        read_rows(tmp_path, "train")


def test_a_long_word_does_not_fill_the_screen(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train(stores, tmp_path, "--batch-size", "\x1b[2J" + "x" * 50_000)
    error = capsys.readouterr().err
    assert "argument --batch-size: " in error
    assert len(error) < 1100
    assert error.strip().isprintable()


def test_no_home_no_locale_and_a_name_that_is_not_latin(tmp_path: Path) -> None:
    root = tmp_path / "видео 日本"
    make_stores(root, {"é 1": ["ü", "ö"], "日本": ["a b", "c'd"]}, n_frames=4)
    labels_main(["folders", str(root), "--val", "0.5"])
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "train", "--dataset", str(root), *SMALL]
    command += [
        "--model-dir",
        str(root / "results"),
        "--batch-size",
        "2",
        "--end-epoch",
        "1",
        "--lr-steps",
        "1",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 classes, 2 training and 2 validation videos" in done.stderr
