"""What the sites of data sets hand out, small: lists in the official form, and videos of ten frames."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.synthetic.__main__ import write_video
from data.synthetic.shapes import render
from tests.data.labels.test_official import WRITERS, write_mini_kinetics


class Official(NamedTuple):
    """A section of docs/datasets.md: who writes its lists, where, and the videos that its site hands out."""

    write: Callable[[Path, int], None]
    lists: str
    videos: Sequence[str]


CLASSES = range(2)
OFFICIAL = {
    "UCF-101": Official(
        WRITERS["ucf101"],
        "ucfTrainTestlist",
        [
            f"UCF-101/Class{i:03d}/v_Class{i:03d}_{clip}.avi"
            for i in CLASSES
            for clip in ("g01_c01", "g02_c01", "g03_c01", "g09_c01", "g09_c02", "g09_c03")
        ],
    ),
    "HMDB-51": Official(
        WRITERS["hmdb51"],
        "testTrainMulti_7030_splits",
        [f"hmdb51_org/class_{i}/a_class_{i}_{n}.avi" for i in CLASSES for n in range(4)],
    ),
    "Diving48 V2": Official(
        WRITERS["diving48"],
        "lists",
        [f"rgb/{split}_{i:05d}.mp4" for i in CLASSES for split in ("train", "test")],
    ),
    "HACS Clips": Official(
        WRITERS["hacs"],
        ".",
        [
            f"HACS_downloads/Class {i}/{split}_{i}_000015_000017.mp4"
            for i in CLASSES
            for split in ("trai", "vali")
        ],
    ),
    "Kinetics-700, 600, 400": Official(
        WRITERS["kinetics"],
        "annotations",
        [
            f"kinetics_copies/{split}/{split}_{i:06d}_000010_000020.mp4"
            for i in CLASSES
            for split in ("train", "val")
        ],
    ),
    "Mini-Kinetics-200": Official(write_mini_kinetics, "annotations_400", []),
    "Moments in Time": Official(
        WRITERS["mit"],
        "Moments_in_Time",
        [
            f"Moments_in_Time/{place}/adult+class{i}/yt-{split}adult+class{i}_26.mp4"
            for i in CLASSES
            for place, split in (("training", "train"), ("validation", "val"))
        ],
    ),
}


def small_video(path: Path, motion: str = "left") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, render(motion, np.random.default_rng(1), 10, 48))


def write_lists(section: str, folder: Path) -> None:
    official = OFFICIAL[section]
    official.write(folder / official.lists, len(CLASSES))


def put_videos(folder: Path, names: Sequence[str]) -> None:
    """One video under many names."""
    small_video(folder / "video.mp4")
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(folder / "video.mp4")
