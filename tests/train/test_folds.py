"""`--fold` of python -m train: label files and results folder of a fold, and commands that read what it leaves."""

import csv
import json
from pathlib import Path

import pytest

from data.datasets import CUSTOM
from data.label_files import AnnotationSet, find_label_sets
from tests.commands import main_of
from tests.train.helpers import NAME, argv_of, assert_fails, train
from train.cli import parse_options
from train.options import Options
from train.scores import Scores


def write_folds(root: Path, folds: int) -> None:
    """Write label files of folds over the videos of the set: fold k validates every k-th video."""
    videos = sorted(path.parent for path in root.glob("jpg/*/*/frames.db"))
    classes = sorted({video.parent.name for video in videos})
    for fold in range(1, folds + 1):
        files = AnnotationSet(CUSTOM, str(fold), root / "labels").paths()
        for split in ("train", "val"):
            chosen = [v for n, v in enumerate(videos) if (n % folds == fold - 1) == (split == "val")]
            rows = "".join(f"{video.parent.name},{video.name}\n" for video in chosen)
            files[split].write_text(f"label,id\n{rows}")
        numbers = {name: number for number, name in enumerate(classes)}
        (root / "labels" / f"fold{fold}_dictionary.json").write_text(json.dumps(numbers))


def test_a_fold_has_its_label_files_and_results(own_stores: Path, tmp_path: Path) -> None:
    """Also for train.evaluate, which reads the fold from the checkpoint, and data.browse."""
    write_folds(own_stores, folds=3)
    assert train(own_stores, tmp_path / "results", "--fold 2 --end-epoch 1") == 0
    checkpoint = tmp_path / "results" / "fold2" / f"{NAME}_gates_False" / f"{NAME}_ep-0001.pth"
    words = ["--dataset", own_stores, "--clips", 1, "--crops", 1, "--workers", 0, "--gpus", 0]
    assert main_of("train.evaluate")([str(checkpoint), *map(str, words)]) == 0
    with (own_stores / "labels" / "fold2_val.csv").open() as file:
        expected = {f"{row['label']}/{row['id']}" for row in csv.DictReader(file)}
    scores = Scores.load(checkpoint.with_name(f"{NAME}_ep-0001_val_1x1") / "scores.npz")
    assert set(scores.videos) == expected
    assert [files.variant for files in find_label_sets(own_stores, None)] == ["", "1", "2", "3"]
    sheet = str(tmp_path / "sheet.png")
    assert main_of("data.browse")([str(own_stores), "--fold", "3", "--clip-size", "32", "-o", sheet]) == 0


def test_without_a_fold_nothing_changes(own_stores: Path, tmp_path: Path) -> None:
    write_folds(own_stores, folds=3)
    assert train(own_stores, tmp_path / "results", "--end-epoch 1") == 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == [f"{NAME}_gates_False"]
    assert parse_options(CUSTOM, Options(), ["--dataset", "x", "--fold", "02"]).variant == "2"


def test_missing_fold(own_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = (
        f"fold7_train.csv: not found in {own_stores}/labels",
        f"data.labels folders {own_stores} --folds N",
    )
    assert_fails(capsys, 2, *message, run=lambda: train(own_stores, tmp_path / "results", "--fold 7"))
    with pytest.raises(SystemExit):
        parse_options(CUSTOM, Options(), argv_of(own_stores, tmp_path, "--fold 0"))
    assert "argument --fold: '0' is not a whole number of at least 1" in capsys.readouterr().err
