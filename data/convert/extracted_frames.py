"""Frames that are already extracted, `<class>/<id>/img_00001.jpg`: find them, and store the JPEGs as they are."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import simplejpeg
from PIL import Image

from data.convert.converter import ConversionError, Job
from data.frame_store import write_frame_store

NUMBERED = re.compile(r"(?!\.)(.*?)(\d+)(\D*)\.(?:jpe?g|png|bmp|webp|tiff?)", re.IGNORECASE | re.DOTALL)
FLOW = re.compile(r"(.*[_-])?flow.*|[xyuv]_?\*", re.IGNORECASE | re.DOTALL)  # names of series of optical flow
EXIF_ORIENTATION = 0x0112


def holds_frames(folder: Path) -> bool:
    """Return whether a folder holds a numbered image."""
    with os.scandir(folder) as entries:
        return any(NUMBERED.fullmatch(entry.name) for entry in entries)


def store_frames(job: Job) -> int:
    """Write the frame store of a folder of JPEGs without encoding them again; return the number of frames.

    Raises ConversionError where frames are lost, cannot be kept as they are or have no defined order, and
    FileExistsError where `job.folder` exists.
    """
    try:
        if job.seconds:
            raise ValueError("extracted frames have no times; --trim cuts video files")
        return write_frame_store(job.folder, _read(_in_order(job.video)))
    except ValueError as error:
        raise ConversionError(f"{job.video}: {error}") from None


def _in_order(folder: Path) -> list[Path]:
    """Return the images of a folder by number. Raises ValueError where one is lost, or there are several series."""
    series: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := NUMBERED.fullmatch(path.name):
            before, number, after = match.groups()
            first = series.setdefault(f"{before}*{after}", {}).setdefault(int(number), path)
            if first != path:
                raise ValueError(f"{first.name} and {path.name} have the same number")
    if len(series) > 1:  # optical flow beside the frames, and single images such as a cover
        rgb = {name: images for name, images in series.items() if not FLOW.fullmatch(name)}
        series = {name: images for name, images in rgb.items() if len(images) > 1} or rgb
    if len(series) != 1:
        names = ", ".join(list(series)[:3])
        raise ValueError(f"has {len(series)} series of images, not the frames of one video: {names}")
    ((name, images),) = series.items()
    numbers = sorted(images)
    step = min((after - before for before, after in pairwise(numbers)), default=1)
    for number in range(numbers[0], numbers[-1], step):  # every fifth frame is a choice, a gap is a loss
        if number not in images:
            raise ValueError(f"frame {number} of {name} is missing")
    return [images[number] for number in numbers]


def _read(paths: list[Path]) -> Iterator[bytes]:
    """Yield the bytes of JPEGs. Raises ValueError for one that does not decode, or not to a frame like the first."""
    sizes = set()
    for path in paths:
        try:
            with Image.open(path) as image:
                orientation = image.getexif().get(EXIF_ORIENTATION) or 1
            jpeg = path.read_bytes()
            if image.format == "JPEG":
                simplejpeg.decode_jpeg(jpeg)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path.name} does not decode, {error}") from None
        sizes.add(image.size)
        if (image.format, orientation, len(sizes)) != ("JPEG", 1, 1) or image.mode not in ("RGB", "L"):
            found = "{} {}, {} x {} pixels".format(image.format, image.mode, *image.size)
            allowed = "convert it first, only upright JPEGs of one size, RGB or gray, are stored as they are"
            raise ValueError(f"{path.name} is {found}, orientation {orientation}; {allowed}")
        yield jpeg
