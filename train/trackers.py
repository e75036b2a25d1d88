"""Where the results of a run are sent: CSV files, TensorBoard and Weights & Biases."""

import os
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np

from data.batch_sampler import BatchShape
from data.common.atomic_io import atomic_write
from train.callbacks import Callback, EpochReport, gate_stages
from train.csv_log import append_row
from train.metrics import Metrics
from train.options import Options

THROUGHPUT_COLUMNS = {name: f"{name.title()}ClipsPerSec" for name in ("data", "forward", "backward")}
GATES_COLUMN = "Gates "  # followed by the stage


class Tracker(Callback):
    """Receives the results of a run: of each epoch by `on_epoch`, and texts about all of it."""

    def log_text(self, name: str, title: str, text: str) -> None:
        """Take a preformatted text."""


class CSVLogger(Tracker):
    """Writes `train_results_s0001.csv` and `val_results_s0001.csv`, one row per epoch, named after the first epoch."""

    def __init__(self, folder: Path, first_epoch: int, gate_names: Sequence[str] = ()) -> None:
        self.gated_stages = list(dict.fromkeys(gate_stages(gate_names)))
        self.train_path, self.val_path = (
            folder / f"{split}_results_s{first_epoch:04d}.csv" for split in ("train", "val")
        )

    def on_epoch(self, report: EpochReport) -> None:
        row = _metrics_row(report.epoch, report.train)
        row |= {"LR": report.lr, "Seconds": round(report.train_seconds, 2)}
        for name, column in THROUGHPUT_COLUMNS.items():
            row[column] = f"{report.throughput[name]:.4g}" if report.throughput else ""
        row["Batches"] = format_batches(report.batches)
        for stage in self.gated_stages:
            row[GATES_COLUMN + stage] = f"{report.gates[stage]:.4f}" if report.gates else ""
        append_row(self.train_path, row)
        val_row = _metrics_row(report.epoch, report.val) | {"Seconds": round(report.val_seconds, 2)}
        append_row(self.val_path, val_row)


def format_batches(batches: Mapping[BatchShape, int]) -> str:
    """Return the number of steps of each shape, `12*8x16x112x112 11*16x16x80x80`."""
    return " ".join(f"{steps}*{shape}" for shape, steps in batches.items())


def _metrics_row(epoch: int, metrics: Metrics) -> dict[str, float | str]:
    return {"Epoch": epoch, "Top1": metrics.top1, "Top5": metrics.top5, "Loss": metrics.loss}


def epoch_scalars(report: EpochReport) -> dict[str, float]:
    """Return the numbers of an epoch by name: `lr`, `loss/train`, `throughput/data`, `gates/layer1`, ..."""
    scalars = {"lr": report.lr}
    for split, metrics in (("train", report.train), ("val", report.val)):
        scalars |= {f"{name}/{split}": value for name, value in metrics._asdict().items()}
    scalars |= {f"throughput/{name}": rate for name, rate in report.throughput.items()}
    scalars |= {f"step/{name}": value for name, value in report.step_cost.items()}
    return scalars | {f"gates/{stage}": mean for stage, mean in report.gates.items()}


class TensorBoardLogger(Tracker):
    """Writes the result of each epoch as TensorBoard scalars, and its batch shapes as text."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  optional

        self.writer = SummaryWriter(folder)

    def on_epoch(self, report: EpochReport) -> None:
        for tag, value in epoch_scalars(report).items():
            self.writer.add_scalar(tag, value, report.epoch)
        self.writer.add_text("batches", format_batches(report.batches), report.epoch)
        self.writer.flush()

    def log_text(self, name: str, title: str, text: str) -> None:
        self.writer.add_text(name, f"{title}\n```\n{text}```")

    def close(self) -> None:
        self.writer.close()


class WandbLogger(Tracker):
    """Sends the same to Weights & Biases, the options, and at the end the confusion matrix of the last validation.

    `wandb_id` in the output folder holds the ID of its W&B run, which a resumed run continues.
    """

    def __init__(self, folder: Path, options: Options, classes: Sequence[str]) -> None:
        import wandb  # noqa: PLC0415  optional

        assert options.dataset is not None
        self.wandb = wandb
        self.classes = classes
        self.predictions: Sequence[Sequence[int]] = ()
        id_file = folder / "wandb_id"
        if not id_file.exists():
            atomic_write(id_file, f"{uuid4().hex[:8]}\n")
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", options.dataset.resolve().name),
                name="/".join(folder.parts[-2:]),  # with the number of the fold
                id=id_file.read_text().strip(),
                resume="allow",
                dir=folder,
                config=options.to_dict(),
                settings=wandb.Settings(console="off"),  # the terminal stays ours
            )
        except wandb.Error as error:
            raise ValueError(
                f"--wandb: {str(error).rstrip('.')}; WANDB_MODE=offline needs no server"
            ) from None
        self.run.define_metric("*", step_metric="epoch")  # W&B's own steps cannot go back, a resumed run may

    def on_epoch(self, report: EpochReport) -> None:
        self.predictions = report.val_predictions
        values = {"epoch": report.epoch, "batches": format_batches(report.batches)}
        self.run.log(values | epoch_scalars(report))

    def log_text(self, name: str, title: str, text: str) -> None:
        self.run.log({name: self.wandb.Html(f"{escape(title)}<pre>{escape(text)}</pre>")})

    def close(self) -> None:
        if self.predictions:
            self._log_confusion()
        self.run.finish(exit_code=int(sys.exc_info()[0] is not None))  # W&B shows a run that failed as such

    def _log_confusion(self) -> None:
        from train.figures import plot_confusion  # noqa: PLC0415  imports matplotlib

        counts = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(counts, tuple(np.transpose(self.predictions)), 1)
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / "confusion.png"
            plot_confusion(counts, self.classes, "last validation", path)
            self.run.log({"confusion": self.wandb.Image(str(path))})
