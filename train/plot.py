"""python -m train.plot RESULTS_DIR... [-o curves.png] [--schedule schedule.png]

Plot loss, top-1, top-5, learning rate, throughput, gate values and batch shapes of one or more runs over their epochs
(PNG, SVG or PDF, by suffix), and print the best epoch of each run. `--schedule` plots the planned batch shapes and
learning rate of one run, also before its first epoch has ended.
"""

import json  # PYTHON_ARGCOMPLETE_OK
import sys
from collections.abc import Sequence
from pathlib import Path

from data.common.cli import OneLineParser
from train.builders import make_lr_schedule, make_schedule
from train.csv_log import RESULTS, read_rows
from train.dry_run import make_clip_flops
from train.figures import plot_curves, plot_schedule
from train.history import best_row, read_history
from train.lr_schedule import LRSchedule
from train.multigrid import MultigridSchedule
from train.options import Options


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
