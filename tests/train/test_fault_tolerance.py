"""What flaky machines did to runs before it was mended; `python -m tests.fault_injection` does it at random."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.frame_store import FrameStore, FrameStoreError
from tests.train.helpers import NAME, UNDISTURBED, assert_same_weights, damage, fails, folder, rows, train
from train.checkpointing.checkpoint import load_checkpoint
from train.checkpointing.manager import CheckpointManager
from train.engine import StepReport
from train.run import Run


@pytest.fixture
def copied(stores: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stores, tmp_path / "set" / stores.name)


def damaged_within(monkeypatch: pytest.MonkeyPatch, dataset: Path, split: str) -> list[str]:
    """Damage the stores of a set after the first step of a run; which ones is said once it has been done."""
    done: list[str] = []
    before = Run._after_step

    def after_step(self: Run, report: StepReport) -> None:
        before(self, report)
        if (report.epoch, report.step) == (1, 0) and not done:
            lines = (dataset / "labels" / f"{split}.csv").read_text().splitlines()
            done.extend(damage(dataset, split, row) for row in range(len(lines) - 1))

    monkeypatch.setattr(Run, "_after_step", after_step)
    return done


@pytest.mark.parametrize(
    ("split", "message", "step"),
    [("train", "epoch 1, step 2: no clip could be read, ", 1), ("val", "validation: ", 2)],
)
def test_a_disk_that_fails_within_an_epoch_loses_no_step(
    copied: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    split: str,
    message: str,
    step: int,
) -> None:
    whole = shutil.copytree(copied / "jpg", tmp_path / "whole")
    results = tmp_path / "results"
    with monkeypatch.context() as patch:
        damaged = damaged_within(patch, copied, split)
        last = f"{NAME}_last.pth"
        fails(
            capsys, 1, message, "frames.db: file is not a database",
            "--resume-epoch auto goes on from ", last,
            run=lambda: train(copied, results, *UNDISTURBED, "--save-minutes", "0"),
        )  # fmt: skip
    assert damaged
    content = load_checkpoint(folder(results) / last)
    assert (content["epoch"], content["step"]) == (0, step)
    shutil.copytree(whole, copied / "jpg", dirs_exist_ok=True)
    assert train(copied, results, *UNDISTURBED, "--resume-epoch", "auto") == 0
    assert_same_weights(*(folder(place) / f"{NAME}_ep-0003.pth" for place in (results, undisturbed)))
    assert rows(results, "val") == rows(undisturbed, "val")


def test_what_was_unreadable_before_does_not_stop_a_run_whose_files_were_mended(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shutil.copytree(copied / "jpg", tmp_path / "whole")
    for row in (0, 1):
        store = Path(damage(copied, "train", row)) / "frames.db"
        size = (whole / store.relative_to(copied / "jpg")).stat().st_size
        store.write_bytes(bytes(size))  # of another size it would be another data set
    message = "could not be read, more than --max-bad-samples 0.01 allows"
    results = tmp_path / "results"
    fails(capsys, 1, message, run=lambda: train(copied, results, "--end-epoch", "1", "--batch-size", "2"))
    shutil.copytree(whole, copied / "jpg", dirs_exist_ok=True)
    words = ["--end-epoch", "1", "--batch-size", "2", "--resume-epoch", "auto"]
    assert train(copied, results, *words) == 0


def test_a_store_whose_disk_is_lost_is_an_unreadable_one(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk answers with ESTALE or EIO where it is asked whether there is a file."""
    store = FrameStore(next(copied.glob("jpg/*/*")))

    def lost(path: Path, **_: bool) -> None:
        raise OSError(116, "Stale file handle", str(path))

    monkeypatch.setattr(Path, "stat", lost)
    with pytest.raises(FrameStoreError, match=r"frames.db: .*Stale file handle"):
        store.read([0])


def test_a_best_one_that_found_no_space_is_followed_by_the_next_best(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = CheckpointManager._save
    refused: Iterator[bool] = iter([True])

    def save(self: CheckpointManager, path: Path) -> bool:
        return not ("_best" in path.name and next(refused, False)) and before(self, path)

    monkeypatch.setattr(CheckpointManager, "_save", save)
    monkeypatch.setattr(
        CheckpointManager,
        "save_epoch",
        lambda self, epoch, _, real=CheckpointManager.save_epoch: real(self, epoch, 1 / epoch),
    )
    assert train(stores, tmp_path, "--end-epoch", "2") == 0
    best = load_checkpoint(folder(tmp_path) / f"{NAME}_best.pth")
    assert (best["epoch"], best["metrics"]["best_top1"]) == (2, 0.5)


def test_a_run_killed_while_it_wrote_its_last_file_leaves_nothing(stores: Path, tmp_path: Path) -> None:
    """The best one was there, and from it the last: there was nothing left to train, and nobody tidied up."""
    words = ["--end-epoch", "1", "--resume-epoch", "auto"]
    assert train(stores, tmp_path, *words) == 0
    last = folder(tmp_path) / f"{NAME}_ep-0001.pth"
    leftover = last.rename(last.with_name(f".{last.name}.12345"))
    assert train(stores, tmp_path, *words) == 0
    assert last.exists()
    assert not leftover.exists()


def test_the_time_of_day_decides_nothing(repository: Path) -> None:
    """Clocks jump: what is measured is monotonic, and no file is older or newer than another."""
    banned = {"time", "time_ns", "now", "utcnow", "today", "st_mtime", "st_mtime_ns", "st_ctime", "getmtime"}
    for package in ("network", "data", "train"):
        for path in (repository / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                assert not (isinstance(node, ast.Attribute) and node.attr in banned), f"{path}:{node.lineno}"
                if isinstance(node, ast.ImportFrom) and node.module == "time":
                    assert not {alias.name for alias in node.names} & banned, path
