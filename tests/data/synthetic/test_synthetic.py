"""The motions of the demo: real files, and no single frame that gives the class away."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.frame_store import FrameStore
from data.synthetic.shapes import MOTIONS, pose_at, render, write_shapes_dataset
from tests.commands import main_of

main = main_of("data.synthetic")


def videos(motion: str, count: int, n_frames: int = 9) -> np.ndarray:
    return np.stack([render(motion, np.random.default_rng(seed), n_frames, 48) for seed in range(count)])


def test_real_files_of_the_asked_size_and_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = []
    for folder in ("a", "b"):
        arguments = [str(tmp_path / folder), "--videos-per-class", "2", "--frames", "7", "--height", "48"]
        arguments += ["--sheet", str(tmp_path / "new" / "sheet.png")]
        assert main(arguments) == 0
        files = sorted((tmp_path / folder).glob("*/*.mp4"))
        assert len(files) == 16
        capture = cv2.VideoCapture(str(files[0]))
        frames = []
        while (result := capture.read())[0]:
            frames.append(result[1])
        assert np.shape(frames) == (7, 48, 64, 3)
        contents.append(np.stack(frames))
    assert np.array_equal(*contents)
    assert cv2.imread(str(tmp_path / "new" / "sheet.png")).shape == (8 * 48, 6 * 64, 3)
    out = capsys.readouterr().out
    assert "16 videos of 8 motions\n" in out
    # with other flags they stay as they are, which once nobody was told
    (tmp_path / "b" / "left" / "00001.mp4").unlink()
    assert main([str(tmp_path / "b"), "--videos-per-class", "2", "--frames", "9", "--height", "48"]) == 0
    said = "16 videos of 8 motions, 15 of them were there before and stay as they are\n"
    assert said in capsys.readouterr().out


def test_classes_are_the_eight_motions() -> None:
    assert set(MOTIONS) == {"left", "right", "up", "down", "grow", "shrink", "clockwise", "counter_clockwise"}


def test_a_frame_says_nothing_about_the_class() -> None:
    """A frame at a random time has the same distribution of place, size and angle in every class."""
    means = []
    for moves, sense in MOTIONS.values():
        generator = np.random.default_rng(0)
        places = generator.uniform(-0.5, 0.5, (4000, 4))
        places[:, moves] = sense * generator.uniform(-0.5, 0.5, 4000)
        poses = np.array([pose_at(place) for place in places])
        means.append(np.concatenate([poses.mean(axis=0), poses.std(axis=0)]))
    assert np.ptp(np.stack(means), axis=0).max() < 0.06


@pytest.mark.parametrize(("motion", "opposite"), [("left", "right"), ("up", "down"), ("grow", "shrink")])
def test_opposites_are_each_other_backwards(motion: str, opposite: str) -> None:
    """So that the order of frames is all there is to see."""
    assert np.array_equal(videos(motion, 4), videos(opposite, 4)[:, ::-1])


def test_every_frame_moves() -> None:
    for motion in MOTIONS:
        for video in videos(motion, 4).astype(int):
            assert all(abs(a - b).max() > 20 for a, b in itertools.pairwise(video)), motion


@pytest.mark.parametrize("arguments", [["--videos-per-class", "0"], ["--frames", "1"], ["--height", "8"]])
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), *arguments])
    assert stopped.value.code == 2
    assert f"{arguments[0]} {arguments[1]}: must be at least" in capsys.readouterr().err


def test_picture_of_no_known_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback, after all videos were rendered."""
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--sheet", "motions.foo"])
    assert "--sheet motions.foo: must end with .png, .jpg" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_set_without_files_of_video(tmp_path: Path) -> None:
    write_shapes_dataset(tmp_path, 5, n_frames=4, height=32, seed=1)
    assert len((tmp_path / "labels/train.csv").read_text().splitlines()) == 1 + 8 * 4
    assert (tmp_path / "labels/val.csv").read_text().splitlines()[1] == "left,left_00004"
    frames = FrameStore(tmp_path / "jpg/left/left_00004").read([0, 3])
    original = render("left", np.random.default_rng((1, 0, 4)), 4, 32)[[0, 3]]
    assert np.abs(frames.astype(int) - original).mean() < 8
