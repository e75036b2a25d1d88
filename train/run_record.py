"""run.json, the record of a run: its options, versions, code and dataset. `--config` repeats a run from it."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.common.atomic_io import atomic_write
from data.common.cli import sanitize
from data.datasets import DatasetSpec
from train.options import Options


def make_record(options: Options, dataset_summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run with these options, resolved, on this dataset."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    code = {package: _hash_code(package) for package in ("network", "data", "train")}
    return {"options": options.to_dict(), "versions": versions, "code": code, "dataset": dataset_summary}


def _hash_code(package: str) -> str:
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parents[1] / package).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write_run_json(folder: Path, options: Options, dataset_summary: Mapping[str, Any]) -> None:
    """Write the record of a run."""
    record = make_record(options, dataset_summary)
    atomic_write(folder / "run.json", json.dumps(record, indent=1) + "\n")


def read_run_json(path: Path, spec: DatasetSpec) -> dict[str, Any]:
    """Return the record of a run. Raise OSError, or ValueError for another kind of file or a run on another dataset."""
    try:
        record = json.loads(path.read_text("utf-8"))
        record["options"], name = dict(record["options"]), record["dataset"]["name"]
        record |= {part: dict(record.get(part, {})) for part in ("versions", "code")}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: not the run.json of a training run") from None
    if name != spec.name:
        script = "python -m train" if name == "custom" else f"train_{sanitize(name)}.py"
        raise ValueError(f"{path}: a run on {sanitize(name)}, which {script} repeats")
    return record


def describe_changes(
    record: Mapping[str, Any], options: Options, dataset: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what differs from a run's record now, but for values of its options: a line each."""
    now = make_record(options, dataset)
    recorded, current = record["options"], now["options"]
    changes = [("option", name, recorded, current) for name in sorted(recorded.keys() ^ current.keys())]
    for section in ("versions", "code", "dataset"):
        changes += [(section, name, record.get(section, {}), now[section]) for name in now[section]]
    for section, name, before, after in changes:
        old, new = before.get(name, "unknown"), after.get(name, "unknown")
        if old != new:
            yield f"{section} {name} was {old}, is {new}"
