"""The dataset of moving shapes: no single frame shows the class."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.frame_store import FrameStore
from data.synthetic.shapes import MOTION_CLASSES, pose_from_params, render_video, write_shapes_dataset
from tests.commands import error_of, main_of

main = main_of("data.synthetic")


def videos(name: str, count: int) -> np.ndarray:
    return np.stack([render_video(name, np.random.default_rng(seed), 9, 48) for seed in range(count)])


def test_command_writes_equal_videos_for_equal_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--videos-per-class", "2", "--frames", "7", "--height", "48"]
    for folder in ("a", "b"):
        assert main([str(tmp_path / folder), *arguments]) == 0
    files = sorted((tmp_path / "a").glob("*/*.mp4"))
    assert len(files) == 16
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    capture = cv2.VideoCapture(str(files[0]))
    frames = [capture.read()[1] for _ in range(8)]
    assert np.shape(frames[:7]) == (7, 48, 64, 3)
    assert frames[7] is None
    assert "16 videos of 8 classes\n" in capsys.readouterr().out
    files[0].unlink()
    assert main([str(tmp_path / "a"), *arguments]) == 0
    assert "16 videos of 8 classes, 15 of them existed and were kept\n" in capsys.readouterr().out


def test_a_frame_does_not_show_the_class() -> None:
    """A frame at a random time has the same distribution of position, size and angle in every class."""
    means = []
    for moving, direction in MOTION_CLASSES.values():
        generator = np.random.default_rng(0)
        params = generator.uniform(-0.5, 0.5, (4000, 4))
        params[:, moving] = direction * generator.uniform(-0.5, 0.5, 4000)
        poses = np.array([pose_from_params(row) for row in params])
        means.append(np.concatenate([poses.mean(axis=0), poses.std(axis=0)]))
    assert np.ptp(np.stack(means), axis=0).max() < 0.06


@pytest.mark.parametrize(("name", "opposite"), [("left", "right"), ("up", "down"), ("grow", "shrink")])
def test_opposite_classes_are_the_same_frames_reversed(name: str, opposite: str) -> None:
    assert np.array_equal(videos(name, 4), videos(opposite, 4)[:, ::-1])


def test_every_frame_moves() -> None:
    for name in MOTION_CLASSES:
        for video in videos(name, 4).astype(int):
            assert all(abs(a - b).max() > 20 for a, b in itertools.pairwise(video)), name


def test_dataset_without_video_files(tmp_path: Path) -> None:
    write_shapes_dataset(tmp_path, 5, n_frames=4, height=32, seed=1)
    assert len((tmp_path / "labels/train.csv").read_text().splitlines()) == 1 + 8 * 4
    assert (tmp_path / "labels/val.csv").read_text().splitlines()[1] == "left,left_00004"
    frames = FrameStore(tmp_path / "jpg/left/left_00004").read([0, 3])
    original = render_video("left", np.random.default_rng((1, 0, 4)), 4, 32)[[0, 3]]
    assert np.abs(frames.astype(int) - original).mean() < 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos-per-class", "0"], "--videos-per-class: '0' is not a whole number of at least 1"),
        (["--frames", "1"], "--frames: '1' is not a whole number of at least 2"),
        (["--height", "8"], "--height: '8' is not a whole number of at least 32"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in error_of(main, tmp_path, *arguments)
    assert list(tmp_path.iterdir()) == []
