"""Small versions of what the websites of datasets offer: lists in the official format, and videos of ten frames."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.synthetic.shapes import render_video, write_video
from tests.data.labels.test_official import WRITERS, write_mini_kinetics

CLASSES = range(2)


class Official(NamedTuple):
    """Who writes the lists of a section of docs/datasets.md, their folder, and the videos of class `i`."""

    write: Callable[[Path, int], None]
    lists: str
    videos: Callable[[int], Sequence[str]] = lambda i: ()


OFFICIAL = {
    "UCF-101": Official(
        WRITERS["ucf101"],
        "ucfTrainTestlist",
        lambda i: [
            f"UCF-101/Class{i:03d}/v_Class{i:03d}_{clip}.avi"
            for clip in ("g01_c01", "g02_c01", "g03_c01", "g09_c01", "g09_c02", "g09_c03")
        ],
    ),
    "HMDB-51": Official(
        WRITERS["hmdb51"],
        "testTrainMulti_7030_splits",
        lambda i: [f"hmdb51_org/class_{i}/a_class_{i}_{n}.avi" for n in range(4)],
    ),
    "Diving48 V2": Official(
        WRITERS["diving48"],
        "lists",
        lambda i: [f"rgb/{split}_{i:05d}.mp4" for split in ("train", "test")],
    ),
    "HACS Clips": Official(WRITERS["hacs"], "."),
    "Mini-Kinetics-200": Official(
        write_mini_kinetics,
        "annotations_400",  # its frame databases are those of Kinetics-400
        lambda i: [
            f"videos/class {2 * i}/{split}_{2 * i:06d}_000010_000020.mp4" for split in ("train", "val")
        ],
    ),
    "Kinetics-700, 600, 400": Official(
        WRITERS["kinetics"],
        "annotations",
        lambda i: [
            f"kinetics_copies/{split}/{split}_{i:06d}_000010_000020.mp4" for split in ("train", "val")
        ],
    ),
    "Moments in Time": Official(
        WRITERS["mit"],
        "Moments_in_Time",
        lambda i: [
            f"Moments_in_Time/{folder}/adult+class{i}/yt-{split}adult+class{i}_26.mp4"
            for folder, split in (("training", "train"), ("validation", "val"))
        ],
    ),
}


def write_official(section: str, folder: Path) -> None:
    """Write the lists and videos of a dataset."""
    official = OFFICIAL[section]
    official.write(folder / official.lists, len(CLASSES))
    for i in CLASSES:
        for name in official.videos(i):
            small_video(folder / name)


def small_video(path: Path, motion: str = "left") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, render_video(motion, np.random.default_rng(1), 10, 48))
