"""Stopping and going on: as if nothing had happened, or not at all."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from data.datasets import UCF101
from tests.commands import main_of
from tests.data.labels.test_official import WRITERS
from tests.synthetic_frames import make_stores
from tests.train.helpers import (
    NAME,
    SMALL,
    assert_same_weights,
    fails,
    folder,
    rows,
    start,
    train,
    wait_for,
    weights,
)
from train.main import main
from train.options import Options
from train.signals import SignalHandler, StoppedError

labels_main = main_of("data.labels")


@pytest.mark.parametrize("after", [1, 2])
def test_resumed_after_an_epoch_is_the_same_bit_for_bit(
    stores: Path, undisturbed: Path, tmp_path: Path, after: int
) -> None:
    """The original's --resume-epoch never resumed: it went on with random weights."""
    words = ["--short-cycles", "--lr-steps", "2", "--warmup-epochs", "1"]
    assert train(stores, tmp_path, "--end-epoch", str(after), *words) == 0
    assert train(stores, tmp_path, "--end-epoch", "3", "--resume-epoch", str(after + 1), *words) == 0
    assert_same_weights(folder(tmp_path) / f"{NAME}_ep-0003.pth", folder(undisturbed) / f"{NAME}_ep-0003.pth")
    for split in ("train", "val"):
        assert rows(tmp_path, split) == rows(undisturbed, split)
    assert (folder(tmp_path) / f"val_results_s000{after + 1}.csv").exists()


