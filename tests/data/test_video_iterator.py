"""From sample indices to batches: which frames are read, with which label, by any number of workers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data.batch_sampler import BatchShape, ClipSpec, train_batches, val_batches
from data.clip_batch import Batch, gather
from data.clip_loader import ClipLoader
from data.frame_store import EncodedFrames
from data.store_writer import add_half_level, edit_database
from data.video_iterator import TrainDataset, ValDataset
from data.video_list import VideoIndex
from tests.synthetic_frames import make_stores, read_frame

CLASSES = "abc"
NAMES = [f"{label}/{label}{i}" for label in CLASSES for i in range(6)]
SETTINGS = {
    "intervals": (2,),
    "base_length": 8,
    "clip_size": 50,
    "short_side": 50,
    "augment": "none",
    "flip": False,
}


def make_videos(root: Path, n_frames: int = 24) -> VideoIndex:
    """18 videos, 6 a class, whose frames show their index and label."""
    make_stores(root, {label: [f"{label}{i}" for i in range(6)] for label in CLASSES}, n_frames)
    labels = np.repeat(np.arange(3), 6)
    folders = np.array([name.encode() for name in NAMES])
    return VideoIndex(root / "jpg", folders, labels, sizes=np.zeros_like(labels), missing=Counter())


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    return make_videos(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def corrupt(tmp_path: Path) -> VideoIndex:
    """The same with videos 3 and 7 corrupt."""
    videos = make_videos(tmp_path, n_frames=4)
    for index in (3, 7):
        (videos.folder(index) / "frames.db").write_bytes(b"damaged" * 1000)
    return videos


def train_dataset(videos: VideoIndex, **changes: object) -> TrainDataset:
    return TrainDataset(videos, **(SETTINGS | changes))


def indices_and_labels(clip: torch.Tensor) -> tuple[list[int], set[int]]:
    frames = [read_frame(frame) for frame in clip.numpy()]
    return [index for index, _ in frames], {label for _, label in frames}


def load(clips: TrainDataset | ValDataset, specs: Iterable[ClipSpec], workers: int = 0) -> Batch:
    (chunks,) = ClipLoader(clips, [list(specs)], workers=workers)
    return gather(chunks)


def test_clips_have_the_frames_and_the_label_of_their_video(videos: VideoIndex) -> None:
    clips = train_dataset(videos, base_length=6)
    for index in range(len(clips)):
        sample = clips[ClipSpec(index, length=6, size=50, seed=index)]
        indices, labels = indices_and_labels(sample.clip)
        assert set(np.diff(indices)) == {2}
        assert labels == {sample.label} == {videos.labels[index]}
        assert (sample.index, sample.bad) == (index, [])


@pytest.mark.parametrize("workers", [1, 2])
def test_epochs_do_not_depend_on_the_number_of_workers(videos: VideoIndex, workers: int) -> None:
    shapes = [BatchShape(8, 4, 26), BatchShape(4, 8, 50), BatchShape(6, 4, 50)]
    epochs = []
    for num_workers in (0, workers):
        clips = train_dataset(videos, augment="fused", flip=True)
        for epoch in (1, 2):
            loader = ClipLoader(clips, train_batches(18, 5, epoch, shapes), workers=num_workers)
            epochs.append([gather(chunks) for chunks in loader])
            loader.close()
    for batch, other in zip(epochs[0] + epochs[1], epochs[2] + epochs[3], strict=True):
        assert torch.equal(batch.clips, other.clips)
        assert torch.equal(batch.labels, other.labels)
    assert [tuple(batch.clips.shape) for batch in epochs[0]] == [(b, t, s, s, 3) for b, t, s in shapes]
    assert epochs[0][0].clips.dtype == torch.uint8
    assert sorted(index for batch in epochs[0] for index in batch.indices.tolist()) == list(range(18))
    assert not torch.equal(epochs[0][1].clips, epochs[1][1].clips)


def test_fewer_frames_cover_the_same_time(videos: VideoIndex) -> None:
    """Multigrid: with a quarter of the frames, intervals are up to four times as long."""
    clips = train_dataset(videos, intervals=(2,), base_length=8)
    pairs = [indices_and_labels(clips[ClipSpec(1, 2, 50, seed)].clip)[0] for seed in range(200)]
    assert {second - first for first, second in pairs} == set(range(2, 9))


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_reads_the_center_clip(videos: VideoIndex, workers: int) -> None:
    clips = ValDataset(videos, interval=3)
    loader = ClipLoader(clips, val_batches(18, BatchShape(4, 5, 50)), workers=workers)
    batches = [gather(chunks) for chunks in loader]
    assert [index for batch in batches for index in batch.indices.tolist()] == list(range(18))
    for batch in batches:
        for clip, label in zip(batch.clips, batch.labels.tolist(), strict=True):
            assert indices_and_labels(clip) == ([5, 8, 11, 14, 17], {label})


def test_only_training_frames_are_decoded_fast(videos: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def decode_each(frames: EncodedFrames, halved: bool, fast: bool = False) -> Iterator[object]:
        decoded.append(fast)
        return original(frames, halved, fast)

    original = EncodedFrames.decode_each
    monkeypatch.setattr(EncodedFrames, "decode_each", decode_each)
    spec = ClipSpec(0, 4, 50, seed=0)
    for dataset in (
        train_dataset(videos),
        train_dataset(videos, augment="imgaug"),
        ValDataset(videos, interval=1),
    ):
        assert dataset[spec].clip is not None
    assert decoded == [True, False, False]


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_training_video_is_reported_and_replaced(corrupt: VideoIndex, workers: int) -> None:
    specs = [ClipSpec(index, 2, 50, seed=index) for index in range(18)]
    batch = load(train_dataset(corrupt), specs, workers)
    assert len(batch.clips) == 18
    assert {bad.video for bad in batch.bad} == {str(corrupt.folder(index)) for index in (3, 7)}
    assert all("frames.db: file is not a database" in bad.reason for bad in batch.bad)
    for clip, label in zip(batch.clips, batch.labels.tolist(), strict=True):
        assert indices_and_labels(clip)[1] == {label}  # that of the replacement
    assert torch.equal(batch.clips, load(train_dataset(corrupt), specs).clips)


def test_corrupt_validation_video_is_reported_and_not_replaced(corrupt: VideoIndex) -> None:
    specs = [ClipSpec(index, 2, 50, seed=0) for index in range(6)]
    batch = load(ValDataset(corrupt, interval=1), specs)
    assert batch.indices.tolist() == [0, 1, 2, 4, 5]
    assert [bad.video for bad in batch.bad] == [str(corrupt.folder(3))]


def test_other_size_than_that_of_the_half_level_is_corrupt(corrupt: VideoIndex) -> None:
    """Otherwise the crop may be outside of the frame."""
    add_half_level(corrupt.folder(0))
    with edit_database(corrupt.folder(0)) as connection:
        connection.execute("UPDATE HalfImages SET height = 60, width = 90")
    sample = train_dataset(corrupt)[ClipSpec(0, 2, 50, seed=0)]
    assert sample.index != 0
    assert "frames.db: frame 0 has height and width (50, 50), listed (60, 90)" in sample.bad[0].reason


def test_search_for_a_replacement_is_bounded(tmp_path: Path) -> None:
    videos = make_videos(tmp_path, n_frames=2)
    for index in range(len(videos)):
        (videos.folder(index) / "frames.db").write_bytes(b"damaged" * 1000)
    batch = load(train_dataset(videos), [ClipSpec(0, 2, 50, 0)])
    assert len(batch.clips) == len(batch.labels) == 0
    assert len(batch.bad) == 100
