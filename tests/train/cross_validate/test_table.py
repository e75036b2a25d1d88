"""The table of a cross-validation: its figures, computed by hand, and its files."""

from pathlib import Path

import pytest

from data.label_files import write_csv
from train.cross_validate.table import FoldResult, read_result, wilson, write_table

CLASSES = ["run", "a|b", "never seen"]


def fold(folder: Path, name: str, counts: list[list[int]], minutes: float, classes: list[str]) -> FoldResult:
    """Write the confusion matrix of a fold and read it back."""
    path = folder / f"{name}.csv"
    write_csv(path, ["Class", *classes], [[name, *row] for name, row in zip(classes, counts, strict=True)])
    return read_result(name, path, minutes)


@pytest.fixture
def folds(tmp_path: Path) -> list[FoldResult]:
    """Two folds; the second has no videos of the second class."""
    return [
        fold(tmp_path, "1", [[3, 1, 0], [2, 2, 0], [0, 0, 0]], 1.25, CLASSES),
        fold(tmp_path, "3", [[2, 0, 0], [0, 0, 0], [0, 0, 0]], 0.0, CLASSES),
    ]


@pytest.mark.parametrize(
    ("correct", "total", "interval"),
    [  # Newcombe 1998, table I, without continuity correction
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (29, 29, (0.8830, 1.0000)),
        (0, 0, (0, 1)),
    ],
)
def test_wilson(correct: int, total: int, interval: tuple[float, float]) -> None:
    assert wilson(correct, total) == pytest.approx(interval, abs=5e-5)


def test_table(tmp_path: Path, folds: list[FoldResult]) -> None:
    """Classes without videos do not count in the mean class accuracy of a fold; 7 of 10 videos are correct."""
    text = write_table(tmp_path, folds, epochs=40, title="the run")
    assert (tmp_path / "table.md").read_text() == text
    assert text.splitlines() == [
        "the run",
        "",
        "| fold | videos | top-1 | mean class accuracy |",
        "| --- | --- | --- | --- |",
        "| 1 | 8 | 0.6250 | 0.6250 |",
        "| 3 | 2 | 1.0000 | 1.0000 |",
        "| mean ± deviation |  | 0.8125 ± 0.2652 | 0.8125 ± 0.2652 |",
        "| all videos | 10 | 0.7000 (0.3968 to 0.8922) |  |",
        "",
        "| class | videos | correct | top-1 | 95 % low | 95 % high |",
        "| --- | --- | --- | --- | --- | --- |",
        "| run | 6 | 5 | 0.8333 | 0.4365 | 0.9699 |",
        "| a&#124;b | 4 | 2 | 0.5000 | 0.1500 | 0.8500 |",
        "| never seen | 0 | 0 | nan | 0.0000 | 1.0000 |",
    ]
    assert (tmp_path / "folds.csv").read_text().splitlines() == [
        "Fold,Videos,Top1,MeanClassAccuracy,Epochs,Minutes",
        "1,8,0.6250,0.6250,40,1.2",
        "3,2,1.0000,1.0000,40,0.0",
    ]
    assert (tmp_path / "confusion.csv").read_text().splitlines()[1:] == [
        "run,5,1,0",
        "a|b,2,2,0",
        "never seen,0,0,0",
    ]
    assert (tmp_path / "confusion.png").stat().st_size


def test_folds_with_other_classes_are_refused(tmp_path: Path, folds: list[FoldResult]) -> None:
    other = fold(tmp_path, "3", [[2, 0, 0], [0, 0, 0], [0, 0, 0]], 0.0, ["run", "walk", "never seen"])
    with pytest.raises(ValueError, match=r"number 1 is 'a\|b' in fold 1, 'walk' in fold 3"):
        write_table(tmp_path, [folds[0], other], epochs=40, title="the run")
