"""Video-level scores of an evaluation, and what is computed from them: accuracies, confusion matrix, averages."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.common.atomic_io import save_arrays


@dataclass(frozen=True)
class Scores:
    """Scores of N videos and C classes.

    `videos`: `<class>/<id>` of each, unique. `labels`: class indices, `(N,)`. `probabilities`: `(N, C)`, the mean of
    the softmax over the views of a video. `views`: clips x crops, such as "10x3". `clip_counts`: `(N, 3)`, the number
    of views of each video, of top-1 correct views and of top-5 correct views; None for averaged scores.
    """

    classes: tuple[str, ...]
    videos: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    views: str
    clip_counts: np.ndarray | None = None

    def save(self, path: Path) -> None:
        """Write an `.npz` file with an array for each field that is not None."""
        fields = {name: np.asarray(value) for name, value in vars(self).items() if value is not None}
        save_arrays(path, **fields)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read what `save` wrote. Raise FileNotFoundError, or ValueError if it is another kind of file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    classes=tuple(arrays["classes"].tolist()),
                    videos=tuple(arrays["videos"].tolist()),
                    labels=arrays["labels"],
                    probabilities=arrays["probabilities"],
                    views=str(arrays["views"]),
                    clip_counts=arrays.get("clip_counts"),
                )
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: not a scores file of train.evaluate: {error}") from None


def topk_correct(probabilities: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return whether each label is among the k most probable classes, bool `(N,)`; ties go to the lower class index."""
    topk = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return (topk == labels[:, None]).any(axis=1)


def confusion_matrix(scores: Scores) -> np.ndarray:
    """Return the number of videos of each class (rows) predicted as each class (columns), int `(C, C)`."""
    counts = np.zeros((len(scores.classes),) * 2, np.int64)
    np.add.at(counts, (scores.labels, scores.probabilities.argmax(axis=1)), 1)
    return counts


class Summary(NamedTuple):
    """Accuracies as fractions of 1; pairs are (top-1, top-5).

    `clip`: of single views, None for averaged scores. `video`: of videos. `mean_class`: mean of the per-class top-1
    accuracies, over classes with videos.
    """

    clip: tuple[float, float] | None
    video: tuple[float, float]
    mean_class: float


def summarize(scores: Scores) -> Summary:
    """Return the accuracies of an evaluation."""
    clip = None
    if scores.clip_counts is not None:
        views, top1, top5 = scores.clip_counts.sum(axis=0)
        clip = (float(top1 / views), float(top5 / views))
    correct, correct_top5 = (topk_correct(scores.probabilities, scores.labels, k) for k in (1, 5))
    per_class = [correct[scores.labels == label].mean() for label in np.unique(scores.labels)]
    return Summary(clip, (float(correct.mean()), float(correct_top5.mean())), float(np.mean(per_class)))


class ClassRow(NamedTuple):
    """Scores of a class, NaN without videos. `confused_with`: the most frequent wrong prediction, "" if there is none;
    `num_confused`: its number of videos.
    """

    name: str
    videos: int
    top1: float
    top5: float
    confused_with: str
    num_confused: int


def class_rows(scores: Scores) -> list[ClassRow]:
    """Return a row for each class, in the order of the classes."""
    errors = confusion_matrix(scores)
    np.fill_diagonal(errors, 0)
    correct = [topk_correct(scores.probabilities, scores.labels, k) for k in (1, 5)]
    rows = []
    for label, name in enumerate(scores.classes):
        own = scores.labels == label
        top1, top5 = (float(hits[own].mean()) if own.any() else float("nan") for hits in correct)
        num_confused = int(errors[label].max())
        confused_with = scores.classes[int(errors[label].argmax())] if num_confused else ""
        rows.append(ClassRow(name, int(own.sum()), top1, top5, confused_with, num_confused))
    return rows


def average_scores(results: Sequence[Scores]) -> Scores:
    """Return the mean probabilities, with videos and classes matched by name, in the order of the first result.

    A single result is returned unchanged. Raise ValueError if videos, classes or labels differ.
    """
    first, *others = results
    if not others:
        return first
    total = first.probabilities.astype(np.float64)
    for number, scores in enumerate(others, start=2):
        rows = _match("videos", first.videos, scores.videos, number)
        columns = _match("classes", first.classes, scores.classes, number)
        if [scores.classes[i] for i in scores.labels[rows]] != [first.classes[i] for i in first.labels]:
            raise ValueError(f"cannot average: labels of results 1 and {number} differ")
        total += scores.probabilities[rows][:, columns]
    views = "+".join(dict.fromkeys(scores.views for scores in results))
    mean = (total / len(results)).astype(np.float32)
    return Scores(first.classes, first.videos, first.labels, mean, views)


def _match(kind: str, expected: Sequence[str], names: Sequence[str], number: int) -> list[int]:
    """Return the index in `names` of each expected name."""
    indices = {name: index for index, name in enumerate(names)}
    differing = sorted(indices.keys() ^ set(expected))
    if differing:
        raise ValueError(f"cannot average: {kind} of results 1 and {number} differ, such as {differing[0]}")
    return [indices[name] for name in expected]
