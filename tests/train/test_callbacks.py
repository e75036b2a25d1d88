"""What is logged and written: throughput, accuracy, gates, CSV files, corrupt samples."""

import csv
import logging
import re
from pathlib import Path

import pytest
import torch

from data.batch_sampler import BatchShape
from data.clip_batch import BadSample
from train.callbacks import CorruptSampleLogger, EpochReport, GateMonitor, ProgressLogger, SpeedMonitor
from train.engine import StepReport
from train.metrics import Metrics
from train.parallel.distributed import DistContext
from train.parallel.step_timer import StepTimes
from train.step_cost import StepCostMonitor

CPU = torch.device("cpu")


def step_report(step: int = 0, clips: int = 10, correct: int = 5, **changes: object) -> StepReport:
    values = {
        "epoch": 1,
        "step": step,
        "num_steps": 4,
        "shape": BatchShape(clips, 16, 112),
        "lr": 0.05,
        "sums": torch.tensor([clips, correct, clips, 2.0 * clips], dtype=torch.float64),
        "gate_sums": torch.zeros(0),
        "data_time": 0.001,
        "seconds": 0.5,
        "peak_memory": 3 * 10**9,
        "times": StepTimes(clips, forward=0.1, backward=0.5),
        "corrupt": [],
    }
    return StepReport(**(values | changes))


def epoch_report(epoch: int, top1: float = 0.5) -> EpochReport:
    return EpochReport(epoch, 0.1, Metrics(top1, 0.9, 1.5), Metrics(top1 / 2, 0.8, 1 / 3), 12.3, 4.5)


def test_throughput_is_clips_over_seconds_of_the_interval() -> None:
    monitor = SpeedMonitor()
    monitor.on_step(step_report(clips=10))
    monitor.on_step(step_report(clips=30, data_time=0.003, times=StepTimes(30, 0.3, 1.5)))
    assert monitor.rates() == pytest.approx({"data": 40 / 0.004, "forward": 40 / 0.4, "backward": 40 / 2.0})
    assert monitor.describe() == "Speed (r=1.00e+4 f=1.00e+2 b=2.00e+1) clip/sec"
    assert monitor.rates() == {}


def test_throughput_counts_the_passes_that_the_device_has_completed() -> None:
    monitor = SpeedMonitor()
    for times in (StepTimes(), StepTimes(10, 0.1, 0.5), StepTimes(10, 0.1, 0.5)):
        monitor.on_step(step_report(clips=10, times=times))
    assert monitor.rates() == pytest.approx({"data": 30 / 0.003, "forward": 20 / 0.2, "backward": 20 / 1.0})
    monitor.describe()
    monitor.on_step(step_report(data_time=0.0, times=StepTimes()))  # no time at all
    assert "Speed" in monitor.describe()


RED, GREEN, YELLOW = "\x1b[31m", "\x1b[32m", "\x1b[33m"


@pytest.mark.parametrize(
    ("symbol", "rate", "color"),
    [
        ("r", 99, RED), ("r", 100, YELLOW), ("r", 2999, YELLOW), ("r", 3000, GREEN),
        ("f", 49, RED), ("f", 50, YELLOW), ("f", 299, YELLOW), ("f", 300, GREEN),
        ("b", 19, RED), ("b", 20, YELLOW), ("b", 199, YELLOW), ("b", 200, GREEN),
    ],
)  # fmt: skip
def test_throughput_colors(symbol: str, rate: float, color: str) -> None:
    seconds = 1000 / rate
    data_time, forward, backward = (seconds if symbol == name else 1.0 for name in "rfb")
    monitor = SpeedMonitor(colored=True)
    times = StepTimes(1000, forward, backward)
    monitor.on_step(step_report(clips=1000, data_time=data_time, times=times))
    assert f"{symbol}={color}{rate:.2e}".replace("e+0", "e+") in monitor.describe()


