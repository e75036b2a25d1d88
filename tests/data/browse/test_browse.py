"""The contact sheet shows what the network gets, and describes what was done to it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.batch_sampler import BatchShape, train_batches
from data.browse.contact_sheet import ShownClip
from data.datasets import CUSTOM
from data.store_writer import write_frame_store
from data.synthetic.shapes import write_shapes_dataset
from data.video_iterator import TrainDataset, describe_frames, describe_params
from data.video_list import load_dataset
from tests.commands import error_of, main_of
from tests.data.helpers import packets
from tests.data.test_fused_engine import psnr
from tests.synthetic_frames import indices_of, make_stores, painted_jpegs

main = main_of("data.browse")

SMALL = ["--clip-length", "4", "--clip-size", "48", "--short-side", "60"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browse") / "shapes"
    write_shapes_dataset(root, videos_per_class=5, n_frames=12, height=64, seed=1)
    return root


def collect(*arguments: object) -> list[ShownClip]:
    options = main.__globals__["make_parser"]().parse_args(list(map(str, arguments)))
    return main.__globals__["collect"](options)


def write_labels(root: Path, train: str, val: str, prefix: str = "") -> None:
    (root / "labels").mkdir(exist_ok=True)
    (root / f"labels/{prefix}train.csv").write_text(f"label,id\n{train}")
    (root / f"labels/{prefix}val.csv").write_text(f"label,id\n{val}")


def test_clips_are_those_of_the_epoch(shapes: Path) -> None:
    """Pixel for pixel what the dataset returns for the samples of the batch sampler, and the first of each class."""
    shown = {clip.video_id: clip for clip in collect(shapes, *SMALL, "--random-seed", "7", "--epoch", "3")}
    dataset = load_dataset(shapes, CUSTOM, "", None, num_classes=8, max_missing=0)
    clips = TrainDataset(
        dataset.train, intervals=[2], base_length=4, clip_size=48, short_side=60, augment="fused", flip=True
    )
    (specs,) = train_batches(len(dataset.train), 7, 3, [BatchShape(len(dataset.train), 4, 48)])
    assert len(shown) == 16
    drawn: dict[str, list[str]] = {}
    for sample in [clips[spec] for spec in specs]:
        folder = dataset.train.folder(sample.index)
        drawn.setdefault(folder.parent.name, []).append(folder.name)
        if folder.name in shown:
            assert np.array_equal(shown[folder.name].frames, sample.clip.numpy())
    for label, ids in drawn.items():
        assert [clip.video_id for clip in shown.values() if clip.label == label] == ids[:2]


def test_clips_of_a_device_are_finished(shapes: Path) -> None:
    """Drawn as training on a device sees them, which is as the fused engine makes them; noise is not the same."""
    device, fused = (
        collect(shapes, *SMALL, "--short-side", "64", "--shape", "4x24", "--augment", name)
        for name in ("device", "fused")
    )
    quiet = [
        psnr(one.frames, other.frames)
        for one, other in zip(device, fused, strict=True)
        if "noise" not in {augmentation.name for augmentation, _ in one.params.augmentations}
    ]
    assert len(quiet) > 4
    assert min(quiet) > 40


def test_description_is_what_was_done(tmp_path: Path) -> None:
    """Painted frames reveal their index and whether they are flipped."""
    make_stores(tmp_path, {"a": [f"v{i}" for i in range(20)]}, n_frames=30, size=60)
    write_labels(tmp_path, "".join(f"a,v{i}\n" for i in range(20)), "a,v0\n")
    arguments = [tmp_path, "--clips", 20, "--clip-length", 3, "--clip-size", 60, "--short-side", 60]
    plain = collect(*arguments, "--augment", "none", "--flip")
    assert {clip.params.flipped for clip in plain} == {True, False}
    for clip in plain:
        assert describe_params(clip.indices, clip.params)[2:] == ["flipped"] * clip.params.flipped
        frames = clip.frames[:, :, ::-1] if clip.params.flipped else clip.frames
        assert indices_of(frames) == clip.indices
    augmented = collect(*arguments, "--no-flip")
    assert {len(clip.params.augmentations) > 0 for clip in augmented} == {True, False}
    for clip, bare in zip(augmented, collect(*arguments, "--augment", "none", "--no-flip"), strict=True):
        assert clip.indices == bare.indices
        assert np.array_equal(clip.frames, bare.frames) == (len(clip.params.augmentations) == 0)


def test_description_of_frames() -> None:
    assert describe_frames([4, 6, 8]) == "4 to 8, interval 2"
    assert (describe_frames([3]), describe_frames([1, 2, 0, 1])) == ("3", "1, 2, 0, 1")


def test_command_draws_a_sheet_and_a_video(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, video = tmp_path / "new" / "clips.png", tmp_path / "clips.mp4"
    arguments = [str(shapes), *SMALL, "--clip-size", "128", "--classes", "right", "up", "-o", str(image)]
    assert main([*arguments, "--video", str(video)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{image}: 4 clips of 2 classes",
        f"{video}: the same clips, each at its own speed, repeated for 6.1 s",
    ]
    sheet = cv2.imread(str(image))
    shown = collect(*arguments)
    assert [clip.label for clip in shown] == ["right", "right", "up", "up"]
    rows, columns = np.where((sheet[:-128, :-128] == shown[0].frames[0, 0, 0]).all(axis=2))
    corners = zip(rows, columns, strict=True)
    assert any(np.array_equal(sheet[y : y + 128, x : x + 128], shown[0].frames[0]) for y, x in corners)
    capture = cv2.VideoCapture(str(video))
    # four frames of 0.08 s, at interval 2, repeated until after six seconds
    np.testing.assert_allclose(packets(video), [(0.08 * i, 0.08) for i in range(76)], atol=2e-6)
    frame = capture.read()[1]
    assert np.abs(frame[20:148, :128].astype(int) - shown[0].frames[0]).mean() < 12


def test_clips_are_shown_at_the_times_of_their_stores(tmp_path: Path) -> None:
    """One of variable rate, one of 10 frames per second, and one whose two frames are repeated."""
    own_times = {"a": [0, 0.04, 0.5, 0.54, 2, 2.04], "b": np.arange(6) / 10, "c": [0, 0.25]}
    for name, times in own_times.items():
        write_frame_store(tmp_path / "jpg" / name / "v", painted_jpegs(len(times), 0), list(times))
    write_labels(tmp_path, "a,v\nb,v\nc,v\n", "a,v\n")
    words = [
        tmp_path,
        *SMALL,
        "--clip-length",
        6,
        "--train-frame-interval",
        1,
        "--no-flip",
        "--augment",
        "none",
    ]
    ends = [0.04, 0.5, 0.54, 2, 2.04, 2.08], np.arange(1, 7) / 10, np.arange(1, 7) / 4
    seconds = "0 to 5, interval 1, 0.00 to 2.04 s", "0 to 5, interval 1, 0.00 to 0.50 s"
    for clip, expected, line in zip(collect(*words), ends, (*seconds, ""), strict=True):
        np.testing.assert_allclose(clip.ends, expected)
        assert describe_params(clip.indices, clip.params, clip.times)[0].endswith(line)
    (clip,) = collect(*words, "--classes", "a", "--target-fps", 3)
    line, *_ = describe_params(clip.indices, clip.params, clip.times)
    assert line == "frames 0, 2, 3, 3, 4, 4, 0.00 to 2.00 s"
    np.testing.assert_allclose(clip.ends, [0.5, 0.54, 0.54, 2, 2, 2.5])
    video = tmp_path / "clips.mp4"
    main([*map(str, words), "--classes", "a", "-o", str(tmp_path / "x.png"), "--video", str(video)])
    starts = [repeat + time for repeat in (0, 2.08, 4.16) for time in own_times["a"]]
    np.testing.assert_allclose([time for time, _ in packets(video)], starts, atol=2e-6)
    assert sum(packets(video)[-1]) == pytest.approx(6.24, abs=1e-5)
    main([*map(str, words), "-o", str(tmp_path / "x.png"), "--video", str(video)])
    assert {round(time, 2) for time, _ in packets(video)} >= {0.04, 0.1, 0.25, 2.58, 5.9, 6.0, 6.2}


def test_flags_of_training(shapes: Path) -> None:
    words = ["--train-frame-interval", "1,2", "--augment", "NONE", "--frame-sampling", "Normal"]
    clips = collect(shapes, *SMALL, *words, "--classes", "left", "--shape", "2x24")
    assert {clip.frames.shape for clip in clips} == {(2, 24, 24, 3)}


def test_corrupt_video_is_replaced_as_in_training(tmp_path: Path) -> None:
    make_stores(tmp_path, {"a": ["v0", "v1"]}, n_frames=6)
    (tmp_path / "jpg" / "a" / "v0" / "frames.db").write_bytes(b"broken")
    write_labels(tmp_path, "a,v0\na,v1\n", "a,v1\n")
    assert [clip.video_id for clip in collect(tmp_path, *SMALL)] == ["v1", "v1"]


def test_variant(tmp_path: Path) -> None:
    make_stores(tmp_path, {"a": ["v1"], "b": ["v2"]}, n_frames=6)
    for prefix, row in (("ucf101_split1_", "a,v1\n"), ("ucf101_split2_", "b,v2\n")):
        write_labels(tmp_path, row, row, prefix)
    for options, video in (([], "v1"), (["--variant", "2"], "v2")):
        assert [clip.video_id for clip in collect(tmp_path, *SMALL, *options)] == [video]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}", "--classes", "sideways"], "--classes sideways: not one of the 8 classes"),
        (["{root}", "--variant", "2"], "no label files 2 found"),
        (["{root}", "--shape", "4"], "argument --shape: '' is not a whole number of at least 1"),
        (["{root}", "-o", "{root}/clips.foo"], "unknown file extension: .foo"),
    ],
)
def test_wrong_arguments(shapes: Path, arguments: list[str], message: str) -> None:
    assert message in error_of(main, *(argument.format(root=shapes) for argument in arguments))
