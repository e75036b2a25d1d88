"""What watches a run: monitors that describe an interval of steps, and callbacks that write each epoch down."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from humanfriendly.terminal import ansi_wrap
from tqdm import tqdm

from data.batch_sampler import BatchShape
from data.video_iterator import BadSample
from train.csv_log import Table
from train.engine import StepReport
from train.metrics import Averages, averages, zero_metric_sums
from train.parallel.distributed import DistContext
from train.parallel.step_timer import Times

logger = logging.getLogger(__name__)


class EpochReport(NamedTuple):
    """What an epoch came to. `learning_rate` is that of its last step, `seconds` those of training and validation.

    `waited_seconds` of training the loop waited for clips. `batches`: how many steps there were of each shape.
    `speeds` are `SpeedMonitor`'s and `gates` `GateMonitor`'s, of the steps that this process did; empty where they had
    been done before. `unread`: what validation had to leave out.
    """

    epoch: int
    learning_rate: float
    train: Averages
    val: Averages
    train_seconds: float
    val_seconds: float
    waited_seconds: float = 0.0
    batches: Mapping[BatchShape, int] = MappingProxyType({})
    speeds: Mapping[str, float] = MappingProxyType({})
    gates: Mapping[str, float] = MappingProxyType({})
    unread: Sequence[BadSample] = ()


class Callback:
    """Sees every step and epoch; does nothing with them."""

    def on_step(self, report: StepReport) -> None:
        """After a step."""

    def on_epoch(self, report: EpochReport) -> None:
        """After an epoch's validation."""

    def on_save(self) -> None:
        """Before a checkpoint: what belongs to the time before it has to be on the disk."""

    def close(self) -> None:
        """At the end of the run, however it ends."""


class Monitor:
    """Gathers over an interval of steps; `describe` says what it saw, and starts anew. May wait for the device.

    All processes describe at the same steps, over all their clips.
    """

    def on_step(self, report: StepReport) -> None:
        raise NotImplementedError

    def describe(self) -> str:
        raise NotImplementedError


class AccuracyMonitor(Monitor):
    """Loss, top-1 and top-5, over clips."""

    def __init__(self, device: torch.device, dist: DistContext) -> None:
        self.sums = zero_metric_sums(device)
        self.dist = dist

    def on_step(self, report: StepReport) -> None:
        self.sums += report.sums

    def describe(self) -> str:
        result = averages(self.dist.sum(self.sums))
        self.sums = torch.zeros_like(self.sums)
        return f"loss {result.loss:.4f}  top-1 {result.top1:.3f}  top-5 {result.top5:.3f}"


class SpeedMonitor(Monitor):
    """Clips a second of reading (the loop's waiting for them), forward and backward passes (with the update).

    Passes are those that the device has done, each over its own clips; nothing waits for the others.
    In color, red below the first limit, green from the second on, yellow between:
    reading 100, 3000; forward 50, 300; backward 20, 200.
    """

    LIMITS = {"r": (100, 3000), "f": (50, 300), "b": (20, 200)}

    def __init__(self, colored: bool = False) -> None:
        self.colored = colored
        self._start_again()

    def _start_again(self) -> None:
        self.times, self.clips_read, self.waited = Times(), 0, 0.0

    def on_step(self, report: StepReport) -> None:
        self.times = Times.sum((self.times, report.times))
        self.clips_read += report.shape.batch
        self.waited += report.waited

    def describe(self) -> str:
        rates = " ".join(f"{name}={self._paint(name, rate)}" for name, rate in self.rates().items())
        self._start_again()
        return f"Speed ({rates}) clip/sec"

    def rates(self) -> dict[str, float]:
        """Clips a second since the last `describe`; empty where there was no step."""
        if not self.clips_read:
            return {}
        clips, forward, backward = self.times
        done = {"r": (self.clips_read, self.waited), "f": (clips, forward), "b": (clips, backward)}
        return {name: clips / max(seconds, 1e-9) for name, (clips, seconds) in done.items()}

    def _paint(self, name: str, rate: float) -> str:
        red, green = self.LIMITS[name]
        color = "red" if rate < red else "yellow" if rate < green else "green"
        return ansi_wrap(f"{rate:.2e}", color=color) if self.colored else f"{rate:.2e}"


class ShapeMonitor(Monitor):
    """Batch shape and learning rate of the last step, which multigrid changes."""

    def on_step(self, report: StepReport) -> None:
        self.shape, self.learning_rate = report.shape, report.learning_rate

    def describe(self) -> str:
        return f"batch {self.shape}  lr {self.learning_rate:.3g}"


def stages_of(gate_names: Sequence[str]) -> list[str]:
    """layer1.0, layer1.1, layer2.0 -> layer1, layer1, layer2."""
    return [name.split(".")[0] for name in gate_names]


class GateMonitor(Monitor):
    """The share of open gates, or their mean opening if they are soft, for each stage of the network."""

    def __init__(self, gate_names: Sequence[str], device: torch.device, dist: DistContext) -> None:
        self.stages = stages_of(gate_names)
        self.sums = torch.zeros(1 + len(gate_names), dtype=torch.float64, device=device)  # clips, openings
        self.dist = dist

    def on_step(self, report: StepReport) -> None:
        self.sums += torch.cat([report.sums[:1], report.openings])

    def describe(self) -> str:
        return "gates " + " ".join(f"{stage} {mean:.2f}" for stage, mean in self.means().items())

    def means(self) -> dict[str, float]:
        """By stage, since the last call; empty where there was no step."""
        clips, *openings = self.dist.sum(self.sums).tolist()
        self.sums = torch.zeros_like(self.sums)
        by_stage: dict[str, list[float]] = {}
        for stage, opening in zip(self.stages, openings, strict=True):
            by_stage.setdefault(stage, []).append(opening / max(clips, 1))
        return {stage: sum(v) / len(v) for stage, v in by_stage.items()} if clips else {}


