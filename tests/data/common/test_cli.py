"""Argument types and safe messages of the command-line tools."""

import argparse
import os
from pathlib import Path

import pytest

from data.common.cli import OneLineParser, output_file, sanitize


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


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FileNotFoundError("no such\nfile"), 2, "tool: error: no such file"),
        (ImportError("no onnx"), 2, "tool: error: no onnx"),
        (KeyboardInterrupt(), 130, "tool: interrupted"),
    ],
)
def test_expected_errors_are_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=str(code)), OneLineParser("tool").one_line_errors(ImportError):
        raise error
    assert capsys.readouterr().err == f"{line}\n"
    with pytest.raises(AssertionError), OneLineParser("tool").one_line_errors():
        raise AssertionError
