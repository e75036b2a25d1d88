"""The curves of a run over its epochs, read from its CSV files."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data.batch_sampler import BatchShape
from train.csv_log import Row, read_rows
from train.trackers import GATES_COLUMN, THROUGHPUT_COLUMNS

METRIC_TITLES = {"Loss": "loss", "Top1": "top-1", "Top5": "top-5"}

Line = tuple[Sequence[float], Sequence[float]]  # epochs, values


class Panel(NamedTuple):
    """Lines by name that share axes, with a logarithmic scale, or else a scale from 0 to 1."""

    lines: Mapping[str, Line]
    log: bool


class History(NamedTuple):
    """A run: panels by title, and the number of steps of each batch shape by epoch."""

    panels: Mapping[str, Panel]
    batches: Mapping[int, Mapping[BatchShape, int]]


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


def best_row(val: Sequence[Row]) -> Row:
    """Return the first row with the highest top-1; NaN, for an epoch without readable videos, is the lowest."""
    return max(val, key=lambda row: -1.0 if math.isnan(row["Top1"]) else row["Top1"])


def clip_fractions(batches: Mapping[BatchShape, int]) -> dict[tuple[int, int], float]:
    """Return the fraction of an epoch's clips of each (length, size), given the number of steps of each batch shape."""
    clips: Counter[tuple[int, int]] = Counter()
    for shape, steps in batches.items():
        clips[shape.length, shape.size] += shape.batch * steps
    return {shape: count / clips.total() for shape, count in clips.items()}