class ProgressLogger(Callback):
    """A line each `interval` steps and at an epoch's end; a bar on a terminal."""

    def __init__(self, monitors: Sequence[Monitor], interval: int, end_epoch: int) -> None:
        self.monitors = monitors
        self.interval = interval
        self.end_epoch = end_epoch
        self.bar: tqdm | None = None

    def on_step(self, report: StepReport) -> None:
        if self.bar is None:
            # disable=None: no bar where standard error is not a terminal
            hidden = None if logger.isEnabledFor(logging.INFO) else True
            self.bar = tqdm(
                total=report.n_steps, initial=report.step, unit="step", leave=False, disable=hidden
            )
        self.bar.update()
        for monitor in self.monitors:
            monitor.on_step(report)
        done = report.step + 1
        if done % self.interval == 0 or done == report.n_steps:
            parts = "  ".join(monitor.describe() for monitor in self.monitors)
            logger.info(
                "epoch %d/%d step %d/%d  %s", report.epoch, self.end_epoch, done, report.n_steps, parts
            )

    def on_epoch(self, report: EpochReport) -> None:
        self.close()
        waiting = f", {report.waited_seconds / report.train_seconds:.1%} of it waiting for clips"
        for name, result, seconds, remark in (
            ("train", report.train, report.train_seconds, waiting),
            ("val", report.val, report.val_seconds, ""),
        ):
            logger.info(
                "epoch %d/%d %s  loss %.4f  top-1 %.3f  top-5 %.3f  (%.1f s%s)",
                *(report.epoch, self.end_epoch, name, result.loss, result.top1, result.top5, seconds, remark),
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class CSVLogger(Callback):
    """`train_results_s0001.csv` and `val_results_s0001.csv`: a row an epoch, flushed; s is the first epoch.

    Training's also has the speeds (clips a second), `Batches` (`12*8x16x112x112`: so many steps of that shape, and so
    on), and a column for each stage with gates.
    """

    def __init__(self, folder: Path, first_epoch: int, gate_names: Sequence[str] = ()) -> None:
        self.gated_stages = list(dict.fromkeys(stages_of(gate_names)))
        names = [f"{name}_results_s{first_epoch:04d}.csv" for name in ("train", "val")]
        self.train, self.val = (Table(folder / name) for name in names)

    def on_epoch(self, report: EpochReport) -> None:
        extra = {"LRSchedule": report.learning_rate, "Seconds": round(report.train_seconds, 2)}
        for column, name in SPEED_COLUMNS.items():
            extra[column] = f"{report.speeds[name]:.4g}" if report.speeds else ""
        extra["Batches"] = describe_batches(report.batches)
        for stage in self.gated_stages:
            extra[GATES_COLUMN + stage] = f"{report.gates[stage]:.4f}" if report.gates else ""
        self.train.add([_row(report.epoch, report.train) | extra])
        self.val.add([_row(report.epoch, report.val) | {"Seconds": round(report.val_seconds, 2)}])
        self.on_save()

    def on_save(self) -> None:
        self.train.write()
        self.val.write()


SPEED_COLUMNS = {"Reading": "r", "Forward": "f", "Backward": "b"}
GATES_COLUMN = "Gates "  # and the stage


def describe_batches(batches: Mapping[BatchShape, int]) -> str:
    """`12*8x16x112x112 11*16x16x80x80`: steps of each shape."""
    return " ".join(f"{steps}*{shape}" for shape, steps in batches.items())


def _row(epoch: int, result: Averages) -> dict[str, float]:
    return {"Epoch": epoch, "Top1": result.top1, "Top5": result.top5, "Loss": result.loss}


class TensorBoardLogger(Callback):
    """What an epoch came to, for TensorBoard: scalars, and as text the shapes of its batches."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  an optional package

        self.writer = SummaryWriter(folder)

    def on_epoch(self, report: EpochReport) -> None:
        for split, result in (("train", report.train), ("val", report.val)):
            for name, value in result._asdict().items():
                self.writer.add_scalar(f"{name}/{split}", value, report.epoch)
        self.writer.add_scalar("learning_rate", report.learning_rate, report.epoch)
        for column, name in SPEED_COLUMNS.items():
            if report.speeds:
                self.writer.add_scalar(f"clips_a_second/{column.lower()}", report.speeds[name], report.epoch)
        for stage, opening in report.gates.items():
            self.writer.add_scalar(f"gates/{stage}", opening, report.epoch)
        self.writer.add_text("batches", describe_batches(report.batches), report.epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class CorruptSampleLogger(Callback):
    """`bad_samples.csv`: the clips that could not be read and why, where there are any."""

    def __init__(self, path: Path) -> None:
        self.table = Table(path)

    def on_step(self, report: StepReport) -> None:
        self._write(report.epoch, report.bad, "unreadable clip, replaced")

    def on_epoch(self, report: EpochReport) -> None:
        self._write(report.epoch, report.unread, "left out of validation")

    def _write(self, epoch: int, samples: Sequence[BadSample], said: str) -> None:
        for sample in samples:
            logger.warning("%s: %s", said, sample.reason)
        if samples:
            self.table.add([{"Epoch": epoch, "Video": video, "Reason": reason} for video, reason in samples])
            self.table.write()

    def on_save(self) -> None:
        self.table.write()
