"""Argument types and safe messages of the command-line tools."""

import argparse
import os
from pathlib import Path

import pytest

from data.common.cli import output_file, sanitize


def test_output_file_follows_links_and_refuses_devices(tmp_path: Path) -> None:
    """Both were replaced by a regular file; as root, /dev/null too."""
    (tmp_path / "link.json").symlink_to(tmp_path / "target.json")
    assert output_file(str(tmp_path / "link.json")) == tmp_path.resolve() / "target.json"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/null"):
        with pytest.raises(argparse.ArgumentTypeError, match="exists and is not a regular file"):
            output_file(str(path))


def test_sanitized_text_is_one_short_printable_line() -> None:
    assert sanitize("a\nb\x1b[2J\u202e" + "x" * 500) == "a b?[2J?" + "x" * 192
