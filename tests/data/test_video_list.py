"""Videos of a dataset that have a frame database, and its fingerprint."""

import shutil
from pathlib import Path

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
    max_missing: float = 0.2,
) -> DatasetSplits:
    """Write label files with these rows and load the dataset."""
    shutil.rmtree(labels, ignore_errors=True)
    write(labels / "train.csv", "label,id\n" + train)
    write(labels / "val.csv", "label,id\n" + val)
    return load_dataset(stores, CUSTOM, "", labels, num_classes, max_missing)


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
