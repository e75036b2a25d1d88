"""What is logged and written: speeds, tables, bad samples."""

import csv
import logging
from pathlib import Path

import pytest
import torch

from data.batch_sampler import BatchShape
from data.video_iterator import BadSample
from train.callbacks import (
    AccuracyMonitor,
    CorruptSampleLogger,
    CSVLogger,
    EpochReport,
    GateMonitor,
    ProgressLogger,
    ShapeMonitor,
    SpeedMonitor,
)
from train.csv_log import cut_results
from train.engine import StepReport
from train.metrics import Averages
from train.parallel.distributed import DistContext
from train.parallel.step_timer import Times

CPU = torch.device("cpu")


def report(step: int = 0, clips: int = 10, hits: int = 5, **changes: object) -> StepReport:
    values = {
        "epoch": 1,
        "step": step,
        "n_steps": 4,
        "shape": BatchShape(clips, 16, 112),
        "learning_rate": 0.05,
        "sums": torch.tensor([clips, hits, clips, 2.0 * clips], dtype=torch.float64),
        "openings": torch.zeros(0),
        "waited": 0.001,
        "times": Times(clips, forward=0.1, backward=0.5),
        "bad": [],
    }
    return StepReport(**(values | changes))


def epoch(number: int, top1: float = 0.5) -> EpochReport:
    return EpochReport(number, 0.1, Averages(top1, 0.9, 1.5), Averages(top1 / 2, 0.8, 1 / 3), 12.3, 4.5)


def test_speeds_are_clips_over_time_of_the_interval() -> None:
    monitor = SpeedMonitor()
    monitor.on_step(report(clips=10))
    monitor.on_step(report(clips=30, waited=0.003, times=Times(30, 0.3, 1.5)))
    assert monitor.rates() == pytest.approx({"r": 40 / 0.004, "f": 40 / 0.4, "b": 40 / 2.0})
    assert monitor.describe() == "Speed (r=1.00e+04 f=1.00e+02 b=2.00e+01) clip/sec"
    monitor.on_step(report(clips=10))
    assert monitor.rates()["f"] == pytest.approx(100)


def test_passes_are_those_that_the_device_has_done() -> None:
    """Of three steps it has done two, and those of ten clips each: the third is the next interval's."""
    monitor = SpeedMonitor()
    for times in (Times(), Times(10, 0.1, 0.5), Times(10, 0.1, 0.5)):
        monitor.on_step(report(clips=10, times=times))
    assert monitor.rates() == pytest.approx({"r": 30 / 0.003, "f": 20 / 0.2, "b": 20 / 1.0})


def test_no_time_at_all_is_no_division_by_zero() -> None:
    monitor = SpeedMonitor()
    monitor.on_step(report(waited=0.0, times=Times()))
    assert "Speed" in monitor.describe()


RED, GREEN, YELLOW = "\x1b[31m", "\x1b[32m", "\x1b[33m"


@pytest.mark.parametrize(
    ("name", "rate", "color"),
    [
        ("r", 99, RED), ("r", 100, YELLOW), ("r", 2999, YELLOW), ("r", 3000, GREEN),
        ("f", 49, RED), ("f", 50, YELLOW), ("f", 299, YELLOW), ("f", 300, GREEN),
        ("b", 19, RED), ("b", 20, YELLOW), ("b", 199, YELLOW), ("b", 200, GREEN),
    ],
)  # fmt: skip
def test_colours(name: str, rate: float, color: str) -> None:
    seconds = 1000 / rate
    waited, forward, backward = (seconds if name == kind else 1.0 for kind in "rfb")
    monitor = SpeedMonitor(colored=True)
    monitor.on_step(report(clips=1000, waited=waited, times=Times(1000, forward, backward)))
    assert f"{name}={color}{rate:.2e}" in monitor.describe()


