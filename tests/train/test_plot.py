"""Curves as pictures."""

from pathlib import Path

import cv2
import pytest

from train.callbacks import EpochReport, ResultsTable
from train.metrics import Averages
from train.plot import main, read_curve


def make_run(folder: Path, first: int, last: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = ResultsTable(folder, first)
    for epoch in range(first, last + 1):
        result = Averages(top1=1 - 1 / epoch, top5=1.0, loss=2 / epoch)
        table.on_epoch(EpochReport(epoch, 0.1, result, result, 1.0, 1.0))
    return folder


def test_resumed_run_is_one_curve(tmp_path: Path) -> None:
    make_run(tmp_path, 1, 3)
    make_run(tmp_path, 4, 5)
    curve = read_curve(tmp_path, "val")
    assert curve.epochs == [1, 2, 3, 4, 5]
    assert curve.loss == [2.0, 1.0, 2 / 3, 0.5, 0.4]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_picture_and_best_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    runs = [make_run(tmp_path / name, 1, 4) for name in ("one", "two")]
    picture = tmp_path / "new" / f"curves.{ending}"
    assert main([*map(str, runs), "-o", str(picture)]) == 0
    out = capsys.readouterr().out
    assert f"{runs[0]}: best val top-1 0.750, top-5 1.000 (epoch 4)" in out
    assert f"picture: {picture}" in out
    if ending == "png":
        image = cv2.imread(str(picture))
        assert image.shape[1] > 1000
        assert len({tuple(pixel) for row in image[::3, ::3] for pixel in row}) > 20
    else:
        assert "<svg" in picture.read_text()


def test_runs_whose_folders_have_one_name_stay_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second once took the first one's place and numbers."""
    one, two = make_run(tmp_path / "a" / "run", 1, 2), make_run(tmp_path / "b" / "run", 1, 4)
    assert main([str(one), str(two), "-o", str(tmp_path / "curves.svg")]) == 0
    out = capsys.readouterr().out
    assert f"{one}: best val top-1 0.500" in out
    assert f"{two}: best val top-1 0.750" in out


def test_folder_without_results_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path)])
    assert stopped.value.code == 2
    assert f"{tmp_path}: holds no train_results_s*.csv" in capsys.readouterr().err


def test_damaged_table_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 1, 2)
    (tmp_path / "val_results_s0001.csv").write_text("Epoch,Top1\n1,much\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "val_results_s0001.csv: {'Epoch': '1', 'Top1': 'much'} is not a row" in capsys.readouterr().err
