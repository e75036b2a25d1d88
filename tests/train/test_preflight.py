"""What would end a run hours later is found before its first step."""

from pathlib import Path

import numpy as np
import pytest

from data.video_list import Dataset, VideoIndex
from network import create_network
from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import NAME, damage, fails, folder, train
from train.checkpointing.checkpoint import epoch_path
from train.preflight import check_disk, check_labels, checkpoint_bytes

labels_main = main_of("data.labels")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_stores(tmp_path / "set", {name: [f"{i}" for i in range(6)] for name in ("a", "b")}, n_frames=4)
    labels_main(["folders", str(tmp_path / "set"), "--val", "0.34"])
    return tmp_path / "set"


def test_training_videos_of_which_none_can_be_read(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The original replaced what it could not read for ever."""
    stores = [damage(dataset, "train", row) for row in range(8)]
    fails(
        capsys, 2, f"{stores[0]}/frames.db: file is not a database; nor could the 2 training videos after it be read",
        run=lambda: train(dataset, tmp_path / "results"),
    )  # fmt: skip
    assert not (tmp_path / "results").exists()


def test_first_validation_video_is_read_before_an_epoch_is_trained(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = damage(dataset, "val")
    fails(
        capsys, 1, f"validation: {store}/frames.db: file is not a database; --skip-bad-samples",
        run=lambda: train(dataset, tmp_path / "results"),
    )  # fmt: skip
    assert not (tmp_path / "results").exists()
    assert train(dataset, tmp_path / "results", "--skip-bad-samples", "--end-epoch", "1") == 0


def videos(labels: list[int]) -> VideoIndex:
    folders = np.array([f"a/{i}".encode() for i in range(len(labels))])
    sizes = np.zeros(len(labels), np.int64)
    return VideoIndex(root=Path("jpg"), folders=folders, labels=np.array(labels), sizes=sizes, missing={})


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(label: int) -> None:
    good = videos([0, 1, 2])
    check_labels(Dataset(classes=("a", "b", "c"), train=good, val=good))
    with pytest.raises(ValueError, match=f"jpg/a/1: its val label is {label}, must be 0 to 2"):
        check_labels(Dataset(classes=("a", "b", "c"), train=good, val=videos([0, label])))


def test_disk_that_is_too_small(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_disk(tmp_path / "not there yet", 1000, 100)
    assert caplog.text == ""
    check_disk(tmp_path, 10**6, 10**9)
    assert "the 1000000000 checkpoints of this run take 1000000000 MB" in caplog.text
    with pytest.raises(
        ValueError, match=r"MB are free, a checkpoint takes 1000000000 MB and is written beside"
    ):
        check_disk(tmp_path, 10**15, 1)


def test_size_of_a_checkpoint_is_foretold(undisturbed: Path) -> None:
    size = epoch_path(folder(undisturbed), NAME, 3).stat().st_size
    assert 0.9 * size < checkpoint_bytes(create_network(NAME, 3), moments=1, averaged=False) < size
