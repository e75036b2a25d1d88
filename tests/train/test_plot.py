"""Curves as pictures."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.batch_sampler import BatchShape
from data.datasets import CUSTOM
from tests.commands import main_of
from train.callbacks import CSVLogger, EpochReport
from train.cli import parse_options
from train.csv_log import cut_results
from train.figures import Curve, plot_confusion, shares_of_clips
from train.metrics import Averages
from train.options import Options
from train.plot import best_epoch, read_history, read_schedule
from train.run_folder import write_run_json

main = main_of("train.plot")


def make_run(folder: Path, first: int, last: int, gate_names: Sequence[str] = ()) -> Path:
    """In each epoch 3 steps of 8 clips and 1 of 32 smaller ones; gates open by a tenth an epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    table = CSVLogger(folder, first, gate_names)
    for epoch in range(first, last + 1):
        result = Averages(top1=1 - 1 / epoch, top5=1.0, loss=2 / epoch)
        table.on_epoch(
            EpochReport(
                epoch,
                learning_rate=0.1 / epoch,
                train=result,
                val=result,
                train_seconds=1.0,
                val_seconds=1.0,
                batches={BatchShape(8, 16, 64): 3, BatchShape(32, 16, 32): 1},
                speeds={"r": 2345.6, "f": 123.4, "b": 45.6},
                gates={name.split(".")[0]: epoch / 10 for name in gate_names},
            )
        )
    return folder


def test_resumed_run_is_one_curve(tmp_path: Path) -> None:
    make_run(tmp_path, 1, 3)
    make_run(tmp_path, 4, 5)
    train, val, _ = read_history(tmp_path)
    assert train.epochs == val.epochs == [1, 2, 3, 4, 5]
    assert val.loss == [2.0, 1.0, 2 / 3, 0.5, 0.4]


def test_tables_of_ones_own_are_not_the_runs(tmp_path: Path) -> None:
    """They were drawn, and their rows cut when a run went back."""
    make_run(tmp_path, 1, 3)
    copy = tmp_path / "val_results_sorted.csv"
    copy.write_bytes((tmp_path / "val_results_s0001.csv").read_bytes())
    assert read_history(tmp_path)[1].epochs == [1, 2, 3]
    before = copy.read_bytes()
    cut_results(tmp_path, 2)
    assert copy.read_bytes() == before
    assert read_history(tmp_path)[1].epochs == [1]


def test_best_epoch_is_one_with_a_score() -> None:
    assert best_epoch(Curve([1, 2, 3], [float("nan"), 0.2, 0.2], [0.0] * 3, [0.0] * 3)) == 1


def test_what_training_wrote_down_is_read_back(tmp_path: Path) -> None:
    progress = read_history(make_run(tmp_path, 1, 2, ["layer1.0", "layer1.1", "layer2.0"])).progress
    assert progress.learning_rate == [0.1, 0.05]
    assert progress.speeds == {"reading": [2346, 2346], "forward": [123.4, 123.4], "backward": [45.6, 45.6]}
    assert progress.gates == {"layer1": [0.1, 0.2], "layer2": [0.1, 0.2]}
    assert progress.batches == [{BatchShape(8, 16, 64): 3, BatchShape(32, 16, 32): 1}] * 2
    assert shares_of_clips(progress.batches[0]) == {(16, 32): 32 / 56, (16, 64): 24 / 56}


def test_rows_of_an_older_version_are_drawn_without_what_they_lack(tmp_path: Path) -> None:
    """Also where a newer one has gone on with the same file."""
    for split in ("train", "val"):
        (tmp_path / f"{split}_results_s0001.csv").write_text(
            "Epoch,Top1,Top5,Loss,LRSchedule,Seconds\n1,0.5,1,2,0.1,3.5\n2,0.5,1,2,0.1,3.5,1,2,3,4*8x16x64x64\n"
        )
    progress = read_history(tmp_path).progress
    assert all(math.isnan(rate) for rates in progress.speeds.values() for rate in rates)
    assert progress.batches == [{}, {}]
    assert main([str(tmp_path), "-o", str(tmp_path / "curves.svg")]) == 0
    text = (tmp_path / "curves.svg").read_text()
    assert "learning rate" in text
    assert "speed" not in text


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_picture_and_best_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    gates = {"one": ["layer1.0", "layer4.0"], "two": []}
    runs = [make_run(tmp_path / name, 1, 4, names) for name, names in gates.items()]
    picture = tmp_path / "new" / f"curves.{ending}"
    assert main([*map(str, runs), "-o", str(picture)]) == 0
    out = capsys.readouterr().out
    assert f"{runs[0]}: best val top-1 0.750, top-5 1.000 (epoch 4)" in out
    assert f"picture: {picture}" in out
    if ending == "png":
        image = cv2.imread(str(picture))
        assert image.shape[1] > 1000
        assert len({tuple(pixel) for row in image[::3, ::3] for pixel in row}) > 20
    else:
        text = picture.read_text()
        for words in ("loss", "top-1", "top-5", "learning rate", "clips a second", "open gates", "layer4"):
            assert words in text
        for name in gates:
            assert f"clips by the shape of their batch, {name}" in text
        assert "32x16x32x32" in text


