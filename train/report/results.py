"""What folders of results hold: the options and curves of a run, and its evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.label_files import describe_difference
from train.csv_log import read_rows
from train.history import History, best_row, read_history
from train.options import Options
from train.scores import Scores, summarize

SCORES = "scores.npz"

Fact = tuple[str, list[str]]  # what it is, and its value in each result, "" where there is none


class Result(NamedTuple):
    """What a folder holds: a run, an evaluation, or both.

    `options`: of the run; empty if it is unknown. `facts`: what is known of both, by name. `history`: None before the
    end of an epoch. `scores`: None before an evaluation.
    """

    name: str
    options: dict[str, Any]
    facts: dict[str, str]
    history: History | None
    scores: Scores | None

    @property
    def hint(self) -> str:
        """What to do for an evaluation."""
        return f"python -m train.evaluate {self.options['network']}_best.pth --dataset DIR adds its videos"


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
    """Read the folder of an evaluation, or of a run with one, of its best checkpoint if there are several."""
    is_evaluation = (path / SCORES).is_file()
    run = path.parent if is_evaluation else path
    result = Result(name, {}, {}, None, None)
    if (run / "run.json").is_file():
        result = _read_run(run, name)
    elif not is_evaluation:
        what = "neither the results folder of a run nor one of train.evaluate"
        raise FileNotFoundError(f"{path}: {what}: it has no run.json and no {SCORES}")
    found = [path / SCORES] if is_evaluation else list(run.glob(f"*_val_*/{SCORES}"))
    if not found:
        return result._replace(facts=result.facts | {"evaluation": "none yet"})
    chosen = max(found, key=lambda file: ("_best_" in file.parent.name, file.parent.name))
    scores = Scores.load(chosen)
    accuracies = {name: f"{value:.4f}" for name, value in summarize(scores).items()}
    facts = result.facts | {"evaluation": chosen.parent.name} | accuracies
    return result._replace(facts=facts, scores=scores)


def _read_run(folder: Path, name: str) -> Result:
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
    return Result(name, options, {name: str(value) for name, value in facts.items()}, history, None)


def find_dataset(results: Sequence[Result]) -> Path | None:
    """Return the folder that a run was trained on, None if it is not there."""
    paths = (Path(result.options["dataset"]) for result in results if result.options)
    return next((path for path in paths if (path / "jpg").is_dir()), None)


def list_facts(results: Sequence[Result]) -> list[Fact]:
    """Return what is known of the results."""
    names = dict.fromkeys(name for result in results for name in result.facts)
    return [(name, [result.facts.get(name, "") for result in results]) for name in names]


def list_options(results: Sequence[Result]) -> tuple[list[Fact], list[Fact]]:
    """Return the options that a run has changed, and the others. Of a path only the last part is shown."""
    defaults = Options().to_dict()
    changed: list[Fact] = []
    others: list[Fact] = []
    for name in dict.fromkeys(name for result in results for name in result.options):
        values = [result.options.get(name) for result in results]
        fact = (f"--{name.replace('_', '-')}", [_option_text(value) for value in values])
        (others if all(value in (None, defaults.get(name)) for value in values) else changed).append(fact)
    return changed, others


def _option_text(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    return Path(text).name if "/" in text else text
