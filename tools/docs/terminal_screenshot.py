"""python tools/docs/terminal_screenshot.py SESSION -o terminal.png [--lines 20] [--columns 150]

A picture of what a command printed on a terminal, with its colors. SESSION: of `script -c 'COMMAND' SESSION`.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.patches import Circle

BACKGROUND, BAR, TEXT = "#0d1117", "#21262d", "#c9d1d9"
COLOURS = {
    30: "#6e7681",
    31: "#ff7b72",
    32: "#56d364",
    33: "#e3b341",
    34: "#79c0ff",
    35: "#d2a8ff",
    36: "#76e3ea",
    37: TEXT,
}  # by the codes that terminals know
SIZE = 9  # points of a letter
WIDTH, HEIGHT = 0.602 * SIZE / 72, 1.45 * SIZE / 72  # inches that a letter takes
LETTERS = {"family": "DejaVu Sans Mono", "size": SIZE, "va": "center"}

Piece = tuple[str, str, bool]  # text, color, whether bold


def printed_lines(session: str) -> list[str]:
    """What stays on the screen: a line that was written over, such as a progress bar, is its last state."""
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in session.split("\n"))
    kept = [re.sub(r"\x1b\[[0-9;?]*[A-HJKfhl]", "", line) for line in lines]
    return [line for line in kept if _is_shown(re.sub(r"\x1b\[[0-9;]*m", "", line))]


def _is_shown(text: str) -> bool:
    """Neither empty nor what `script` says itself."""
    return bool(text.strip()) and not text.startswith(("Script started", "Script done"))


def pieces(line: str) -> list[Piece]:
    """A line by its colors: `\\x1b[32mgreen\\x1b[0m white` -> two."""
    found: list[Piece] = []
    color, bold = TEXT, False
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        codes = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if codes is None:
            found += [(part, color, bold)] if part else []
            continue
        for code in (int(text or 0) for text in codes[1].split(";")):
            if code == 0:
                color, bold = TEXT, False
            elif code == 1:
                bold = True
            else:
                color = COLOURS.get(code, COLOURS.get(code - 60, color))
    return found


def draw(lines: Sequence[str], columns: int, path: Path) -> None:
    width, height = (columns + 3) * WIDTH, (len(lines) + 2.6) * HEIGHT
    figure = plt.figure(figsize=(width, height), facecolor=BACKGROUND)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.axhspan(0, 1.3 * HEIGHT, color=BAR)
    for number, color in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        axes.add_patch(Circle((0.18 + 0.17 * number, 0.65 * HEIGHT), 0.05, color=color))
    for row, line in enumerate(lines):
        column = 0
        for text, color, bold in pieces(line):
            style = {"color": color, "weight": "bold" if bold else "normal", **LETTERS}
            for word in re.finditer(r"\S+", text[: max(0, columns - column)]):
                # by words, so that what letters are rounded by does not add up
                axes.text((column + word.start() + 1.5) * WIDTH, (row + 2.2) * HEIGHT, word[0], **style)
            column += len(text)
    figure.savefig(path, dpi=120, facecolor=BACKGROUND)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("session", type=Path)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("terminal.png"), help="(default: terminal.png)"
    )
    parser.add_argument("--lines", type=int, default=20, help="the last ones (default: 20)")
    parser.add_argument("--columns", type=int, default=150, help="(default: 150)")
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    session = arguments.session.read_bytes().decode(errors="replace")  # as text, \r would end lines
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(printed_lines(session)[-arguments.lines :], arguments.columns, arguments.output)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
