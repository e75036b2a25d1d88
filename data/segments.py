"""Label files as a list of what to cut out of which video."""

import csv
from pathlib import Path
from typing import NamedTuple

from data.label_files import read_label_csv


class Segment(NamedTuple):
    """A row of a label file: of the video `source`, what lies within `seconds` (start, end), or all of it."""

    label: str
    video_id: str
    source: str
    seconds: tuple[float, float] | None


def read_segments(path: Path) -> list[Segment]:
    """The rows of a label file, each once; errors as of `read_label_csv`, and ValueError where nothing is to be cut."""
    segments, rows = [], read_label_csv(path, timed_ids=True)
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row, raw in zip(rows, csv.DictReader(file), strict=True):
            source = raw["youtube_id"] if "youtube_id" in raw else raw["id"]
            seconds = None
            if row.video_id != source:
                seconds = float(raw["time_start"]), float(raw["time_end"])
                if seconds[0] >= seconds[1]:
                    raise ValueError(f"{path}: {row.video_id} has nothing between its start and its end")
            segments.append(Segment(row.label, row.video_id, source, seconds))
    return list(dict.fromkeys(segments))
