"""What `--dry-run --estimate` prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from network.flops import count_flops
from tests.synthetic_frames import painted_jpegs
from tests.train.helpers import NAME, train
from train import estimate
from train.estimate import predict
from train.options import bytes_per_second

GPU = {"cores": 8, "workers": 4, "threads": 0, "disk": 1e9}
CPU = {"cores": 4, "workers": 3, "threads": 4, "disk": 1e9}
SHAPES = "4x4x32x32, 8x4x22x22, 16x4x16x16"
# of an epoch's twelve clips, four have the base shape and eight the next one
FLOPS = 3 * (4 * count_flops(NAME, 3, 4, 32) + 8 * count_flops(NAME, 3, 4, 22))


@pytest.mark.parametrize(
    ("machine", "reading", "computing", "size", "seconds", "bound", "workers"),
    [
        (GPU, 40, 20, 0, 20, "computing", 2),
        (GPU, 400, 20, 0, 100, "reading", 20),
        (GPU | {"workers": 16}, 400, 20, 0, 50, "reading", 20),  # there are 8 cores
        (GPU, 40, 20, 30e9, 30, "disk", 2),
        (CPU, 40, 20, 0, 30, "computing", 2),  # 120 CPU seconds on 4 cores
        (CPU, 400, 20, 0, 400 / 3, "reading", 20),
        (CPU | {"workers": 0}, 40, 20, 0, 60, "reading", 2),  # one after the other
        (CPU | {"threads": 1}, 40, 20, 0, 20, "computing", 2),
    ],
)
def test_the_slowest_part_counts_and_a_cpu_is_shared(
    machine: dict[str, Any],
    reading: float,
    computing: float,
    size: float,
    seconds: float,
    bound: str,
    workers: int,
) -> None:
    row = predict(reading, computing, size, **machine)
    assert row["total_seconds"] == pytest.approx(seconds)
    assert (row["bound_by"], row["workers_needed"]) == (bound, workers)
    assert row["disk_mb_per_second"] == pytest.approx(size / seconds / 1e6)


def estimated(
    capsys: pytest.CaptureFixture[str], dataset: Path, results: Path, *flags: str
) -> list[dict[str, Any]]:
    """Return the phases of the estimate of a run of six epochs with short cycles and precise BatchNorm."""
    run = "--dry-run --estimate --short-cycles --end-epoch 6 --lr-steps 4"
    assert train(dataset, results, run, *flags) == 0
    assert list(results.iterdir()) == []
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["hours"] == pytest.approx(sum(row["total_seconds"] for row in found["phases"]) / 3600)
    assert [(row["epochs"], row["batches"]) for row in found["phases"]] == [
        ("1-4", SHAPES),
        ("5-6", SHAPES),
        ("1-6", "validation, precise BatchNorm"),
    ]
    return found["phases"]


def test_steps_are_timed_and_logged(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    phases = estimated(capsys, stores, tmp_path)
    assert all(min(row["computing_seconds"], row["reading_seconds"]) > 0 for row in phases)
    lines = [record.getMessage() for record in caplog.records[-5:]]
    assert [line.split()[0] for line in lines] == ["epochs", "1-4", "5-6", "1-6", "the"]
    ends = [lines[0].index(heading) + len(heading) for heading in ("reading s", "bound by", "total s")]
    assert all(line[end - 1] != " " and line[end] == " " for line in lines[1:-1] for end in ends)
    assert "scaled by FLOPs" not in caplog.text


def test_shapes_without_time_are_scaled_by_flops(
    stores: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(estimate, "SECONDS", 0)
    _, second, validation = estimated(capsys, stores, tmp_path)
    assert "4x4x32x32: a step takes too long, scaled by FLOPs from the shape before" in caplog.text
    # six validation clips, four for precise BatchNorm
    per_flop = validation["computing_seconds"] / (6 * 10 * count_flops(NAME, 3, 4, 32))
    assert second["computing_seconds"] == pytest.approx(2 * FLOPS * per_flop)


def test_bytes_per_second() -> None:
    rates = [bytes_per_second(text) for text in ("2GB/s", "0.5MB/s", "3kB/s", "2e9", "7")]
    assert rates == [2e9, 5e5, 3e3, 2e9, 7]


def test_another_machine_can_be_assumed(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--assume-tflops 2 --assume-cores 64 --assume-disk 1kB/s"
    phases = estimated(capsys, stores, tmp_path, flags)
    assert phases[1]["computing_seconds"] == pytest.approx(2 * FLOPS / 2e12)
    for row in phases:
        assert (row["bound_by"], row["disk_mb_per_second"]) == ("disk", pytest.approx(0.001))
    bytes_per_frame = phases[1]["total_seconds"] * 1000 / (2 * 12 * 4)  # two epochs, four frames a clip
    sizes = [len(jpeg) for label in range(3) for jpeg in painted_jpegs(8, label)]
    assert min(sizes) <= bytes_per_frame <= max(sizes)