def make_plan(folder: Path, *words: str) -> Path:
    make_run(folder, 1, 1)
    options = parse_options(CUSTOM, Options(), ["--dataset", "set", *words])
    write_run_json(folder, options, {"train": {"videos": 900}, "classes": 7})
    return folder


@pytest.mark.parametrize("words", [[], ["--long-cycles", "--short-cycles", "--long-cycle-period", "stage"]])
def test_schedule_is_drawn_from_what_the_run_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    run = make_plan(tmp_path / "run", "--lr-steps", "2", "3", "--end-epoch", "4", *words)
    schedule, learning_rate = read_schedule(run)
    assert schedule.n_clips == 900
    assert learning_rate.stages() == (2, 3, 4)
    assert len(schedule.phases) == (4 if words else 1)
    picture = tmp_path / "schedule.svg"
    assert main([str(run), "-o", str(tmp_path / "curves.svg"), "--schedule", str(picture)]) == 0
    assert f"schedule: {picture}" in capsys.readouterr().out
    text = picture.read_text()
    for title in ("clips a batch", "frames", "pixels", "learning rate", "the run of 4 epochs", "epoch 1"):
        assert title in text


def test_schedule_is_there_from_the_moment_the_run_has_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first epoch had ended, when it is of most use, that there are no curves yet was an error."""
    run = make_plan(tmp_path / "run")
    for path in run.glob("*_results_s*.csv"):
        path.unlink()
    picture = tmp_path / "schedule.svg"
    assert main([str(run), "-o", str(tmp_path / "curves.svg"), "--schedule", str(picture)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"schedule: {picture}",
        f"{run}: no epoch has ended yet, so there are no curves",
    ]
    assert picture.exists()
    assert not (tmp_path / "curves.svg").exists()


def test_schedule_that_cannot_be_drawn_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, output = make_plan(tmp_path / "run"), ["-o", str(tmp_path / "c.svg")]
    cases = {
        "--schedule: draws the plan of one run, 2 were given": [str(run), str(run)],
        f"{run / 'run.json'}: is not what a run wrote": [str(run)],
        f"{tmp_path / 'bare' / 'run.json'}": [str(make_run(tmp_path / "bare", 1, 1))],
    }
    (run / "run.json").write_text('{"options": {}}')
    for message, words in cases.items():
        with pytest.raises(SystemExit) as stopped:
            main([*words, *output, "--schedule", str(tmp_path / "s.svg")])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_picture_of_an_unknown_kind_says_which_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(make_run(tmp_path, 1, 2)), "-o", str(tmp_path / "curves.doc")])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "curves.doc: " in error
    assert "svg" in error
    with pytest.raises(SystemExit):  # a picture of another name was written, and this one named
        main([str(tmp_path), "-o", str(tmp_path / "curves")])
    assert "curves: must end with .png, .svg or .pdf" in capsys.readouterr().err


def test_runs_whose_folders_have_one_name_stay_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second once took the first one's place and numbers."""
    one, two = make_run(tmp_path / "a" / "run", 1, 2), make_run(tmp_path / "b" / "run", 1, 4)
    assert main([str(one), str(two), "-o", str(tmp_path / "curves.svg")]) == 0
    out = capsys.readouterr().out
    assert f"{one}: best val top-1 0.500" in out
    assert f"{two}: best val top-1 0.750" in out


def test_folder_without_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    assert f"{tmp_path}: holds no train_results_s*.csv" in capsys.readouterr().err


def test_damaged_table_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 1, 2)
    (tmp_path / "val_results_s0001.csv").write_text("Epoch,Top1\n1,much\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "val_results_s0001.csv: {'Epoch': '1', 'Top1': 'much'} is not a row" in capsys.readouterr().err


def test_classes_are_written_as_they_are_called_and_numbers_as_numbers(tmp_path: Path) -> None:
    """A dollar and a backslash were taken for mathematics, of which there is none; powers of ten are some."""
    plot_confusion(np.eye(2), ["a$\\frac$", "b"], "title", tmp_path / "confusion.svg")
    assert "a$\\frac$" in (tmp_path / "confusion.svg").read_text()
    assert main([str(make_run(tmp_path / "run", 1, 2)), "-o", str(tmp_path / "curves.svg")]) == 0
    assert not re.search(r"mathdefault[^<]*</text>", (tmp_path / "curves.svg").read_text())
