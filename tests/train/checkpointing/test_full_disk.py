"""A full disk: the run stops with one line, and resumes from the last good checkpoint."""

import multiprocessing
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from tests.train.helpers import NAME, REFERENCE, assert_fails, assert_same_run, folder, load, train

SIZES = {"one": 700, "all": 4000}  # KB of a disk that holds one or two checkpoints of 370 KB, or all


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZES['all']}k", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs permission to mount a disk")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_run_stops_on_a_full_disk_and_resumes(
    stores: Path, reference_run: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = disk / "results"
    assert train(stores, results, REFERENCE, "--end-epoch 1") == 0
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 650_000))  # preflight wants two checkpoints
    assert_fails(
        capsys, 1, "No space left on device, ", " MB free; --resume-epoch auto resumes from ", f"{NAME}_ep-000",
        run=lambda: train(stores, results, REFERENCE, "--resume-epoch auto"),
    )  # fmt: skip
    assert list(folder(results).glob(".*")) == []
    assert load(results, "ep-0001")["epoch"] == 1
    ballast.unlink()
    assert train(stores, results, REFERENCE, "--resume-epoch auto") == 0
    assert_same_run(results, reference_run)


def _train_with_small_files(stores: Path, results: Path, log: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with log.open("w", buffering=1) as file, redirect_stderr(file):
        exit_code = train(stores, results, "--end-epoch 1")
    os._exit(exit_code)


def test_a_file_size_limit_stops_the_run_without_a_partial_file(stores: Path, tmp_path: Path) -> None:
    """As a quota does."""
    results, log = tmp_path / "results", tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_train_with_small_files, args=(stores, results, log))
    process.start()
    process.join(60)
    assert process.exitcode == 1, log.read_text()
    assert f"{NAME}_ep-0001.pth: File too large, " in log.read_text()
    assert "no checkpoint was saved" in log.read_text()
    assert [path for path in folder(results).iterdir() if ".pth" in path.name] == []
