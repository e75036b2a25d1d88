"""python -m train.plot RESULTS_DIR... [-o curves.png] [--schedule schedule.png]

What happened in one or more runs, over their epochs, as a picture (PNG, SVG or PDF, by its ending): loss, top-1, top-5,
learning rate, clips a second, open gates and batch shapes; and each run's best epoch as text. `--schedule` draws what
the cycles of one run have planned, from the moment it started.
"""

import csv
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from data.batch_sampler import BatchShape
from data.common.cli import OneLineParser, sanitize
from train.builders import make_learning_rate, make_schedule
from train.callbacks import GATES_COLUMN, SPEED_COLUMNS
from train.csv_log import TABLES
from train.dry_run import flops_of
from train.figures import Curve, History, Progress, plot_curves, plot_schedule
from train.lr_schedule import LRSchedule
from train.multigrid import Schedule
from train.options import Options

Row = dict[str, str]
SCORES = ("Top1", "Top5", "Loss")


def read_rows(folder: Path, split: str) -> list[Row]:
    """All rows of `<split>_results_s*.csv` of a run, by epoch; their `Epoch`, `Top1`, `Top5` and `Loss` are numbers.

    FileNotFoundError where there is no such file, ValueError for a bad row and where there is none.
    """
    paths = sorted(folder.glob(f"{split}_{TABLES}"))
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no {split}_results_s*.csv")
    rows = []
    for path in paths:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            try:
                for row in csv.DictReader(file, strict=True):
                    rows.append((int(row["Epoch"]), row))
                    [float(row[name]) for name in SCORES]
                    [float(row.get(name) or "nan") for name in ("LRSchedule", *SPEED_COLUMNS)]
            except csv.Error as error:
                raise ValueError(f"{path}: is no CSV, {error}") from error
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{path}: {sanitize(row)} is not a row Epoch,Top1,Top5,Loss") from None
    if not rows:
        raise ValueError(f"{paths[-1]}: no epoch has ended yet")
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def curve_of(rows: Sequence[Row]) -> Curve:
    return Curve([int(row["Epoch"]) for row in rows], *(_column(rows, name) for name in SCORES))


def progress_of(rows: Sequence[Row]) -> Progress:
    gates = dict.fromkeys(name for row in rows for name in row if name and name.startswith(GATES_COLUMN))
    return Progress(
        epochs=[int(row["Epoch"]) for row in rows],
        learning_rate=_column(rows, "LRSchedule"),
        speeds={name.lower(): _column(rows, name) for name in SPEED_COLUMNS},
        gates={name.removeprefix(GATES_COLUMN): _column(rows, name) for name in gates},
        batches=[read_batches(row.get("Batches") or "") for row in rows],
    )


def _column(rows: Sequence[Row], name: str) -> list[float]:
    """NaN where a row has no such value, as those of older runs."""
    return [float(row.get(name) or "nan") for row in rows]


def read_batches(text: str) -> dict[BatchShape, int]:
    """`12*8x16x112x112 11*16x16x80x80` -> the steps of each shape."""
    batches = {}
    for steps, batch, length, size in re.findall(r"(\d+)\*(\d+)x(\d+)x(\d+)x\d+", text):
        batches[BatchShape(int(batch), int(length), int(size))] = int(steps)
    return batches


def read_history(folder: Path) -> History:
    train, val = read_rows(folder, "train"), read_rows(folder, "val")
    return History(curve_of(train), curve_of(val), progress_of(train))


def read_schedule(folder: Path) -> tuple[Schedule, LRSchedule]:
    """What a run has planned, from its `run.json`. FileNotFoundError, or ValueError for one that is damaged."""
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        options = Options.of(content["options"])
        clips, classes = content["dataset"]["train"]["videos"], content["dataset"]["classes"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is not what a run wrote, {error}") from None
    return make_schedule(options, clips, flops_of(options, classes)), make_learning_rate(options)


def best_epoch(val: Curve) -> int:
    """The place of the highest top-1, the first of several; NaN, where no video could be read, is the lowest."""
    scores = [-1.0 if math.isnan(score) else score for score in val.top1]
    return scores.index(max(scores))


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m train.plot", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RESULTS_DIR", help="folder with the results of a run"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"), help="(default: curves.png)")
    parser.add_argument("--schedule", type=Path, metavar="PICTURE", help="also draw the plan of the run")
    arguments = parser.parse_args(argv)
    if arguments.schedule and len(arguments.runs) > 1:
        parser.error(f"--schedule: draws the plan of one run, {len(arguments.runs)} were given")
    try:
        names = [path.resolve().name for path in arguments.runs]
        labels = [
            name if names.count(name) == 1 else str(path)
            for name, path in zip(names, arguments.runs, strict=True)
        ]
        if arguments.schedule:
            plot_schedule(*read_schedule(arguments.runs[0]), arguments.schedule)
            print(f"schedule: {arguments.schedule}")
            if not any(arguments.runs[0].glob("*_results_s*.csv")):
                print(f"{arguments.runs[0]}: no epoch has ended yet, so there are no curves")
                return 0
        histories = [read_history(path) for path in arguments.runs]
        plot_curves(dict(zip(labels, histories, strict=True)), arguments.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for path, history in zip(arguments.runs, histories, strict=True):
        val, best = history.val, best_epoch(history.val)
        print(
            f"{path}: best val top-1 {val.top1[best]:.3f}, top-5 {val.top5[best]:.3f} (epoch {val.epochs[best]})"
        )
        for result in sorted([*path.glob("val_results_s*.csv"), *path.glob("*_best.pth")]):
            print(f"  {result}")
    print(f"picture: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
