"""Files are whole, whatever interrupts their writing."""

import errno
from pathlib import Path

import numpy as np
import pytest

from data.common.atomic_io import atomic_append, atomic_write, flush_to_disk, remove_leftovers, save_arrays


def test_lines_are_added_below_one_header(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for number in range(3):
        atomic_append(path, "number\n", f"{number}\n")
    assert path.read_text() == "number\n0\n1\n2\n"


@pytest.mark.parametrize("torn", ["", "num", "number\n", "number\n0", "number\n" + "x" * 5000])
def test_half_a_line_is_dropped(tmp_path: Path, torn: str) -> None:
    """What a kill leaves."""
    path = tmp_path / "table.csv"
    path.write_text(torn)
    atomic_append(path, "number\n", "1\n")
    assert path.read_text() == "number\n1\n"


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path: Path) -> None:
    for name in (".net_last.pth.123", ".run.json.7"):
        (tmp_path / name).touch()
    for name in ("net_last.pth", ".hidden", "net_ep-0001.pth.123", ".cache.d"):
        (tmp_path / name).touch()
    atomic_write(tmp_path / "run.json", "{}")
    assert remove_leftovers(tmp_path) == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "net_last.pth", ".hidden", "net_ep-0001.pth.123", ".cache.d", "run.json",
    }  # fmt: skip


def test_arrays_are_there_as_a_whole_or_the_old_ones_are(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.npz"
    save_arrays(path, numbers=np.arange(3))
    with pytest.raises(ValueError, match="could not be made"):
        save_arrays(path, numbers=Unmakeable())
    assert [entry.name for entry in path.parent.iterdir()] == ["a.npz"]
    with np.load(path) as content:
        assert content["numbers"].tolist() == [0, 1, 2]


class Unmakeable:
    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise ValueError("could not be made")


def test_the_file_is_named_and_not_the_one_beside_its_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        atomic_write(tmp_path / "nowhere" / "x.json", "{}")
    assert raised.value.filename == str(tmp_path / "nowhere" / "x.json")
    assert str(raised.value).endswith("x.json'")  # once x.json' -> None


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"Is a directory: .*folder"):
        atomic_append(tmp_path / "folder", "", "line\n")


def test_folders_that_a_disk_cannot_flush_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network and shared folders refuse it: the first checkpoint, whole and in its place, ended the run."""

    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("data.common.atomic_io.os.fsync", refuse)
    flush_to_disk(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        flush_to_disk(tmp_path / "file")
