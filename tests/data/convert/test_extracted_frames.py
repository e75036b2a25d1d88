"""Frames that are already extracted become stores without being encoded again."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.frame_store import FrameStore
from tests.commands import main_of
from tests.data.helpers import make_video
from tests.synthetic_frames import indices_of, paint

main = main_of("data.convert")


def write_frames(folder: Path, names: Sequence[str], size: int = 100) -> None:
    """Write frames painted with their positions in `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(paint(index, size=size)[..., ::-1]).save(
            folder / name, "JPEG", progressive=index % 2 == 1
        )


def convert(tmp_path: Path, *options: object) -> int:
    return main([str(tmp_path / "videos"), str(tmp_path / "set"), *map(str, options)])


@pytest.mark.parametrize(
    "pattern",
    [
        "img_{:05d}.jpg",
        "image_{:05d}.JPG",
        "frame{:06d}.jpeg",
        "{:05d}.jpg",
        "{}.jpg",
        "v_ApplyEyeMakeup_g01_c01_{:04d}.jpg",
        "frame-{:04d}-rgb.jpg",
        "g01_of_2-{:05d}-of-01007.jpg",
        "日本 [1]%_{:02d}.jpg",
    ],
)
@pytest.mark.parametrize("numbers", [range(1, 13), range(12), range(0, 60, 5), range(995, 1007)])
def test_bytes_are_kept_in_the_order_of_the_numbers(tmp_path: Path, pattern: str, numbers: range) -> None:
    """Frames keep their size, also above --short-side; optical flow and other files beside them are left out."""
    names = [pattern.format(number) for number in numbers]
    folder = tmp_path / "videos/a b/v_1.2"
    write_frames(folder, names, size=400)
    for name in ("flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"):
        write_frames(folder, [name.format(number) for number in numbers][:3], size=40)
    write_frames(folder, ["poster.jpg", "._img_00001.jpg"], size=30)
    (folder / "n_frames").write_text("12")
    assert convert(tmp_path) == 0
    store = FrameStore(tmp_path / "set/jpg/a b/v_1.2")
    assert store.n_frames == 12
    assert store.fetch(range(12)).jpegs == {i: (folder / name).read_bytes() for i, name in enumerate(names)}
    assert indices_of(store.read(range(12))) == list(range(12))


def test_videos_and_frames_may_be_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The folders of frames are kept, and those with a store are skipped."""
    video = make_video(tmp_path / "video.mp4")
    write_frames(tmp_path / "videos/a/x", ["1.jpg", "2.jpg"])
    write_frames(tmp_path / "videos/b/y.avi", ["1.jpg", "2.jpg"])
    shutil.copy(video, tmp_path / "videos/a/z.mp4")
    assert convert(tmp_path) == 0
    write_frames(tmp_path / "videos/a/new", ["1.jpg"])
    assert convert(tmp_path, "--delete-source") == 0
    assert capsys.readouterr().out.splitlines() == [
        "converted 3",
        "converted 1, sources deleted 1, done before 3",
    ]
    assert sorted(path.name for path in tmp_path.glob("videos/*/*")) == ["new", "x", "y.avi"]
    assert sorted(path.name for path in tmp_path.glob("set/jpg/*/*")) == ["new", "x", "y", "z"]
    labels = tmp_path / "labels.csv"
    labels.write_text("label,youtube_id,time_start,time_end\na,x,0,1\n")
    assert convert(tmp_path, "--trim", labels) == 1
    assert "a/x: extracted frames have no times; --trim cuts video files" in caplog.text


def test_gray_frames_are_frames(tmp_path: Path) -> None:
    (tmp_path / "videos/a/x").mkdir(parents=True)
    for number in (1, 2):
        Image.new("L", (60, 40), 100 * number).save(tmp_path / f"videos/a/x/{number}.jpg")
    assert convert(tmp_path) == 0
    assert FrameStore(tmp_path / "set/jpg/a/x").read([1])[0, 0, 0].tolist() == [200, 200, 200]


def damage(folder: Path, fault: str) -> None:
    """Damage a folder of frames img_01.jpg to img_08.jpg of 100 x 100 pixels."""
    path = folder / "img_05.jpg"
    image = Image.open(path).copy()
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "size":
        image.resize((90, 100)).save(path)
    elif fault == "png":
        path.unlink()
        cv2.imwrite(str(folder / "img_05.png"), np.zeros((100, 100, 3), np.uint8))
    elif fault == "twice":
        shutil.copy(path, folder / "img_5.jpg")
    elif fault == "gap":
        path.unlink()
    elif fault == "early":  # every fifth, and then one too soon
        write_frames(folder, [f"img_{number:02d}.jpg" for number in (13, 18, 20)])
        for number in (1, 2, 4, 5, 6, 7):
            (folder / f"img_{number:02d}.jpg").unlink()
    elif fault == "other":
        write_frames(folder, [f"image_{i}.jpg" for i in range(8)])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("cut", "img_05.jpg does not decode as a JPEG, "),
        ("empty", "img_05.jpg does not decode as a JPEG"),
        ("size", "img_05.jpg has another size than img_01.jpg"),
        ("png", "img_05.png does not decode as a JPEG, "),
        ("twice", "img_05.jpg and img_5.jpg have the same number: keep one series of frames"),
        ("gap", "frames after img_04.jpg are missing"),
        ("early", "frames after img_18.jpg are missing"),
        ("other", "image_1.jpg and img_01.jpg have the same number"),
    ],
)
def test_faulty_frames_fail_their_video_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str, message: str
) -> None:
    for name in ("good", "bad"):
        write_frames(tmp_path / "videos/a" / name, [f"img_{number:02d}.jpg" for number in range(1, 9)])
    damage(tmp_path / "videos/a/bad", fault)
    assert convert(tmp_path) == 1
    assert f"{tmp_path}/videos/a/bad: {message}" in caplog.text
    assert [path.name for path in (tmp_path / "set/jpg/a").iterdir()] == ["good"]
