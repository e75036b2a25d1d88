"""Accuracies with known values, scores files, and averages."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from train.scores import (
    Scores,
    average_scores,
    class_rows,
    confusion_matrix,
    summarize,
    topk_correct,
)

CLASSES = ("run", "jump", "sit", "fall", "wave", "nod", "bow")


def make_scores(
    labels: list[int], rankings: list[list[int]], clip_counts: np.ndarray | None = None
) -> Scores:
    """Return scores of videos whose most probable classes are those of their ranking, in order."""
    probabilities = np.zeros((len(labels), len(CLASSES)), np.float32)
    for row, ranking in zip(probabilities, rankings, strict=True):
        row[ranking] = np.linspace(0.5, 0.1, len(ranking))
    videos = tuple(f"{CLASSES[label]}/v{i}" for i, label in enumerate(labels))
    return Scores(CLASSES, videos, np.array(labels), probabilities, "10x3", clip_counts)


# three videos of run, two of them correct; one of jump, in the top 5 only
SCORES = make_scores(
    [0, 0, 0, 1],
    [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 1, 4, 3, 5, 0], [2, 3, 4, 5, 1, 0]],
    clip_counts=np.array([[30, 20, 30], [30, 25, 30], [6, 0, 0], [3, 0, 3]]),
)


def test_known_accuracies() -> None:
    assert summarize(SCORES) == pytest.approx(
        {
            "clip@1": 45 / 69,
            "clip@5": 63 / 69,
            "video@1 (10x3)": 2 / 4,
            "video@5 (10x3)": 3 / 4,
            "mean per-class accuracy": (2 / 3 + 0) / 2,  # of the classes with videos
        }
    )


def test_known_confusions() -> None:
    counts = {index: n for index, n in np.ndenumerate(confusion_matrix(SCORES)) if n}
    assert counts == {(0, 0): 2, (0, 2): 1, (1, 2): 1}
    run, jump, sit, *_ = class_rows(SCORES)
    assert run == ("run", 3, pytest.approx(2 / 3), pytest.approx(2 / 3), "sit", 1)
    assert jump == ("jump", 1, 0.0, 1.0, "sit", 1)
    assert sit == ("sit", 0, pytest.approx(float("nan"), nan_ok=True), sit[3], "", 0)


@pytest.mark.parametrize("k", range(1, 7))  # also more than there are classes
def test_topk_correct(k: int) -> None:
    probabilities = np.array([[0.1, 0.4, 0.2, 0.3]] * 4)
    assert topk_correct(probabilities, np.arange(4), k).tolist() == [rank < k for rank in (3, 0, 2, 1)]
    ties = np.full((4, 4), 0.25)
    assert topk_correct(ties, np.arange(4), k).tolist() == [index < k for index in range(4)]


def test_saved_scores_are_loaded(tmp_path: Path) -> None:
    for scores in (SCORES, average_scores([SCORES, SCORES])):
        scores.save(tmp_path / "scores.npz")
        loaded = Scores.load(tmp_path / "scores.npz")
        assert (loaded.classes, loaded.videos, loaded.views) == (scores.classes, scores.videos, scores.views)
        np.testing.assert_array_equal(loaded.probabilities, scores.probabilities)
        np.testing.assert_array_equal(loaded.labels, scores.labels)
        assert summarize(loaded) == summarize(scores)


def test_average_of_two_results() -> None:
    other = replace(make_scores([0, 0, 0, 1], [[1, 0], [2, 0], [0, 1], [1, 2]]), views="4x1")
    mean = average_scores([SCORES, other])
    expected = (SCORES.probabilities + other.probabilities) / 2
    np.testing.assert_allclose(mean.probabilities, expected, rtol=1e-6)
    assert "clip@1" not in summarize(mean)
    assert mean.views == "10x3+4x1"
    assert average_scores([SCORES]) is SCORES


def test_different_videos_classes_or_labels_are_not_averaged() -> None:
    fewer = replace(SCORES, videos=(*SCORES.videos[:3], "x"))
    swapped = replace(SCORES, classes=(CLASSES[1], CLASSES[0], *CLASSES[2:]))
    renamed = replace(SCORES, classes=("walk", *CLASSES[1:]))
    relabeled = replace(SCORES, labels=np.array([0, 0, 0, 2]))
    for results, message in (
        (
            [SCORES, fewer],
            "videos of results 1 and 2 differ, number 3 is 'jump/v3' in result 1, 'x' in result 2",
        ),
        (
            [SCORES, SCORES, renamed],
            "classes of results 1 and 3 differ, number 0 is 'run' in result 1, 'walk'",
        ),
        (
            [SCORES, swapped],
            "classes of results 1 and 2 differ, number 0 is 'run' in result 1, 'jump' in result 2",
        ),
        ([SCORES, relabeled], "labels of results 1 and 2 differ, number 3 is 1 in result 1, 2 in"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"cannot average: {message}")):
            average_scores(results)


def test_other_files_are_not_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    with pytest.raises(FileNotFoundError, match=r"scores\.npz"):
        Scores.load(path)
    np.savez(path, labels=np.arange(3))
    np.save(tmp_path / "array.npy", np.arange(3))
    for content in (b"", b"text", path.read_bytes(), (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"scores\.npz: not a scores file of train\.evaluate"):
            Scores.load(path)
