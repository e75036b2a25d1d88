"""How good an evaluation was: what each video scored, and the numbers and tables that follow. Pure functions of arrays.

A video's probabilities are the mean over its views of the softmax of their logits; several evaluations are averaged
likewise.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.common.atomic_io import save_arrays


@dataclass(frozen=True)
class Scores:
    """Of N videos, C classes.

    `videos`: their folders, `<class>/<id>`, different ones. `labels` `(N,)`, `probabilities` `(N, C)`. `views`: how
    they were looked at, such as 10x3. `clips` `(N, 3)`: how many views, and of these how many had the label first, and
    among the first five; None for an average of several evaluations.
    """

    classes: tuple[str, ...]
    videos: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    views: str
    clips: np.ndarray | None = None

    def save(self, path: Path) -> None:
        arrays = {} if self.clips is None else {"clips": self.clips}
        save_arrays(
            path,
            classes=np.array(self.classes),
            videos=np.array(self.videos),
            labels=self.labels,
            probabilities=self.probabilities,
            views=np.array(self.views),
            **arrays,
        )

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """What `save` wrote; FileNotFoundError, or ValueError for anything else."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file of scores")
        try:
            with np.load(path, allow_pickle=False) as file:
                scores = cls(
                    classes=tuple(file["classes"].tolist()),
                    videos=tuple(file["videos"].tolist()),
                    labels=file["labels"],
                    probabilities=file["probabilities"],
                    views=str(file["views"]),
                    clips=file.get("clips"),
                )
            scores._check()
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: holds no scores that train.evaluate wrote, {reason}") from None
        return scores

    def _check(self) -> None:
        """ValueError where the parts do not belong together."""
        videos, classes = len(self.videos), len(self.classes)
        shapes = [(self.labels, (videos,)), (self.probabilities, (videos, classes))]
        if self.clips is not None:
            shapes.append((self.clips, (videos, 3)))
        if not videos or any(array.shape != wanted for array, wanted in shapes):
            raise ValueError(f"its arrays are not those of {videos} videos and {classes} classes")
        if self.labels.dtype.kind != "i" or not 0 <= self.labels.min() <= self.labels.max() < classes:
            raise ValueError(f"its labels are not numbers of {classes} classes")


def hits(probabilities: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each label is among the k most probable classes, bool `(N,)`; of equal ones the first counts more."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > own) | (probabilities == own) & before).sum(axis=1)
    return rank < k


class Summary(NamedTuple):
    """Fractions of 1. `clip`: of single views, top-1 and top-5, None where these are not known; `video`: of videos.

    `class_mean`: top-1 of each class that has videos, averaged over these classes.
    """

    clip: tuple[float, float] | None
    video: tuple[float, float]
    class_mean: float


def summarize(scores: Scores) -> Summary:
    clip = None
    if scores.clips is not None:
        views, first, five = scores.clips.sum(axis=0)
        clip = (first / views, five / views)
    right = confusion(scores)
    present = right.sum(axis=1) > 0
    return Summary(
        clip=clip,
        video=tuple(float(hits(scores.probabilities, scores.labels, k).mean()) for k in (1, 5)),
        class_mean=float((right.diagonal()[present] / right.sum(axis=1)[present]).mean()),
    )


def confusion(scores: Scores) -> np.ndarray:
    """How many videos of each class (rows) were taken for each class (columns): int `(C, C)`."""
    counts = np.zeros((len(scores.classes),) * 2, np.int64)
    np.add.at(counts, (scores.labels, scores.probabilities.argmax(axis=1)), 1)
    return counts


class ClassRow(NamedTuple):
    """One class. `predicted_as`: the class that its videos were most often mistaken for, and `times` how often."""

    name: str
    videos: int
    top1: float
    top5: float
    predicted_as: str
    times: int


def class_rows(scores: Scores) -> list[ClassRow]:
    """A row for each class, in order; without videos its top-1 and top-5 are NaN."""
    wrong = confusion(scores)
    np.fill_diagonal(wrong, 0)
    first, five = (hits(scores.probabilities, scores.labels, k) for k in (1, 5))
    rows = []
    for number, name in enumerate(scores.classes):
        own = scores.labels == number
        times = int(wrong[number].max())
        shares = [float(hit[own].mean()) if own.any() else float("nan") for hit in (first, five)]
        predicted_as = scores.classes[int(wrong[number].argmax())] if times else ""
        rows.append(ClassRow(name, int(own.sum()), *shares, predicted_as, times))
    return rows


def average(several: Sequence[Scores]) -> Scores:
    """The mean of their probabilities, videos and classes being matched by name; the order is the first one's.

    One alone stays as it is. ValueError where they are not of the same videos, labels and classes.
    """
    first, *others = several
    if not others:
        return first
    total = first.probabilities.astype(np.float64)
    for number, scores in enumerate(others, start=2):
        rows = _places("videos", first.videos, scores.videos, number)
        columns = _places("classes", first.classes, scores.classes, number)
        if [scores.classes[label] for label in scores.labels[rows]] != [
            first.classes[i] for i in first.labels
        ]:
            raise ValueError(
                f"scores 1 and {number} have other labels for the same videos: cannot be averaged"
            )
        total += scores.probabilities[rows][:, columns]
    views = "+".join(dict.fromkeys(scores.views for scores in several))
    mean = (total / len(several)).astype(np.float32)
    return Scores(first.classes, first.videos, first.labels, mean, views)


def _places(what: str, wanted: Sequence[str], there: Sequence[str], number: int) -> list[int]:
    """Where each name of the first scores stands in the others."""
    places = {name: place for place, name in enumerate(there)}
    differing = sorted(set(wanted) ^ set(there))
    if differing:
        raise ValueError(
            f"scores 1 and {number} are of {len(wanted)} and {len(there)} {what}, of which {len(differing)} "
            f"are in one alone, such as {differing[0]}: cannot be averaged"
        )
    return [places[name] for name in wanted]
