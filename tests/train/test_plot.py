"""python -m train.plot: curves and schedules of runs as figures."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.batch_sampler import BatchShape
from data.datasets import CUSTOM
from tests.commands import error_of, main_of
from train.callbacks import EpochReport
from train.cli import parse_options
from train.figures import plot_confusion
from train.history import best_row, clip_fractions, read_history
from train.metrics import Metrics
from train.options import Options
from train.plot import read_schedule
from train.run_record import write_run_json
from train.trackers import CSVLogger

main = main_of("train.plot")

BATCHES = {BatchShape(8, 16, 64): 3, BatchShape(32, 16, 32): 1}


def make_run(folder: Path, first: int, last: int, gate_names: Sequence[str] = ()) -> Path:
    """Write the CSV files of a run whose gates open by a tenth per epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    logger = CSVLogger(folder, first, gate_names)
    for epoch in range(first, last + 1):
        metrics = Metrics(top1=1 - 1 / epoch, top5=1.0, loss=2 / epoch)
        logger.on_epoch(
            EpochReport(
                epoch,
                lr=0.1 / epoch,
                train=metrics,
                val=metrics,
                train_seconds=1.0,
                val_seconds=1.0,
                batches=BATCHES,
                throughput={"data": 2345.6, "forward": 123.4, "backward": 45.6},
                gates={name.split(".")[0]: epoch / 10 for name in gate_names},
            )
        )
    return folder


def test_history_of_a_resumed_run(tmp_path: Path) -> None:
    """Other CSV files in the folder are not read."""
    gate_names = ["layer1.0", "layer1.1", "layer2.0"]
    make_run(tmp_path, 1, 2, gate_names)
    make_run(tmp_path, 3, 3, gate_names)
    (tmp_path / "val_results_sorted.csv").write_bytes((tmp_path / "val_results_s0001.csv").read_bytes())
    panels, batches = read_history(tmp_path)
    lines = {title: panel.lines for title, panel in panels.items()}
    assert lines["loss"]["training"] == lines["loss"]["validation"] == ([1, 2, 3], [2.0, 1.0, 2 / 3])
    assert lines["learning rate"] == {"": ([1, 2, 3], [0.1, 0.05, 0.1 / 3])}
    rates = {"data": 2346, "forward": 123.4, "backward": 45.6}
    assert lines["throughput (clips/s)"] == {name: ([1, 2, 3], [rate] * 3) for name, rate in rates.items()}
    assert lines["gate values"] == {stage: ([1, 2, 3], [0.1, 0.2, 0.3]) for stage in ("layer1", "layer2")}
    assert batches == {1: BATCHES, 2: BATCHES, 3: BATCHES}
    assert clip_fractions(BATCHES) == {(16, 32): 32 / 56, (16, 64): 24 / 56}


def test_best_epoch_is_the_first_with_the_highest_top1() -> None:
    rows = [{"Epoch": epoch, "Top1": top1} for epoch, top1 in enumerate([float("nan"), 0.1, 0.2, 0.2])]
    assert best_row(rows)["Epoch"] == 2


def test_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / "one", 1, 4, ["layer1.0", "layer4.0"]), make_run(tmp_path / "two", 1, 2)]
    for path in (tmp_path / "new" / "curves.png", tmp_path / "curves.svg"):
        assert main([*map(str, runs), "-o", str(path)]) == 0
        out = capsys.readouterr().out
        assert f"{runs[0]}: best val top-1 0.750, top-5 1.000 (epoch 4)" in out
        assert f"{runs[1]}: best val top-1 0.500, top-5 1.000 (epoch 2)" in out
        assert f"figure: {path}" in out
    image = cv2.imread(str(tmp_path / "new" / "curves.png"))
    assert len({tuple(pixel) for row in image[::3, ::3] for pixel in row}) > 20
    text = (tmp_path / "curves.svg").read_text()
    words = ["loss", "top-1", "top-5", "learning rate", "clips/s", "gate values", "layer4", "16x32x32"]
    for word in (*words, f"clips by shape, {runs[0]}", f"clips by shape, {runs[1]}"):
        assert word in text
    assert "mathdefault" not in text  # numbers are text, not TeX


def make_planned_run(folder: Path, *words: str) -> Path:
    folder.mkdir()
    options = parse_options(CUSTOM, Options(), ["--dataset", "set", *words])
    write_run_json(folder, options, {"train": {"videos": 900}, "classes": 7})
    return folder


@pytest.mark.parametrize(
    "words", [[], ["--long-cycles", "--short-cycles", "--long-cycle-period", "lr-stage"]]
)
def test_schedule_of_a_run_before_its_first_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    run = make_planned_run(tmp_path / "run", "--lr-steps", "2", "3", "--end-epoch", "4", *words)
    schedule, lr_schedule = read_schedule(run)
    assert lr_schedule.end_epoch == 4
    assert len(schedule.phases) == (4 if words else 1)
    figure, curves = tmp_path / "schedule.svg", tmp_path / "curves.svg"
    assert main([str(run), "-o", str(curves), "--schedule", str(figure)]) == 0
    out = capsys.readouterr().out
    assert out == f"schedule: {figure}\n{run}: no epoch has ended yet, no curves to plot\n"
    for title in ("clips per batch", "frames", "pixels", "learning rate", "4 epochs", "epoch 1"):
        assert title in figure.read_text()
    assert not curves.exists()
    make_run(run, 1, 1)
    assert main([str(run), "-o", str(curves), "--schedule", str(figure)]) == 0
    assert curves.exists()


def test_errors(tmp_path: Path) -> None:
    run, empty = make_run(tmp_path / "run", 1, 2), tmp_path / "empty"
    empty.mkdir()
    assert "--schedule: needs a single run, not 2" in error_of(main, run, run, "--schedule", "s.svg")
    assert f"{run / 'run.json'}" in error_of(main, run, "--schedule", tmp_path / "s.svg")
    (run / "run.json").write_text('{"options": {}}')
    assert f"{run / 'run.json'}: not the run.json" in error_of(main, run, "--schedule", tmp_path / "s.svg")
    assert f"{empty}: no rows in train_results_s*.csv" in error_of(main, empty)
    for name in ("curves.doc", "curves"):
        assert f"{name}: " in error_of(main, run, "-o", tmp_path / name)
    (run / "val_results_s0001.csv").write_text("Epoch,Top1\n1,much\n")
    assert "val_results_s0001.csv, line 2: invalid row: ValueError" in error_of(main, run)


def test_class_names_are_not_read_as_tex(tmp_path: Path) -> None:
    plot_confusion(np.eye(2), ["a$\\frac$", "b"], "title", tmp_path / "confusion.svg")
    assert "a$\\frac$" in (tmp_path / "confusion.svg").read_text()


def test_class_names_of_other_scripts_are_readable(tmp_path: Path) -> None:
    """Where matplotlib's font lacks letters it draws the same box for each, and prints a warning for each."""
    counts = np.eye(2, dtype=int)
    pictures = []
    for name in ("推推", "拉拉", "धक्का", "ผลัก", "밀다"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plot_confusion(counts, ["a", name], "video@1", tmp_path / "c.png")
        pictures.append(cv2.imread(str(tmp_path / "c.png")))
    height, width = np.min([picture.shape[:2] for picture in pictures], axis=0)
    ink = [picture[:height, :width].min(axis=2) < 100 for picture in pictures]
    assert all((one != other).sum() > 50 for one, other in itertools.combinations(ink, 2))
