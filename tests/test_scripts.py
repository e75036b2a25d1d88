"""The six scripts, each on a small store in the data set's own layout, with the README's flags."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from data.datasets import DIVING48, HACS, HMDB51, KINETICS, MIT, UCF101
from tests.synthetic_frames import make_stores

FLAGS = [
    "--network",
    "ir_csn_50",
    "--clip-length",
    "4",
    "--clip-size",
    "32",
    "--batch-size",
    "4",
    "--end-epoch",
    "1",
]
FLAGS += ["--lr-base", "0.01", "--lr-steps", "[40,60,75]", "--lr-factor", "0.1", "--save-frequency", "1"]
FLAGS += ["--random-seed", "3", "--gpus", "0", "--num-classes", "2", "--workers", "1", "--precision", "fp32"]
FLAGS += [
    "--train-frame-interval",
    "1",
    "2",
    "--val-frame-interval",
    "2",
    "--task-name",
    "try",
    "--log-file",
    "run.log",
]

CASES = [
    ("train_hacs.py", HACS, "", [], "HACS"),
    ("train_kinetics.py", KINETICS, "400", ["--variant", "400"], "KINETICS-400"),
    ("train_kinetics.py", KINETICS, "700", [], "KINETICS-700"),
    ("train_mit.py", MIT, "", [], "MIT"),
    ("train_ucf101.py", UCF101, "1", [], "UCF101"),
    ("train_hmdb51.py", HMDB51, "3", ["--split", "3"], "HMDB51"),
    ("train_diving48.py", DIVING48, "", [], "DIVING48"),
]
TIMES = ((0, 10), (7, 17), (120, 130))


def make_data(root: Path, spec: object, variant: str) -> Path:
    """`<root>/data/X_videos/jpg/...` with `<root>/labels`: folders with times where the data set has them."""
    dataset = root / "data" / "X_videos"
    header = ["label", "youtube_id", *(["time_start", "time_end"] if spec.timed_ids else []), "split"]
    stores = {"brush hair": [], "dive #2": []}
    tables = {"train": [], "val": []}
    for label, ids in stores.items():
        for number, (start, end) in enumerate(TIMES * 2):
            video = f"-{label[0]}%{number}"
            split = "val" if number > 3 else "train"
            ids.append(f"{video}_{start:06d}_{end:06d}" if spec.timed_ids else video)
            tables[split].append([label, video, *([start, end] if spec.timed_ids else []), split])
    make_stores(dataset, stores, n_frames=6)
    (root / "labels").mkdir()
    for split, name in (("train", spec.train_csv), ("val", spec.val_csv)):
        with (root / "labels" / name.format(variant=variant)).open("w", newline="") as file:
            csv.writer(file).writerows([header, *tables[split]])
    return dataset


def assert_an_epoch(folder: Path) -> None:
    """InferenceModel, validated and saved, in the results folder under `folder`."""
    results = folder / "ir_csn_50_gates_False_try"
    assert (results / "ir_csn_50_ep-0001.pth").exists()
    for split in ("train", "val"):
        with (results / f"{split}_results_s0001.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row["Epoch"] == "1"
        assert 0 <= float(row["Top1"]) <= float(row["Top5"]) == 1


@pytest.mark.parametrize(
    ("script", "spec", "variant", "words", "results"), CASES, ids=lambda value: str(value)[:24]
)
def test_script_trains_and_validates_an_epoch(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    spec: object,
    variant: str,
    words: list[str],
    results: str,
) -> None:
    """Every script of the original stopped at its first batch."""
    dataset = make_data(tmp_path / "a train folder", spec, variant)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "--dataset", str(dataset), *words, *FLAGS])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(repository / script), run_name="__main__")
    assert ended.value.code == 0
    assert_an_epoch(tmp_path / "results" / results)
    assert "epoch 1/1 val" in (tmp_path / "run.log").read_text()


def test_a_script_is_a_command_anywhere(tmp_path: Path, repository: Path) -> None:
    """As it is typed, in a process of its own and another folder."""
    dataset = make_data(tmp_path / "a train folder", HACS, "")
    command = [sys.executable, str(repository / "train_hacs.py"), "--dataset", str(dataset), *FLAGS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_an_epoch(tmp_path / "results" / "HACS")


PAPERS = {
    "train_hacs.py": (284, 48, 0.1, (40, 60, 75, 90), 120, (1, 2), 2, True),
    "train_kinetics.py": (284, 32, 0.05, (40, 70, 95), 130, (4, 5, 6), 5, True),
    "train_mit.py": (284, 48, 0.1, (25, 50, 70), 110, (3, 4), 3, True),
    "train_ucf101.py": (256, 32, 0.1, (15, 30, 40), 100, (2,), 2, False),
    "train_hmdb51.py": (256, 32, 0.1, (15, 30, 40), 100, (2,), 2, False),
    "train_diving48.py": (256, 32, 0.1, (15, 30, 40), 100, (2,), 2, False),
}


@pytest.mark.parametrize("script", PAPERS)
def test_defaults_are_the_papers(repository: Path, script: str) -> None:
    chosen = runpy.run_path(str(repository / script))["DEFAULTS"]
    size, batch, rate, steps, epochs, train_interval, val_interval, cycles = PAPERS[script]
    assert (chosen.clip_length, chosen.clip_size, chosen.batch_size) == (16, size, batch)
    assert (chosen.lr_base, chosen.lr_steps, chosen.lr_factor, chosen.end_epoch) == (rate, steps, 0.1, epochs)
    assert (chosen.train_frame_interval, chosen.val_frame_interval) == (train_interval, val_interval)
    assert (chosen.long_cycles, chosen.short_cycles) == (cycles, cycles)
    assert chosen.network == "srtg_r3d_34"
