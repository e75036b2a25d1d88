"""Time, waiting, memory and FLOP/s of steps."""

import time

import pytest
import torch

from tests.train.test_callbacks import step_report
from train.step_cost import StepCostMonitor, peak_flops


def test_cost_is_of_the_wall_time_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monitor = StepCostMonitor(lambda length, size: length * size**2, peak_flops=1e9, started=100.0)
    assert monitor.summary() == {}
    now = 200.5  # the first step began at 200, after validation
    monitor.on_step(step_report(clips=10))
    monitor.on_step(step_report(clips=30, data_time=0.499, peak_memory=5 * 10**9))
    now = 202.0  # the GPU has completed both
    flops = 40 * 3 * 16 * 112**2 / 2.0
    cost = {"ms": 1000.0, "data_fraction": 0.25, "peak_gb": 5.0, "tflops": flops / 1e12, "mfu": flops / 1e9}
    assert monitor.summary() == pytest.approx(cost)
    monitor = StepCostMonitor(monitor.clip_flops, started=202.0)
    now = 203.0
    monitor.on_step(step_report(seconds=1.5))  # partly before it was made: not counted twice
    cost = {"ms": 1000.0, "data_fraction": 0.001, "peak_gb": 3.0, "tflops": flops / 2e12}
    assert monitor.summary() == pytest.approx(cost)


@pytest.mark.parametrize(
    ("name", "fp16", "bf16"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 989),
        ("NVIDIA H100 PCIe", 756, 756),
        ("Tesla V100-SXM2-16GB", 125, None),
        ("NVIDIA L4", 121, 121),
        ("NVIDIA L40S", None, None),
        ("NVIDIA GeForce RTX 3090 Ti", 80, 80),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
    ],
)
def test_peak_flops_of_gpus(
    name: str, fp16: int | None, bf16: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7 if "V100" in name else 8, 0))
    cuda = torch.device("cuda", 0)
    peaks = [peak_flops(cuda, precision, num_gpus=2) for precision in ("fp16", "bf16", "fp32")]
    assert peaks == [fp16 and fp16 * 2e12, bf16 and bf16 * 2e12, None]
    assert peak_flops(torch.device("cpu"), "bf16", num_gpus=1) is None
