"""What folders of results hold: the options and curves of runs, and their evaluations."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.label_files import describe_difference
from train.csv_log import read_rows
from train.history import History, best_row, read_history
from train.options import Options
from train.scores import Scores, summarize

SCORES = "scores.npz"
FOLDS = "folds.csv"

Fact = tuple[str, list[str]]  # what it is, and its value in each result, "" where there is none


class Run(NamedTuple):
    """A run: options, what is known of it by name, and its curves if an epoch has ended."""

    options: dict[str, Any]
    facts: dict[str, str]
    history: History | None


class Result(NamedTuple):
    """What a folder holds: a run, the folds of a cross-validation, or an evaluation, with its run if that is known.

    `scores`: of the evaluation in the folder `evaluation`, of all folds together; None before there is one.
    """

    name: str
    runs: list[Run]
    evaluation: str
    scores: Scores | None

    @property
    def options(self) -> dict[str, Any]:
        """The options of its first run."""
        return self.runs[0].options if self.runs else {}

    @property
    def hint(self) -> str:
        """What to do for an evaluation."""
        return f"python -m train.evaluate {self.options['network']}_best.pth --dataset DIR adds its videos"

    def facts(self) -> dict[str, str]:
        """Return what is known of its runs, separated by slashes where they differ, and its accuracies."""
        facts = {}
        for name in dict.fromkeys(name for run in self.runs for name in run.facts):
            values = [run.facts.get(name, "") for run in self.runs]
            facts[name] = values[0] if len(set(values)) == 1 else " / ".join(values)
        accuracies = summarize(self.scores) if self.scores else {}
        evaluation = {"evaluation": self.evaluation or "none yet"}
        return facts | evaluation | {name: f"{value:.4f}" for name, value in accuracies.items()}


def read_results(folders: Sequence[Path]) -> list[Result]:
    """Read folders of results. Raise FileNotFoundError for others, ValueError for evaluations of other classes."""
    paths = list(dict.fromkeys(folder.resolve() for folder in folders))
    depth = 1  # of the names, which have as few parts of the path as tell them apart
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    results = [_read_result(path, "/".join(path.parts[-depth:])) for path in paths]
    first, *others = [result for result in results if result.scores] or results
    for result in others:
        if first.scores and result.scores and first.scores.classes != result.scores.classes:
            classes = (first.scores.classes, result.scores.classes)
            how = describe_difference(*classes, (first.name, result.name))
            raise ValueError(f"classes differ: {how}; a report is about runs on one dataset")
    return results


def _read_result(path: Path, name: str) -> Result:
    if (path / SCORES).is_file():
        runs = [_read_run(path.parent)] if (path.parent / "run.json").is_file() else []
        return Result(name, runs, path.name, Scores.load(path / SCORES))
    folders = [path]
    if (path / FOLDS).is_file():
        with (path / FOLDS).open(newline="", encoding="utf-8") as file:
            folders = [path.parent.parent / f"fold{row['Fold']}" / path.name for row in csv.DictReader(file)]
    elif not (path / "run.json").is_file():
        what = "no results folder of a run, of train.evaluate or of train.cross_validate"
        raise FileNotFoundError(f"{path}: {what}: it has no run.json, {SCORES} or {FOLDS}")
    paths = [found for folder in folders if (found := _newest_evaluation(folder))]
    evaluation = " / ".join(dict.fromkeys(found.parent.name for found in paths))
    return Result(name, list(map(_read_run, folders)), evaluation, _pool(list(map(Scores.load, paths))))


def _newest_evaluation(run: Path) -> Path | None:
    files = run.glob(f"*_val_*/{SCORES}")
    return max(files, key=lambda file: file.stat().st_mtime, default=None)


def _pool(scores: Sequence[Scores]) -> Scores | None:
    """Return the scores of the videos of all evaluations; None if there are none."""
    if len(scores) < 2:
        return scores[0] if scores else None
    counts = [own.clip_counts for own in scores if own.clip_counts is not None]
    return dataclasses.replace(
        scores[0],
        videos=tuple(video for own in scores for video in own.videos),
        labels=np.concatenate([own.labels for own in scores]),
        probabilities=np.concatenate([own.probabilities for own in scores]),
        clip_counts=np.concatenate(counts) if len(counts) == len(scores) else None,
    )


def _read_run(folder: Path) -> Run:
    path = folder / "run.json"
    train, val = (read_rows(folder, split) for split in ("train", "val"))
    facts: dict[str, Any] = {}
    try:
        record = json.loads(path.read_text("utf-8"))
        options, dataset = record["options"], record["dataset"]
        facts["network"] = options["network"]
        if val:
            best, minutes = best_row(val), sum(row["Seconds"] for row in (*train, *val)) / 60
            facts |= {"epochs": val[-1]["Epoch"], "minutes": f"{minutes:.1f}", "best epoch": best["Epoch"]}
            facts["its validation top-1, top-5"] = f"{best['Top1']:.3f}, {best['Top5']:.3f}"
        facts["training, validation videos"] = f"{dataset['train']['videos']}, {dataset['val']['videos']}"
        facts |= {"classes": dataset["classes"], "data fingerprint": dataset["fingerprint"]}
        facts["torch"] = record["versions"]["torch"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the run.json of a training run: {error!r}") from None
    history = read_history(folder) if train and val else None
    return Run(options, {name: str(value) for name, value in facts.items()}, history)


def find_dataset(results: Sequence[Result]) -> Path | None:
    """Return the folder that the first run was trained on, None if it is not there."""
    paths = (Path(result.options["dataset"]) for result in results if result.options)
    return next((path for path in paths if (path / "jpg").is_dir()), None)


def list_facts(results: Sequence[Result]) -> list[Fact]:
    """Return what is known of the results."""
    columns = [result.facts() for result in results]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "") for column in columns]) for name in names]


def list_options(results: Sequence[Result]) -> tuple[list[Fact], list[Fact]]:
    """Return the options that a run has changed, and the others. Of a path only the last part is shown."""
    defaults = Options().to_dict()
    changed: list[Fact] = []
    others: list[Fact] = []
    for name in dict.fromkeys(name for result in results for name in result.options):
        values = [result.options.get(name) for result in results]
        fact = (f"--{name.replace('_', '-')}", [_option_text(value) for value in values])
        (others if all(value == defaults.get(name) for value in values) else changed).append(fact)
    return changed, others


def _option_text(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return Path(text).name if "/" in text else text
