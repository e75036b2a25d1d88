"""Argument types and safe messages of the command-line tools."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.common.cli import OneLineParser, output_file, sanitize
from tests.commands import REPOSITORY


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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_class_name_survives_any_terminal(tmp_path: Path, encoding: str) -> None:
    """The label files have the letters that the terminal loses; what is not UTF-8 is escaped."""
    for name in ("推", "धक्का"):
        for video in ("v", os.fsdecode(b"caf\xe9")):
            (tmp_path / "jpg" / name / video).mkdir(parents=True)
            (tmp_path / "jpg" / name / video / "frames.db").touch()
    command = [sys.executable, "-m", "data.labels", "folders", tmp_path, "--val", "0.5"]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"\n{'推' if encoding == 'utf-8' else '?'} ".encode() in done.stdout
    lines = [(tmp_path / "labels" / f"{split}.csv").read_text("utf-8") for split in ("train", "val")]
    rows = {tuple(row.split(",")[:2]) for text in lines for row in text.splitlines()[1:]}
    assert rows == {(name, video) for name in ("推", "धक्का") for video in ("v", "caf\\udce9")}


def test_existing_files_with_a_dash_first_are_no_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-abc", "--top=3.mp4", "-h.mp4"):
        Path(name).touch()
    parser = OneLineParser("tool")
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--top")
    parsed = parser.parse_args(["--top=4", "-abc", "--top=3.mp4", "-h.mp4"])
    assert (parsed.files, parsed.top) == ([Path("-abc"), Path("--top=3.mp4"), Path("-h.mp4")], "4")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["-abd"])
    assert "unrecognized arguments: -abd" in capsys.readouterr().err


@pytest.mark.parametrize("platform", ["win32", "cygwin", "freebsd14"])
@pytest.mark.parametrize("command", ["data.convert", "train.predict", "train_ucf101"])
def test_other_platforms_are_told_what_it_runs_on(platform: str, command: str) -> None:
    """Before the imports that fail there."""
    code = (
        f"import sys, runpy; sys.platform = {platform!r}; runpy.run_module({command!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    line = f"runs on Linux and macOS, not on {platform}; on Windows use WSL: wsl --install\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
