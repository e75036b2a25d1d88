"""Resuming: bit for bit as if the run had never stopped, or refused with one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unicodedata import normalize

import pytest
import torch

from data.datasets import HMDB51
from tests.train.conftest import make_dataset
from tests.train.helpers import (
    NAME,
    REFERENCE,
    argv_of,
    assert_fails,
    assert_same_run,
    assert_same_weights,
    epochs,
    folder,
    load,
    rows,
    start,
    train,
    wait_for,
    weights,
)
from train.main import main
from train.options import Options
from train.signals import SIGNAL_DEBOUNCE_S, SignalHandler, StoppedError


def path_of(results: Path, which: str) -> Path:
    return folder(results) / f"{NAME}_{which}.pth"


@pytest.mark.parametrize("after", [1, 2])
def test_resumed_after_an_epoch(stores: Path, reference_run: Path, tmp_path: Path, after: int) -> None:
    assert train(stores, tmp_path, REFERENCE, f"--end-epoch {after}") == 0
    assert train(stores, tmp_path, REFERENCE, f"--resume-epoch {after + 1}") == 0
    assert_same_run(tmp_path, reference_run)
    assert (folder(tmp_path) / f"val_results_s000{after + 1}.csv").exists()


def test_stopped_by_sigterm_within_an_epoch_and_resumed(stores: Path, tmp_path: Path) -> None:
    flags = (
        "--end-epoch 2 --batch-size 2 --log-interval 1 --lr-schedule cosine --clip-size 96 --short-side 96"
    )
    assert train(stores, tmp_path / "uninterrupted", flags) == 0
    stopped = tmp_path / "stopped"
    command = [sys.executable, "-m", "tests.tiny_network", "train"]
    command += argv_of(stores, stopped, flags, "--resume-epoch auto")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 1/2 step 1/6" in line:
            process.send_signal(signal.SIGTERM)
            break
    log = process.stderr.read()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, log
    assert "stopped in epoch 1; --resume-epoch auto resumes" in log
    assert log.index("_last.pth") < log.index("stopped in epoch")  # by then it is written
    last = load(stopped, "last")
    assert last["epoch"] == 0
    assert 1 <= last["step"] < 6
    assert train(stores, stopped, flags, "--resume-epoch auto") == 0
    assert_same_run(tmp_path / "uninterrupted", stopped, "ep-0002")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_and_stops(stores: Path, tmp_path: Path, signum: int) -> None:
    """As Ctrl-C, `timeout` and batch systems send it: the workers get it too and must not die of it."""
    log = tmp_path / "log"
    flags = "--workers 2 --log-interval 1 --batch-size 2 --end-epoch 1000"
    process = start(log, stores, tmp_path / "results", flags)
    wait_for("step 1/", log)
    assert process.pid is not None
    os.killpg(process.pid, signum)
    process.join(30)
    assert process.exitcode == 128 + signum, log.read_text()
    assert "Traceback" not in log.read_text()
    assert path_of(tmp_path / "results", "last").exists()


def test_a_repeated_signal_is_ignored_at_first_and_then_exits() -> None:
    """SLURM and launchers send the same signal several times."""
    with SignalHandler() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received() == [True, False]
        with pytest.raises(StoppedError):
            signals.raise_if_requested(signals.received())
        time.sleep(SIGNAL_DEBOUNCE_S + 0.1)
        with pytest.raises(SystemExit, match=str(128 + signal.SIGINT)):
            os.kill(os.getpid(), signal.SIGINT)


def test_checkpoints_within_an_epoch(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch 1 --save-minutes 1e-6") == 0
    last = load(tmp_path, "last")
    assert (last["epoch"], last["step"]) == (0, 3)


def test_auto_resumes_from_the_best_checkpoint_if_it_is_the_latest(stores: Path, tmp_path: Path) -> None:
    flags = "--save-frequency 8 --end-epoch"
    assert train(stores, tmp_path, f"{flags} 1") == 0
    path_of(tmp_path, "ep-0001").unlink()
    assert train(stores, tmp_path, f"{flags} 2 --resume-epoch auto") == 0
    assert epochs(tmp_path) == ["1", "2"]
    assert (folder(tmp_path) / "val_results_s0002.csv").exists()


@pytest.mark.parametrize("left", ["nothing", "the best of the epoch before"])
def test_killed_before_the_best_checkpoint_was_saved(stores: Path, tmp_path: Path, left: str) -> None:
    assert train(stores, tmp_path, "--end-epoch 1") == 0
    best, after = path_of(tmp_path, "best"), path_of(tmp_path, "ep-0001")
    content = load(tmp_path, "best")
    best.unlink()
    if left != "nothing":
        metrics = content["metrics"] | {"best_top1": -0.5}
        torch.save(content | {"epoch": 0, "metrics": metrics, "state_dict": {}}, best)
    (folder(tmp_path) / f".{best.name}.123").write_bytes(b"partial")
    assert train(stores, tmp_path, "--end-epoch 1 --resume-epoch auto") == 0
    assert_same_weights(best, after)
    assert list(folder(tmp_path).glob(".*")) == []


def set_scores(results: Path, scores: dict[str, str]) -> None:
    """Replace top-1 in the validation results; 0.0 for epochs not in `scores`."""
    table = folder(results) / "val_results_s0001.csv"
    header, *lines = (line.split(",") for line in table.read_text().splitlines())
    lines = [[epoch, scores.get(epoch, "0.0"), *rest] for epoch, _, *rest in lines]
    table.write_text("".join(",".join(line) + "\n" for line in [header, *lines]))


def test_resuming_from_an_earlier_epoch_archives_the_newer_checkpoints(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch 4 --save-frequency 2") == 0
    set_scores(tmp_path, {"1": "2.0", "2": "1.5", "3": "1.0"})  # epoch 1 has no checkpoint
    fourth, best = path_of(tmp_path, "ep-0004"), path_of(tmp_path, "best")
    shutil.copy(fourth, best)
    abandoned = weights(fourth)
    assert train(stores, tmp_path, "--end-epoch 4 --resume-epoch 3 --lr-base 0.001") == 0
    assert_same_weights(best, path_of(tmp_path, "ep-0002"))
    archived = weights(fourth.with_name(f"{fourth.name}.old"))
    assert all(torch.equal(archived[name], abandoned[name]) for name in abandoned)
    assert epochs(tmp_path) == ["1", "2", "3", "4"]


def test_an_epoch_without_a_score_is_not_the_best(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch 3") == 0
    set_scores(tmp_path, {"1": "nan"})
    path_of(tmp_path, "best").unlink()
    assert train(stores, tmp_path, "--end-epoch 3 --resume-epoch 3") == 0
    best = load(tmp_path, "best")
    assert best["epoch"] >= 2
    assert best["metrics"]["best_top1"] >= 0


def test_resumed_into_a_new_folder_the_first_epoch_is_the_best(
    stores: Path, reference_run: Path, tmp_path: Path
) -> None:
    content = load(reference_run, "ep-0001")
    content["metrics"]["best_top1"] = 1.0
    torch.save(content, tmp_path / "first.pth")
    flags = f"--resume-epoch 2 --pretrained-3d {tmp_path / 'first.pth'} --end-epoch 2"
    results = tmp_path / "elsewhere"
    assert train(stores, results, flags) == 0
    assert_same_weights(path_of(results, "best"), path_of(results, "ep-0002"))


def test_auto_starts_without_a_checkpoint_and_ends_when_complete(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert train(stores, tmp_path, "--end-epoch 1 --resume-epoch auto") == 0
    assert "no checkpoint, starting at epoch 1" in caplog.text
    before = rows(tmp_path, "val")
    assert train(stores, tmp_path, "--end-epoch 1 --resume-epoch auto") == 0
    assert "the run is complete, 1 epochs are done" in caplog.text
    assert rows(tmp_path, "val") == before


def test_a_run_in_fp32_resumes_in_fp16(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch 1") == 0
    assert train(stores, tmp_path, "--end-epoch 2 --resume-epoch 2 --precision fp16") == 0
    assert epochs(tmp_path) == ["1", "2"]


def test_unreadable_checkpoints_are_not_a_fresh_start(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{NAME}_gates_False").mkdir()
    path_of(tmp_path, "ep-0003").write_bytes(b"damaged")
    message = "none of its checkpoints can be read"
    assert_fails(capsys, 2, message, run=lambda: train(stores, tmp_path, "--resume-epoch auto"))


def test_a_fresh_start_into_results_is_refused(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stores, tmp_path, "--end-epoch 1") == 0
    before = rows(tmp_path, "val")
    message = "output directory is not empty; --resume-epoch auto resumes, --task-name"
    assert_fails(capsys, 2, message, run=lambda: train(stores, tmp_path, "--end-epoch 1"))
    assert rows(tmp_path, "val") == before


def test_a_mismatched_checkpoint_is_refused(
    stores: Path, reference_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = path_of(reference_run, "ep-0002")

    def refused(*message: str, flags: str, dataset: Path = stores) -> None:
        resume = f"--pretrained-3d {checkpoint} --resume-epoch"
        assert_fails(capsys, 2, *message, run=lambda: train(dataset, tmp_path, f"{resume} {flags}"))

    refused("saved in epoch 3", "--resume-epoch 9", flags="9")
    refused("saved with --channel-order bgr, not rgb", flags="3 --channel-order rgb")
    refused("saved by a run without --fine-tune", flags="3 --fine-tune")
    refused("saved with --network tiny, not srtg_tiny", flags="3 --network srtg_tiny")
    refused("saved with --optimizer sgd, not adamw", flags="3 --optimizer adamw")
    two = make_dataset(tmp_path / "two", videos=2, classes="ab", n_frames=4)
    message = (
        "saved for 3 classes, which differ from the 2 of this dataset: number 2 is 'c' in the file, None in"
    )
    refused(message, flags="3", dataset=two)


@pytest.mark.parametrize("resume", ["--resume-epoch 3", "", "--resume-epoch auto"])
def test_a_class_index_that_disagrees_with_a_checkpoint_is_not_written(
    own_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], resume: str
) -> None:
    """Without an index, classes are numbered by first appearance: in another order than for the checkpoint."""
    assert train(own_stores, tmp_path / "first", "--end-epoch 2") == 0
    index, label_file = (own_stores / "labels" / name for name in ("dictionary.json", "train.csv"))
    assert json.loads(index.read_text()) == {"a": 0, "b": 1}
    index.unlink()
    header, *lines = label_file.read_text().splitlines()
    label_file.write_text("\n".join([header, *reversed(lines)]) + "\n")
    flags = f"--pretrained-3d {path_of(tmp_path / 'first', 'ep-0002')} --end-epoch 3 {resume}"
    message = "number 0 is 'a' in the file, 'b' in the dataset"
    assert_fails(capsys, 2, message, run=lambda: train(own_stores, tmp_path / "second", flags))
    assert not index.exists()
    assert train(own_stores, tmp_path / "dry", "--dry-run") == 0
    assert not index.exists()
    index.write_text('{"a": 0, "b": 1}')
    assert train(own_stores, tmp_path / "second", flags) == 0


def test_classes_of_a_checkpoint_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", videos=2, classes="aé", n_frames=4)
    assert train(dataset, tmp_path / "results", "--end-epoch 1") == 0
    saved = path_of(tmp_path / "results", "ep-0001")
    content = load(tmp_path / "results", "ep-0001")
    torch.save(content | {"classes": ["a", normalize("NFD", "é ")]}, saved)
    assert train(dataset, tmp_path / "results", "--end-epoch 2 --resume-epoch 2") == 0


def test_another_split_does_not_resume_the_run(
    own_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The splits of a dataset share the output folder."""
    for split in ("train", "val"):
        for number in (1, 2):
            copy = own_stores / "labels" / getattr(HMDB51, f"{split}_csv").format(variant=number)
            shutil.copy(own_stores / "labels" / f"{split}.csv", copy)
    argv = argv_of(own_stores, tmp_path / "results", "--num-classes 2 --end-epoch 1 --resume-epoch auto")
    assert main(HMDB51, Options(), [*argv, "--split", "1"], "train_hmdb51.py") == 0
    assert_fails(
        capsys, 2, "saved with --split 1, not 2; --task-name starts another run",
        run=lambda: main(HMDB51, Options(), [*argv, "--split", "2"], "train_hmdb51.py"),
    )  # fmt: skip


def test_without_an_optional_package_nothing_is_changed(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stores, tmp_path, "--end-epoch 2") == 0
    monkeypatch.setattr("train.plan.find_spec", lambda name: None)
    before = {path.name: path.read_bytes() for path in folder(tmp_path).iterdir()}
    for name in ("tensorboard", "wandb"):
        flags = f"--resume-epoch 2 --end-epoch 2 --{name}"
        message = f"--{name}: needs the package {name}: pip install {name}"
        assert_fails(capsys, 2, message, run=lambda: train(stores, tmp_path, flags))  # noqa: B023
    assert {path.name: path.read_bytes() for path in folder(tmp_path).iterdir()} == before


def test_the_log_file_has_the_resume_point_and_the_error(
    stores: Path, reference_run: Path, tmp_path: Path
) -> None:
    checkpoint = path_of(reference_run, "ep-0002")
    flags = f"--pretrained-3d {checkpoint} --resume-epoch 3 --end-epoch 3 --lr-base 1e30"
    assert train(stores, tmp_path, flags) == 1
    log = (folder(tmp_path) / "train.log").read_text()
    assert f"{checkpoint}: resuming from epoch 3, step 1" in log
    assert "ERROR epoch 3, step " in log
    assert "the loss is not finite" in log
