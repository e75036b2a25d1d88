"""Figures: curves over epochs, the multigrid schedule, confusion matrices. The only module that imports matplotlib."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.ticker import LogLocator, MaxNLocator

from data.batch_sampler import BatchShape
from data.common.atomic_io import atomic_path
from data.common.lettering import has_letters, text_mask
from train.history import History, Panel, clip_fractions
from train.lr_schedule import LRSchedule
from train.multigrid import MultigridSchedule

mpl.rcParams.update({"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False})

LINE_STYLES = ("-", "--", ":", "-.")
COLUMNS = 3  # of axes in a row
MAX_LABELED_CLASSES = 110  # of a confusion matrix: more would not be legible
MAX_NUMBERED_CLASSES = 30
PICTURE_SCALE = 0.25  # points a pixel, of names drawn as pictures
TICK_LENGTH = 28  # pixels
EM_SPACE = "\u2003"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, SVG or PDF file, by its suffix. Raise ValueError for other suffixes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, format=path.suffix[1:].lower())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def plot_curves(runs: Mapping[str, History], path: Path) -> None:
    """Plot the panels of all runs, given by name, in a color per run, and the batch shapes of each multigrid run."""
    titles = list(dict.fromkeys(title for run in runs.values() for title in run.panels))
    multigrid = {
        name: run.batches
        for name, run in runs.items()
        if any(len(clip_fractions(batches)) > 1 for batches in run.batches.values())
    }
    rows = math.ceil(len(titles) / COLUMNS)
    heights = [3.6] * rows + [2.6] * len(multigrid)
    figure = Figure(figsize=(13, sum(heights) + 0.4), layout="constrained")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for number, title in enumerate(titles):
        axes = figure.add_subplot(grid[divmod(number, COLUMNS)])
        _plot_panel(axes, title, [run.panels.get(title) for run in runs.values()])
    for row, (name, batches) in enumerate(multigrid.items(), start=rows):
        _plot_batches(figure.add_subplot(grid[row, :]), name, batches)
    for axes in figure.axes:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    handles = [Line2D([], [], color=f"C{number}", lw=3, label=name) for number, name in enumerate(runs)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 4), frameon=False)
    save_figure(figure, path)


def _plot_panel(axes: Axes, title: str, panels: Sequence[Panel | None]) -> None:
    """Plot a panel of each run that has it; lines of the same name have the same style."""
    names = dict.fromkeys(name for panel in panels if panel for name in panel.lines)
    styles = dict(zip(names, itertools.cycle(LINE_STYLES), strict=False))
    for number, panel in enumerate(panels):
        for name, (epochs, values) in panel.lines.items() if panel else ():
            axes.plot(epochs, values, styles[name], color=f"C{number}", marker=".")
    if len(styles) > 1:
        handles = [Line2D([], [], color="grey", ls=style, label=name) for name, style in styles.items()]
        axes.legend(handles=handles, fontsize="small", framealpha=0.6)
    if any(panel.log for panel in panels if panel):
        _set_log_scale(axes)
    else:
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(title)
    axes.grid(alpha=0.3)


def _set_log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _plot_batches(axes: Axes, name: str, batches: Mapping[int, Mapping[BatchShape, int]]) -> None:
    """Plot a bar for each epoch of a run, divided by the shape of its clips."""
    fractions = [clip_fractions(counts) for counts in batches.values()]
    shapes = {shape for epoch in fractions for shape in epoch}
    bottom = np.zeros(len(fractions))
    for number, (length, size) in enumerate(sorted(shapes, key=lambda shape: shape[0] * shape[1] ** 2)):
        heights = [epoch.get((length, size), 0.0) for epoch in fractions]
        color = mpl.colormaps["viridis"](number / max(1, len(shapes) - 1))
        label = f"{length}x{size}x{size}"
        axes.bar(list(batches), heights, width=0.9, bottom=bottom, color=color, label=label)
        bottom += heights
    axes.set_title(f"clips by shape, {name}")
    axes.set_ylim(0, 1)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False, reverse=True)


DIMENSIONS = {"clips per batch": "batch", "frames": "length", "pixels": "size"}


def plot_schedule(schedule: MultigridSchedule, lr_schedule: LRSchedule, path: Path) -> None:
    """Plot batch shapes and learning rate, of the run on the left, of the steps of epoch 1 on the right.

    A band on the left spans the shapes of the short cycle.
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    grid = figure.subplots(4, 2, sharex="col", sharey="row")
    _plot_run(grid[:, 0], schedule, lr_schedule)
    _plot_first_epoch(grid[:, 1], schedule, lr_schedule)
    for row, label in zip(grid, (*DIMENSIONS, "learning rate"), strict=True):
        row[0].set_ylabel(label)
        for axes in row:
            axes.grid(alpha=0.3)
    for axes in grid[:3, 0]:
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
    if lr_schedule.schedule == "step":
        _set_log_scale(grid[-1, 0])
    grid[0, 0].set_title(f"{lr_schedule.end_epoch} epochs")
    grid[0, 1].set_title("epoch 1")
    grid[-1, 0].set_xlabel("epochs")
    grid[-1, 1].set_xlabel("step")
    save_figure(figure, path)


