"""Metrics with known answers, files of scores, and their average."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from train.evaluate.scores import ClassRow, Scores, Summary, average, class_rows, confusion, hits, summarize

CLASSES = ("run", "jump", "sit", "fall", "wave", "nod", "bow")


def scores_of(labels: list[int], ranking: list[list[int]], **fields: object) -> Scores:
    """Videos whose most probable classes are those ranked, in order."""
    probabilities = np.zeros((len(labels), len(CLASSES)), np.float32)
    for row, best in zip(probabilities, ranking, strict=True):
        row[best] = np.linspace(0.5, 0.1, len(best))
    videos = tuple(f"{CLASSES[label]}/v{i}" for i, label in enumerate(labels))
    return Scores(CLASSES, videos, np.array(labels), probabilities, "10x3", **fields)


# three of run, one of jump, none of the rest: run is right twice, jump never but among the first five
KNOWN = scores_of(
    [0, 0, 0, 1],
    [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 1, 4, 3, 5, 0], [2, 3, 4, 5, 1, 0]],
    clips=np.array([[30, 20, 30], [30, 25, 30], [6, 0, 0], [3, 0, 3]]),
)


def test_known_numbers() -> None:
    """Views weigh alike whatever video they are of, videos alike, and in the class mean classes that have videos."""
    expected = Summary(clip=(45 / 69, 63 / 69), video=(2 / 4, 3 / 4), class_mean=(2 / 3 + 0) / 2)
    summary = summarize(KNOWN)
    assert summary.clip == pytest.approx(expected.clip)
    assert summary.video == expected.video
    assert summary.class_mean == pytest.approx(expected.class_mean)


def test_known_tables() -> None:
    counts = confusion(KNOWN)
    assert {(row, column): n for (row, column), n in np.ndenumerate(counts) if n} == {
        (0, 0): 2,
        (0, 2): 1,
        (1, 2): 1,
    }
    run, jump, sit, *_ = class_rows(KNOWN)
    assert run == ClassRow("run", 3, pytest.approx(2 / 3), pytest.approx(2 / 3), "sit", 1)
    assert jump == ClassRow("jump", 1, 0.0, 1.0, "sit", 1)
    assert sit == ClassRow("sit", 0, pytest.approx(float("nan"), nan_ok=True), sit.top5, "", 0)


def test_hits_at_every_rank() -> None:
    probabilities = np.array([[0.1, 0.4, 0.2, 0.3]] * 4)
    labels = np.arange(4)
    ranks = [3, 0, 2, 1]
    for k in range(1, 7):  # more than there are classes, too
        assert hits(probabilities, labels, k).tolist() == [rank < k for rank in ranks]


def test_equal_probabilities_are_no_free_hits() -> None:
    """A network that says the same of every class is right for one of them."""
    assert hits(np.full((4, 4), 0.25), np.arange(4), 1).tolist() == [True, False, False, False]
    assert hits(np.full((4, 4), 0.25), np.arange(4), 3).tolist() == [True, True, True, False]


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    for scores in (KNOWN, average([KNOWN, KNOWN])):
        scores.save(tmp_path / "scores.npz")
        read = Scores.load(tmp_path / "scores.npz")
        assert (read.classes, read.videos, read.views) == (scores.classes, scores.videos, scores.views)
        np.testing.assert_array_equal(read.probabilities, scores.probabilities)
        np.testing.assert_array_equal(read.labels, scores.labels)
        assert summarize(read) == summarize(scores)


def test_an_average_matches_videos_and_classes_by_name() -> None:
    other = scores_of([0, 0, 0, 1], [[1, 0], [2, 0], [0, 1], [1, 2]])
    mean = average([KNOWN, other])
    np.testing.assert_allclose(mean.probabilities, (KNOWN.probabilities + other.probabilities) / 2, rtol=1e-6)
    assert mean.clips is None
    assert summarize(mean).clip is None
    assert mean.views == "10x3"
    videos, classes = [3, 1, 0, 2], [6, 0, 2, 1, 4, 3, 5]
    shuffled = Scores(
        classes=tuple(CLASSES[i] for i in classes),
        videos=tuple(other.videos[i] for i in videos),
        labels=np.array([classes.index(other.labels[i]) for i in videos]),
        probabilities=other.probabilities[videos][:, classes],
        views="4x1",
    )
    again = average([KNOWN, shuffled])
    np.testing.assert_array_equal(again.probabilities, mean.probabilities)
    assert again.views == "10x3+4x1"
    assert average([KNOWN]) is KNOWN


def test_what_cannot_be_averaged() -> None:
    fewer = scores_of([0, 0, 0], [[0], [0], [0]])
    with pytest.raises(
        ValueError, match="scores 1 and 2 are of 4 and 3 videos, of which 1 .* such as jump/v3: cannot"
    ):
        average([KNOWN, fewer])
    renamed = Scores(("walk", *CLASSES[1:]), KNOWN.videos, KNOWN.labels, KNOWN.probabilities, "10x3")
    with pytest.raises(
        ValueError, match="scores 1 and 3 are of 7 and 7 classes, of which 2 .* such as run: cannot"
    ):
        average([KNOWN, KNOWN, renamed])
    moved = Scores(CLASSES, KNOWN.videos, np.array([0, 0, 0, 2]), KNOWN.probabilities, "10x3")
    with pytest.raises(ValueError, match="scores 1 and 2 have other labels for the same videos: cannot"):
        average([KNOWN, moved])


def test_what_is_no_file_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    with pytest.raises(FileNotFoundError, match=r"scores\.npz: there is no such file of scores"):
        Scores.load(path)
    path.write_text("nothing")
    with pytest.raises(ValueError, match=r"scores\.npz: holds no scores that train\.evaluate wrote"):
        Scores.load(path)
    np.savez(path, labels=np.arange(3))
    with pytest.raises(
        ValueError, match=r"scores\.npz: holds no scores that train\.evaluate wrote, .*classes"
    ):
        Scores.load(path)
    no_numbers = f"its labels are not numbers of {len(CLASSES)} classes"
    for change, reason in (
        ({"labels": np.array([0, 1, 2, 9])}, no_numbers),
        ({"labels": np.array([0.0, 1.0, 2.0, 0.0])}, no_numbers),
        ({"probabilities": KNOWN.labels}, "its arrays are not those"),  # of a shape that another array has
        ({"probabilities": KNOWN.probabilities[:2]}, "its arrays are not those of 4 videos"),
    ):
        dataclasses.replace(KNOWN, **change).save(path)
        with pytest.raises(ValueError, match=rf"scores\.npz: holds no scores .* wrote, {reason}"):
            Scores.load(path)
    np.save(tmp_path / "array.npy", np.arange(3))
    (tmp_path / "array.npy").rename(path)
    with pytest.raises(ValueError, match=r"scores\.npz: holds no scores that train\.evaluate wrote"):
        Scores.load(path)
