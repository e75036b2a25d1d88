"""Video-level scores of an evaluation, and what is computed from them: accuracies, confusion matrix, averages."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.common.atomic_io import save_arrays
from data.label_files import describe_difference


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
        save_arrays(path, **{name: value for name, value in vars(self).items() if value is not None})

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read what `save` wrote. Raise OSError, or ValueError if it is another kind of file."""
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
        except (EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
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


def summarize(scores: Scores) -> dict[str, float]:
    """Return accuracies by name: of single views (clip@k, not for averaged scores), of videos (video@k), and the mean
    of the per-class top-1 accuracies over classes with videos.
    """
    accuracies = {}
    if scores.clip_counts is not None:
        views, top1, top5 = scores.clip_counts.sum(axis=0)
        accuracies = {"clip@1": top1 / views, "clip@5": top5 / views}
    correct, correct_top5 = (topk_correct(scores.probabilities, scores.labels, k) for k in (1, 5))
    accuracies[f"video@1 ({scores.views})"] = correct.mean()
    accuracies[f"video@5 ({scores.views})"] = correct_top5.mean()
    per_class = [correct[scores.labels == label].mean() for label in np.unique(scores.labels)]
    accuracies["mean per-class accuracy"] = np.mean(per_class)
    return {name: float(value) for name, value in accuracies.items()}


def class_rows(scores: Scores) -> list[tuple[str, int, float, float, str, int]]:
    """Return a row for each class: its name, number of videos, top-1 and top-5 (NaN without videos), the most frequent
    wrong prediction ("" if there is none), and its number of videos.
    """
    errors = confusion_matrix(scores)
    np.fill_diagonal(errors, 0)
    correct = [topk_correct(scores.probabilities, scores.labels, k) for k in (1, 5)]
    rows = []
    for label, name in enumerate(scores.classes):
        own = scores.labels == label
        top1, top5 = (float(hits[own].mean()) if own.any() else float("nan") for hits in correct)
        num_confused = int(errors[label].max())
        confused_with = scores.classes[int(errors[label].argmax())] if num_confused else ""
        rows.append((name, int(own.sum()), top1, top5, confused_with, num_confused))
    return rows


def average_scores(results: Sequence[Scores]) -> Scores:
    """Return the mean probabilities; a single result is returned unchanged.

    Raise ValueError if classes, videos or labels differ.
    """
    first, *others = results
    if not others:
        return first
    for number, scores in enumerate(others, start=2):
        for name in ("classes", "videos", "labels"):
            one, other = (np.asarray(getattr(result, name)).tolist() for result in (first, scores))
            if one != other:
                how = describe_difference(one, other, ("result 1", f"result {number}"))
                raise ValueError(f"cannot average: {name} of results 1 and {number} differ, {how}")
    views = "+".join(dict.fromkeys(scores.views for scores in results))
    mean = np.stack([scores.probabilities for scores in results]).mean(axis=0, dtype=np.float64)
    return Scores(first.classes, first.videos, first.labels, mean.astype(np.float32), views)
