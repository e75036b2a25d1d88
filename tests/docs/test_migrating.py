"""The figures of docs/migrating.md follow from this code and from the arithmetic of the original."""

import re
import runpy
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.batch_sampler import BatchShape
from data.frame_store import FrameStore
from data.video_sampler import random_clip
from data.video_transforms import sample_augmentations
from network.layers import num_factorized_channels
from tests.commands import REPOSITORY
from tests.synthetic_frames import make_stores
from train.multigrid import cycle_shapes, plan_epoch

PAGE = (REPOSITORY / "docs/migrating.md").read_text("utf-8")
SCRIPTS = {
    "HACS": "train_hacs.py",
    "Kinetics-700": "train_kinetics.py",
    "Kinetics-400": "train_kinetics.py",
    "Moments in Time": "train_mit.py",
}


def steps_of_the_original(num_videos: int, batch: int) -> int:
    """Return the steps of an epoch with both cycles, as the original counted them.

    It fills the epoch with long cycles of 8, 4, 2 and 1 batches, then takes short cycles off that number: 5, 2 and 4
    at a time, as one of its conditions is missing an `else`. The epoch ends at the start of the last of its quarters:
    where four divides the number, that is the fourth one, else a rest.
    """
    batches, steps, sizes = num_videos // batch, 0, (8, 4, 2, 1)
    while sum(sizes[steps % 4 :]) <= batches:
        batches -= sizes[steps % 4]
        steps += 1
    left, planned = steps, 0
    while planned <= left:
        left -= (5, 2, 4)[planned % 3]
        planned += 1
    return list(range(0, planned, planned // 4))[-1]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_schedule_with_as_many_steps(name: str) -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    videos, there, here, ratio, flags = (cell.strip() for cell in row.split("|")[2:-1])
    options = runpy.run_path(str(REPOSITORY / SCRIPTS[name]))["DEFAULTS"]
    base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
    num_videos = int(videos.replace(",", ""))
    before = steps_of_the_original(num_videos, options.batch_size)
    now = len(plan_epoch(num_videos, cycle_shapes(base, long_cycles=True, short_cycles=True)))
    assert (int(there.replace(",", "")), int(here.replace(",", ""))) == (before, now)
    assert float(ratio) == round(now / before, 1)
    end, *decays = (int(number) for number in re.findall(r"\d+", flags))
    assert end == round(options.end_epoch * before / now)
    assert decays == [round(last * before / now) for last in options.lr_steps]


def test_intervals_of_coarse_phases_and_shares_of_augmentations() -> None:
    """Four frames of 16 have 2.5 times the interval on average, eight 1.5; 13 % of clips are warped twice."""
    generator = np.random.default_rng(0)
    for length, factor in ((4, 2.5), (8, 1.5)):
        clips = [random_clip(300, length, (2,), generator, speed=(1.0, 16 / length)) for _ in range(2000)]
        assert np.mean([clip[1] - clip[0] for clip in clips]) == pytest.approx(2 * factor, rel=0.05)
    sampled = [{one.name for one, _ in sample_augmentations(generator)} for _ in range(10000)]
    assert np.mean([{"perspective", "rotation"} <= names for names in sampled]) == pytest.approx(
        0.13, abs=0.01
    )


def test_channels_of_the_factorized_resnext() -> None:
    assert (
        num_factorized_channels(64, 128, 2, 32) == 480
    )  # the original: 27 * 64 * 128 // 960 * 4 // 64 * 32 = 448


def test_the_query_of_the_original_readme_finds_our_frames(tmp_path: Path) -> None:
    make_stores(tmp_path, {"a": ["-x 000123"]})
    folder = tmp_path / "jpg/a/-x 000123"
    names = [f"{folder.name}/frame_{index + 1:05d}" for index in (9, 0, 3)]
    connection = sqlite3.connect(folder / "frames.db")
    rows = connection.execute("SELECT Objid, frames FROM Images WHERE ObjId IN (?,?,?)", names).fetchall()
    connection.close()
    frames = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for _, jpeg in sorted(rows)]
    ours = FrameStore(folder).read([0, 3, 9]).astype(int)
    assert np.abs(ours - np.stack(frames)).max() <= 1
    assert (folder / "n_frames").read_text().strip() == "12"
