"""What the command-line tools share."""

import argparse
import os
from pathlib import Path

import pytest

from data.common.cli import output_file


def test_links_are_written_through_and_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """Both were replaced by a file: as root, /dev/null too."""
    (tmp_path / "link.json").symlink_to(tmp_path / "target.json")
    assert output_file(str(tmp_path / "link.json")) == tmp_path.resolve() / "target.json"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(argparse.ArgumentTypeError, match="pipe: is no file, and would be replaced by one"):
        output_file(str(tmp_path / "pipe"))
    with pytest.raises(argparse.ArgumentTypeError, match="null: is no file"):
        output_file("/dev/null")


def test_a_place_a_thousand_folders_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(argparse.ArgumentTypeError, match="lies too many folders deep"):
        output_file("a/" * 1500 + "x")
    assert list(tmp_path.iterdir()) == []
