"""Frames that are already extracted, `<class>/<id>/img_00001.jpg`: find them, and store the JPEGs as they are."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import simplejpeg

from data.convert.converter import Job
from data.frame_store import jpeg_size
from data.store_writer import write_frame_store

NUMBERED = re.compile(r"(?is)(?!\.)(.*?)(\d+)(\D|of\D?\d+)*\.(?:jpe?g|png|bmp|webp|tiff?)")
FLOW = re.compile(r"(.*[_-])?flow[_-]?[a-z]?[_-]?|[xyuv]_?", re.IGNORECASE)  # before the number


def holds_frames(folder: Path) -> bool:
    """Return whether a folder holds a numbered image."""
    with os.scandir(folder) as entries:
        return any(NUMBERED.fullmatch(entry.name) for entry in entries)


def store_frames(job: Job, half_level: bool = False) -> int:
    """Write the frame store of a folder of JPEGs without encoding them again; return the number of frames.

    Raises ValueError where they cannot be kept as they are, and FileExistsError where `job.folder` exists.
    """
    if job.seconds:
        raise ValueError("extracted frames have no times; --trim cuts video files")
    return write_frame_store(job.folder, _read(_in_order(job.video)), half_level=half_level)


def _in_order(folder: Path) -> list[Path]:
    """Return the images of a folder by number, without optical flow. Raises ValueError where one is lost or doubled."""
    matches = [match for path in sorted(folder.iterdir()) if (match := NUMBERED.fullmatch(path.name))]
    frames: dict[int, Path] = {}
    for match in [match for match in matches if not FLOW.fullmatch(match[1])] or matches:
        first = frames.setdefault(int(match[2]), folder / match[0])
        if first.name != match[0]:
            raise ValueError(f"{first.name} and {match[0]} have the same number: keep one series of frames")
    numbers = sorted(frames)
    steps = [after - before for before, after in pairwise(numbers)]
    usual = max(set(steps), key=steps.count, default=1)
    for number, step in zip(numbers, steps, strict=False):
        if step != usual:  # every fifth frame is a choice, a gap is a loss
            raise ValueError(f"frames after {frames[number].name} are missing")
    return [frames[number] for number in numbers]


def _read(paths: list[Path]) -> Iterator[bytes]:
    """Yield the bytes of JPEGs. Raises ValueError for one that does not decode, or not to the size of the first."""
    shape = None
    for path in paths:
        try:
            jpeg = path.read_bytes()
            found = jpeg_size(jpeg)
            simplejpeg.decode_jpeg(jpeg)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path.name} does not decode as a JPEG, {error}") from None
        shape = shape or found
        if found != shape:
            raise ValueError(f"{path.name} has another size than {paths[0].name}")
        yield jpeg
