"""python -m train.cross_validate: however it is interrupted or shared, it ends with the same table."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data.datasets import CUSTOM
from tests.commands import REPOSITORY, error_of, main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import NAME, SMALL, wait_for
from tests.train.test_folds import write_folds
from train.options import Options, resolve

EPOCHS = 30  # many, so that the second is not the last when a signal arrives
RUN = f"{NAME}_gates_False"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with two folds of nine videos."""
    root = tmp_path_factory.mktemp("set")
    make_stores(root, {name: [f"{name}{number}" for number in range(6)] for name in "abc"}, n_frames=8)
    (root / "labels").mkdir()
    write_folds(root, folds=2)
    return root


def start(dataset: Path, results: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own, its output in `<results>/log`."""
    results.mkdir(exist_ok=True)
    flags = [*SMALL, "--model-dir", str(results), "--end-epoch", str(EPOCHS), "--log-interval", "1"]
    flags += ["--save-minutes", "0.0001", "--clips", "2", "--crops", "1"]
    path = os.pathsep.join([str(REPOSITORY / "tests" / "docs" / "tiny_networks"), str(REPOSITORY)])
    with (results / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "train.cross_validate", str(dataset), *flags, *words],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,
        )


def table(results: Path) -> dict[str, bytes]:
    """Return the content of the files of the table, folds.csv without its minutes."""
    files = {path.name: path.read_bytes() for path in (results / "folds" / RUN).iterdir()}
    files["folds.csv"] = b"\n".join(row.rpartition(b",")[0] for row in files["folds.csv"].splitlines())
    return files


def test_interrupted_or_shared_it_ends_with_the_same_table(dataset: Path, tmp_path: Path) -> None:
    """Stopped by SIGTERM in fold 1, killed in fold 2, and started again, or by two processes with a fold each."""
    shared, interrupted = tmp_path / "shared", tmp_path / "interrupted"
    both = [start(dataset, shared, "--fold", fold) for fold in "12"]
    for fold, number, exit_code in (
        (1, signal.SIGTERM, 128 + signal.SIGTERM),
        (2, signal.SIGKILL, -signal.SIGKILL),
    ):
        process = start(dataset, interrupted)
        wait_for(f" epoch 2/{EPOCHS} step 1/", interrupted / f"fold{fold}" / RUN / "train.log", seconds=120)
        (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
        assert process.wait() == exit_code
    assert start(dataset, interrupted).wait() == 0
    assert [process.wait() for process in both] == [0, 0], (shared / "log").read_text()

    log = (interrupted / "log").read_text()
    assert "stopped in epoch" in log
    assert log.count(f"{RUN}: no checkpoint, starting at epoch 1") == 2
    assert "fold 2/2: top-1" in log
    assert table(interrupted) == table(shared)
    assert b"| all videos | 18 |" in table(shared)["table.md"]
    assert sorted(path.name for path in (shared / "fold1" / RUN).glob("*ep-*.pth")) == [
        f"{NAME}_ep-{EPOCHS:04d}.pth"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--fold 1 3", "fold3_train.csv: not found"),
        ("--fold 0", "argument --fold: '0' is not a whole number of at least 1"),
        ("--netwrk tiny", "unrecognized arguments: --netwrk tiny"),
        ("--dry-run", "are for one fold: python -m train --fold N"),
        (
            "--lr-base 0.2",
            "fold2/tiny_gates_False/run.json: trained with --lr-base 0.5, not 0.2; --task-name",
        ),
        ("--lr-base 0.5", "run.json: trained with other label files or videos; --task-name"),
    ],
)
def test_wrong_arguments(dataset: Path, tmp_path: Path, words: str, message: str) -> None:
    """A fold that was trained with other options or videos is refused before the first one starts."""
    run = tmp_path / "fold2" / RUN
    run.mkdir(parents=True)
    options = resolve(CUSTOM, Options(network=NAME, lr_base=0.5, channel_order="rgb"), gpus=0).to_dict()
    (run / "run.json").write_text(json.dumps({"options": options, "dataset": {"fingerprint": "other"}}))
    flags = ["--network", NAME, "--model-dir", tmp_path, *words.split()]
    assert message in error_of(main_of("train.cross_validate"), dataset, *flags)
    assert not (tmp_path / "fold1").exists()
