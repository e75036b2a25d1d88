"""Pictures of runs: curves over epochs, the schedule of cycles, what is taken for what. The only file that imports
matplotlib.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.batch_sampler import BatchShape
from train.lr_schedule import LRSchedule
from train.multigrid import Schedule

LINES = ("-", "--", ":", "-.")
DPI = 110
COLUMNS = 3  # of panels
NAMED_CLASSES = 110  # of a matrix, at most: more would not be legible
NUMBERED_CLASSES = 30


class Curve(NamedTuple):
    """One split of one run, an entry an epoch, in order."""

    epochs: list[int]
    top1: list[float]
    top5: list[float]
    loss: list[float]


class Progress(NamedTuple):
    """What training alone has, an entry an epoch, NaN where a run did not write it.

    `speeds` (clips a second) and `gates` (share that is open) by name; `batches`: steps of each shape.
    """

    epochs: list[int]
    learning_rate: list[float]
    speeds: dict[str, list[float]]
    gates: dict[str, list[float]]
    batches: list[dict[BatchShape, int]]


class History(NamedTuple):
    """A run."""

    train: Curve
    val: Curve
    progress: Progress


def pyplot() -> Any:
    """matplotlib's, without a display. ValueError where it is not installed."""
    try:
        import matplotlib  # noqa: PLC0415  only drawing needs it
    except ImportError:
        raise ValueError("pictures need the package matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    plt.rcParams.update({"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False})
    return plt


def save_picture(figure: Any, path: Path) -> None:
    """PNG, SVG or PDF, by its ending; ValueError with all there are for any other."""
    if not path.suffix:  # matplotlib would add one
        raise ValueError(f"{path}: must end with .png, .svg or .pdf")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path, dpi=DPI)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    finally:
        pyplot().close(figure)


def plot_curves(runs: Mapping[str, History], path: Path) -> None:
    """A panel for each thing that any of the runs wrote down, a color a run; `runs` by their names."""
    plt = pyplot()
    panels, wide = _panels(runs), _wide_panels(runs)
    rows = -(-len(panels) // COLUMNS)
    heights = [3.6] * rows + [2.6] * len(wide)
    figure = plt.figure(figsize=(13, sum(heights) + 0.4), layout="constrained")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    places = [grid[divmod(number, COLUMNS)] for number in range(len(panels))]
    places += [grid[rows + number, :] for number in range(len(wide))]
    for place, draw in zip(places, [*panels, *wide], strict=True):
        axes = figure.add_subplot(place)
        draw(axes)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles = [plt.Line2D([], [], color=f"C{number}", lw=3, label=name) for number, name in enumerate(runs)]
    handles += _line_handles({"validation": "-", "training": "--"})
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 4), frameon=False)
    save_picture(figure, path)


Panel = Callable[[Any], None]  # draws into axes


def _panels(runs: Mapping[str, History]) -> list[Panel]:
    """Of all runs, what at least one has."""
    progress = [run.progress for run in runs.values()]
    panels = [
        partial(_draw_split, runs=runs, field=field, title=title)
        for field, title in (("loss", "loss"), ("top1", "top-1"), ("top5", "top-5"))
    ]
    if any(_is_known(run.learning_rate) for run in progress):
        panels.append(partial(_draw_rates, progress=progress))
    if any(_is_known(rates) for run in progress for rates in run.speeds.values()):
        panels.append(partial(_draw_speeds, progress=progress))
    if any(run.gates for run in progress):
        panels.append(partial(_draw_gates, progress=progress))
    return panels


def _wide_panels(runs: Mapping[str, History]) -> list[Panel]:
    """Of each run whose batches changed their shape."""
    return [
        partial(_draw_batches, name=name if len(runs) > 1 else "", progress=run.progress)
        for name, run in runs.items()
        if any(len(shares_of_clips(batches)) > 1 for batches in run.progress.batches)
    ]


def _line_handles(lines: Mapping[str, str]) -> list[Any]:
    """For a legend: what each kind of line means, whatever its color."""
    line_class = pyplot().Line2D
    return [line_class([], [], color="grey", linestyle=line, label=name) for name, line in lines.items()]


def _is_known(values: Sequence[float]) -> bool:
    return not all(math.isnan(value) for value in values)


