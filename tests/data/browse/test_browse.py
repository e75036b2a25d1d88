"""What a person is shown is what the network gets, and what is written beside it was done."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.batch_sampler import BatchShape, TrainBatchSampler
from data.browse.__main__ import collect, make_parser
from data.browse.contact_sheet import describe, describe_frames, describe_operation
from data.datasets import CUSTOM
from data.synthetic.shapes import write_shapes_dataset
from data.video_iterator import TrainDataset
from data.video_list import load_dataset
from data.video_transforms import AUGMENTATIONS
from tests.commands import main_of
from tests.data.labels.test_labels import write
from tests.synthetic_frames import indices_of, make_stores

main = main_of("data.browse")

SMALL = ["--clip-length", "4", "--clip-size", "48", "--short-side", "60"]


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browse") / "motions"
    write_shapes_dataset(root, videos_per_class=5, n_frames=12, height=64, seed=1)
    return root


def test_clips_are_those_of_the_epoch(motions: Path) -> None:
    """Pixel for pixel, for the same seed: what the loader of training makes of the sampler's requests."""
    arguments = make_parser().parse_args([str(motions), *SMALL, "--random-seed", "7", "--epoch", "3"])
    shown = {clip.video_id: clip for clip in collect(arguments)}
    dataset = load_dataset(motions, CUSTOM, "", None, num_classes=8, max_missing=0)
    clips = TrainDataset(
        dataset.train, intervals=[2], base_length=4, clip_size=48, short_side=60,
        augment="fused", flip=True, frame_sampling="uniform",
    )  # fmt: skip
    batches = TrainBatchSampler(len(dataset.train), seed=7)
    batches.set_epoch(3, [BatchShape(len(dataset.train), 4, 48)])
    samples = [clips[request] for request in next(iter(batches))]
    assert len(shown) == 16
    seen: dict[str, list[str]] = {}
    for sample in samples:
        folder = dataset.train.folder(sample.index)
        seen.setdefault(folder.parent.name, []).append(folder.name)
        if folder.name in shown:
            assert np.array_equal(shown[folder.name].frames, sample.clip.numpy())
    for label, ids in seen.items():  # the first ones of each class
        assert [clip.video_id for clip in shown.values() if clip.label == label] == ids[:2]


def test_flags_are_spelt_as_in_training(motions: Path) -> None:
    """`--train-frame-interval 1,2` was refused, and `Fused`."""
    for spelling in (["1", "2"], ["1,2"], ["[1,2]"]):
        words = ["--train-frame-interval", *spelling, "--augment", "NONE", "--frame-sampling", "Normal"]
        arguments = make_parser().parse_args([str(motions), *words])
        assert (arguments.train_frame_interval, arguments.augment) == ((1, 2), "none")
        assert arguments.frame_sampling == "normal"


def test_what_is_written_beside_is_what_was_done(tmp_path: Path) -> None:
    """Painted frames say their index, the left side which way round they are, the engine's absence that all is said."""
    make_stores(tmp_path, {"a": [f"v{i}" for i in range(20)]}, n_frames=30, size=60)
    write(tmp_path / "labels" / "train.csv", "label,id\n" + "".join(f"a,v{i}\n" for i in range(20)))
    write(tmp_path / "labels" / "val.csv", "label,id\na,v0\n")
    arguments = [
        str(tmp_path),
        "--clips",
        "20",
        "--clip-length",
        "3",
        "--clip-size",
        "60",
        "--short-side",
        "60",
    ]
    plain = collect(make_parser().parse_args([*arguments, "--augment", "none", "--flip"]))
    assert {clip.draw.mirrored for clip in plain} == {True, False}
    for clip in plain:
        assert clip.draw.drawn == []
        assert describe(clip)[2:] == ["mirrored"] * clip.draw.mirrored
        frames = clip.frames[:, :, ::-1] if clip.draw.mirrored else clip.frames
        assert indices_of(frames) == clip.indices
    augmented = collect(make_parser().parse_args([*arguments, "--no-flip"]))
    assert not any(clip.draw.mirrored for clip in augmented)
    assert {len(clip.draw.drawn) > 0 for clip in augmented} == {True, False}
    for clip, bare in zip(
        augmented,
        collect(make_parser().parse_args([*arguments, "--augment", "none", "--no-flip"])),
        strict=True,
    ):
        assert clip.indices == bare.indices
        assert np.array_equal(clip.frames, bare.frames) == (len(clip.draw.drawn) == 0)


def test_every_augmentation_has_words() -> None:
    generator = np.random.default_rng(0)
    for operation in AUGMENTATIONS:
        text = describe_operation(operation.name, operation.draw(generator))
        assert len(text) < 50, text
    assert describe_operation("rotation", (-7.3902,)) == "rotation -7.4\u00b0"
    assert describe_operation("noise", (76.5, 12345)) == "noise, scale 76.5"
    assert describe_operation("of_the_user", (1.23456, 2)) == "of the user 1.23, 2"


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([4, 5, 6], "4 to 6"),
        ([4, 6, 8], "4 to 8, every 2nd"),
        ([0, 11, 22], "0 to 22, every 11th"),
        ([0, 21, 42], "0 to 42, every 21st"),
        ([3], "3"),
        ([1, 2, 0, 1], "1, 2, 0, 1"),
    ],
)
def test_frames_in_words(indices: list[int], text: str) -> None:
    assert describe_frames(indices) == text


