"""Videos of a dataset that have a frame database, its classes, and its fingerprint."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest

from data.datasets import CUSTOM, KINETICS
from data.video_list import DatasetSplits, load_dataset
from tests.data.labels.test_labels import write
from tests.synthetic_frames import make_stores

IDS = {"run": ["a", "b", "c", "d"], "jump": ["e", "f"], "fall": ["i", "j", "k"]}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    make_stores(root, IDS, n_frames=2)
    return root


def load(
    stores: Path,
    labels: Path,
    train: str,
    val: str,
    *,
    num_classes: int | None = None,
    max_missing: float | str = 0.2,
    classes: str = "",
    untrained_classes: bool = False,
) -> DatasetSplits:
    """Write label files with these rows, and a class index of these letters, and load the dataset."""
    shutil.rmtree(labels, ignore_errors=True)
    write(labels / "train.csv", "label,id\n" + train)
    write(labels / "val.csv", "label,id\n" + val)
    if classes:
        numbers = {name: number for number, name in enumerate(classes.split())}
        write(labels / "dictionary.json", json.dumps(numbers))
    spec = dataclasses.replace(CUSTOM, untrained_classes=untrained_classes)
    return load_dataset(stores, spec, "", labels, num_classes, max_missing)


def test_labels_belong_to_their_folders(stores: Path, tmp_path: Path) -> None:
    dataset = load(stores, tmp_path / "labels", "fall,i\nrun,b\njump,e\n", "jump,f\n")
    assert dataset.classes == ("fall", "run", "jump")
    folders = [dataset.train.folder(index) for index in range(3)]
    assert folders == [stores / "jpg" / name for name in ("fall/i", "run/b", "jump/e")]
    assert (dataset.train.labels.tolist(), dataset.val.labels.tolist()) == ([0, 1, 2], [2])
    assert dataset.train.sizes.tolist() == [(folder / "frames.db").stat().st_size for folder in folders]


def test_missing_videos_are_dropped_and_counted(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "run,a\nrun,gone\nfall,i\nfall,j\nfall,k\nfall,lost\n", "run,b\n"
    dataset = load(stores, tmp_path / "labels", *rows, max_missing=0.4)
    assert dataset.train.missing == {"run": 1, "fall": 1}
    assert dataset.summary()["train"] == {"videos": 4, "missing": 2}
    message = "train.csv: missing frame databases for 2 of 6 videos"
    assert f"{message}; most in classes run 1, fall 1" in caplog.text
    with pytest.raises(ValueError, match=f"{message}, more than --max-missing 0.2 allows"):
        load(stores, tmp_path / "labels", *rows)
    with pytest.raises(ValueError, match=r"train.csv: none of its 1 videos has .*, such as .*jpg/run/gone"):
        load(stores, tmp_path / "labels", "run,gone\n", "run,b\n", max_missing=1)


def test_number_of_classes_must_match(stores: Path, tmp_path: Path) -> None:
    rows = "run,a\njump,e\n", "run,b\n"
    with pytest.raises(ValueError, match=r"has 2 classes, expected 51; --num-classes 2 accepts"):
        load(stores, tmp_path / "labels", *rows, num_classes=51)
    assert len(load(stores, tmp_path / "labels", *rows, num_classes=2).classes) == 2


def test_classes_are_numbered_by_first_appearance_and_keep_their_numbers(
    stores: Path, tmp_path: Path
) -> None:
    """Their index is not written before a run starts: it may not be that of its checkpoint."""
    labels = tmp_path / "labels"
    dataset = load(stores, labels, "run,a\njump,e\nrun,b\n", "run,c\n")
    assert dataset.classes == ("run", "jump")
    assert not (labels / "dictionary.json").exists()
    dataset.write_class_index()
    assert json.loads((labels / "dictionary.json").read_text()) == {"run": 0, "jump": 1}
    write(labels / "train.csv", "label,id\njump,e\nrun,a\n")
    assert load_dataset(stores, CUSTOM, "", labels, None, 0).classes == ("run", "jump")


def test_repeated_rows_change_nothing(stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    once = load(stores, tmp_path / "labels", "run,a\njump,e\n", "run,b\n")
    twice = load(stores, tmp_path / "labels", "run,a\njump,e\nrun , a\n", "run,b\nrun,b\n")
    assert twice.summary() == once.summary()
    assert f"1 of 3 rows repeat a video, used once, such as run/a in {tmp_path}/labels/train.csv, line 4" in (
        caplog.messages
    )


def test_a_class_that_lost_all_its_videos_is_an_error_unless_accepted(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its output stays, so that other classes keep their numbers."""
    rows = "run,a\nturn left,gone\nturn left,lost\njump,e\n", "run,b\njump,f\n"
    labels = tmp_path / "labels"
    message = (
        r"train.csv: no videos of 1 of 3 classes, such as \['turn left'\]; --num-classes 2, .* 'turn left=1',"
    )
    for num_classes in (None, 3):
        with pytest.raises(ValueError, match=message):
            load(stores, labels, *rows, num_classes=num_classes, max_missing=1)
    for accepted in (
        load(stores, labels, *rows, num_classes=2, max_missing=0.5),
        load(stores, labels, *rows, max_missing="turn left"),
    ):
        assert accepted.classes == ("run", "turn left", "jump")
        assert accepted.train.labels.tolist() == [0, 2]
    assert "train.csv: no videos of 1 of 3 classes: ['turn left']" in caplog.text
    assert "val.csv: no videos of 1 of 3 classes: ['turn left']" in caplog.text
    with pytest.raises(ValueError, match="missing frame databases for 1 of 2 videos"):  # of the other classes
        load(stores, labels, rows[0].replace("run,a", "run,missing"), rows[1], max_missing="turn left")


