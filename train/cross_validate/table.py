"""The table of a cross-validation: accuracy of each fold, of all together, and of each class with its interval."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np

from data.common.atomic_io import atomic_write
from data.label_files import describe_difference, write_csv
from train.figures import plot_confusion

Z = NormalDist().inv_cdf(0.975)  # of 95 % intervals


class FoldResult(NamedTuple):
    """An evaluated fold. `counts`: its confusion matrix `(C, C)`, a row per true class. `minutes`: of its training.

    `class_accuracy`: the mean of the top-1 accuracies of the classes that have videos.
    """

    fold: str
    videos: int
    top1: float
    class_accuracy: float
    minutes: float
    classes: list[str]
    counts: np.ndarray


def read_result(fold: str, confusion_csv: Path, minutes: float) -> FoldResult:
    """Return the result of a fold, from the `confusion.csv` of train.evaluate."""
    with confusion_csv.open(newline="", encoding="utf-8") as file:
        (_, *classes), *rows = csv.reader(file)
    counts = np.array([row[1:] for row in rows], np.int64)
    videos, correct = counts.sum(axis=1), counts.diagonal()
    class_accuracy = (correct[videos > 0] / videos[videos > 0]).mean()
    return FoldResult(
        fold, videos.sum(), correct.sum() / videos.sum(), class_accuracy, minutes, classes, counts
    )


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion: 8 of 10 -> 0.490 to 0.943, 0 of 0 -> 0 to 1."""
    center = correct + Z**2 / 2
    half = Z * math.sqrt(correct * (total - correct) / max(total, 1) + Z**2 / 4)
    return (center - half) / (total + Z**2), (center + half) / (total + Z**2)


def mean_text(values: Sequence[float]) -> str:
    """Return the mean, with the standard deviation (n - 1) if there are two values or more."""
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = (map(str, line) for line in (columns, ["---"] * len(columns), *rows))
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def write_table(folder: Path, results: Sequence[FoldResult], epochs: int, title: str) -> str:
    """Write the table of one or more folds as CSV, picture and Markdown, and return the last.

    Raise ValueError if their classes differ.
    """
    classes = results[0].classes
    for result in results:
        if result.classes != classes:
            where = f"fold {results[0].fold}", f"fold {result.fold}"
            raise ValueError(f"classes differ: {describe_difference(classes, result.classes, where)}")
    folds = [(r.fold, r.videos, f"{r.top1:.4f}", f"{r.class_accuracy:.4f}") for r in results]
    rows = [(*fold, epochs, f"{result.minutes:.1f}") for fold, result in zip(folds, results, strict=True)]
    columns = ("Fold", "Videos", "Top1", "MeanClassAccuracy", "Epochs", "Minutes")
    write_csv(folder / "folds.csv", columns, rows)

    counts = np.sum([result.counts for result in results], axis=0)
    per_class = []
    for name, videos, correct in zip(classes, counts.sum(axis=1), counts.diagonal(), strict=True):
        values = (correct / videos if videos else math.nan, *wilson(correct, videos))
        per_class.append((name, videos, correct, *(f"{value:.4f}" for value in values)))
    write_csv(folder / "classes.csv", ("Class", "Videos", "Correct", "Top1", "Low", "High"), per_class)
    confusion = ([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    write_csv(folder / "confusion.csv", ["Class", *classes], confusion)
    top1 = f"{counts.trace() / counts.sum():.4f}"
    plot_confusion(counts, classes, f"{title}: {top1}", folder / "confusion.png")

    means = (mean_text([r.top1 for r in results]), mean_text([r.class_accuracy for r in results]))
    interval = "{:.4f} to {:.4f}".format(*wilson(counts.trace(), counts.sum()))
    summary = [("mean ± deviation", "", *means), ("all videos", counts.sum(), f"{top1} ({interval})", "")]
    text = markdown_table(("fold", "videos", "top-1", "mean class accuracy"), [*folds, *summary])
    columns = ("class", "videos", "correct", "top-1", "95 % low", "95 % high")
    text = f"{title}\n\n{text}\n{markdown_table(columns, per_class)}"
    atomic_write(folder / "table.md", text)
    return text
