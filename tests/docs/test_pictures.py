"""The scripts that draw the pictures of docs."""

import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data.ffmpeg import written_video

GREEN, RED = "\x1b[32m", "\x1b[1;31m"


def script(repository: Path, name: str) -> dict[str, Any]:
    return runpy.run_path(str(repository / "docs" / f"{name}.py"))


def test_block_diagrams_are_what_their_script_draws(repository: Path, tmp_path: Path) -> None:
    figures = script(repository, "figures")
    assert figures["main"]([str(tmp_path / "new")]) == 0
    for name in figures["FIGURES"]:
        drawn = (tmp_path / "new" / f"{name}.svg").read_bytes()
        assert drawn == (repository / "docs" / f"{name}.svg").read_bytes(), name


def test_picture_of_a_terminal_has_what_stays_there(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = script(repository, "terminal")
    session = tmp_path / "session"
    lines = [
        "Script started on today",
        " 10%|#  \r 20%|## \r\x1b[K\r",
        f"{GREEN}now\x1b[0m {RED}slow\x1b[0m end\r",
        "",
    ]
    session.write_bytes("\n".join(lines).encode())
    (line,) = terminal["printed_lines"]("\n".join(lines))
    text = [(piece, bold) for piece, _, bold in terminal["pieces"](line)]
    assert text == [("now", False), (" ", False), ("slow", True), (" end", False)]
    assert terminal["main"]([str(session), "-o", str(tmp_path / "new" / "t.png"), "--columns", "30"]) == 0
    picture = cv2.imread(str(tmp_path / "new" / "t.png")).astype(int)
    for channel, other in ((1, 2), (2, 1)):  # something green, something red
        assert (picture[40:, :, channel] - picture[40:, :, other]).max() > 60
    assert str(tmp_path / "new" / "t.png") in capsys.readouterr().out


def test_filmstrip_has_a_row_a_video(repository: Path, tmp_path: Path) -> None:
    for name, value in (("dark", 30), ("bright", 220)):
        with written_video(tmp_path / f"{name}.mp4", 48, 64, 25, threads=1) as writer:
            for _ in range(9):
                writer.write(np.full((48, 64, 3), value, np.uint8))
    videos = [str(tmp_path / f"{name}.mp4") for name in ("dark", "bright")]
    filmstrip = script(repository, "filmstrip")
    assert (
        filmstrip["main"](
            [*videos, "-o", str(tmp_path / "new" / "strip.png"), "--frames", "3", "--height", "96"]
        )
        == 0
    )
    picture = cv2.imread(str(tmp_path / "new" / "strip.png"))
    gap = filmstrip["GAP"]
    assert picture.shape == (2 * 96 + gap, 3 * 128 + 2 * gap, 3)
    assert picture[40, 60, 0] < 60
    assert picture[150, 60, 0] > 200