def _draw_split(axes: Any, runs: Mapping[str, History], field: str, title: str) -> None:
    for number, run in enumerate(runs.values()):
        for curve, line in ((run.train, "--"), (run.val, "-")):
            axes.plot(curve.epochs, getattr(curve, field), line, color=f"C{number}", marker=".")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if field == "loss":
        axes.set_yscale("log")  # before batch norms have settled, the first validations may be far off
        axes.yaxis.set_major_locator(pyplot().LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(0, 1.02)


def _draw_rates(axes: Any, progress: Sequence[Progress]) -> None:
    for number, run in enumerate(progress):
        axes.plot(run.epochs, run.learning_rate, color=f"C{number}", marker=".")
    axes.set_title("learning rate, at an epoch's end")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


def _draw_speeds(axes: Any, progress: Sequence[Progress]) -> None:
    _draw_families(axes, [(run.epochs, run.speeds) for run in progress])
    axes.set_title("speed, clips a second")
    axes.set_yscale("log")


def _draw_gates(axes: Any, progress: Sequence[Progress]) -> None:
    _draw_families(axes, [(run.epochs, run.gates) for run in progress])
    axes.set_title("open gates")
    axes.set_ylim(-0.02, 1.02)


def _draw_families(axes: Any, families: Sequence[tuple[list[int], dict[str, list[float]]]]) -> None:
    """Several lines a run, in its color; equal names have equal kinds of line."""
    names = dict.fromkeys(name for _, family in families for name in family)
    lines = dict(zip(names, itertools.cycle(LINES), strict=False))
    for number, (epochs, family) in enumerate(families):
        for name, values in family.items():
            axes.plot(epochs, values, lines[name], color=f"C{number}", marker=".")
    axes.legend(handles=_line_handles(lines), fontsize="small", framealpha=0.6)
    axes.grid(alpha=0.3)


def shares_of_clips(batches: Mapping[BatchShape, int]) -> dict[tuple[int, int], float]:
    """Which share of an epoch's clips had so many frames and pixels, (length, size); coarse to fine."""
    clips: dict[tuple[int, int], int] = {}
    for shape, steps in batches.items():
        clips[shape[1:]] = clips.get(shape[1:], 0) + shape.batch * steps
    total = sum(clips.values())
    return {key: clips[key] / total for key in sorted(clips, key=lambda key: key[0] * key[1] ** 2)}


def _draw_batches(axes: Any, name: str, progress: Progress) -> None:
    """Each epoch's clips by the shape of their batch, as a bar."""
    shapes = sorted({shape for batches in progress.batches for shape in batches}, key=_volume)
    largest = {shape[1:]: shape for shape in shapes}  # an epoch's last batch may be smaller
    colors = pyplot().get_cmap("viridis")
    below = [0.0] * len(progress.epochs)
    for number, (key, shape) in enumerate(largest.items()):
        shares = [shares_of_clips(batches).get(key, 0.0) for batches in progress.batches]
        color = colors(number / max(1, len(largest) - 1))
        axes.bar(progress.epochs, shares, width=0.9, bottom=below, color=color, label=str(shape))
        below = [low + share for low, share in zip(below, shares, strict=True)]
    axes.set_title(f"clips by the shape of their batch{', ' if name else ''}{name}")
    axes.set_ylim(0, 1)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False, reverse=True)


def _volume(shape: BatchShape) -> tuple[int, int]:
    return shape.length * shape.size**2, shape.batch


PARTS = {"clips a batch": "batch", "frames": "length", "pixels": "size"}


def plot_schedule(schedule: Schedule, learning_rate: LRSchedule, path: Path) -> None:
    """On the left the whole run, a band where the short cycle goes to and fro; on the right the steps of epoch 1."""
    figure, grid = pyplot().subplots(
        4, 2, figsize=(13, 7.5), layout="constrained", sharex="col", sharey="row"
    )
    whole, first = grid[:, 0], grid[:, 1]
    _draw_run(whole, schedule, learning_rate)
    _draw_epoch(first, schedule, learning_rate)
    for row, title in zip(grid, (*PARTS, "learning rate"), strict=True):
        row[0].set_ylabel(title)
        for axes in row:
            axes.grid(alpha=0.3)
    if learning_rate.schedule == "step":
        grid[-1, 0].set_yscale("log")
    for axes in grid[:3].flat:
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
    grid[0, 0].set_title(f"the run of {learning_rate.end_epoch} epochs")
    grid[0, 1].set_title("epoch 1, step by step")
    whole[-1].set_xlabel("epochs")
    first[-1].set_xlabel("step")
    save_picture(figure, path)


def _draw_run(panels: Sequence[Any], schedule: Schedule, learning_rate: LRSchedule) -> None:
    times: list[float] = []
    shapes: list[tuple[BatchShape, ...]] = []  # of the short cycle, at each time
    rates: list[float] = []
    for epoch in range(1, learning_rate.end_epoch + 1):
        steps = schedule.epoch(epoch)
        done = 0
        for phase, group in itertools.groupby(steps, key=lambda step: step.phase):
            last = done + len(list(group)) - 1
            for step, end in ((done, done), (last, last + 1)):
                times.append(epoch - 1 + end / len(steps))
                shapes.append(schedule.phases[phase])
                rates.append(learning_rate.at(epoch, step, len(steps), phase))
            done = last + 1
    for axes, field in zip(panels, PARTS.values(), strict=False):
        values = [[getattr(shape, field) for shape in cycle] for cycle in shapes]
        axes.fill_between(times, [min(v) for v in values], [max(v) for v in values], color="C0", alpha=0.25)
        axes.plot(times, [v[0] for v in values], color="C0")
    panels[-1].plot(times, rates, color="C3")


def _draw_epoch(panels: Sequence[Any], schedule: Schedule, learning_rate: LRSchedule) -> None:
    steps = schedule.epoch(1)
    numbers = range(1, len(steps) + 1)
    for axes, field in zip(panels, PARTS.values(), strict=False):
        axes.plot(numbers, [getattr(step.shape, field) for step in steps], color="C0", drawstyle="steps-mid")
    rates = [learning_rate.at(1, number, len(steps), step.phase) for number, step in enumerate(steps)]
    panels[-1].plot(numbers, rates, color="C3", drawstyle="steps-mid")


def plot_confusion(counts: np.ndarray, classes: Sequence[str], title: str, path: Path) -> None:
    """`counts` `(C, C)`, a row a true class: the share of its videos taken for each class. Numbers where they fit."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 1.8 + 0.45 * len(classes)), 16)
    figure, axes = pyplot().subplots(figsize=(side + 0.9, side), layout="constrained")
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="share of the class's videos", fraction=0.046, pad=0.02)
    axes.set(title=title, xlabel="taken for", ylabel="class")
    axes.spines[:].set_visible(False)
    if len(classes) <= NAMED_CLASSES:
        # as they are, also with a dollar in them
        axes.set_xticks(range(len(classes)), classes, rotation=90, parse_math=False)
        axes.set_yticks(range(len(classes)), classes, parse_math=False)
    if len(classes) <= NUMBERED_CLASSES:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.55 else "black"
            axes.text(
                column, row, counts[row, column], ha="center", va="center", color=color, fontsize="small"
            )
    save_picture(figure, path)
