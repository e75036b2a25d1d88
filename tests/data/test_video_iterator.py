"""From requests to batches: which frames came back, with which label, from which worker."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from data.batch_sampler import BatchShape, ClipSpec, TrainBatchSampler, ValBatchSampler
from data.datasets import CUSTOM
from data.frame_store import FrameStore
from data.video_iterator import Batch, TrainDataset, ValDataset, make_loader
from data.video_list import Dataset, load_dataset
from tests.commands import main_of
from tests.synthetic_frames import make_stores, read_paint

main = main_of("data.labels")

IDS = {name: [f"{name}{i}" for i in range(8)] for name in ("a", "b", "c")}


def make_dataset(root: Path, n_frames: int = 24) -> Dataset:
    make_stores(root, IDS, n_frames=n_frames)
    main(["folders", str(root), "--val", "0.25"])
    return load_dataset(root, CUSTOM, variant="", labels=None, num_classes=None, max_missing=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("set"))


def training(dataset: Dataset, **changes: object) -> TrainDataset:
    arguments = {
        "intervals": (2,),
        "base_length": 8,
        "clip_size": 50,
        "short_side": 50,
        "augment": "none",
        "flip": False,
        "frame_sampling": "uniform",
    }
    return TrainDataset(dataset.train, **(arguments | changes))


def paint_of(batch: Batch) -> list[tuple[list[int], set[int]]]:
    """Per clip the indices of its frames and their labels."""
    read = [[read_paint(frame) for frame in clip.numpy()] for clip in batch.clips]
    return [([index for index, _ in clip], {label for _, label in clip}) for clip in read]


def test_clips_hold_the_frames_and_the_label_of_their_video(dataset: Dataset) -> None:
    clips = training(dataset, base_length=6)
    for index in range(len(clips)):
        sample = clips[ClipSpec(index, length=6, size=50, seed=index)]
        painted = [read_paint(frame) for frame in sample.clip.numpy()]
        assert set(np.diff([i for i, _ in painted])) == {2}
        assert {label for _, label in painted} == {"abc".index(dataset.train.folder(index).name[0])}
        assert dataset.classes[sample.label] == dataset.train.folder(index).parent.name
        assert sample.bad == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_is_the_same_from_any_number_of_workers(dataset: Dataset, workers: int) -> None:
    shapes = [BatchShape(8, 4, 26), BatchShape(4, 8, 50), BatchShape(6, 4, 50)]
    epochs = []
    for count in (0, workers):
        batches = TrainBatchSampler(18, seed=5)
        loader = make_loader(training(dataset, augment="imgaug", flip=True), batches, workers=count)
        for epoch in (1, 2):  # one loader through all shapes of all epochs
            batches.set_epoch(epoch, shapes)
            epochs.append(list(loader))
    for batch, other in zip(epochs[0] + epochs[1], epochs[2] + epochs[3], strict=True):
        assert torch.equal(batch.clips, other.clips)
        assert torch.equal(batch.labels, other.labels)
    assert [tuple(batch.clips.shape) for batch in epochs[0]] == [
        (8, 4, 26, 26, 3),
        (4, 8, 50, 50, 3),
        (6, 4, 50, 50, 3),
    ]
    assert epochs[0][0].clips.dtype == torch.uint8
    assert sorted(index for batch in epochs[0] for index in batch.indices.tolist()) == list(range(18))
    assert not torch.equal(epochs[0][1].clips, epochs[1][1].clips)


def test_no_random_stream_is_used_twice(dataset: Dataset) -> None:
    """Workers of the original shared one stream, and each epoch repeated it."""
    clips = training(dataset, intervals=(1,), augment="imgaug")
    seen = set()
    for seed in range(300):
        seen.add(clips[ClipSpec(0, length=2, size=50, seed=seed)].clip.numpy().tobytes())
    assert len(seen) > 250  # a fifth is not augmented, and has 23 starts


def test_fewer_frames_cover_the_same_time(dataset: Dataset) -> None:
    """Multigrid: with a quarter of the frames the interval is up to four times as long."""
    clips = training(dataset, intervals=(2,), base_length=8)
    intervals = set()
    for seed in range(200):
        clip = clips[ClipSpec(1, length=2, size=50, seed=seed)].clip.numpy()
        intervals.add(read_paint(clip[1])[0] - read_paint(clip[0])[0])
    assert intervals == set(range(2, 9))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_validation_is_the_middle_clip_whatever_the_workers(dataset: Dataset, workers: int) -> None:
    clips = ValDataset(dataset.val, interval=3, short_side=50)
    loader = make_loader(clips, ValBatchSampler(6, BatchShape(4, 5, 50)), workers=workers)
    batches = list(loader)
    assert [index for batch in batches for index in batch.indices.tolist()] == list(range(6))
    for batch in batches:
        for (indices, labels), label in zip(paint_of(batch), batch.labels.tolist(), strict=True):
            assert indices == [5, 8, 11, 14, 17]
            assert len(labels) == 1
            assert dataset.classes[label] == "abc"[labels.pop()]


@pytest.fixture
def damaged(tmp_path: Path) -> Dataset:
    dataset = make_dataset(tmp_path, n_frames=4)
    for videos, indices in ((dataset.train, (3, 7)), (dataset.val, (2,))):
        for index in indices:
            (videos.folder(index) / "frames.db").write_bytes(b"damaged" * 1000)
    return dataset


def load(clips: object, requests: Sequence[ClipSpec], workers: int = 0) -> Batch:
    (batch,) = make_loader(clips, [list(requests)], workers=workers)
    return batch


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_training_clip_is_replaced_and_named(damaged: Dataset, workers: int) -> None:
    requests = [ClipSpec(index, 2, 50, seed=index) for index in range(len(damaged.train))]
    batch = load(training(damaged), requests, workers)
    assert len(batch.clips) == 18
    assert {bad.video for bad in batch.bad} == {str(damaged.train.folder(i)) for i in (3, 7)}
    assert all("frames.db: file is not a database" in bad.reason for bad in batch.bad)
    for (_, labels), label in zip(paint_of(batch), batch.labels.tolist(), strict=True):
        assert damaged.classes[label] == "abc"[labels.pop()]  # the label is that of the replacement
    assert torch.equal(batch.clips, load(training(damaged), requests).clips)


def test_unreadable_validation_clip_is_reported_never_replaced(damaged: Dataset) -> None:
    requests = [ClipSpec(index, 2, 50, seed=0) for index in range(6)]
    batch = load(ValDataset(damaged.val, interval=1, short_side=50), requests)
    assert batch.indices.tolist() == [0, 1, 3, 4, 5]
    assert [bad.video for bad in batch.bad] == [str(damaged.val.folder(2))]


def test_nothing_readable_is_no_endless_search(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, n_frames=2)
    for index in range(len(dataset.train)):
        (dataset.train.folder(index) / "frames.db").write_bytes(b"damaged" * 1000)
    batch = load(training(dataset), [ClipSpec(0, 2, 50, 0)])
    assert len(batch.clips) == len(batch.labels) == 0
    assert len(batch.bad) == 100


def test_frames_of_a_short_video_are_looped(tmp_path: Path) -> None:
    make_stores(tmp_path, {"a": ["x", "y"]}, n_frames=3)
    main(["folders", str(tmp_path), "--val", "0.5"])
    dataset = load_dataset(tmp_path, CUSTOM, variant="", labels=None, num_classes=None, max_missing=0)
    assert FrameStore(dataset.train.folder(0)).n_frames == 3
    clip = training(dataset)[ClipSpec(0, length=8, size=50, seed=0)].clip.numpy()
    assert {read_paint(frame)[0] for frame in clip} == {0, 1, 2}
