"""Checkpoint files: saved completely or not at all, loaded without running code, and the latest is found."""

import copy
import io
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from train.checkpointing.checkpoint import (
    KEYS,
    archive_newer,
    checkpoint_path,
    find_latest,
    load_checkpoint,
    save_checkpoint,
    snapshot,
)


def content(epoch: int, step: int = 0, size: int = 4) -> dict:
    state_dict = {"w": torch.full((size,), float(epoch))}
    return {key: {} for key in KEYS} | {"state_dict": state_dict, "epoch": epoch, "step": step}


def test_a_saved_checkpoint_loads_and_no_temporary_file_is_left(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path, "net", 20)
    save_checkpoint(path, content(20))
    assert os.listdir(tmp_path) == ["net_ep-0020.pth"]
    loaded = load_checkpoint(path)
    assert (loaded["epoch"], set(loaded)) == (20, set(KEYS))


def test_a_snapshot_gives_the_same_file_and_does_not_change_with_its_source() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.BatchNorm1d(100))
    network.append(copy.copy(network[0]))  # the same weights: their memory must not be written twice
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(4, 100)).sum().backward()
    optimizer.step()

    def state() -> dict:
        return content(1) | {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}

    def file(saved: dict) -> bytes:
        torch.save(saved, buffer := io.BytesIO())
        return buffer.getvalue()

    before, copied = file(state()), snapshot(state())
    network(torch.randn(4, 100)).sum().backward()
    optimizer.step()
    assert file(state()) != before
    assert file(copied) == before


def _save_forever(path: Path) -> None:
    for epoch in range(2, 10_000):
        save_checkpoint(path, content(epoch, size=100_000))


@pytest.mark.parametrize("delay", [0.05, 0.12, 0.21])
def test_killed_while_saving_the_old_or_the_new_checkpoint_is_complete(tmp_path: Path, delay: float) -> None:
    path = checkpoint_path(tmp_path, "net", "last")
    save_checkpoint(path, content(1, size=100_000))
    process = multiprocessing.get_context("fork").Process(target=_save_forever, args=(path,))
    process.start()
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["state_dict"]["w"], torch.full((100_000,), float(loaded["epoch"])))


def test_the_latest_is_found_by_content_not_by_name(tmp_path: Path) -> None:
    assert find_latest(tmp_path, "net") is None
    for epoch in (2, 10):
        save_checkpoint(checkpoint_path(tmp_path, "net", epoch), content(epoch))
    save_checkpoint(checkpoint_path(tmp_path, "net", "last"), content(9, step=50))
    assert find_latest(tmp_path, "net")[1]["epoch"] == 10
    save_checkpoint(checkpoint_path(tmp_path, "net", "last"), content(10, step=1))
    assert find_latest(tmp_path, "net")[0] == checkpoint_path(tmp_path, "net", "last")
    assert find_latest(tmp_path, "other") is None


def test_an_unreadable_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for epoch in (1, 2):
        save_checkpoint(checkpoint_path(tmp_path, "net", epoch), content(epoch))
    latest = checkpoint_path(tmp_path, "net", 2)
    latest.write_bytes(latest.read_bytes()[:200])
    assert find_latest(tmp_path, "net")[1]["epoch"] == 1
    assert f"checkpoint skipped: {latest}" in caplog.text


def test_newer_checkpoints_are_archived(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save_checkpoint(checkpoint_path(tmp_path, "net", epoch), content(epoch))
    save_checkpoint(checkpoint_path(tmp_path, "net", "last"), content(1, step=5))
    checkpoint_path(tmp_path, "net", 5).write_bytes(b"unreadable, and newer by its name")
    archive_newer(tmp_path, "net", epoch=1, step=0)
    names = {"ep-0001.pth", "ep-0002.pth.old", "ep-0003.pth.old", "ep-0005.pth.old", "last.pth.old"}
    assert set(os.listdir(tmp_path)) == {f"net_{name}" for name in names}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("hello"), r"x\.pth: "),
        (lambda path: path.touch(), r"x\.pth: "),
        (
            lambda path: torch.save({"state_dict": path}, path),
            r"x\.pth: holds more than tensors and plain values",
        ),
        (lambda path: torch.save([1], path), r"x\.pth: not a checkpoint but a list"),
        (
            lambda path: torch.save({"w": torch.zeros(2)}, path),
            r"x\.pth: cannot resume from this file, it has no .*; --pretrained-3d loads weights",
        ),
        (lambda path: torch.save(content(1) | {"epoch": "3"}, path), r"x\.pth: invalid checkpoint: epoch"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path: Path, write: object, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.pth: "):
        load_checkpoint(tmp_path / "x.pth")
    write(tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "x.pth")
