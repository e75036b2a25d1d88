"""Groups of videos, such as those of one person or one recording, and splits with each group on one side."""

import logging
import math
import os
import random
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.label_files import Annotation, Splits, read_csv
from data.labels.splits import find_folder

logger = logging.getLogger(__name__)


def add_groups(rows: Sequence[Annotation], source: str) -> list[Annotation]:
    """Return the rows with their groups, by a CSV file or a pattern; "" where it names none. Raise as they do."""
    groups = read_groups(Path(source), rows) if os.path.isfile(source) else match_groups(source, rows)
    if not any(groups.values()):
        raise ValueError(f"--groups {source}: names no group of the videos, such as {rows[0].folder!r}")
    return [replace(row, group=groups.get(row.folder, "")) for row in rows]


def read_groups(path: Path, rows: Sequence[Annotation]) -> dict[str, str]:
    """Return groups by folder, from a CSV with `video` (or `path`) and `group`. Raise for a video in two groups."""
    folders = {row.folder for row in rows}
    groups: dict[str, str] = {}
    for location, row in read_csv(path, ["group"]):
        name = row.get("video", row.get("path"))
        if name is None:
            raise ValueError(f"{location}: needs video, as <class>/<id>, and group; columns are {list(row)}")
        folder = find_folder(name, folders)
        if folder and groups.setdefault(folder, row["group"]) != row["group"]:
            raise ValueError(f"{location}: {name!r} is in group {row['group']!r} and in {groups[folder]!r}")
    return groups


def match_groups(pattern: str, rows: Sequence[Annotation]) -> dict[str, str]:
    """Return groups by folder: the first group of a regular expression searched in the folder."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"--groups {pattern}: not a file, nor a regular expression: {error}") from None
    if not expression.groups:
        raise ValueError(rf"--groups {pattern}: not a file, nor a pattern with a group, such as '_(g\d+)_'")
    matches = {row.folder: expression.search(row.folder) for row in rows}
    return {folder: match[1] or "" for folder, match in matches.items() if match}


def suggest_groups(rows: Sequence[Annotation]) -> None:
    """Log a pattern that groups the videos, if a part of their ids is shared, and varies within classes.

    A last part with digits is not a group: it counts the videos of one.
    """
    least = 2 * len({row.label for row in rows})
    patterns = (r"_([^_/\d]+)$", r"[_/]([A-Za-z]+\d+)_", "/([^_/]+)_", "_([^_/]+)_")
    for pattern in (pattern.replace("_", separator) for separator in "_- " for pattern in patterns):
        groups = match_groups(pattern, rows)
        sizes = Counter(groups.values())
        varies = len({(row.label, groups.get(row.folder)) for row in rows}) >= least
        if varies and len(groups) == len(rows) >= 2 * len(sizes) >= 6:
            name, _ = sizes.most_common(1)[0]
            one, other, *_ = (folder for folder in groups if groups[folder] == name)
            flag = f"--groups {shlex.quote(pattern)}"
            logger.warning("ids look grouped (%s, %s): %s keeps a group on one side", one, other, flag)
            return


def split_groups(
    rows: Sequence[Annotation], shares: Sequence[float], seed: int, train_only: Sequence[str]
) -> list[Splits]:
    """Return a split for each share of the videos in validation; without shares, one for each group.

    A group, or video if none has a group, is in "val" once at most; those of `train_only`, and videos without a group,
    never. Raise ValueError for a class that cannot be on both sides.
    """
    known = {row.group for row in rows} - {""}
    if unknown := {*train_only} - known:
        raise ValueError(f"--train-only {min(unknown)!r}: is not one of the groups {sorted(known)[:20]}")
    if known and (rest := [row.folder for row in rows if not row.group]):
        logger.warning("%d videos have no group: training side only, such as %s", len(rest), rest[0])
    names = [row.group or row.folder for row in rows]
    always = Counter[str]()
    groups = {name: Counter[str]() for name in sorted((known or {*names}) - {*train_only})}
    for name, row in zip(names, rows, strict=True):
        groups.get(name, always).update((row.label, ""))
    if len(groups) < max(len(shares), 1):
        raise ValueError(f"only {len(groups)} groups, or videos without groups, may be in validation")
    chosen = _balance(groups, always, shares, seed) if shares else {name: i for i, name in enumerate(groups)}
    splits: list[Splits] = [{"train": [], "val": []} for _ in shares or groups]
    for fold, split in enumerate(splits):
        for name, row in zip(names, rows, strict=True):
            split["val" if chosen.get(name) == fold else "train"].append(row)
        for side in ("train", "val") if len(splits) == 1 else ("train",):
            if lost := {row.label for row in rows} - {row.label for row in split[side]}:
                held = sorted({name for name, row in zip(names, rows, strict=True) if row.label in lost})
                raise ValueError(f"class {min(lost)!r}: no {side} videos, it is only in groups {held[:5]}")
    return splits


def describe_groups(splits: Sequence[Splits], train_only: Sequence[str]) -> str:
    """Return one line: the number of groups that may be in validation, and the fractions of videos that are."""
    rows = [*splits[0]["train"], *splits[0]["val"]]
    sides = (rows, *(split["val"] for split in splits))
    totals, *vals = (Counter(label for row in side for label in (row.label, "")) for side in sides)
    spans = []
    for labels in ([""], totals.keys() - {""}):
        fractions = [f"{val[label] / totals[label]:.2f}" for val in vals for label in labels]
        spans.append(" to ".join(sorted({min(fractions), max(fractions)})))
    number = len({row.group for row in rows} - {"", *train_only})
    return f"{number} groups, none on both sides; validation has {spans[0]} of the videos ({spans[1]} of a class)"


def _balance(
    groups: Mapping[str, Counter[str]], always: Counter[str], shares: Sequence[float], seed: int
) -> dict[str, int]:
    """Return the number of the share of each group, from its number of videos of each class, and of all under "".

    Beside a single share, 1 is the rest, which has the videos `always`. From the largest on, each group goes where the
    squared deviations of numbers from their targets grow least. Then, from the smallest on, each may move, first of all
    to where a class of it is missing. Log groups above a share.
    """
    parts = [Counter[str]() for _ in shares]
    if len(shares) == 1:
        shares, parts = (*shares, 1 - shares[0]), [*parts, always.copy()]
    totals = Counter[str]()
    for count in (*parts, *groups.values()):
        totals.update(count)
    order = sorted(random.Random(seed).sample([*groups], len(groups)), key=lambda name: -groups[name][""])
    if large := [
        f"{name!r} ({number} of {totals[label]} {label or 'videos'})"
        for name in order
        for label, number in groups[name].items()
        if number > math.ceil(shares[0] * totals[label])
    ]:
        logger.warning("groups above %.2f of the videos or of a class: %s", shares[0], ", ".join(large[:5]))

    def growth(part: int, name: str, spread: bool) -> float:
        total = 0.0
        for label, number in groups[name].items():
            target, now = shares[part] * totals[label], parts[part][label]
            before = totals[""] if spread and not now else target - now
            total += ((target - now - number) ** 2 - before**2) / totals[label]
        return total

    chosen: dict[str, int] = {}
    for name in order + order[::-1] * 2:
        moves = name in chosen
        if moves:
            parts[chosen[name]].subtract(groups[name])
        chosen[name] = min(range(len(parts)), key=partial(growth, name=name, spread=moves))
        parts[chosen[name]].update(groups[name])
    return chosen