def test_command_draws_a_picture_and_a_video(
    motions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, video = tmp_path / "new" / "clips.png", tmp_path / "clips.mp4"
    arguments = [str(motions), *SMALL, "--classes", "right", "up", "--tile", "48", "-o", str(picture)]
    assert main([*arguments, "--video", str(video), "--fps", "5"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{picture}: 4 clips of 2 classes",
        f"{video}: the same clips, 5 frames a second",
    ]
    sheet = cv2.imread(str(picture))
    assert sheet.shape[1] > 4 * 48
    shown = collect(make_parser().parse_args(arguments))
    assert [clip.label for clip in shown] == ["right", "right", "up", "up"]
    rows, columns = np.where((sheet[:-48, :-48] == shown[0].frames[0, 0, 0]).all(axis=2))
    places = zip(rows, columns, strict=True)
    assert any(np.array_equal(sheet[y : y + 48, x : x + 48], shown[0].frames[0]) for y, x in places)
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 32  # four frames, over and over for six seconds
    assert capture.get(cv2.CAP_PROP_FPS) == 5
    frame = capture.read()[1]
    assert np.abs(frame[20:68, :48].astype(int) - shown[0].frames[0]).mean() < 12


def test_shape_of_a_cycle(motions: Path) -> None:
    arguments = [str(motions), *SMALL, "--classes", "left", "--shape", "2x24"]
    clips = collect(make_parser().parse_args(arguments))
    assert {clip.frames.shape for clip in clips} == {(2, 24, 24, 3)}


def test_unreadable_video_is_replaced_as_in_training(tmp_path: Path) -> None:
    make_stores(tmp_path, {"a": ["v0", "v1"]}, n_frames=6)
    (tmp_path / "jpg" / "a" / "v0" / "frames.db").write_bytes(b"broken")
    write(tmp_path / "labels" / "train.csv", "label,id\na,v0\na,v1\n")
    write(tmp_path / "labels" / "val.csv", "label,id\na,v1\n")
    clips = collect(make_parser().parse_args([str(tmp_path), *SMALL]))
    assert [clip.video_id for clip in clips] == ["v1", "v1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}", "--classes", "sideways"], "--classes sideways: is not one of the 8 classes"),
        (["{root}", "--set", "kinetics"], "has no label files kinetics; it has own"),
        (["{root}/jpg"], "has no label files; it has none"),
        (["{root}", "--shape", "4"], "argument --shape: '' is not a whole number of at least 1"),
        (["{root}", "--clips", "0"], "argument --clips: '0' is not a whole number of at least 1"),
        (["{root}", "-o", "clips.gif"], "--output clips.gif: must end with one of .png"),
    ],
)
def test_what_is_asked_for_wrongly(
    motions: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(root=motions) for argument in arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_picture_that_its_format_cannot_hold_is_refused(
    motions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was Pillow's word, without the file."""
    with pytest.raises(SystemExit):
        main([str(motions), *SMALL, "--tile", "17000", "--clips", "1", "-o", str(tmp_path / "clips.webp")])
    assert "clips.webp: would be " in capsys.readouterr().err


def test_class_without_training_videos_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As some of Diving48 are."""
    make_stores(tmp_path, {"a": ["v0", "v1"]}, n_frames=6)
    write(tmp_path / "labels" / "train.csv", "label,id\na,v0\n")
    write(tmp_path / "labels" / "val.csv", "label,id\na,v1\n")
    write(tmp_path / "labels" / "dictionary.json", '{"a": 0, "c": 1}')
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--classes", "c"])
    assert f"error: {tmp_path}: has no training videos of 'c'" in capsys.readouterr().err


def test_label_files_of_several_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_stores(tmp_path, {"a": ["v0", "v1"], "b": ["v2"]}, n_frames=6)
    for name, rows in (("", "a,v0\n"), ("ucf101_split1_", "a,v1\n"), ("ucf101_split2_", "b,v2\n")):
        for split in ("train", "val"):
            write(tmp_path / "labels" / f"{name}{split}.csv", "label,id\n" + rows)
    with pytest.raises(SystemExit):
        main([str(tmp_path), *SMALL])
    assert "holds label files of own, ucf101; --set says which are meant" in capsys.readouterr().err
    for chosen, video in ((["own"], "v0"), (["ucf101"], "v1"), (["ucf101", "--variant", "2"], "v2")):
        clips = collect(make_parser().parse_args([str(tmp_path), *SMALL, "--set", *chosen]))
        assert [clip.video_id for clip in clips] == [video]
