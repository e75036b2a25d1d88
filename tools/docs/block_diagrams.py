"""python tools/docs/block_diagrams.py [FOLDER] [--format svg]

Draw the block diagrams of the documentation: the squeeze-and-recursion block with its temporal gate (network/blocks.py,
network/recursion.py), and the multi-temporal convolution with its block (network/mtnet.py).
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

INK, GRAY, GREEN, RED = "#30363d", "#6e7781", "#2da44e", "#cf222e"
CONVOLUTION, PLAIN, RECURSION, GATE, LONG = "#cfe3f7", "#eceff2", "#fbe0c3", "#d3efd6", "#e6dcf5"

Point = tuple[float, float]
Node = tuple[float, str, str, float]  # x, text, color, width; a text of one character is a circle


class Canvas:
    """A figure with coordinates in inches, y upwards."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = plt.figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.axis("off")

    def text(self, x: float, y: float, words: str, color: str = GRAY, **style: Any) -> None:
        defaults: Any = {"ha": "left", "va": "center", "fontsize": 8.5, "linespacing": 1.3, "zorder": 3}
        self.axes.text(x, y, words, color=color, **defaults | style)

    def title(self, y: float, words: str) -> None:
        self.text(0.2, y, words, INK, fontsize=12, weight="bold")

    def arrow(self, *points: Point) -> None:
        """Draw straight lines through all points, the last one with an arrow head."""
        for start, end in itertools.pairwise(points[:-1]):
            self.axes.plot(*zip(start, end, strict=True), solid_capstyle="round", color=INK, lw=1.3, zorder=1)
        style: Any = {"arrowstyle": "-|>,head_length=5,head_width=2.6", "shrinkA": 0, "shrinkB": 0}
        self.axes.add_patch(FancyArrowPatch(points[-2], points[-1], color=INK, lw=1.3, zorder=1, **style))

    def chain(self, y: float, *nodes: Node, start: float | None = None, end: float | None = None) -> None:
        """Draw nodes at a height, with arrows from `start` through all of them to `end`."""
        style: Any = {"ec": INK, "lw": 1.1, "zorder": 2}
        for x, words, color, width in nodes:
            if len(words) == 1:
                self.axes.add_patch(Circle((x, y), width / 2, fc="white", **style))
                self.text(x, y, words, INK, ha="center", va="center_baseline", fontsize=13, linespacing=1)
            else:
                corner, box = (x - width / 2, y - 0.31), "round,pad=0,rounding_size=0.08"
                self.axes.add_patch(FancyBboxPatch(corner, width, 0.62, boxstyle=box, fc=color, **style))
                self.text(x, y, words, INK, ha="center", fontsize=9.5)
        outlets = [start, *(x + width / 2 for x, _, _, width in nodes)]
        inlets = [*(x - width / 2 for x, _, _, width in nodes), end]
        for left, right in zip(outlets, inlets, strict=True):
            if left is not None and right is not None:
                self.arrow((left, y), (right, y))

    def frames(self, x: float, y: float, name: str, color: str) -> list[Point]:
        """Draw five frames of a sequence as circles and return their centers."""
        centers = [(x + 0.62 * number, y) for number in range(5)]
        for number, center in enumerate(centers, start=1):
            self.axes.add_patch(Circle(center, 0.19, fc=color, ec=INK, lw=1.0, zorder=2))
            self.text(*center, f"${name}_{number}$", INK, ha="center", fontsize=9)
        return centers

    def cycle(self, start: Point, neighbour: Point, end: Point, color: str) -> None:
        """Draw the way from a frame to its soft nearest neighbour and back."""
        style: Any = {"arrowstyle": "-|>,head_length=6,head_width=3", "connectionstyle": "arc3,rad=0.25"}
        for points in ((start, neighbour), (neighbour, end)):
            patch = FancyArrowPatch(*points, shrinkA=13, shrinkB=13, color=color, lw=1.8, zorder=3, **style)
            self.axes.add_patch(patch)
        self.axes.plot(*neighbour, "o", ms=7, color=color, zorder=4)


