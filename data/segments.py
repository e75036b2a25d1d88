"""Label files as a list of what to cut out of which video."""

import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.label_files import read_label_csv

logger = logging.getLogger(__name__)


class Segment(NamedTuple):
    """A row of a label file: of the video `source`, what lies within `seconds` (start, end), or all of it."""

    label: str
    video_id: str
    source: str
    seconds: tuple[float, float] | None


def read_segments(paths: Sequence[Path]) -> list[Segment]:
    """The rows of label files, each store once. Errors of `read_label_csv`, and ValueError where nothing is to be cut.

    Rows within the same whole seconds are one store: the first is taken, as data.labels does, and a warning says how
    many others there are.
    """
    segments: dict[tuple[str, str], Segment] = {}
    others: set[Segment] = set()
    for segment in (segment for path in paths for segment in _rows(path)):
        if segments.setdefault((segment.label, segment.video_id), segment) != segment:
            others.add(segment)
    if others:
        logger.warning("left out %d rows within the seconds of another one", len(others))
    return list(segments.values())


def _rows(path: Path) -> Iterator[Segment]:
    rows = read_label_csv(path, timed_ids=True)
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row, raw in zip(rows, csv.DictReader(file), strict=True):
            source = raw["youtube_id"] if "youtube_id" in raw else raw["id"]
            seconds = None
            if row.video_id != source:
                seconds = float(raw["time_start"]), float(raw["time_end"])
                if seconds[0] >= seconds[1]:
                    raise ValueError(f"{path}: {row.video_id} has nothing between its start and its end")
            yield Segment(row.label, row.video_id, source, seconds)
