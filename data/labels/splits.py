"""Training and validation splits of a custom dataset, and links that sort videos into class folders."""

import glob
import logging
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from data.ffmpeg.side_files import choose_video, may_be_video, video_id
from data.label_files import Annotation, Splits, clean, read_lines
from data.video_list import find_stores

logger = logging.getLogger(__name__)


def split_folders(root: Path, val_fraction: float, seed: int) -> Splits:
    """Return random "train" and "val" rows for the stores below `root`: of each class a fraction, at least one each."""
    splits: Splits = {"train": [], "val": []}
    for label, ids in _by_class(root).items():
        if len(ids) < 2:
            raise ValueError(
                f"{root / label}: needs at least 2 videos, one for training and one for validation"
            )
        random.Random(f"{seed} {label}").shuffle(ids)
        count = min(max(round(val_fraction * len(ids)), 1), len(ids) - 1)
        splits["val"] += [Annotation(label, video_id) for video_id in ids[:count]]
        splits["train"] += [Annotation(label, video_id) for video_id in ids[count:]]
    return splits


def split_by_list(root: Path, path: Path) -> Splits:
    """Return "train" and "val" rows for the stores below `root`: "val" rows are those that a text file lists.

    A line is `<class>/<video_id>`, with or without a suffix such as `.mp4`. Raise ValueError with file and line for a
    line without a store, and ValueError if a class has no training videos.
    """
    stores = _by_class(root)
    val: list[Annotation] = []
    for location, line in read_lines(path):
        video = PurePosixPath(line)
        ids = stores.get(video.parent.name, [])
        row = Annotation(video.parent.name, video.name if video.name in ids else video.stem)
        if row.source not in ids:
            raise ValueError(
                f"{location}: {line!r} is a duplicate or not a store <class>/<video_id> below {root}"
            )
        ids.remove(row.source)
        val.append(row)
    for label, ids in stores.items():
        if not ids:
            raise ValueError(f"{path}: leaves no training videos of class {label!r}")
    train = [Annotation(label, video_id) for label, ids in stores.items() for video_id in ids]
    return {"train": train, "val": val}


def _by_class(root: Path) -> dict[str, list[str]]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; data.convert makes it")
    ids: dict[str, list[str]] = {}
    for row in find_stores(root):
        ids.setdefault(row.label, []).append(row.source)
    if not ids:
        raise ValueError(f"{root}: has no <class>/<video_id>/frames.db")
    return ids


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
