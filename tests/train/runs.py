"""Small runs for the tests, and what they leave."""

import csv
from pathlib import Path

import pytest
import torch

from data.datasets import OWN
from train.options import Options
from train.run import main

SMALL = [
    "--network",
    "ir_csn_50",
    "--clip-length",
    "4",
    "--clip-size",
    "32",
    "--short-side",
    "36",
    "--batch-size",
    "4",
]
SMALL += ["--workers", "0", "--augment", "none", "--lr-base", "0.01", "--gpus", "0"]
NAME = "ir_csn_50"


def train(dataset: Path, results: Path, *words: str) -> int:
    return main(
        OWN, Options(), ["--dataset", str(dataset), "--model-dir", str(results), *SMALL, *words], "train"
    )


def folder(results: Path) -> Path:
    (path,) = results.iterdir()
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def rows(results: Path, split: str) -> list[list[str]]:
    found = []
    for path in sorted(folder(results).glob(f"{split}_results_s*.csv")):
        with path.open() as file:
            found += [row[:4] for row in csv.reader(file)][1:]
    return found


def fails(capsys: pytest.CaptureFixture[str], status: int, *message: str, run: object) -> None:
    capsys.readouterr()
    assert run() == status
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    for part in message:
        assert part in lines[0]