def _plot_run(column: Sequence[Axes], schedule: MultigridSchedule, lr_schedule: LRSchedule) -> None:
    """Plot the first and last step of each phase in each epoch."""
    times: list[float] = []
    cycles: list[tuple[BatchShape, ...]] = []  # shapes of the short cycle at each time
    lrs: list[float] = []
    for epoch in range(1, lr_schedule.end_epoch + 1):
        steps = schedule.epoch(epoch)
        first = 0
        for phase, group in itertools.groupby(steps, key=lambda step: step.phase):
            end = first + len(list(group))
            times += [epoch - 1 + first / len(steps), epoch - 1 + end / len(steps)]
            cycles += [schedule.phases[phase]] * 2
            lrs += [lr_schedule.at(epoch, step, len(steps), phase) for step in (first, end - 1)]
            first = end
    for axes, field in zip(column, DIMENSIONS.values(), strict=False):
        values = [[getattr(shape, field) for shape in cycle] for cycle in cycles]
        axes.fill_between(times, [min(v) for v in values], [max(v) for v in values], color="C0", alpha=0.25)
        axes.plot(times, [v[0] for v in values], color="C0")
    column[-1].plot(times, lrs, color="C3")


def _plot_first_epoch(column: Sequence[Axes], schedule: MultigridSchedule, lr_schedule: LRSchedule) -> None:
    steps = schedule.epoch(1)
    numbers = range(1, len(steps) + 1)
    for axes, field in zip(column, DIMENSIONS.values(), strict=False):
        axes.plot(numbers, [getattr(step.shape, field) for step in steps], color="C0", drawstyle="steps-mid")
    lrs = [lr_schedule.at(1, number, len(steps), step.phase) for number, step in enumerate(steps)]
    column[-1].plot(numbers, lrs, color="C3", drawstyle="steps-mid")


def plot_confusion(counts: np.ndarray, classes: Sequence[str], title: str, path: Path) -> None:
    """Plot a confusion matrix `(C, C)`, a row per true class, as fractions of the row, with the counts if they fit."""
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(4.5, 1.8 + 0.45 * len(classes)), 16)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the class's videos", fraction=0.046, pad=0.02)
    axes.set(title=title, xlabel="predicted as", ylabel="class")
    axes.spines[:].set_visible(False)
    if len(classes) <= MAX_LABELED_CLASSES:
        _label_classes(axes, classes)
    if len(classes) <= MAX_NUMBERED_CLASSES:
        for row, column in np.argwhere(counts):
            color = "white" if fractions[row, column] > 0.55 else "black"
            text = axes.text(column, row, str(counts[row, column]), color=color, fontsize="small")
            text.set(ha="center", va="center")
    save_figure(figure, path)


def _label_classes(axes: Axes, classes: Sequence[str]) -> None:
    """Label the ticks of both axes; names with letters that matplotlib's font lacks as pictures, over a blank."""
    font, font_size = findfont("DejaVu Sans"), mpl.rcParams["font.size"]
    labels = list(classes)
    for number, name in enumerate(classes):
        if has_letters(font, name):
            continue
        mask = np.pad(text_mask(name, round(font_size / PICTURE_SCALE)), ((0, 0), (0, TICK_LENGTH)))
        labels[number] = EM_SPACE * math.ceil(mask.shape[1] * PICTURE_SCALE / font_size)
        picture = np.dstack([np.zeros((*mask.shape, 3), np.uint8), mask])
        for image, place, units, align in (
            (picture, (0, number), ("axes fraction", "data"), (1, 0.5)),
            (np.rot90(picture), (number, 0), ("data", "axes fraction"), (0.5, 1)),
        ):
            box = OffsetImage(image, zoom=PICTURE_SCALE)
            axes.add_artist(AnnotationBbox(box, place, xycoords=units, box_alignment=align, frameon=False))
    # parse_math: a class name may contain a dollar sign
    axes.set_xticks(range(len(classes)), labels, rotation=90, parse_math=False)
    axes.set_yticks(range(len(classes)), labels, parse_math=False)
