"""The tables of docs/results.md, and the recipe behind them on people whom the network has not seen."""

import re
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.conftest import shared_folder
from tools import results
from tools.results import Row

PLAIN = Row("weizmann", "r3d_18")
GATED = Row("weizmann", "srtg_r3d_18", "--gates soft")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "KEPT", tmp_path)
    return tmp_path


def keep(folder: Path, row: Row, *seeds: list[float]) -> None:
    """Write the CSVs of a row that is finished: accuracies of its folds, for each seed."""
    for seed, accuracies in enumerate(seeds, 1):
        path = folder / row.name / f"seed{seed}/folds.csv"
        path.parent.mkdir(parents=True)
        lines = [f"{fold},{top1},{top1},2\n" for fold, top1 in enumerate(accuracies, 1)]
        path.write_text("".join(["Fold,Top1,MeanClassAccuracy,Minutes\n", *lines]))


def test_a_row_is_the_mean_over_folds_of_the_mean_over_seeds(kept: Path) -> None:
    keep(kept, PLAIN, [0.6] * 4 + [0.5] * 5, [0.8] * 4 + [0.7] * 5)
    keep(kept, Row("scfd", "r3d_18"), [0.7] * 5)
    (row,) = list(results.result_table("weizmann"))[2:]
    assert row == "| [`r3d_18`](results/weizmann-r3d_18) |  | 2 | 0.644 ± 0.053 | 0.644 | 18 |"


def test_differences_are_paired_by_fold(kept: Path) -> None:
    """Differences of 0.1, five times, and of 0: mean 0.0556, deviation 0.0527, t of 8 degrees of freedom 2.306."""
    plain = [0.9, 0.1, 0.5, 0.7, 0.3, 0.6, 0.2, 0.4, 0.8]
    keep(kept, PLAIN, plain)
    keep(kept, GATED, [value + 0.1 * (fold < 5) for fold, value in enumerate(plain)])
    (row,) = list(results.difference_table())[2:]
    assert row == "| `weizmann-srtg_r3d_18-soft` - `weizmann-r3d_18` | +0.056 | +0.015 to +0.096 |"


def test_rows_are_compared_with_plain_ones_of_the_same_start() -> None:
    names = {row.name: row.plain().name for row in results.ROWS}
    assert names["scfd-srtg_r3d_18-True"] == "scfd-r3d_18"
    assert names["scfd-srtg_r3d_18-motions"] == "scfd-r3d_18-motions"
    assert names["scfd-r3d_18-light-30"] == "scfd-r3d_18"
    assert set(names.values()) <= set(names)


def test_the_page_has_the_kept_results() -> None:
    """docs/results.md is what tools.results writes, and says how each row was made."""
    text = results.PAGE.read_text("utf-8")
    for lines in (*map(results.result_table, results.RECIPES), results.difference_table()):
        assert "\n".join(lines) in text
    for path in results.KEPT.glob("*/seed*/command.txt"):
        recipe = results.RECIPES[path.parents[1].name.split("-")[0]]
        assert recipe in path.read_text("utf-8")


@pytest.mark.slow
def test_six_of_ten_actions_of_a_person_never_seen(tmp_path: Path) -> None:
    """Fold 1 of leaving one person out: 80 videos of eight people in training, 10 of another one in validation."""
    source = shared_folder("real") / "weizmann"
    dataset, options = tmp_path / "set", f"--model-dir {tmp_path}/results --network r3d_18"
    for command in (
        f"data.convert {source} {dataset} --short-side 144",
        f"data.labels folders {dataset} --folds groups --groups {source}/groups.csv",
        f"train.cross_validate {dataset} --fold 1 {results.RECIPES['weizmann']} {options}",
    ):
        completed = run_command(*command.split())
        assert completed.exit_code == 0, completed.output
    accuracy = re.search(r"fold 1/9: top-1 (\S+) \(10 videos\)", completed.output)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.6