def draw_srtg() -> Figure:
    canvas, main, branch = Canvas(11.2, 5.9), 4.75, 3.45
    canvas.title(5.65, "A residual block with squeeze and recursion")
    canvas.text(0.12, main, "C×T×H×W")
    conv1 = (1.95, "conv 3×3×3\nBatchNorm, ReLU", CONVOLUTION, 1.4)
    conv2 = (3.65, "conv 3×3×3\nBatchNorm", CONVOLUTION, 1.3)
    add, relu, multiply = (4.75, "+", PLAIN, 0.34), (5.55, "ReLU", PLAIN, 0.75), (9.75, "×", PLAIN, 0.34)
    canvas.chain(main, conv1, conv2, add, relu, multiply, start=0.85, end=10.75)
    canvas.arrow((1.05, main), (1.05, 5.3), (4.75, 5.3), (4.75, main + 0.17))
    canvas.text(2.7, 5.42, "skip connection")
    squeeze = (6.35, "squeeze\nmean over H×W", RECURSION, 1.3)
    recursion = (7.95, "recursion\n2 LSTM layers", RECURSION, 1.4)
    canvas.chain(branch, squeeze, recursion, (9.75, "temporal gate\na and b cyclic?", GATE, 1.4))
    canvas.text(7.06, branch + 0.15, "a", INK)
    canvas.text(8.79, branch + 0.15, "b", INK)
    canvas.arrow((6.35, main), (6.35, branch + 0.31))
    canvas.arrow((7.12, branch), (7.12, branch - 0.6), (9.75, branch - 0.6), (9.75, branch - 0.31))
    canvas.arrow((9.75, branch + 0.31), (9.75, main - 0.17))
    canvas.text(9.85, 4.1, "open: b\nclosed: 1", INK)
    canvas.text(0.2, 3.47, "The branch scales each channel of each frame,\ngiven the whole sequence.")
    canvas.text(0.2, 2.93, "--srtg-position: its position in the block\n--gates: whether it has a gate")

    canvas.title(2.35, "The gate opens if every frame returns to itself, from a to b and from b to a")
    returns = "$a_3$ is nearest to its neighbour in b:\nreturns to $a_3$, consistent"
    strays = "another frame is nearer: returns to $a_5$,\nnot consistent, the gate stays closed"
    for x, end, color, words in ((1.0, 2, GREEN, returns), (6.7, 4, RED, strays)):
        upper, lower = canvas.frames(x, 1.75, "a", RECURSION), canvas.frames(x, 0.8, "b", GATE)
        neighbour = ((lower[2][0] + lower[3][0]) / 2, lower[2][1])
        canvas.cycle(upper[2], neighbour, upper[end], color)
        canvas.text(x - 0.3, 0.3, words, INK)
    canvas.text(4.0, 0.8, "soft nearest\nneighbour of $a_3$")
    return canvas.figure


def draw_mtnet() -> Figure:
    canvas, short, lateral, long = Canvas(11.2, 5.75), 4.85, 4.05, 3.25
    canvas.title(5.5, "A multi-temporal convolution (MTConv)")
    canvas.text(0.2, short, "short branch\n⅞ of channels\nT×H×W", INK)
    canvas.text(0.2, long, "long branch\n⅛ of channels\nT/2×H/2×W/2", INK)
    norm, add = (9.2, "BatchNorm", PLAIN, 1.1), (10.05, "+", PLAIN, 0.34)
    canvas.chain(short, (2.3, "conv", CONVOLUTION, 1.0), norm, start=1.3, end=10.85)
    canvas.chain(long, (2.3, "conv", LONG, 1.0), norm, add, start=1.3, end=10.85)
    pool = (4.05, "mean of\n2×2 pixels", PLAIN, 1.2)
    select = (5.65, "T/2 frames that\nchange least", PLAIN, 1.5)
    conv, same_norm = (7.25, "conv 1×1×1", LONG, 1.15), (8.65, "same\nBatchNorm", PLAIN, 1.1)
    canvas.chain(lateral, pool, select, conv, same_norm)
    canvas.arrow((3.2, short), (3.2, lateral), (3.45, lateral))
    canvas.arrow((9.2, lateral), (10.05, lateral), (10.05, long + 0.17))
    canvas.text(3.45, lateral - 0.5, "lateral connection, from the short to the long branch")

    level = 1.45
    canvas.title(2.4, "A block of four (MTBlock); each line is both branches")
    canvas.text(0.3, level, "short,\nlong", INK)
    kernels = zip((1.75, 3.15, 4.55, 5.95), ("1×1×1", "1×1×1", "3×3×3", "1×3×3"), strict=True)
    convs = [(x, f"MTConv\n{kernel}", CONVOLUTION, 1.0) for x, kernel in kernels]
    gru, add = (7.6, "GRU,\nmultiply", RECURSION, 1.35), (8.85, "+", PLAIN, 0.34)
    canvas.chain(level, *convs, gru, add, (9.75, "ReLU", PLAIN, 0.75), start=0.8, end=10.85)
    for x in (2.45, 3.85, 5.25):
        canvas.text(x, level + 0.22, "ReLU", ha="center", fontsize=7.5)
    canvas.text(7.6, level + 0.48, "recurrent alignment of each branch", ha="center", fontsize=7.5)
    canvas.arrow((1.0, level), (1.0, 0.65), (8.85, 0.65), (8.85, level - 0.17))
    canvas.text(2.0, 0.43, "skip connection; with a stride, an MTConv 1×1×1 without lateral connection,")
    canvas.text(2.0, 0.25, "and the last of the four is 1×1×1")
    return canvas.figure


FIGURES = {"srtg": draw_srtg, "mtnet": draw_mtnet}
IMAGES = Path(__file__).parents[2] / "docs" / "images"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES, help="(default: docs/images)")
    parser.add_argument("--format", default="svg", help="svg, png or pdf (default: svg)")
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    plt.rcParams.update({"svg.hashsalt": "figures", "svg.fonttype": "path"})  # reproducible files
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        path = arguments.folder / f"{name}.{arguments.format}"
        metadata = {"Date": None} if arguments.format == "svg" else None
        draw().savefig(path, dpi=110, facecolor="white", metadata=metadata)
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
