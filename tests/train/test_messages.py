"""Errors and warnings of a run: one line each, and what to do."""

import csv
import itertools
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.helpers import NAME, assert_fails, corrupt_store, epochs, folder, load, train
from train.engine import Trainer
from train.run_folder import exclusive_lock


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--network srtg_r3d_33", "unknown network 'srtg_r3d_33'; "),
        ("--network r3d_18 --gates True", "r3d_18 "),
        ("--num-classes 51", "train.csv: "),
        ("--labels /nowhere", "/nowhere"),
        ("--resume-epoch 21", f"{NAME}_ep-0020.pth: there is no such checkpoint"),
        ("--pretrained-3d /nowhere/w.pth", "/nowhere/w.pth: "),
        ("--dataset /nowhere", "/nowhere: "),
        ("--clip-size 18 --short-cycles", "clips of 12 pixels are too small, need at least 16"),
    ],
)
def test_invalid_input_ends_with_exit_code_2_and_writes_nothing(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, message: str
) -> None:
    assert_fails(capsys, 2, "train: error: ", message, run=lambda: train(stores, tmp_path, flags))
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_lost_all_its_videos(
    own_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    label_file = own_stores / "labels" / "train.csv"
    label_file.write_text(label_file.read_text() + "turn left,gone,train\n")
    message = (
        "train.csv: no videos of 1 of 3 classes, such as ['turn left']; --num-classes 2, or for one class"
    )
    assert_fails(
        capsys, 2, message, "--max-missing 'turn left=1', leaves their outputs untrained",
        run=lambda: train(own_stores, tmp_path / "strict", "--end-epoch 1 --max-missing 1"),
    )  # fmt: skip
    for number, flag in enumerate(("--max-missing 'turn left=1'", "--num-classes 2")):
        assert train(own_stores, tmp_path / str(number), f"--end-epoch 1 {flag}") == 0
        assert load(tmp_path / str(number), "ep-0001")["classes"] == ["a", "b", "turn left"]
    assert "train.csv: no videos of 1 of 3 classes: ['turn left']" in caplog.text


def test_debug_mode_shows_the_traceback(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown network"):
        train(stores, tmp_path, "--network nothing --debug-mode")


def test_a_folder_without_write_permission_is_named(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Path("/proc/results")  # root cannot write there either
    assert_fails(capsys, 2, str(results), run=lambda: train(stores, results, "--end-epoch 1"))


def test_a_non_finite_loss_stops_the_run(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_fails(
        capsys, 1, "epoch 1, step ", "batch 4x4x32x32, learning rate 1e+30", "the loss is not finite",
        run=lambda: train(stores, tmp_path, "--lr-base 1e30"),
    )  # fmt: skip
    assert not list(folder(tmp_path).glob("*.pth"))


def test_running_stats_corrupted_by_fp16_stop_the_run(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step whose gradients overflow is skipped, but its BatchNorm statistics count."""
    update = Trainer._update

    def overflow(self: Trainer, *arguments: object) -> object:
        done = update(self, *arguments)
        next(self.network.buffers()).fill_(torch.inf)
        return done

    monkeypatch.setattr(Trainer, "_update", overflow)
    assert_fails(
        capsys, 1, "epoch 1, step ", "BatchNorm running stats contain NaN/Inf; --precision bf16 may help",
        run=lambda: train(stores, tmp_path, "--precision fp16"),
    )  # fmt: skip


def test_a_collapsed_loss_scale_stops_the_run(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.amp.GradScaler.get_scale", lambda self: 2.0**-15)
    message = "loss scale collapsed: 30 consecutive skipped steps; --precision bf16 may help"
    assert_fails(capsys, 1, message, run=lambda: train(stores, tmp_path, "--precision fp16"))


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")


def test_out_of_memory_in_a_step_names_its_shape(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.engine.Trainer._forward", out_of_memory)
    message = ("epoch 1, step 1, batch 4x4x32x32", "out of memory; --accumulate 2")
    assert_fails(capsys, 1, *message, run=lambda: train(stores, tmp_path))


@pytest.mark.parametrize(("phase", "calls"), [("precise BatchNorm", 1), ("validation", 2)])
def test_out_of_memory_after_the_steps_names_the_phase(
    phase: str,
    calls: int,
    stores: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forward, without_gradients = Trainer._forward, itertools.count(1)

    def fail(trainer: Trainer, *args: Any) -> Any:
        if not torch.is_grad_enabled() and next(without_gradients) == calls:
            out_of_memory()
        return forward(trainer, *args)

    monkeypatch.setattr(Trainer, "_forward", fail)
    message = f"{phase}: out of memory; a lower --batch-size"
    assert_fails(capsys, 1, message, run=lambda: train(stores, tmp_path, "--precise-bn 4"))


def test_a_gpu_that_is_already_full(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", out_of_memory)
    message = "error: cpu: out of memory while creating the network; is another process using the GPU?"
    assert_fails(capsys, 2, message, run=lambda: train(stores, tmp_path))


def test_batchnorm_with_a_single_value(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = ("epoch 1, step 1", "raise --batch-size or --clip-size")
    assert_fails(capsys, 1, *message, run=lambda: train(stores, tmp_path, "--batch-size 1 --clip-length 1"))


def test_other_errors_of_a_step_keep_their_message(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("something else")

    monkeypatch.setattr("train.engine.Trainer._forward", fail)
    assert_fails(capsys, 2, "train: error: something else", run=lambda: train(stores, tmp_path))


def test_frozen_batchnorm_without_weights_is_a_warning(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(stores, tmp_path, "--freeze-batchnorm --end-epoch 1") == 0
    assert "--freeze-batchnorm: without --pretrained-3d, BatchNorm layers do not normalize" in caplog.text


def test_corrupt_training_samples_are_replaced_up_to_a_limit(
    own_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = corrupt_store(own_stores, "train")
    strict, lenient = tmp_path / "strict", tmp_path / "lenient"
    assert_fails(
        capsys, 1, "1 clips of 8 are corrupt, more than --max-bad-samples 0.01", "bad_samples.csv lists them",
        run=lambda: train(own_stores, strict),
    )  # fmt: skip
    assert store in (folder(strict) / "bad_samples.csv").read_text()
    assert train(own_stores, lenient, "--max-bad-samples 0.5 --end-epoch 1") == 0
    assert epochs(lenient) == ["1"]


def test_a_corrupt_validation_sample_is_an_error_or_skipped(
    own_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The first one is noticed before training."""
    store = corrupt_store(own_stores, "val")
    strict, lenient = tmp_path / "strict", tmp_path / "lenient"
    message = (f"validation: {store}/frames.db: ", "; --skip-bad-samples continues")
    assert_fails(capsys, 1, *message, run=lambda: train(own_stores, strict, "--end-epoch 1"))
    assert not strict.exists()
    assert train(own_stores, lenient, "--end-epoch 1 --skip-bad-samples") == 0
    assert "validation skipped 1 of 4 videos" in caplog.text
    assert f"corrupt validation sample skipped: {store}/frames.db: " in caplog.text
    with (folder(lenient) / "bad_samples.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["Epoch"], row["Video"]) == ("1", store)


def test_two_runs_do_not_write_to_the_same_folder(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"{NAME}_gates_False"
    output.mkdir()
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()

    def hold_lock() -> None:
        with exclusive_lock(output):
            there.send("locked")
            there.recv()

    other = fork.Process(target=hold_lock, daemon=True)
    other.start()
    assert here.recv() == "locked"
    flags = "--end-epoch 1 --resume-epoch auto"
    message = (str(output), "another run is writing to it now")
    assert_fails(capsys, 2, *message, run=lambda: train(stores, tmp_path, flags))
    assert [path.name for path in output.iterdir()] == ["run.lock"]
    other.kill()  # releases the lock
    other.join()
    assert train(stores, tmp_path, flags) == 0
