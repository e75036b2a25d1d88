"""Argument types and safe messages of the command-line tools."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.common.cli import OneLineParser, output_file, sanitize
from tests.commands import REPOSITORY, error_of, main_of


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


def test_a_wrong_flag_of_a_subcommand_names_the_nearest(tmp_path: Path) -> None:
    error = error_of(main_of("data.labels"), "folders", tmp_path, "--overwite")
    assert error.endswith(
        "folders: error: unrecognized arguments: --overwite; --overwite: did you mean --overwrite?"
    )


COMMANDS = [
    path
    for pattern in ("train_*.py", "data/**/*.py", "network/*.py", "train/**/*.py")
    for path in REPOSITORY.glob(pattern)
    if '__name__ == "__main__"' in path.read_text("utf-8")
]


def test_the_shell_finds_that_commands_complete() -> None:
    assert len(COMMANDS) > 20
    for path in COMMANDS:
        assert "PYTHON_ARGCOMPLETE_OK" in path.read_text("utf-8")[:1024], path


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("python -m train --network srtg_r3d_10", "srtg_r3d_101"),
        ("python train_hmdb51.py --split 1 --optimizer ", "sgd adamw"),
        ("python -m train.evaluate x.pth --data-spec u", "ucf101"),
        ("python -m data.labels folders --ov", "--overwrite"),
    ],
)
def test_the_tab_key_completes_flags_networks_and_data_sets(
    tmp_path: Path, line: str, completions: str
) -> None:
    pytest.importorskip("argcomplete", reason="pip install argcomplete")
    words = line.split()[1:]
    start = 3 if words[0] == "-m" else 2  # word of the command, counted from 1
    asked = {"_ARGCOMPLETE": str(start), "_ARGCOMPLETE_IFS": " ", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "completions")}
    command = [sys.executable, *words[: start - 1]]
    subprocess.run(command, cwd=REPOSITORY, env=os.environ | asked, check=True, capture_output=True)
    assert (tmp_path / "completions").read_text() == completions


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
