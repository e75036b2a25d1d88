"""Files hold the old content or the new, whatever interrupts writing them."""

from pathlib import Path

import numpy as np
import pytest

from data.common.atomic_io import atomic_write, remove_leftovers, save_arrays


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    save_arrays(path, numbers=np.arange(3))

    class Broken:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        save_arrays(path, first=np.arange(3), second=Broken())
    assert [entry.name for entry in path.parent.iterdir()] == ["a.npz"]
    with np.load(path) as content:
        assert content["numbers"].tolist() == [0, 1, 2]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    kept = {"net_last.pth", ".hidden", "net_ep-0001.pth.123", ".cache.d"}
    for name in (".net_last.pth.123", ".run.json.7", *kept):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        atomic_write(tmp_path / "nowhere" / "x.json", "{}")
    assert raised.value.filename == str(tmp_path / "nowhere" / "x.json")
