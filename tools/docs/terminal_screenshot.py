"""python tools/docs/terminal_screenshot.py SESSION -o terminal.png [--lines 20] [--columns 150]

Draw what a command printed on a terminal, with its colors. SESSION is written by `script -c 'COMMAND' SESSION`.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

BACKGROUND, TEXT = "#0d1117", "#c9d1d9"
COLORS = dict(
    enumerate(("#6e7681", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#76e3ea", TEXT), 30)
)
FONT_SIZE = 9  # points
WIDTH, HEIGHT = 0.602 * FONT_SIZE / 72, 1.45 * FONT_SIZE / 72  # of a character, in inches

Segment = tuple[str, str, bool]  # text, color, bold


def visible_lines(session: str) -> list[str]:
    """Return the lines that stay on the screen: of an overwritten line, such as a progress bar, the last state."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in session.split("\n")]
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-HJKfhl]", "", line) for line in lines]
    hidden = re.compile(r"(\x1b\[[0-9;]*m|\s)*$|Script (started|done)")
    return [line for line in lines if not hidden.match(line)]


def split_colors(line: str) -> list[Segment]:
    """Split a line at its color codes: `\\x1b[32mgreen\\x1b[0m white` -> 2 segments."""
    segments: list[Segment] = []
    color, bold = TEXT, False
    for index, part in enumerate(re.split(r"\x1b\[([0-9;]*)m", line)):  # text, codes, text, codes, ..., text
        if index % 2 == 0:
            segments += [(part, color, bold)] if part else []
            continue
        for code in (int(number or 0) for number in part.split(";")):
            if code == 0:
                color = TEXT
            bold = code == 1 or (bold and code != 0)
            color = COLORS.get(code, COLORS.get(code - 60, color))  # 90 to 97 are bright colors
    return segments


def draw(lines: Sequence[str], columns: int, path: Path) -> None:
    width, height = (columns + 3) * WIDTH, (len(lines) + 1) * HEIGHT
    figure = plt.figure(figsize=(width, height))
    for row, line in enumerate(lines):
        column = 0
        for text, color, bold in split_colors(line):
            font = {"family": "DejaVu Sans Mono", "size": FONT_SIZE, "weight": "bold" if bold else "normal"}
            for word in re.finditer(r"\S+", text[: max(0, columns - column)]):  # rounded widths do not add up
                x, y = (column + word.start() + 1.5) * WIDTH, (row + 1) * HEIGHT
                figure.text(x / width, 1 - y / height, word[0], color=color, va="center", fontdict=font)
            column += len(text)
    figure.savefig(path, dpi=120, facecolor=BACKGROUND)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("session", type=Path)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("terminal.png"), help="(default: terminal.png)"
    )
    parser.add_argument("--lines", type=int, default=20, help="number of lines, the last ones (default: 20)")
    parser.add_argument("--columns", type=int, default=150, help="(default: 150)")
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    session = arguments.session.read_bytes().decode(errors="replace")  # read_text() would convert \r
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw(visible_lines(session)[-arguments.lines :], arguments.columns, arguments.output)
    print(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
