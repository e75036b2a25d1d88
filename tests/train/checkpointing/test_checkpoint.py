"""Checkpoints: whole or not at all, and the furthest is found."""

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch

from train.checkpointing.checkpoint import (
    KEYS,
    epoch_path,
    find_latest,
    last_path,
    load_checkpoint,
    save_checkpoint,
)
from train.input_norm import ClipNormalizer


def content(epoch: int, step: int = 0, size: int = 4) -> dict:
    return {key: [] if kind is list else {} for key, kind in KEYS.items()} | {
        "normalization": ClipNormalizer().plain(),
        "metrics": {"sums": [0.0] * 4, "bad_samples": 0, "best_top1": -1.0},
        "state_dict": {"w": torch.full((size,), float(epoch))},
        "epoch": epoch,
        "step": step,
    }


def test_what_is_saved_is_loaded_and_nothing_lies_beside(tmp_path: Path) -> None:
    path = epoch_path(tmp_path, "net", 20)
    save_checkpoint(path, content(20))
    assert path.name == "net_ep-0020.pth"
    assert load_checkpoint(path)["epoch"] == 20
    assert os.listdir(tmp_path) == [path.name]
    assert set(torch.load(path, weights_only=True)) == set(KEYS)


def _save_for_ever(path: Path) -> None:
    for epoch in range(2, 10_000):
        save_checkpoint(path, content(epoch, size=1_000_000))


@pytest.mark.parametrize("delay", [0.05, 0.12, 0.21])
def test_killed_while_saving_the_old_one_or_the_new_one_is_there(tmp_path: Path, delay: float) -> None:
    path = last_path(tmp_path, "net")
    save_checkpoint(path, content(1, size=1_000_000))
    process = multiprocessing.get_context("fork").Process(target=_save_for_ever, args=(path,))
    process.start()
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["state_dict"]["w"], torch.full((1_000_000,), float(loaded["epoch"])))


def test_failure_while_saving_keeps_the_old_one(tmp_path: Path) -> None:
    path = last_path(tmp_path, "net")
    save_checkpoint(path, content(1))
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(path, content(2) | {"metrics": lambda: None})
    assert load_checkpoint(path)["epoch"] == 1
    assert os.listdir(tmp_path) == [path.name]


def test_furthest_is_by_content_not_by_name(tmp_path: Path) -> None:
    assert find_latest(tmp_path, "net") is None
    for epoch in (2, 10):
        save_checkpoint(epoch_path(tmp_path, "net", epoch), content(epoch))
    save_checkpoint(last_path(tmp_path, "net"), content(9, step=50))
    assert find_latest(tmp_path, "net")[1]["epoch"] == 10
    save_checkpoint(last_path(tmp_path, "net"), content(10, step=1))
    assert find_latest(tmp_path, "net")[0] == last_path(tmp_path, "net")
    assert find_latest(tmp_path, "other") is None


def test_unreadable_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for epoch in (1, 2):
        save_checkpoint(epoch_path(tmp_path, "net", epoch), content(epoch))
    newest = epoch_path(tmp_path, "net", 2)
    newest.write_bytes(newest.read_bytes()[:200])
    assert find_latest(tmp_path, "net")[1]["epoch"] == 1
    assert str(newest) in caplog.text


class Code:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def test_no_code_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Code()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth: holds more than tensors and plain values"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.pth: there is no such checkpoint"):
        load_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="text.pth: "):
        load_checkpoint(tmp_path / "text.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(ValueError, match="empty.pth: "):
        load_checkpoint(tmp_path / "empty.pth")
    torch.save({"w": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(
        ValueError, match=r"weights.pth: cannot be resumed from, has no .*; --pretrained-3d takes"
    ):
        load_checkpoint(tmp_path / "weights.pth")