def test_accuracy_is_over_the_clips_of_the_interval() -> None:
    monitor = AccuracyMonitor(CPU, DistContext())
    monitor.on_step(report(clips=10, hits=10))
    monitor.on_step(report(clips=30, hits=0))
    assert monitor.describe() == "loss 2.0000  top-1 0.250  top-5 1.000"
    monitor.on_step(report(clips=10, hits=10))
    assert "top-1 1.000" in monitor.describe()


def test_gates_are_averaged_by_stage() -> None:
    monitor = GateMonitor(["layer1.0", "layer1.1", "layer2.0"], CPU, DistContext())
    monitor.on_step(report(clips=1, openings=torch.tensor([1.0, 0.0, 0.2])))
    monitor.on_step(report(clips=3, openings=torch.tensor([1.0, 0.0, 1.0])))  # summed over three clips
    assert monitor.describe() == "gates layer1 0.25 layer2 0.30"


def test_a_line_each_interval_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    log = ProgressLogger([AccuracyMonitor(CPU, DistContext()), ShapeMonitor()], interval=3, end_epoch=9)
    with caplog.at_level(logging.INFO):
        for step in range(4):
            log.on_step(report(step))
        log.on_epoch(epoch(1)._replace(waited_seconds=0.246))
    log.close()
    assert [record.message.split("  ")[0] for record in caplog.records] == [
        "epoch 1/9 step 3/4",
        "epoch 1/9 step 4/4",
        "epoch 1/9 train",
        "epoch 1/9 val",
    ]
    assert "batch 10x16x112x112  lr 0.05" in caplog.text
    assert "(12.3 s, 2.0% of it waiting for clips)" in caplog.text


def test_table_has_a_row_an_epoch_readable_after_each(tmp_path: Path) -> None:
    table = CSVLogger(tmp_path, first_epoch=3)
    for number in (3, 4):
        table.on_epoch(epoch(number))
        with (tmp_path / "val_results_s0003.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["Epoch"]) for row in rows] == list(range(3, number + 1))
    assert list(rows[0])[:4] == ["Epoch", "Top1", "Top5", "Loss"]
    assert float(rows[0]["Loss"]) == 1 / 3  # exact, so that runs can be compared
    assert float(rows[0]["Top1"]) == 0.25
    assert (tmp_path / "train_results_s0003.csv").read_text().startswith("Epoch,Top1,Top5,Loss,")


def test_no_epoch_stands_twice_after_resuming(tmp_path: Path) -> None:
    first = CSVLogger(tmp_path, 1)
    for number in range(1, 12):
        first.on_epoch(epoch(number))
    with (tmp_path / "val_results_s0001.csv").open("a") as file:
        file.write("12,0.5,0")  # what a kill leaves of a row
    cut_results(tmp_path, 10)
    second = CSVLogger(tmp_path, 10)
    second.on_epoch(epoch(10))
    for split in ("train", "val"):
        epochs = []
        for path in sorted(tmp_path.glob(f"{split}_results_s*.csv")):
            with path.open() as file:
                epochs += [int(row["Epoch"]) for row in csv.DictReader(file)]
        assert epochs == list(range(1, 11))
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["t", "t", "v", "v"]


def test_half_a_header_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "train_results_s0001.csv").write_text("Epo")
    cut_results(tmp_path, 1)
    CSVLogger(tmp_path, 1).on_epoch(epoch(1))
    assert (tmp_path / "train_results_s0001.csv").read_text().startswith("Epoch,Top1,Top5,Loss,")


def test_bad_samples_are_written_with_their_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = CorruptSampleLogger(tmp_path / "bad_samples.csv")
    log.on_step(report())
    assert not (tmp_path / "bad_samples.csv").exists()
    log.on_step(report(bad=[BadSample("jpg/a/b", 'not, a "database"')]))
    log.on_step(report(bad=[BadSample("jpg/a/c", "gone")]))
    with (tmp_path / "bad_samples.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["Epoch", "Video", "Reason"],
        ["1", "jpg/a/b", 'not, a "database"'],
        ["1", "jpg/a/c", "gone"],
    ]
    assert "unreadable clip, replaced: gone" in caplog.text