def test_stopped_within_an_epoch_and_resumed_is_the_same(stores: Path, tmp_path: Path) -> None:
    words = ["--end-epoch", "2", "--batch-size", "2", "--log-interval", "1", "--lr-schedule", "cosine"]
    assert train(stores, tmp_path / "undisturbed", *words) == 0
    command = [
        sys.executable,
        "-m",
        "train",
        "--dataset",
        str(stores),
        "--model-dir",
        str(tmp_path / "stopped"),
    ]
    command += [*SMALL, *words, "--resume-epoch", "auto"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 1/2 step 3/6" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, rest
    assert "--resume-epoch auto goes on from there" in rest
    last = torch.load(folder(tmp_path / "stopped") / f"{NAME}_last.pth", weights_only=True)
    assert last["epoch"] == 0
    assert 3 <= last["step"] < 6
    assert train(stores, tmp_path / "stopped", *words, "--resume-epoch", "auto") == 0
    assert_same_weights(
        *(folder(tmp_path / name) / f"{NAME}_ep-0002.pth" for name in ("undisturbed", "stopped"))
    )
    for split in ("train", "val"):
        assert rows(tmp_path / "stopped", split) == rows(tmp_path / "undisturbed", split)


def test_best_checkpoint_is_gone_on_from_where_it_is_the_furthest(stores: Path, tmp_path: Path) -> None:
    """With --save-frequency 8 a run that died in epoch 5 once started anew, over its own results."""
    words = ["--save-frequency", "8", "--end-epoch"]
    assert train(stores, tmp_path, *words, "1") == 0
    (folder(tmp_path) / f"{NAME}_ep-0001.pth").unlink()
    assert train(stores, tmp_path, *words, "2", "--resume-epoch", "auto") == 0
    assert [row[0] for row in rows(tmp_path, "val")] == ["1", "2"]
    assert (folder(tmp_path) / "val_results_s0002.csv").exists()


def test_killed_between_the_best_and_the_epochs_checkpoint_both_are_there_in_the_end(
    stores: Path, tmp_path: Path
) -> None:
    """The best one was once written second, and lost: what resumed had its score already."""
    assert train(stores, tmp_path, "--end-epoch", "1") == 0
    (folder(tmp_path) / f"{NAME}_ep-0001.pth").unlink()
    (folder(tmp_path) / f".{NAME}_ep-0001.pth.123").write_bytes(b"half")
    for end in ("1", "2"):  # when the run is complete without it, and when it goes on
        (folder(tmp_path) / f"{NAME}_ep-0001.pth").unlink(missing_ok=True)
        assert train(stores, tmp_path, "--end-epoch", end, "--resume-epoch", "auto") == 0
        best, after = (folder(tmp_path) / f"{NAME}_{name}.pth" for name in ("best", "ep-0001"))
        if end == "1":
            assert_same_weights(best, after)
        assert after.exists()
    assert list(folder(tmp_path).glob(".*")) == []


def test_epochs_checkpoint_is_that_of_the_run_that_was_killed(stores: Path, tmp_path: Path) -> None:
    """Gone on with without `--ema-decay`, the weights themselves once took the place of their average."""
    assert train(stores, tmp_path, "--end-epoch", "1", "--ema-decay", "0.9") == 0
    path = folder(tmp_path) / f"{NAME}_ep-0001.pth"
    validated = weights(path)
    path.unlink()
    assert train(stores, tmp_path, "--end-epoch", "1", "--resume-epoch", "auto") == 0
    for name, value in weights(path).items():
        assert torch.equal(value, validated[name]), name
    assert torch.load(path, weights_only=True)["options"]["ema"] == 0.9


def test_second_signal_leaves_at_once_but_an_echo_does_not() -> None:
    """Launchers pass on what batch systems have sent to all processes already."""
    with SignalHandler() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked() == [True, False]
        with pytest.raises(StoppedError):
            stop.obey(stop.asked())
        time.sleep(1.1)
        with pytest.raises(SystemExit, match=str(128 + signal.SIGINT)):
            os.kill(os.getpid(), signal.SIGINT)


def test_checkpoints_that_cannot_be_read_are_no_fresh_start(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ir_csn_50_gates_False").mkdir()
    (tmp_path / "ir_csn_50_gates_False" / f"{NAME}_ep-0003.pth").write_bytes(b"damaged")
    fails(
        capsys, 2, "none of its checkpoints can be read",
        run=lambda: train(stores, tmp_path, "--resume-epoch", "auto"),
    )  # fmt: skip


def test_going_back_sets_the_other_branch_aside(stores: Path, tmp_path: Path) -> None:
    """`auto` once went on from the abandoned branch, and an epoch's row was lost."""
    assert train(stores, tmp_path, "--end-epoch", "3") == 0
    assert train(stores, tmp_path, "--end-epoch", "2", "--resume-epoch", "2", "--lr-base", "0.001") == 0
    assert (folder(tmp_path) / f"{NAME}_ep-0003.pth.old").exists()
    (folder(tmp_path) / f"{NAME}_ep-0005.pth").write_bytes(b"damaged")  # its name says that it is later
    assert train(stores, tmp_path, "--end-epoch", "4", "--resume-epoch", "auto") == 0
    assert [row[0] for row in rows(tmp_path, "val")] == ["1", "2", "3", "4"]
    assert (folder(tmp_path) / f"{NAME}_ep-0005.pth.old").read_bytes() == b"damaged"


def test_going_back_twice_keeps_both_branches(stores: Path, tmp_path: Path) -> None:
    """The first branch's checkpoints were written over by the second's."""
    assert train(stores, tmp_path, "--end-epoch", "2") == 0
    checkpoint = folder(tmp_path) / f"{NAME}_ep-0002.pth"
    branches = [weights(checkpoint)]
    for rate in ("0.002", "0.001"):
        assert train(stores, tmp_path, "--end-epoch", "2", "--resume-epoch", "2", "--lr-base", rate) == 0
        branches.append(weights(checkpoint))
    kept = [weights(checkpoint.with_name(f"{checkpoint.name}.{end}")) for end in ("old", "old2")]
    for before, now in zip(branches, [*kept, weights(checkpoint)], strict=True):
        assert all(torch.equal(before[name], now[name]) for name in before)


def test_best_that_is_left_is_kept_when_a_run_goes_back(stores: Path, tmp_path: Path) -> None:
    """The best of an abandoned branch was set aside, and where nothing better came there was none in the end."""
    assert train(stores, tmp_path, "--end-epoch", "4", "--save-frequency", "2") == 0
    second, fourth, best = (
        folder(tmp_path) / f"{NAME}_{name}.pth" for name in ("ep-0002", "ep-0004", "best")
    )
    table = folder(tmp_path) / "val_results_s0001.csv"
    header, *lines = table.read_text().splitlines()
    scores = {"1": "2.0", "2": "1.5", "3": "1.0"}  # the first epoch, the best, has left no checkpoint
    lines = [",".join([line[0], scores.get(line[0], "0.0"), *line.split(",")[2:]]) for line in lines]
    table.write_text("\n".join([header, *lines]) + "\n")
    shutil.copy(fourth, best)
    assert train(stores, tmp_path, "--end-epoch", "4", "--resume-epoch", "3", "--lr-base", "0.001") == 0
    assert_same_weights(best, second)


def test_an_epoch_without_a_score_is_not_the_best_that_is_left(stores: Path, tmp_path: Path) -> None:
    """Where no video could be read: nothing was above NaN, so it stayed the best for good."""
    assert train(stores, tmp_path, "--end-epoch", "3") == 0
    table = folder(tmp_path) / "val_results_s0001.csv"
    header, *lines = table.read_text().splitlines()
    lines = [",".join([line[0], {"1": "nan"}.get(line[0], "0.0"), *line.split(",")[2:]]) for line in lines]
    table.write_text("\n".join([header, *lines]) + "\n")
    (folder(tmp_path) / f"{NAME}_best.pth").unlink()
    assert train(stores, tmp_path, "--end-epoch", "3", "--resume-epoch", "3") == 0
    content = torch.load(folder(tmp_path) / f"{NAME}_best.pth", weights_only=True)
    assert content["epoch"] >= 2
    assert content["metrics"]["best_top1"] >= 0


def test_where_nothing_is_left_the_next_is_the_best(stores: Path, undisturbed: Path, tmp_path: Path) -> None:
    content = torch.load(folder(undisturbed) / f"{NAME}_ep-0001.pth", weights_only=True)
    content["metrics"]["best_top1"] = 1.0
    torch.save(content, tmp_path / "first.pth")
    words = ["--resume-epoch", "2", "--pretrained-3d", str(tmp_path / "first.pth"), "--end-epoch", "2"]
    assert train(stores, tmp_path / "elsewhere", *words) == 0
    elsewhere = folder(tmp_path / "elsewhere")
    assert_same_weights(elsewhere / f"{NAME}_best.pth", elsewhere / f"{NAME}_ep-0002.pth")


def test_another_split_does_not_go_on_with_the_run_of_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They share a folder: split 2 was complete before it began, or went on with weights that knew its answers."""
    WRITERS["ucf101"](tmp_path / "lists", 2)
    numbers = ("g01_c01", "g02_c01", "g03_c01", "g09_c01", "g09_c02", "g09_c03")
    names = {label: [f"v_{label}_{number}" for number in numbers] for label in ("Class000", "Class001")}
    make_stores(tmp_path / "set", names, n_frames=4)
    assert (
        labels_main(["ucf101", str(tmp_path / "lists"), str(tmp_path / "set/labels"), "--num-classes", "2"])
        == 0
    )
    words = ["--dataset", str(tmp_path / "set"), "--model-dir", str(tmp_path / "results"), *SMALL]
    words += ["--num-classes", "2", "--end-epoch", "1", "--resume-epoch", "auto", "--split"]
    assert main(UCF101, Options(), [*words, "1"], "train_ucf101.py") == 0
    fails(
        capsys, 2, "was written with --split 1, not 2; --task-name starts another run beside it",
        run=lambda: main(UCF101, Options(), [*words, "2"], "train_ucf101.py"),
    )  # fmt: skip


def test_complete_run_whose_folder_is_not_there_says_that_it_is_complete(
    stores: Path, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It once was `No such file or directory: run.lock`."""
    caplog.set_level("INFO")
    checkpoint = folder(undisturbed) / f"{NAME}_ep-0002.pth"
    words = ["--pretrained-3d", str(checkpoint), "--resume-epoch", "3", "--end-epoch", "2"]
    assert train(stores, tmp_path / "new", *words) == 0
    assert "the run is complete, 2 epochs are done" in caplog.text
    assert not (tmp_path / "new").exists()


def test_without_tensorboard_nothing_is_touched(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was noticed after later checkpoints were renamed and rows were cut."""
    assert train(stores, tmp_path, "--end-epoch", "2") == 0
    monkeypatch.setattr("train.run.find_spec", lambda name: None)
    before = {path.name: path.read_bytes() for path in folder(tmp_path).iterdir()}
    fails(
        capsys, 2, "--tensorboard: needs the package tensorboard",
        run=lambda: train(stores, tmp_path, "--resume-epoch", "2", "--end-epoch", "2", "--tensorboard"),
    )  # fmt: skip
    assert {path.name: path.read_bytes() for path in folder(tmp_path).iterdir()} == before


def test_log_of_a_run_tells_how_it_began_and_why_it_ended(
    stores: Path, undisturbed: Path, tmp_path: Path
) -> None:
    checkpoint = folder(undisturbed) / f"{NAME}_ep-0002.pth"
    words = [
        "--pretrained-3d",
        str(checkpoint),
        "--resume-epoch",
        "3",
        "--end-epoch",
        "3",
        "--lr-base",
        "1e30",
    ]
    assert train(stores, tmp_path, *words) == 1
    log = (folder(tmp_path) / "train.log").read_text()
    assert f"{checkpoint}: going on with epoch 3, step 1" in log
    assert "ERROR epoch 3, step " in log


def test_an_epoch_that_has_begun_goes_on_as_planned_or_not_at_all(
    stores: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(folder(undisturbed) / f"{NAME}_ep-0001.pth", weights_only=True)
    (tmp_path / "ir_csn_50_gates_False").mkdir()
    torch.save(content | {"step": 1}, tmp_path / "ir_csn_50_gates_False" / f"{NAME}_last.pth")
    words = ["--resume-epoch", "auto", "--short-cycles"]
    fails(
        capsys, 2, "_last.pth: was written with --batch-size 4, not 2",
        run=lambda: train(stores, tmp_path, *words, "--batch-size", "2"),
    )  # fmt: skip


def test_auto_starts_where_there_is_nothing_and_ends_where_all_is_done(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert train(stores, tmp_path, "--end-epoch", "1", "--resume-epoch", "auto") == 0
    assert "no checkpoint, starting at epoch 1" in caplog.text
    before = rows(tmp_path, "val")
    assert train(stores, tmp_path, "--end-epoch", "1", "--resume-epoch", "auto") == 0
    assert "the run is complete, 1 epochs are done" in caplog.text
    assert rows(tmp_path, "val") == before


def test_run_in_fp32_goes_on_in_fp16(stores: Path, tmp_path: Path) -> None:
    """From a laptop to a GPU, where fp16 is the default."""
    assert train(stores, tmp_path, "--end-epoch", "1") == 0
    assert train(stores, tmp_path, "--end-epoch", "2", "--resume-epoch", "2", "--precision", "fp16") == 0
    assert [row[0] for row in rows(tmp_path, "val")] == ["1", "2"]


def test_checkpoint_of_something_else_is_refused(
    stores: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = folder(undisturbed) / f"{NAME}_ep-0002.pth"
    words = ["--pretrained-3d", str(checkpoint), "--resume-epoch"]
    fails(
        capsys,
        2,
        "was written in epoch 3",
        "--resume-epoch 9",
        run=lambda: train(stores, tmp_path, *words, "9"),
    )
    own = tmp_path / f"{NAME}_gates_False" / f"{NAME}_ep-0001.pth"
    own.parent.mkdir()
    own.write_bytes((folder(undisturbed) / f"{NAME}_ep-0001.pth").read_bytes())
    fails(
        capsys, 2, "was written in epoch 3", f"without --pretrained-3d the run goes on from {own}",
        run=lambda: train(stores, tmp_path, *words, "2"),
    )  # fmt: skip
    own.unlink()
    fails(
        capsys, 2, "was written with --channel-order bgr, not rgb",
        run=lambda: train(stores, tmp_path, *words, "3", "--channel-order", "rgb"),
    )  # fmt: skip
    fails(
        capsys, 2, "was not written by a run that fine-tunes",
        run=lambda: train(stores, tmp_path, *words, "3", "--fine-tune"),
    )  # fmt: skip
    other = ["--network", "ir_csn_101"]
    fails(
        capsys, 2, "was written with --network ir_csn_50, not ir_csn_101",
        run=lambda: train(stores, tmp_path, *words, "3", *other),
    )  # fmt: skip
    make_stores(tmp_path / "two", {"a": ["0", "1"], "b": ["0", "1"]}, n_frames=4)
    labels_main(["folders", str(tmp_path / "two")])
    fails(
        capsys, 2, "was written for 3 classes, which are not the 2",
        run=lambda: train(tmp_path / "two", tmp_path / "results", *words, "3"),
    )  # fmt: skip


def test_fresh_start_into_results_is_refused(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stores, tmp_path, "--end-epoch", "1") == 0
    before = rows(tmp_path, "val")
    fails(capsys, 2, "--task-name", "--resume-epoch", run=lambda: train(stores, tmp_path, "--end-epoch", "1"))
    assert rows(tmp_path, "val") == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_answered_within_seconds(stores: Path, tmp_path: Path, number: int) -> None:
    """What Ctrl-C, `timeout` and batch systems do: the workers get the signal too, and must not die of it."""
    log = tmp_path / "log"
    process = start(log, stores, tmp_path / "results", "--workers", "2", "--log-interval", "1")
    wait_for("step 1/", log)
    os.killpg(process.pid, number)
    started = time.monotonic()
    process.join(60)
    assert process.exitcode == 128 + number, log.read_text()
    assert time.monotonic() - started < 30
    assert "Traceback" not in log.read_text()
    assert (folder(tmp_path / "results") / f"{NAME}_last.pth").exists()


def test_checkpoints_within_an_epoch_by_the_clock(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch", "1", "--save-minutes", "1e-6") == 0
    last = torch.load(folder(tmp_path) / f"{NAME}_last.pth", weights_only=True)
    assert (last["epoch"], last["step"]) == (0, 3)
