"""Observers of a run: callbacks log steps and epochs and write them to files."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from humanfriendly.terminal import ansi_wrap, terminal_supports_colors
from tqdm import tqdm

from data.batch_sampler import BatchShape
from data.clip_batch import BadSample
from train.csv_log import append_row
from train.engine import StepReport
from train.metrics import Metrics, compute_metrics, zero_metric_sums
from train.parallel.distributed import DistContext
from train.parallel.step_timer import StepTimes
from train.step_cost import StepCostMonitor

logger = logging.getLogger(__name__)

DEBUG_STEPS = 3  # of an epoch, each logged by --debug-mode


class EpochReport(NamedTuple):
    """The result of an epoch.

    `lr`: of its last step. `data_time`: seconds of training spent waiting for data. `batches`: number of steps of each
    shape. `throughput` (clips/s, see `SpeedMonitor`), `step_cost` (see `StepCostMonitor`) and `gates` (by stage, see
    `GateMonitor`) cover the steps since this process started; empty if there were none. `val_corrupt`: samples that
    validation skipped. `val_predictions`: label and predicted class of each validated clip.
    """

    epoch: int
    lr: float
    train: Metrics
    val: Metrics
    train_seconds: float
    val_seconds: float
    data_time: float = 0.0
    batches: Mapping[BatchShape, int] = MappingProxyType({})
    throughput: Mapping[str, float] = MappingProxyType({})
    step_cost: Mapping[str, float] = MappingProxyType({})
    gates: Mapping[str, float] = MappingProxyType({})
    val_corrupt: Sequence[BadSample] = ()
    val_predictions: Sequence[Sequence[int]] = ()


class Callback:
    """Base class that does nothing. `close` is called at the end of the run, also after an error."""

    def on_step(self, report: StepReport) -> None: ...
    def on_val_step(self, report: StepReport) -> None: ...
    def on_epoch(self, report: EpochReport) -> None: ...
    def close(self) -> None: ...


class SpeedMonitor:
    """Throughput in clips/s of data loading (r), forward (f) and backward pass with the update (b).

    Passes count once the device has completed them, without waiting for it. If `colored`, a rate is red below the
    first limit, green from the second on, else yellow. Without a backward pass, as in validation, b is left out.
    """

    RATES = {"data": ("r", 100, 3000), "forward": ("f", 50, 300), "backward": ("b", 20, 200)}

    def __init__(self, colored: bool = False) -> None:
        self.colored = colored
        self._reset()

    def _reset(self) -> None:
        self.times, self.clips_loaded, self.data_time = StepTimes(), 0, 0.0

    def on_step(self, report: StepReport) -> None:
        self.times = StepTimes.sum((self.times, report.times))
        self.clips_loaded += report.shape.batch
        self.data_time += report.data_time

    def describe(self) -> str:
        """Return a summary of the steps since the last call."""
        rates = self.rates()
        if not self.times.backward:
            rates.pop("backward", None)
        text = " ".join(self._format(name, rate) for name, rate in rates.items())
        self._reset()
        return f"Speed ({text}) clip/sec"

    def rates(self) -> dict[str, float]:
        """Return clips/s since the last `describe`; empty without steps."""
        if not self.clips_loaded:
            return {}
        clips, forward, backward = self.times
        return {
            "data": self.clips_loaded / max(self.data_time, 1e-9),
            "forward": clips / max(forward, 1e-9),
            "backward": clips / max(backward, 1e-9),
        }

    def _format(self, name: str, rate: float) -> str:
        symbol, red, green = self.RATES[name]
        color = "red" if rate < red else "yellow" if rate < green else "green"
        text = f"{rate:.2e}".replace("e+0", "e+").replace("e-0", "e-")
        return f"{symbol}=" + (ansi_wrap(text, color=color) if self.colored else text)


def gate_stages(gate_names: Sequence[str]) -> list[str]:
    """Return the stage of each gate: layer1.0, layer1.1, layer2.0 -> layer1, layer1, layer2."""
    return [name.split(".")[0] for name in gate_names]


class GateMonitor:
    """Fraction of open gates, or mean value of soft gates, per stage of the network, over the clips of all ranks."""

    def __init__(self, gate_names: Sequence[str], device: torch.device, dist: DistContext) -> None:
        self.stages = gate_stages(gate_names)
        self.sums = torch.zeros(1 + len(gate_names), dtype=torch.float64, device=device)  # clips, gates
        self.dist = dist

    def on_step(self, report: StepReport) -> None:
        self.sums += torch.cat([report.sums[:1], report.gate_sums])

    def means(self) -> dict[str, float]:
        """Return the mean by stage since the last call; empty without steps. All ranks call it together."""
        clips, *gate_sums = self.dist.all_reduce(self.sums).tolist()
        self.sums = torch.zeros_like(self.sums)
        by_stage: dict[str, list[float]] = {}
        for stage, gate_sum in zip(self.stages, gate_sums, strict=True):
            by_stage.setdefault(stage, []).append(gate_sum / max(clips, 1))
        return {stage: sum(means) / len(means) for stage, means in by_stage.items()} if clips else {}


class ProgressLogger(Callback):
    """Logs a line every `interval` steps and two per epoch; shows a progress bar on a terminal.

    All ranks have one, as loss, accuracy and gates are those of the clips of all ranks: since the last line in
    training, since the first batch in validation.
    """

    def __init__(
        self,
        interval: int,
        end_epoch: int,
        gate_names: Sequence[str],
        device: torch.device,
        dist: DistContext,
        cost: StepCostMonitor,
    ) -> None:
        self.interval = interval
        self.end_epoch = end_epoch
        self.dist = dist
        self.cost = cost
        self.sums = zero_metric_sums(device)
        self.speed = SpeedMonitor(colored=terminal_supports_colors(sys.stderr))
        self.gates = GateMonitor(gate_names, device, dist)
        self.bar: tqdm | None = None

    def on_step(self, report: StepReport) -> None:
        self.cost.on_step(report)
        self.gates.on_step(report)
        if line := self._advance(report, "step"):
            self.sums = torch.zeros_like(self.sums)
            cost = _format_cost(self.cost.summary())
            self.cost = StepCostMonitor(self.cost.clip_flops, self.cost.peak_flops)
            if self.sums.is_cuda:
                torch.cuda.reset_peak_memory_stats(self.sums.device)
            line += f"  {cost}  batch {report.shape}  lr {report.lr:.3g}"
            if means := self.gates.means():
                line += "  gates " + " ".join(f"{stage} {mean:.2f}" for stage, mean in means.items())
            logger.info("%s", line)

    def on_val_step(self, report: StepReport) -> None:
        if report.step == 0:
            self.close()  # the bar of training
        if line := self._advance(report, "val step"):
            logger.info("%s", line)

    def _advance(self, report: StepReport, name: str) -> str | None:
        """Count a step. Return a line with the means since `sums` were reset, None if none is due."""
        if self.bar is None:
            hidden = None if logger.isEnabledFor(logging.INFO) else True  # None: only on a terminal
            self.bar = tqdm(None, name, report.num_steps, initial=report.step, leave=False, disable=hidden)
        self.bar.update()
        self.sums += report.sums
        self.speed.on_step(report)
        done = report.step + 1
        in_detail = done <= DEBUG_STEPS and logger.isEnabledFor(logging.DEBUG)
        if done % self.interval and done < report.num_steps and not in_detail:
            return None
        means = _format(compute_metrics(self.dist.all_reduce(self.sums)))  # waits for a GPU
        line = f"epoch {report.epoch}/{self.end_epoch} {name} {done}/{report.num_steps}"
        return f"{line}  {means}  {self.speed.describe()}"

    def on_epoch(self, report: EpochReport) -> None:
        self.close()
        self.sums = torch.zeros_like(self.sums)
        epoch = f"epoch {report.epoch}/{self.end_epoch}"
        time = f"{report.train_seconds:.1f} s, data time {report.data_time / report.train_seconds:.1%}"
        logger.info("%s train  %s  (%s)", epoch, _format(report.train), time)
        logger.info("%s val  %s  (%.1f s)", epoch, _format(report.val), report.val_seconds)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _format(metrics: Metrics) -> str:
    return f"loss {metrics.loss:.4f}  top-1 {metrics.top1:.3f}  top-5 {metrics.top5:.3f}"


def _format_cost(cost: Mapping[str, float]) -> str:
    text = f"{cost['ms']:.1f} ms/step  data {cost['data_fraction']:.1%}  {cost['peak_gb']:.1f} GB"
    mfu = f" (MFU {cost['mfu']:.1%})" if "mfu" in cost else ""
    return f"{text}  {cost['tflops']:.2f} TFLOP/s{mfu}"


class CorruptSampleLogger(Callback):
    """Writes `bad_samples.csv`: clips that could not be read, and why."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step(self, report: StepReport) -> None:
        self._write(report.epoch, report.corrupt, "corrupt sample skipped")

    def on_epoch(self, report: EpochReport) -> None:
        self._write(report.epoch, report.val_corrupt, "corrupt validation sample skipped")

    def _write(self, epoch: int, samples: Sequence[BadSample], message: str) -> None:
        for sample in samples:
            logger.warning("%s: %s", message, sample.reason)
            append_row(self.path, {"Epoch": epoch, "Video": sample.video, "Reason": sample.reason})
