"""What a run writes while it goes on: a row an epoch, TensorBoard's scalars, clips that could not be read."""

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.batching import BatchShape
from data.files import append_whole, write_whole
from train.callbacks import Callback, EpochReport, stages_of
from train.loop import StepReport, describe
from train.metrics import Averages

logger = logging.getLogger(__name__)


class Table:
    """A CSV file that grows by whole rows. Those that could not be written wait for the next `write`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = ""

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.header = _csv_line(rows[0].keys())
        self.waiting += "".join(_csv_line(row.values()) for row in rows)

    def write(self) -> None:
        if self.waiting:
            append_whole(self.path, self.header, self.waiting)
            self.waiting = ""


def _csv_line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


class ResultsTable(Callback):
    """`train_results_s0001.csv` and `val_results_s0001.csv`: a row an epoch, flushed; s is the first epoch.

    Training's also has the speeds (clips a second), `Batches` (`12*8x16x112x112`: so many steps of that shape, and so
    on), and a column for each stage with gates.
    """

    def __init__(self, folder: Path, first_epoch: int, gate_names: Sequence[str] = ()) -> None:
        self.gated_stages = list(dict.fromkeys(stages_of(gate_names)))
        names = [f"{name}_results_s{first_epoch:04d}.csv" for name in ("train", "val")]
        self.train, self.val = (Table(folder / name) for name in names)

    def on_epoch(self, report: EpochReport) -> None:
        extra = {"LearningRate": report.learning_rate, "Seconds": round(report.train_seconds, 2)}
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
    return " ".join(f"{steps}*{describe(shape)}" for shape, steps in batches.items())


def _row(epoch: int, result: Averages) -> dict[str, float]:
    return {"Epoch": epoch, "Top1": result.top1, "Top5": result.top5, "Loss": result.loss}


def cut_results(folder: Path, first_epoch: int) -> None:
    """Drop the rows from `first_epoch` on of all runs before, so that no epoch stands twice; atomic for each file."""
    for path in folder.glob("*_results_s*.csv"):
        with path.open(newline="") as file:
            header, *rows = file.read().splitlines(keepends=True) or [""]
        kept = [row for row in rows if row.endswith("\n") and _epoch_of(row, path) < first_epoch]
        if not header.endswith("\n"):  # a kill left half of it
            path.unlink()
        elif len(kept) < len(rows):
            write_whole(path, "".join([header, *kept]))


def _epoch_of(row: str, path: Path) -> int:
    epoch = row.split(",", maxsplit=1)[0]
    if not epoch.isdecimal():
        raise ValueError(f"{path}: {row.strip()[:80]!r} does not begin with the number of an epoch")
    return int(epoch)


class TensorBoardLog(Callback):
    """What an epoch came to, for TensorBoard: scalars, and as text the shapes of its batches."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  an optional package
        except ImportError:
            raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard") from None
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


class BadSampleLog(Callback):
    """`bad_samples.csv`: the clips that could not be read and why, where there are any."""

    def __init__(self, path: Path) -> None:
        self.table = Table(path)

    def on_step(self, report: StepReport) -> None:
        for sample in report.bad:
            logger.warning("unreadable clip, replaced: %s", sample.reason)
        if report.bad:
            rows = [{"Epoch": report.epoch, "Video": video, "Reason": reason} for video, reason in report.bad]
            self.table.add(rows)
            self.table.write()

    def on_save(self) -> None:
        self.table.write()
