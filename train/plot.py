"""python -m train.plot RESULTS_DIR... [-o curves.png] [--schedule schedule.png]

Plot loss, top-1, top-5, learning rate, throughput, gate values and batch shapes of one or more runs over their epochs
(PNG, SVG or PDF, by suffix), and print the best epoch of each run. `--schedule` plots the planned batch shapes and
learning rate of one run, also before its first epoch has ended.
"""

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from data.batch_sampler import BatchShape
from data.common.cli import OneLineParser
from train.builders import make_lr_schedule, make_schedule
from train.callbacks import GATES_COLUMN, THROUGHPUT_COLUMNS
from train.csv_log import RESULTS, Row, read_rows
from train.dry_run import make_clip_flops
from train.figures import History, Line, Panel, plot_curves, plot_schedule
from train.lr_schedule import LRSchedule
from train.multigrid import MultigridSchedule
from train.options import Options

METRIC_TITLES = {"Loss": "loss", "Top1": "top-1", "Top5": "top-5"}


def parse_batches(text: str) -> dict[BatchShape, int]:
    """Return the number of steps of each shape, given `12*8x16x112x112 11*16x16x80x80`."""
    return {
        BatchShape(int(batch), int(length), int(size)): int(steps)
        for steps, batch, length, size in re.findall(r"(\d+)\*(\d+)x(\d+)x(\d+)x\d+", text)
    }


def read_history(folder: Path) -> History:
    """Return the curves of a run, given its results folder."""
    train, val = (read_rows(folder, split) for split in ("train", "val"))
    if not train or not val:
        raise FileNotFoundError(f"{folder}: no rows in {'val' if train else 'train'}_results_s*.csv")
    panels = {
        title: Panel({"validation": _line(val, column), "training": _line(train, column)}, column == "Loss")
        for column, title in METRIC_TITLES.items()
    }
    panels["learning rate"] = Panel({"": _line(train, "LR")}, log=True)
    throughput = {name: _line(train, column) for name, column in THROUGHPUT_COLUMNS.items()}
    panels["throughput (clips/s)"] = Panel(throughput, log=True)
    stages = [name.removeprefix(GATES_COLUMN) for name in train[-1] if name.startswith(GATES_COLUMN)]
    if stages:
        gates = {stage: _line(train, GATES_COLUMN + stage) for stage in stages}
        panels["gate values"] = Panel(gates, log=False)
    return History(panels, {row["Epoch"]: parse_batches(row["Batches"]) for row in train})


def _line(rows: Sequence[Row], column: str) -> Line:
    return [row["Epoch"] for row in rows], [row.get(column, math.nan) for row in rows]


def read_schedule(folder: Path) -> tuple[MultigridSchedule, LRSchedule]:
    """Return the schedules of a run from its `run.json`. Raise FileNotFoundError, or ValueError for an invalid file."""
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text("utf-8"))
        options = Options.from_dict(run["options"])
        num_clips, num_classes = run["dataset"]["train"]["videos"], run["dataset"]["classes"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the run.json of a training run: {error!r}") from None
    return make_schedule(options, num_clips, make_clip_flops(options, num_classes)), make_lr_schedule(options)


def best_row(val: Sequence[Row]) -> Row:
    """Return the first row with the highest top-1; NaN, for an epoch without readable videos, is the lowest."""
    return max(val, key=lambda row: -1.0 if math.isnan(row["Top1"]) else row["Top1"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m train.plot", description=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RESULTS_DIR", help="results folder of a run")
    text = "figure to write (default: curves.png)"
    add("-o", "--output", type=Path, default=Path("curves.png"), metavar="FILE", help=text)
    add("--schedule", type=Path, metavar="FILE", help="also plot the schedule of the run")
    arguments = parser.parse_args(argv)
    runs: list[Path] = arguments.runs
    if arguments.schedule and len(runs) > 1:
        parser.error(f"--schedule: needs a single run, not {len(runs)}")
    with parser.one_line_errors():
        if arguments.schedule:
            plot_schedule(*read_schedule(runs[0]), arguments.schedule)
            print(f"schedule: {arguments.schedule}")
            if not any(runs[0].glob(f"*_{RESULTS}")):
                print(f"{runs[0]}: no epoch has ended yet, no curves to plot")
                return 0
        plot_curves({str(path): read_history(path) for path in runs}, arguments.output)
        for path in runs:
            best = best_row(read_rows(path, "val"))
            scores = f"top-1 {best['Top1']:.3f}, top-5 {best['Top5']:.3f}"
            print(f"{path}: best val {scores} (epoch {best['Epoch']})")
            for result in sorted([*path.glob(f"val_{RESULTS}"), *path.glob("*_best.pth")]):
                print(f"  {result}")
        print(f"figure: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
