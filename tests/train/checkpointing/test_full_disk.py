"""A disk that is really full: the last good checkpoint stays, and the run says so."""

import logging
import multiprocessing
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from tests.train.helpers import NAME, UNDISTURBED, assert_same_weights, folder, rows, train
from tests.train.test_callbacks import epoch
from train.callbacks import CSVLogger
from train.checkpointing.checkpoint import load_checkpoint

MEGABYTES = 60  # two checkpoints of 21 fit, a third does not


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 60 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk of its own")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, megabytes: float) -> Path:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(int(megabytes * 2**20)))
    return ballast


def test_stops_with_the_last_good_one_and_goes_on_from_it(
    stores: Path, undisturbed: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stores, disk / "results", *UNDISTURBED) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert f"{NAME}_ep-0002.pth: No space left on device, " in error[0] or f"{NAME}_best.pth: No" in error[0]
    assert " MB are free; " in error[0]
    assert f"{NAME}_ep-0001.pth is whole; with more space --resume-epoch auto goes on" in error[0]
    assert load_checkpoint(folder(disk / "results") / f"{NAME}_ep-0001.pth")["epoch"] == 1
    assert list(folder(disk / "results").glob(".*")) == []
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    assert train(stores, disk / "results", *UNDISTURBED, "--resume-epoch", "auto") == 0
    names = [folder(results) / f"{NAME}_ep-0003.pth" for results in (disk / "results", undisturbed)]
    assert_same_weights(*names)
    assert rows(disk / "results", "val") == rows(undisturbed, "val")


class FreesSpace(logging.Handler):
    """Somebody who removes a file when the run complains."""

    def __init__(self, ballast: Path) -> None:
        super().__init__()
        self.ballast = ballast

    def emit(self, record: logging.LogRecord) -> None:
        self.ballast.unlink(missing_ok=True)


def test_goes_on_without_and_writes_again_when_there_is_space(
    stores: Path, undisturbed: Path, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run(["mount", "-o", "remount,size=120m", str(disk)], check=True)
    helper = FreesSpace(fill(disk, 60))
    logging.getLogger("train.checkpointing.manager").addHandler(helper)
    try:
        assert train(stores, disk / "results", *UNDISTURBED, "--on-full-disk", "continue") == 0
    finally:
        logging.getLogger("train.checkpointing.manager").removeHandler(helper)
    assert "No space left on device" in caplog.text
    assert "going on without" in caplog.text
    names = [folder(results) / f"{NAME}_ep-0003.pth" for results in (disk / "results", undisturbed)]
    assert_same_weights(*names)
    assert rows(disk / "results", "val") == rows(undisturbed, "val")


def test_a_result_that_was_never_written_is_no_success(
    stores: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stores, disk / "results", *UNDISTURBED, "--on-full-disk", "continue") == 1
    assert f"{NAME}_ep-0003.pth: the result of the last epoch could not be written" in capsys.readouterr().err
    assert [row[0] for row in rows(disk / "results", "val")] == ["1", "2", "3"]


def test_rows_that_found_no_space_are_written_later(disk: Path) -> None:
    ballast = fill(disk, MEGABYTES - 0.01)
    (disk / "last").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize))
    table = CSVLogger(disk, first_epoch=1)
    for number in (1, 2):
        with pytest.raises(OSError, match=r"No space left on device: '.*train_results_s0001.csv'"):
            table.on_epoch(epoch(number))
    ballast.unlink()
    table.on_save()
    for split in ("train", "val"):
        lines = (disk / f"{split}_results_s0001.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in lines] == ["Epoch", "1", "2"]


def _train_with_small_files(stores: Path, results: Path, log: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
    with log.open("w", buffering=1) as file, redirect_stderr(file):
        status = train(stores, results, "--end-epoch", "1")
    os._exit(status)


def test_a_file_that_may_not_grow_stops_the_run_without_leaving_half_of_it(
    stores: Path, tmp_path: Path
) -> None:
    """What a quota does, for those who may not mount."""
    arguments = (stores, tmp_path / "results", tmp_path / "log")
    process = multiprocessing.get_context("fork").Process(target=_train_with_small_files, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 1
    assert f"{NAME}_best.pth: File too large, " in (tmp_path / "log").read_text()
    assert "there is no checkpoint before it" in (tmp_path / "log").read_text()
    assert [path for path in folder(tmp_path / "results").iterdir() if ".pth" in path.name] == []
