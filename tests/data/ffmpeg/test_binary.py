"""The ffmpeg on the PATH is tried; one that does not work is replaced by the package's."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.helpers import NEW_FFMPEG, make_video

MISSING_LIBRARY = 'echo "ffmpeg: error while loading shared libraries: libx.so.5: cannot open" >&2; exit 127'


def refuse(word: str, message: str) -> str:
    return f'case "$*" in *{word}*) echo "{message}" >&2; exit 1;; esac'


def install(folder: Path, *lines: str) -> Path:
    """Write an ffmpeg that runs `lines` of bash before a working one, and says that it is a nightly."""
    path = folder / "bin" / "ffmpeg"
    path.parent.mkdir()
    nightly = 'if [ "$1" = -version ]; then echo "ffmpeg version N-12345-gabcdef"; exit; fi'
    path.write_text(
        "\n".join(["#!/bin/bash", *lines, nightly, f'exec "{NEW_FFMPEG}" "${{@/#-vsync/-fps_mode}}"', ""])
    )
    path.chmod(0o755)
    return path


def ask(path: Path, expression: str, *, package: str = "") -> subprocess.CompletedProcess[str]:
    """Print the value of an expression in a new process; `package`: the path of imageio-ffmpeg's instead."""
    program = f"import data.ffmpeg.binary as b; print({expression})"
    environment = {"PATH": f"{path.parent}:/usr/bin:/bin", "IMAGEIO_FFMPEG_EXE": package}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (MISSING_LIBRARY, "ffmpeg: error while loading shared libraries: libx.so.5: cannot open"),
        (refuse("mjpeg", "Unknown encoder 'mjpeg'"), "Unknown encoder 'mjpeg'"),
        ("echo libtinfo.so.6: no version information >&2", "libtinfo.so.6: no version information"),
        ("exit 0", "no pts_time in its output, exit code 0"),
        ("kill -SEGV $$", "no pts_time in its output, exit code -11"),
    ],
)
def test_ffmpeg_that_does_not_work_is_replaced(tmp_path: Path, line: str, reason: str) -> None:
    path = install(tmp_path, line)
    done = ask(path, "b.ffmpeg_binary(), b.passthrough_fps_options(), b.h264_encoder()")
    assert done.stdout.startswith(f"{NEW_FFMPEG} {{'fps_mode': 'passthrough',")
    assert done.stderr == f"{path} does not work: {reason}; using {NEW_FFMPEG}\n"


def test_nightly_before_the_option_was_renamed_is_used(tmp_path: Path) -> None:
    path = install(tmp_path, refuse("-fps_mode", "Unrecognized option 'fps_mode'."))
    done = ask(path, "b.ffmpeg_binary(), b.passthrough_fps_options()")
    assert (done.stdout.startswith(f"{path} {{'vsync': "), done.stderr) == (True, "")


def test_encoder_is_one_that_works(tmp_path: Path) -> None:
    path = install(tmp_path, refuse("libx264", "Unknown encoder 'libx264'"))
    assert ask(path, "b.ffmpeg_binary(), b.h264_encoder()").stdout == f"{path} libopenh264\n"


def test_no_encoder_is_one_line(tmp_path: Path) -> None:
    path = install(tmp_path, refuse("264", "Unknown encoder"))
    error = ask(path, "b.h264_encoder()").stderr.splitlines()[-1]
    assert error.startswith(f"OSError: {path} cannot write H.264 videos; install an ffmpeg with libx264")


@pytest.mark.parametrize("package", ["/nowhere/ffmpeg", "/bin/false"])
def test_without_any_a_command_says_what_to_install(tmp_path: Path, package: str) -> None:
    path = install(tmp_path, MISSING_LIBRARY)
    make_video(tmp_path / "videos" / "a" / "b.mp4")
    command = [sys.executable, "-m", "data.convert", tmp_path / "videos", tmp_path / "set"]
    environment = {"PATH": f"{path.parent}:/usr/bin:/bin", "IMAGEIO_FFMPEG_EXE": package}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (line,) = (text for text in done.stderr.splitlines() if "error: " in text)
    assert f"{path} does not work: ffmpeg: error while loading" in line
    assert f"{package} does not work" in line
    assert line.endswith("install ffmpeg, or reinstall the package imageio-ffmpeg, which has one")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_ffmpeg_never_reads_the_terminal(tmp_path: Path) -> None:
    """It stopped conversions in the background: also where a file is only looked at, as one of one frame."""
    path = install(tmp_path, f'echo "$*" >> {tmp_path}/log')
    video = make_video(tmp_path / "videos/a/x.mp4", n_frames=1)
    command = [sys.executable, "-m", "data.convert", str(video.parent.parent), str(tmp_path / "set")]
    subprocess.run(command, env={"PATH": f"{path.parent}:/usr/bin:/bin"}, check=True)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 3  # the trial, decoding, and a look at the streams
    assert all("-nostdin" in line for line in lines)
