"""Training and validation splits of a custom dataset, and links that sort videos into class folders."""

import glob
import logging
import random
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PurePosixPath

from data.ffmpeg.side_files import choose_video, may_be_video, video_id
from data.label_files import Annotation, Splits, clean, read_lines
from data.video_list import find_stores

logger = logging.getLogger(__name__)


def list_videos(root: Path) -> list[Annotation]:
    """Return the rows of all stores below `root`. Raise ValueError if there are none."""
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; data.convert makes it")
    rows = find_stores(root)
    if not rows:
        raise ValueError(f"{root}: has no <class>/<video_id>/frames.db")
    return rows


def split_classes(rows: Iterable[Annotation], val_fraction: float, seed: int) -> Splits:
    """Return random "train" and "val" rows: of each class a fraction, at least one each."""
    classes: dict[str, list[Annotation]] = {}
    for row in rows:
        classes.setdefault(row.label, []).append(row)
    splits: Splits = {"train": [], "val": []}
    for label, videos in classes.items():
        if len(videos) < 2:
            raise ValueError(
                f"class {label!r}: needs at least 2 videos, one for training and one for validation"
            )
        random.Random(f"{seed} {label}").shuffle(videos)
        count = min(max(round(val_fraction * len(videos)), 1), len(videos) - 1)
        splits["val"] += videos[:count]
        splits["train"] += videos[count:]
    return splits


def split_by_list(rows: Sequence[Annotation], path: Path) -> Splits:
    """Return "train" and "val" rows: "val" rows are those that a text file lists.

    A line is `<class>/<video_id>`, with or without a suffix such as `.mp4`. Raise ValueError with file and line for a
    line without a store, and ValueError if a class has no training videos.
    """
    left = {row.folder: row for row in rows}
    val: list[Annotation] = []
    for location, line in read_lines(path):
        folder = find_folder(line, left)
        if folder is None:
            raise ValueError(f"{location}: {line!r} is a duplicate or not a store <class>/<video_id>")
        val.append(left.pop(folder))
    if lost := {row.label for row in rows} - {row.label for row in left.values()}:
        raise ValueError(f"{path}: leaves no training videos of class {min(lost)!r}")
    return {"train": list(left.values()), "val": val}


def find_folder(name: str, folders: Container[str]) -> str | None:
    """Return which folder `<class>/<video_id>` a path names, with or without a suffix; None if none of `folders`."""
    path = PurePosixPath(name)
    possible = (f"{path.parent.name}/{path.name}", f"{path.parent.name}/{path.stem}")
    return next((folder for folder in possible if folder in folders), None)


def link_videos(source: Path, target: Path, rows: Iterable[Annotation]) -> Counter[str]:
    """Link video files `<video_id>.<suffix>` anywhere below `source` as `target/<class>/<video_id>.<suffix>`.

    A file in a folder `replacement*` replaces those of its name, as in the copies of Kinetics. Return the numbers of
    links that are new ("linked"), "present" and "missing", and of rows that are "replaced", and "failed" as they have
    several videos. `target` may be below `source`.
    """
    files: dict[str, set[Path]] = {}
    replacing: set[Path] = set()
    # unlike Path.rglob, glob follows links to folders
    for name in glob.iglob("**/*.*", root_dir=source, recursive=True):
        path = source / name
        if may_be_video(path) and path.is_file():
            files.setdefault(clean(video_id(path)), set()).add(path.resolve())
            if "/replacement" in f"/{Path(name).parent}".lower():
                replacing.add(path.resolve())
    counts = Counter(linked=0, present=0, missing=0)
    for row in dict.fromkeys(rows):
        found = sorted(files.get(row.video_id, []))
        replacements = [path for path in found if path in replacing]
        try:
            video = choose_video(replacements or found)
        except ValueError as error:
            logger.error("%s", error)
            counts["failed"] += 1
            continue
        if video is None:
            counts["missing"] += 1
            continue
        if 0 < len(replacements) < len(found):
            counts["replaced"] += 1
        link = target / row.label / f"{row.video_id}{video.suffix}"
        if link.exists() and (link.resolve() == video or not link.is_symlink()):
            counts["present"] += 1
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # a link to a video that was moved or replaced
        link.symlink_to(video)
        counts["linked"] += 1
    return counts
