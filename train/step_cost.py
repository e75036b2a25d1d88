"""What training steps cost: time, waiting for data, memory and FLOP/s."""

import time
from dataclasses import dataclass, field

import torch

from train.dry_run import ClipFlops
from train.engine import StepReport

PEAK_TFLOPS = {  # dense, fp16 or bf16 added up in fp32; by words of a GPU's name, special models first
    "H200 NVL": 835, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "A100": 312, "V100 PCIE": 112,
    "V100": 125, "L4": 121, "A10": 125, "T4": 65, "4090": 165, "3090 Ti": 80, "3090": 71,
}  # fmt: skip


def peak_flops(device: torch.device, precision: str, num_gpus: int) -> float | None:
    """Return the FLOP/s of matrix products in half precision on such GPUs, by their data sheet; None if not known."""
    if device.type != "cuda" or precision == "fp32":
        return None
    words = set(torch.cuda.get_device_name(device).replace("-", " ").split())
    emulated = precision == "bf16" and torch.cuda.get_device_capability(device) < (8, 0)
    if emulated or words & {"MIG", "Laptop"}:  # a part of the GPU that the name says, or a slower one
        return None
    peaks = [peak for model, peak in PEAK_TFLOPS.items() if words.issuperset(model.split())]
    return peaks[0] * 1e12 * num_gpus if peaks else None


@dataclass
class StepCostMonitor:
    """Cost of the steps since it was made. FLOP/s are those of all GPUs, whose peak is `peak_flops`, if known."""

    clip_flops: ClipFlops
    peak_flops: float | None = None
    started: float = field(default_factory=time.perf_counter)
    steps: int = 0
    flops: int = 0
    peak_memory: int = 0
    data_time: float = 0.0

    def on_step(self, report: StepReport) -> None:
        if not self.steps:  # of an epoch: what came before, such as validation, does not count
            self.started = max(self.started, time.perf_counter() - report.seconds)
        self.steps += 1
        # the backward pass as two forward passes
        self.flops += 3 * report.shape.batch * self.clip_flops(report.shape.length, report.shape.size)
        self.peak_memory = max(self.peak_memory, report.peak_memory)
        self.data_time += report.data_time

    def summary(self) -> dict[str, float]:
        """Return "ms" of a step, "data_fraction" of that time, "peak_gb", "tflops" (10^12 FLOP/s) and, if the peak is
        known, "mfu", the ratio to it (model FLOPs utilization). A GPU has completed the steps; empty without steps.
        """
        if not self.steps:
            return {}
        seconds = time.perf_counter() - self.started
        summary = {"ms": 1000 * seconds / self.steps, "data_fraction": self.data_time / seconds}
        summary |= {"peak_gb": self.peak_memory / 1e9, "tflops": self.flops / seconds / 1e12}
        return summary | ({"mfu": self.flops / seconds / self.peak_flops} if self.peak_flops else {})
