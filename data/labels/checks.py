"""Checks of official lists before label files are written from them."""

from collections import Counter
from itertools import chain

from data.label_files import Annotation, Splits, check_annotation
from data.labels.official import OfficialLists

# a video of several splits stays in the first of these: evaluation data is kept whole
SPLITS = ("test", "val", "train")


def check_classes(
    lists: OfficialLists, name: str, expected: int, num_classes: int | None, *, untrained_classes: bool
) -> list[str]:
    """Return the class names: `expected` ones, or of a subset `num_classes` with training videos.

    Raise ValueError with file and line for a row of another class, and ValueError for another number of classes or,
    unless `untrained_classes`, for a class without training videos.
    """
    trained = {row.label for row in lists.splits["train"]}
    classes = [label for label in lists.classes if num_classes is None or label in trained]
    known = set(classes)
    for row in chain(*lists.splits.values()):
        if row.label not in known:
            raise ValueError(f"{row.location}: class {row.label!r} is not one of the {len(known)} classes")
    expected = num_classes or expected
    if len(classes) != expected or (len(trained) < expected and not untrained_classes):
        raise ValueError(
            f"{name}: has training videos of {len(trained)} classes, expected {expected}; "
            f"--num-classes {len(trained)} accepts a subset"
        )
    return classes


def resolve_conflicts(splits: Splits, *, leave_out: bool) -> tuple[Splits, Counter[str]]:
    """Return the splits with each video in one of them and each clip once, and the number of dropped rows by reason.

    Raise ValueError with both locations for a duplicate row and a video of several splits, unless `leave_out` drops
    them. Of clips in the same whole seconds, whose frames would be in the same folder, the first is kept.
    """
    dropped = Counter[str]()
    videos: dict[str, tuple[str, Annotation]] = {}
    clips: dict[str, Annotation] = {}
    kept: Splits = {split: [] for split in splits}
    for split in (name for name in SPLITS if name in splits):
        for row in map(check_annotation, splits[split]):
            video_split, video = videos.setdefault(row.source, (split, row))
            clip = clips.setdefault(row.folder, row)
            other = clip if video_split == split else video
            if other is row:
                kept[split].append(row)
            elif video_split == split and other != row:
                dropped[f"{split} rows in the same seconds as another one"] += 1
            elif leave_out:
                same = f"whose video is in {video_split}" if video_split != split else "that are duplicates"
                dropped[f"{split} rows {same}"] += 1
            else:
                raise ValueError(
                    f"{row.location}: {row.source} is also in {other.location}; --leave-out-conflicts drops this row"
                )
    return kept, dropped
