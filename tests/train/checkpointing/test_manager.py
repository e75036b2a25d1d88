"""Checkpoints are written while training goes on."""

import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.train.helpers import NAME, REFERENCE, assert_fails, assert_same_run, load, train
from train.checkpointing import manager
from train.engine import StepReport
from train.run import Run


def test_training_goes_on_while_a_checkpoint_is_written(
    stores: Path,
    reference_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It holds the state of the moment of saving, and the next one, at the end of the epoch, waits for it."""
    caplog.set_level("INFO")
    trained, save_checkpoint, after_step = threading.Event(), manager.save_checkpoint, Run._after_step

    def save_late(path: Path, content: dict) -> None:
        assert trained.wait(60)
        save_checkpoint(path, content)

    def watch(self: Run, report: StepReport) -> None:
        after_step(self, report)
        if (report.epoch, report.step) == (2, 1):
            assert "saved" not in caplog.text
            assert self.checkpoints.last_checkpoint is None
            trained.set()

    monkeypatch.setattr(manager, "save_checkpoint", save_late)
    monkeypatch.setattr(Run, "_after_step", watch)
    assert train(stores, tmp_path, REFERENCE) == 0
    saved = [line.split("_")[-1] for line in caplog.text.splitlines() if "saved " in line]
    assert [name for name in saved if name != "best.pth"] == [f"ep-000{n}.pth" for n in (1, 2, 3)]
    for epoch in (1, 2, 3):
        name = f"ep-000{epoch}"
        assert_same_run(tmp_path, reference_run, name)
        states = [load(results, name)["optimizer"]["state"] for results in (tmp_path, reference_run)]
        for one, other in zip(*(state.values() for state in states), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_error_while_writing_stops_the_run_after_the_next_step(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[int, int]] = []
    after_step, save_checkpoint = Run._after_step, manager.save_checkpoint

    def save(path: Path, content: dict) -> None:
        if content["epoch"] == 2:
            raise OSError(28, "No space left on device", str(path))
        save_checkpoint(path, content)

    def watch(self: Run, report: StepReport) -> None:
        after_step(self, report)
        steps.append((report.epoch, report.step))
        if report.epoch == 3:
            with suppress(OSError):
                self.checkpoints.wait()

    monkeypatch.setattr(manager, "save_checkpoint", save)
    monkeypatch.setattr(Run, "_after_step", watch)
    assert_fails(
        capsys, 1, f"{NAME}_ep-0002.pth: No space left on device, ", "resumes from ", f"{NAME}_",
        run=lambda: train(stores, tmp_path, "--end-epoch 4"),
    )  # fmt: skip
    assert steps[6:] in ([], [(3, 0)])
