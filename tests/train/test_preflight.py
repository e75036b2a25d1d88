"""What would end a run hours later is found before its first step."""

from pathlib import Path

import pytest

from network import create_network
from tests.train.helpers import NAME, assert_fails, corrupt_store, folder, train
from train.options import Options
from train.preflight import check_disk


def test_no_training_video_can_be_read(
    own_stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = [corrupt_store(own_stores, "train", row) for row in range(8)]
    message = (f"{stores[0]}/frames.db: ", "; the 2 training videos after it are corrupt too")
    assert_fails(capsys, 2, *message, run=lambda: train(own_stores, tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_the_disk_is_too_small(reference_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (folder(reference_run) / f"{NAME}_ep-0003.pth").stat().st_size
    network = create_network(NAME, 3)

    def check_with_free(free: float) -> None:
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        check_disk(tmp_path / "not there yet", network, Options())

    check_with_free(2 * size)
    with pytest.raises(ValueError, match=r"not there yet: 0 MB are free, a checkpoint needs 0 MB twice"):
        check_with_free(1.5 * size)
