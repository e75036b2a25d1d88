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


@pytest.mark.parametrize(
    ("machine", "reading", "computing", "size", "seconds", "bound", "workers"),
    [
        (GPU, 40, 20, 0, 20, "computing", 2),
        (GPU, 400, 20, 0, 100, "reading", 20),
        (GPU | {"workers": 16}, 400, 20, 0, 50, "reading", 20),  # there are 8 cores
        (GPU, 40, 20, 30e9, 30, "disk", 2),
        (CPU, 40, 20, 0, 30, "computing", 2),  # 120 CPU seconds on 4 cores
        (CPU, 400, 20, 0, 400 / 3, "reading", 4),
        (CPU | {"workers": 0}, 40, 20, 0, 60, "reading", 1),  # one after the other
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
    assert row["hours"] * 3600 == pytest.approx(seconds)
    assert (row["bound_by"], row["balancing_workers"]) == (bound, workers)
    assert row["disk_bytes_per_second"] == pytest.approx(size / seconds)


def estimated(
    capsys: pytest.CaptureFixture[str], dataset: Path, results: Path, *flags: str
) -> dict[str, dict[str, Any]]:
    """Return the estimate of a run of six epochs with short cycles and precise BatchNorm, its phases by name."""
    run = "--dry-run --estimate --short-cycles --end-epoch 6 --lr-steps 4"
    assert train(dataset, results, run, *flags) == 0
    assert list(results.iterdir()) == []
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in found["phases"]))
    assert [row["epochs"] for row in found["phases"]] == [[1, 4], [5, 6], [1, 6], [1, 6]]
    return dict(zip(("first", "second", "batchnorm", "val"), found["phases"], strict=True))


def test_steps_are_timed_and_logged(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    phases = estimated(capsys, stores, tmp_path)
    shapes = "4x4x32x32, 8x4x22x22, 16x4x16x16"
    names = [shapes, shapes, "precise BatchNorm", "validation"]
    assert [row["batches"] for row in phases.values()] == names
    assert not any(row["scaled_by_flops"] for row in phases.values())
    assert all(min(row["computing_seconds"], row["reading_seconds"]) > 0 for row in phases.values())
    assert [record.getMessage().split()[-1] for record in caplog.records[-6:-1]] == ["batches", *(
        name.split()[-1] for name in names
    )]  # fmt: skip


def test_shapes_without_time_are_scaled_by_flops(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "SECONDS", 0)
    phases = estimated(capsys, stores, tmp_path)
    scaled = {name: row["scaled_by_flops"] for name, row in phases.items()}
    assert scaled == {"first": True, "second": True, "batchnorm": False, "val": False}
    # twelve videos, of which an epoch has four at the base shape and eight at the next one
    flops = 3 * (4 * count_flops(NAME, 3, 4, 32) + 8 * count_flops(NAME, 3, 4, 22))
    per_flop = phases["val"]["computing_seconds"] / (6 * 6 * count_flops(NAME, 3, 4, 32))
    assert phases["second"]["computing_seconds"] == pytest.approx(2 * flops * per_flop)


def test_bytes_per_second() -> None:
    rates = [bytes_per_second(text) for text in ("2GB/s", "0.5MB/s", "3kB/s", "2e9", "7")]
    assert rates == [2e9, 5e5, 3e3, 2e9, 7]


def test_another_machine_can_be_assumed(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--assume-tflops 2 --assume-cores 64 --assume-disk 1kB/s"
    phases = estimated(capsys, stores, tmp_path, flags)
    flops = 3 * (4 * count_flops(NAME, 3, 4, 32) + 8 * count_flops(NAME, 3, 4, 22))
    assert phases["second"]["computing_seconds"] == pytest.approx(2 * flops / 2e12)
    for row in phases.values():
        assert (row["bound_by"], row["disk_bytes_per_second"]) == ("disk", pytest.approx(1000))
    bytes_per_frame = (
        phases["val"]["hours"] * 3600 * 1000 / (6 * 6 * 4)
    )  # six videos, six epochs, four frames
    sizes = [len(jpeg) for label in range(3) for jpeg in painted_jpegs(8, label)]
    assert min(sizes) <= bytes_per_frame <= max(sizes)
