"""Faults of the machine during a run: a failing disk, files repaired or replaced, a jumping clock."""

import ast
import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

from data.frame_store import FrameStore, FrameStoreError
from tests.synthetic_frames import make_stores
from tests.train.conftest import make_dataset
from tests.train.helpers import (
    NAME,
    REFERENCE,
    assert_fails,
    assert_same_run,
    corrupt_store,
    folder,
    load,
    train,
)
from train.engine import StepReport
from train.run import Run


def corrupt_split_after_first_step(monkeypatch: pytest.MonkeyPatch, dataset: Path, split: str) -> None:
    after_step = Run._after_step

    def corrupt(self: Run, report: StepReport) -> None:
        after_step(self, report)
        if (report.epoch, report.step) == (1, 0):
            lines = (dataset / "labels" / f"{split}.csv").read_text().splitlines()
            for row in range(len(lines) - 1):
                corrupt_store(dataset, split, row)

    monkeypatch.setattr(Run, "_after_step", corrupt)


@pytest.mark.parametrize(
    ("split", "message", "step"),
    [("train", "epoch 1, step 2: no clip could be read, ", 1), ("val", "validation: ", 2)],
)
def test_a_disk_that_fails_within_an_epoch_loses_no_step(
    stores: Path,
    reference_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    split: str,
    message: str,
    step: int,
) -> None:
    dataset = shutil.copytree(stores, tmp_path / "set" / stores.name)
    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        corrupt_split_after_first_step(patch, dataset, split)
        assert_fails(
            capsys, 1, message, "frames.db: ", "--resume-epoch auto resumes from ", f"{NAME}_last.pth",
            run=lambda: train(dataset, results, REFERENCE, "--save-minutes 0"),
        )  # fmt: skip
    last = load(results, "last")
    assert (last["epoch"], last["step"]) == (0, step)
    shutil.copytree(stores / "jpg", dataset / "jpg", dirs_exist_ok=True)
    assert train(dataset, results, REFERENCE, "--resume-epoch auto") == 0
    assert_same_run(results, reference_run)


def test_a_run_whose_corrupt_files_were_repaired_resumes(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = shutil.copytree(stores, tmp_path / "set" / stores.name)
    for row in (0, 1):
        store = Path(corrupt_store(dataset, "train", row)) / "frames.db"
        size = (stores / store.relative_to(dataset)).stat().st_size
        store.write_bytes(bytes(size))  # with another size it would be another dataset
    message = "are corrupt, more than --max-bad-samples 0.01 allows"
    results, flags = tmp_path / "results", "--end-epoch 1 --batch-size 2"
    assert_fails(capsys, 1, message, run=lambda: train(dataset, results, flags))
    shutil.copytree(stores / "jpg", dataset / "jpg", dirs_exist_ok=True)
    assert train(dataset, results, flags, "--resume-epoch auto") == 0


def test_a_store_on_a_lost_network_disk_is_corrupt(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says only that it cannot open the file."""

    def connect(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    def lost(path: Path, *_: object) -> None:
        raise OSError(116, "Stale file handle", str(path))

    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(Path, "open", lost)
    with pytest.raises(FrameStoreError, match=r"frames.db: Stale file handle"):
        FrameStore(next(stores.glob("jpg/*/*"))).read([0])


def test_a_reconverted_video_is_a_changed_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Within an epoch its clips would differ from those planned; after an epoch it is a warning."""
    dataset, results = make_dataset(tmp_path / "set", videos=4, classes="ab"), tmp_path / "results"
    assert train(dataset, results, "--end-epoch 1") == 0
    shutil.rmtree(dataset / "jpg" / "a" / "a0")
    make_stores(dataset, {"a": ["a0"]}, n_frames=30)
    torch.save(load(results, "ep-0001") | {"step": 1}, folder(results) / f"{NAME}_last.pth")
    message = f"{NAME}_last.pth: the dataset changed since, cannot resume within an epoch"
    assert_fails(capsys, 2, message, run=lambda: train(dataset, results, "--end-epoch 2 --resume-epoch auto"))
    assert train(dataset, results, "--end-epoch 2 --resume-epoch 2") == 0
    assert f"{NAME}_ep-0001.pth: the dataset changed since" in caplog.text


def test_the_wall_clock_decides_nothing(repository: Path) -> None:
    """Times are monotonic, and no file is older or newer than another.

    A cached list of videos compares times of files for equality alone, with those that they had.
    """
    banned = {"time", "time_ns", "now", "utcnow", "today", "st_mtime", "st_mtime_ns", "st_ctime", "getmtime"}
    for package in ("network", "data", "train"):
        for path in (repository / package).rglob("*.py"):
            names = banned - ({"st_mtime_ns"} if path == repository / "data/video_list.py" else set())
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                assert not (isinstance(node, ast.Attribute) and node.attr in names), f"{path}:{node.lineno}"
                if isinstance(node, ast.ImportFrom) and node.module == "time":
                    assert not {alias.name for alias in node.names} & names, path