def test_gates_are_averaged_by_stage() -> None:
    monitor = GateMonitor(["layer1.0", "layer1.1", "layer2.0"], CPU, DistContext())
    monitor.on_step(step_report(clips=1, gate_sums=torch.tensor([1.0, 0.0, 0.2])))
    monitor.on_step(step_report(clips=3, gate_sums=torch.tensor([1.0, 0.0, 1.0])))
    assert monitor.means() == pytest.approx({"layer1": 0.25, "layer2": 0.3})
    assert monitor.means() == {}


def test_progress_is_logged_each_interval_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cost = StepCostMonitor(lambda length, size: length * size**2, peak_flops=1e12, started=0)
    log = ProgressLogger(2, 9, ["layer1.0"], CPU, DistContext(), cost)
    steps = [
        step_report(0, clips=10, correct=10, gate_sums=torch.ones(1)),
        step_report(1, clips=30, correct=0, gate_sums=torch.ones(1)),
        step_report(2, clips=10, correct=10, num_steps=3, gate_sums=torch.ones(1)),
    ]
    for report in steps:
        log.on_step(report)
    log.on_epoch(epoch_report(1)._replace(data_time=0.246))
    lines = [record.message.split("  ") for record in caplog.records]
    assert [line[0] for line in lines] == [
        f"epoch 1/9 {name}" for name in ("step 2/4", "step 3/3", "train", "val")
    ]
    assert lines[0][1:4] == ["loss 2.0000", "top-1 0.250", "top-5 1.000"]
    assert lines[0][4].startswith("Speed (r=")
    pattern = r"\d+\.\d ms/step  data \d\.\d%  3\.0 GB  \d\.\d\d TFLOP/s \(MFU \d+\.\d%\)"
    assert re.fullmatch(pattern, "  ".join(lines[0][5:9]))
    assert lines[0][9:] == ["batch 30x16x112x112", "lr 0.05", "gates layer1 0.05"]
    assert lines[1][2] == "top-1 1.000"
    assert lines[2][1:] == ["loss 1.5000", "top-1 0.500", "top-5 0.900", "(12.3 s, data time 2.0%)"]


def test_validation_logs_running_means_each_interval_and_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """Over the clips so far, in each epoch anew."""
    caplog.set_level(logging.INFO)
    cost = StepCostMonitor(lambda length, size: 1, peak_flops=1e12, started=0)
    log = ProgressLogger(2, 9, [], CPU, DistContext(), cost)
    for epoch in (1, 2):
        for step, correct in enumerate((10, 0, 5)):
            times = StepTimes(10, forward=0.1)
            log.on_val_step(step_report(step, 10, correct, epoch=epoch, num_steps=3, times=times))
        log.on_epoch(epoch_report(epoch))
    speed = "Speed (r=1.00e+4 f=1.00e+2) clip/sec"
    assert [record.message for record in caplog.records if "val step" in record.message] == [
        f"epoch {epoch}/9 val step {done}/3  loss 2.0000  top-1 0.500  top-5 1.000  {speed}"
        for epoch in (1, 2)
        for done in (2, 3)
    ]


def test_debug_mode_logs_the_first_steps_of_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cost = StepCostMonitor(lambda length, size: 1, peak_flops=1e12, started=0)
    log = ProgressLogger(99, 9, [], CPU, DistContext(), cost)
    for step in range(5):
        log.on_step(step_report(step, num_steps=5))
    assert [record.message.split("  ")[0] for record in caplog.records] == [
        f"epoch 1/9 step {done}/5" for done in (1, 2, 3, 5)
    ]


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_corrupt_samples_are_written_with_their_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = CorruptSampleLogger(tmp_path / "bad_samples.csv")
    log.on_step(step_report())
    assert not (tmp_path / "bad_samples.csv").exists()
    log.on_step(step_report(corrupt=[BadSample("jpg/a/b", 'not, a "database"')]))
    log.on_step(step_report(corrupt=[BadSample("jpg/a/c\udce9", "gone")]))  # a name that is not UTF-8
    assert csv_rows(tmp_path / "bad_samples.csv") == [
        {"Epoch": "1", "Video": "jpg/a/b", "Reason": 'not, a "database"'},
        {"Epoch": "1", "Video": r"jpg/a/c\udce9", "Reason": "gone"},
    ]
    assert "corrupt sample skipped: gone" in caplog.text
