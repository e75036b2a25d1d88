"""Training and validation for a data set of one's own, and videos put into the folders of their classes."""

import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from data.common.atomic_io import LOST_AND_FOUND
from data.ffmpeg import NO_VIDEOS
from data.label_files import Annotation
from data.video_list import find_stores


def split_folders(root: Path, val_share: float, seed: int) -> tuple[list[Annotation], list[Annotation]]:
    """Training and validation rows for the stores below `root`: a share of every class, at least one on each side."""
    training, validation = [], []
    for label, ids in _by_class(root).items():
        if len(ids) < 2:
            raise ValueError(
                f"{root / label}: has 1 video, a class needs one for training and one for validation"
            )
        random.Random(f"{seed} {label}").shuffle(ids)
        count = min(max(round(val_share * len(ids)), 1), len(ids) - 1)
        validation += [Annotation(label, video_id) for video_id in ids[:count]]
        training += [Annotation(label, video_id) for video_id in ids[count:]]
    return training, validation


def split_by_list(root: Path, path: Path) -> tuple[list[Annotation], list[Annotation]]:
    """Training and validation rows for the stores below `root`: validation is what a text file names.

    A line is `<class>/<video_id>`, perhaps with an ending such as `.mp4`. ValueError with file and line for one that
    names no store or stands twice, and for a class that is left without training videos.
    """
    stores = {label: dict.fromkeys(ids) for label, ids in _by_class(root).items()}
    validation: dict[Annotation, str] = {}
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8, {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place, video = f"{path}, line {number}", PurePosixPath(line.strip())
        ids = stores.get(video.parent.name, {})
        row = Annotation(video.parent.name, video.name if video.name in ids else video.stem)
        if row.video_id not in ids:
            raise ValueError(f"{place}: {line.strip()!r} is not <class>/<video_id> of a store below {root}")
        if row in validation:
            raise ValueError(f"{place}: {row.video_id} stands twice, first in {validation[row]}")
        validation[row] = place
    if not validation:
        raise ValueError(f"{path}: names no video")
    training = [Annotation(label, name) for label, ids in stores.items() for name in ids]
    training = [row for row in training if row not in validation]
    untrained = [label for label in stores if label not in {row.label for row in training}]
    if untrained:
        raise ValueError(f"{path}: leaves no video of class {untrained[0]!r} for training")
    return training, list(validation)


def _by_class(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, video_id in find_stores(root):
        found.setdefault(label, []).append(video_id)
    if not found:
        raise ValueError(f"{root}: holds no <class>/<video_id>/frames.db")
    return found


def link_videos(source: Path, target: Path, rows: Iterable[Annotation]) -> Counter[str]:
    """Link the video files `<video_id>.<any>` anywhere below `source` as `target/<class>/<video_id>.<any>`.

    What lies below `target`, which may be below `source`, is there already. Counts `linked`, `there before` and
    `missing`. Raises ValueError where a row may mean two files, or where `source` is `target` or below it.
    """
    ours = target.resolve()
    if source.resolve().is_relative_to(ours):
        raise ValueError(f"{source}: is where the links are to be, {target}, or in it")
    files: dict[str, dict[Path, Path]] = {}
    for path in _files_below(source, apart_from=ours):
        if path.suffix and path.suffix.lower() not in NO_VIDEOS and path.is_file():
            files.setdefault(path.stem, {})[path.resolve()] = path
    counts = Counter({"linked": 0, "there before": 0, "missing": 0})
    for label, video_id in dict.fromkeys(rows):
        path, *others = files.get(video_id, {}).values() or [None]
        if others:
            raise ValueError(f"{path} and {others[0]}: which one is {video_id}?")
        link = target / label / f"{video_id}{path.suffix if path else ''}"
        if path is None:
            counts["missing"] += 1
        elif link.exists():
            counts["there before"] += 1
        else:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)  # to where the video once was
            link.symlink_to(path.resolve())
            counts["linked"] += 1
    return counts


def _files_below(source: Path, *, apart_from: Path) -> Iterator[Path]:
    """In order, also in folders that are links, each folder once. OSError where one cannot be read."""

    def stop(error: OSError) -> None:
        raise error

    seen = set()
    for top, folders, names in os.walk(source, onerror=stop, followlinks=True):
        folder = Path(top).resolve()
        if folder in seen or folder.is_relative_to(apart_from):
            folders.clear()
            continue
        seen.add(folder)
        folders[:] = sorted(set(folders) - {LOST_AND_FOUND})
        yield from (Path(top, name) for name in sorted(names))


def class_names(rows: Sequence[Annotation]) -> list[str]:
    return sorted({row.label for row in rows})