def test_a_class_of_the_index_without_rows_is_an_error_unless_the_dataset_has_such(
    stores: Path, tmp_path: Path
) -> None:
    rows = "run,a\njump,e\n", "run,b\njump,f\n"
    labels = tmp_path / "labels"
    with pytest.raises(
        ValueError, match=r"such as \['fly'\]; .* --max-missing fly=1, .* remove dictionary.json"
    ):
        load(stores, labels, *rows, classes="fly run jump")
    assert len(load(stores, labels, *rows, classes="fly run jump", untrained_classes=True).classes) == 3
    with pytest.raises(ValueError, match=r"such as \['fall'\]"):  # it had videos
        load(stores, labels, rows[0] + "fall,x\n", rows[1], untrained_classes=True, max_missing=0.5)


def test_a_class_without_validation_videos_and_a_single_class_are_named(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(stores, tmp_path / "labels", "run,a\njump,e\n", "run,b\n")
    assert "val.csv: no videos of 1 of 2 classes: ['jump']" in caplog.text
    assert "single class" not in caplog.text
    load(stores, tmp_path / "labels", "run,a\n", "run,b\n")
    assert "train.csv: has videos of a single class, 'run'" in caplog.text


@pytest.mark.parametrize("of_rows", ["NFC", "NFD"])
def test_stores_are_found_in_any_unicode_form(tmp_path: Path, of_rows: Literal["NFC", "NFD"]) -> None:
    """Also where one class has folders of both forms."""
    names = {
        normalize("NFD", "café"): ["1", normalize("NFD", "ñ")],
        normalize("NFC", "café"): ["2"],
    }
    make_stores(tmp_path, names | {"push ": ["3"]}, n_frames=2)
    rows = normalize(of_rows, "café,1\ncafé,ñ\ncafé,2\npush,3\n")
    dataset = load(tmp_path, tmp_path / "labels", rows, rows, max_missing=0)
    assert dataset.classes == (normalize("NFC", "café"), "push")
    assert all((dataset.train.folder(index) / "frames.db").is_file() for index in range(4))
    make_stores(tmp_path, {"push": ["3"]}, n_frames=2)  # a name as written comes first
    again = load(tmp_path, tmp_path / "labels", rows, rows, max_missing=0)
    assert again.train.folder(3) == tmp_path / "jpg" / "push" / "3"


def test_validation_class_without_training_videos_is_an_error(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"val.csv, line 2: class 'jump' is not one of the 1 classes of the training set"
    ):
        load(stores, tmp_path / "labels", "run,a\n", "jump,e\n")


def test_folder_without_jpg_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--dataset must be a folder with jpg/"):
        load_dataset(tmp_path, KINETICS, "400", labels=None, num_classes=400, max_missing=0.2)


def test_fingerprint_depends_on_videos_labels_and_splits_but_not_on_order(
    stores: Path, tmp_path: Path
) -> None:
    def fingerprint(train: str, val: str) -> str:
        return load(stores, tmp_path / "labels", train, val).fingerprint()

    first = fingerprint("run,a\nrun,b\njump,e\n", "run,c\n")
    assert first == fingerprint("run,b\nrun,a\njump,e\n", "run,c\n")
    others = {
        fingerprint("run,a\nrun,b\njump,e\n", "run,d\n"),
        fingerprint("run,a\njump,e\n", "run,b\nrun,c\n"),
        fingerprint("jump,e\nrun,a\nrun,b\n", "run,c\n"),
    }
    assert len(others | {first}) == 4


def test_fingerprint_depends_on_database_sizes(tmp_path: Path) -> None:
    """Videos that were converted again, at another size or truncated, are other data."""
    fingerprints = []
    for n_frames, size in ((40, 50), (40, 50), (12, 50), (40, 90)):
        make_stores(tmp_path, {"run": ["a", "b"]}, n_frames=n_frames, size=size)
        fingerprints.append(load(tmp_path, tmp_path / "labels", "run,a\n", "run,b\n").fingerprint())
        shutil.rmtree(tmp_path / "jpg")
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


CHANGES: dict[str, Callable[[Path], object]] = {
    "store removed": lambda root: shutil.rmtree(root / "jpg/run/c"),
    "store added": lambda root: make_stores(root, {"jump": ["g"]}, n_frames=2),
    "class renamed": lambda root: (root / "jpg/fall").rename(root / "jpg/fell"),
    "label file changed": lambda root: write(root / "labels/val.csv", "label,id\nrun,d\n"),
    "class index written": lambda root: write(
        root / "labels/dictionary.json", '{"jump": 0, "run": 1, "fall": 2}'
    ),
    "cache damaged": lambda root: (root / "video_list.npz").write_bytes(b"PK garbage"),
    "cache emptied": lambda root: (root / "video_list.npz").write_bytes(b""),
    "cache of others": lambda root: np.savez(root / "video_list.npz", np.array("null")),
}


@pytest.mark.parametrize("change", ["", *CHANGES])
def test_cached_list_is_that_of_reading_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    def read() -> tuple[list[object], list[str]]:
        caplog.clear()
        dataset = load_dataset(tmp_path, CUSTOM, "", None, None, 0.5, may_be_empty=True)
        rows = [[videos.folder(i) for i in range(len(videos))] for videos in (dataset.train, dataset.val)]
        arrays = [[v.labels.tolist(), v.sizes.tolist(), v.missing] for v in (dataset.train, dataset.val)]
        return [dataset.classes, dataset.class_index, dataset.summary(), rows, arrays], caplog.messages

    make_stores(tmp_path, IDS, n_frames=2)
    rows = "run,a\nrun,a\nrun,b\njump,e\njump,g\nfall,i\nfall,gone\n"
    write(tmp_path / "labels/train.csv", f"label,id\n{rows}")
    write(tmp_path / "labels/val.csv", "label,id\nrun,b\nrun,c\n")
    monkeypatch.setattr("data.video_list.MIN_CACHED", 100)
    uncached = read()
    assert len(uncached[1]) == 4  # repeats, videos in both files, missing ones, classes without videos
    assert not (tmp_path / "video_list.npz").exists()
    monkeypatch.setattr("data.video_list.MIN_CACHED", 0)
    for path in (tmp_path / "jpg", *(tmp_path / "jpg").iterdir(), *(tmp_path / "labels").iterdir()):
        os.utime(path, (10**9, 10**9))  # else a change may come within the same tick of the disk's clock
    assert read() == uncached
    if change:
        CHANGES[change](tmp_path)
        changed = read()
        (tmp_path / "video_list.npz").unlink(missing_ok=True)
        assert changed == read()
        assert (changed == uncached) == change.startswith("cache")
    else:
        monkeypatch.setattr("data.video_list.read_splits", None)
        assert read() == uncached
        write(tmp_path / "labels/dictionary.json", '{"run": 0, "jump": 1, "fall": 2}')  # as training does
        assert read() == uncached


def test_list_of_other_options_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_stores(tmp_path, IDS, n_frames=2)
    monkeypatch.setattr("data.video_list.MIN_CACHED", 0)
    rows = "run,a\njump,e\nfall,gone\n", "run,b\n"
    dataset = load(tmp_path, tmp_path / "labels", *rows, num_classes=2, max_missing=0.5)
    assert (tmp_path / "video_list.npz").exists()
    for num_classes, max_missing in ((3, 0.5), (2, 0.1)):
        with pytest.raises(ValueError, match="train.csv: "):
            load_dataset(tmp_path, CUSTOM, "", tmp_path / "labels", num_classes, max_missing)
    assert dataset.train.missing == {"fall": 1}
