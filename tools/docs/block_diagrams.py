"""python tools/docs/block_diagrams.py [FOLDER] [--ending svg]

Draws the block diagrams of the README: the squeeze-and-recursion block with its temporal gate, and the multi-temporal
convolution with its block. What they show is network/blocks.py, network/recursion.py and network/mtnet.py.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

INK, FAINT = "#30363d", "#6e7781"
CONVOLUTION, PLAIN, RECURSION, GATE, LONG = "#cfe3f7", "#eceff2", "#fbe0c3", "#d3efd6", "#e6dcf5"

Point = tuple[float, float]


def canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many units, an inch each; its axes are invisible, y upwards."""
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(axes: Any, centre: Point, text: str, color: str, width: float = 1.3, height: float = 0.62) -> None:
    left, bottom = centre[0] - width / 2, centre[1] - height / 2
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=color, ec=INK, lw=1.1, zorder=2)
    )
    axes.text(*centre, text, ha="center", va="center", fontsize=9.5, color=INK, zorder=3, linespacing=1.25)


def knot(axes: Any, centre: Point, sign: str) -> None:
    """Where two things are added or multiplied."""
    axes.add_patch(Circle(centre, 0.17, fc="white", ec=INK, lw=1.1, zorder=2))
    axes.text(*centre, sign, ha="center", va="center_baseline", fontsize=13, color=INK, zorder=3)


def arrow(axes: Any, *points: Point, color: str = INK, head: bool = True, dashed: bool = False) -> None:
    """Along straight lines through all points."""
    line = {"color": color, "lw": 1.3, "ls": "--" if dashed else "-", "zorder": 1}
    for start, end in itertools.pairwise(points[:-1]):
        axes.plot(*zip(start, end, strict=True), solid_capstyle="round", **line)
    style = "-|>,head_length=5,head_width=2.6" if head else "-"
    axes.add_patch(FancyArrowPatch(points[-2], points[-1], arrowstyle=style, shrinkA=0, shrinkB=0, **line))


def note(
    axes: Any, place: Point, text: str, *, color: str = FAINT, size: float = 8.5, align: str = "center"
) -> None:
    axes.text(*place, text, ha=align, va="center", fontsize=size, color=color, linespacing=1.3)


def title(axes: Any, place: Point, text: str) -> None:
    axes.text(*place, text, ha="left", va="center", fontsize=12, color=INK, weight="bold")


def frames(axes: Any, left: float, bottom: float, name: str, color: str) -> list[Point]:
    """A sequence of five frames as dots."""
    places = [(left + 0.62 * number, bottom) for number in range(5)]
    for number, place in enumerate(places, start=1):
        axes.add_patch(Circle(place, 0.19, fc=color, ec=INK, lw=1.0, zorder=2))
        axes.text(*place, f"${name}_{number}$", ha="center", va="center", fontsize=9, color=INK, zorder=3)
    return places


def bent(axes: Any, start: Point, end: Point, color: str, bend: float) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>,head_length=6,head_width=3",
            shrinkA=13,
            shrinkB=13,
            color=color,
            lw=1.8,
            zorder=3,
        )
    )


def draw_srtg() -> Any:
    figure, axes = canvas(11.2, 5.9)
    main, branch = 4.75, 3.45
    title(axes, (0.2, 5.65), "A residual block with squeeze and recursion")
    note(axes, (0.45, main), "C×T×H×W")
    box(axes, (1.95, main), "conv 3×3×3\nnorm, ReLU", CONVOLUTION)
    box(axes, (3.65, main), "conv 3×3×3\nnorm", CONVOLUTION)
    knot(axes, (4.75, main), "+")
    box(axes, (5.55, main), "ReLU", PLAIN, width=0.75)
    knot(axes, (9.75, main), "×")
    arrow(axes, (0.85, main), (1.3, main))
    arrow(axes, (2.6, main), (3.0, main))
    arrow(axes, (4.3, main), (4.58, main))
    arrow(axes, (4.92, main), (5.17, main))
    arrow(axes, (5.92, main), (9.58, main))
    arrow(axes, (9.92, main), (10.75, main))
    arrow(axes, (1.05, main), (1.05, 5.3), (4.75, 5.3), (4.75, main + 0.17))
    note(axes, (2.9, 5.42), "skip")
    box(axes, (6.35, branch), "squeeze\nmean over H×W", RECURSION)
    box(axes, (7.95, branch), "recursion\n2 layers of LSTM", RECURSION, width=1.4)
    box(axes, (9.75, branch), "temporal gate\na and b cyclic?", GATE, width=1.4)
    arrow(axes, (6.35, main), (6.35, branch + 0.31))
    arrow(axes, (7.0, branch), (7.25, branch))
    arrow(axes, (8.65, branch), (9.05, branch))
    note(axes, (8.86, branch + 0.15), "b", color=INK)
    note(axes, (7.13, branch + 0.15), "a", color=INK)
    arrow(axes, (7.12, branch), (7.12, branch - 0.6), (9.75, branch - 0.6), (9.75, branch - 0.31))
    arrow(axes, (9.75, branch + 0.31), (9.75, main - 0.17))
    note(axes, (9.85, 4.2), "open: b\nclosed: 1", color=INK, align="left")
    note(
        axes,
        (0.2, branch + 0.02),
        "squeeze and recursion weigh each channel\nat each moment by the whole sequence;",
        align="left",
    )
    note(
        axes,
        (0.2, branch - 0.52),
        "--srtg-position puts them elsewhere in the block,\n--gates chooses whether there is a gate",
        align="left",
    )

    title(
        axes, (0.2, 2.35), "The gate opens when every frame finds its way back, from a to b and from b to a"
    )
    for left, back, color, words in (
        (1.0, 2, "#2da44e", "$a_3$ is nearest to its neighbour in b:\nback at $a_3$, consistent"),
        (6.7, 4, "#cf222e", "another frame is nearer:\nback at $a_5$, not consistent, the gate stays closed"),
    ):
        upper = frames(axes, left, 1.75, "a", RECURSION)
        lower = frames(axes, left, 0.8, "b", GATE)
        middle = ((lower[2][0] + lower[3][0]) / 2, lower[2][1])
        bent(axes, upper[2], middle, color, 0.25)
        bent(axes, middle, upper[back], color, 0.25)
        axes.plot(*middle, "o", ms=7, color=color, zorder=4)
        note(axes, (left - 0.3, 0.3), words, color=INK, align="left")
    note(axes, (4.0, 0.8), "soft nearest\nneighbour of $a_3$", align="left")
    return figure


def draw_mtconv() -> Any:
    figure, axes = canvas(11.2, 5.75)
    short, long = 4.75, 3.35
    title(axes, (0.2, 5.5), "A multi-temporal convolution (MTConv)")
    note(axes, (0.2, short), "short\n⅞ of channels\nT×H×W", align="left", color=INK)
    note(axes, (0.2, long), "long\n⅛ of channels\nT/2×H/2×W/2", align="left", color=INK)
    box(axes, (2.3, short), "conv", CONVOLUTION, width=1.0)
    box(axes, (9.2, short), "norm", PLAIN, width=0.9)
    box(axes, (2.3, long), "conv", LONG, width=1.0)
    box(axes, (9.2, long), "norm", PLAIN, width=0.9)
    knot(axes, (10.05, long), "+")
    for level in (short, long):
        arrow(axes, (1.3, level), (1.8, level))
        arrow(axes, (2.8, level), (8.75, level))
    arrow(axes, (9.65, short), (10.85, short))
    arrow(axes, (9.65, long), (9.88, long))
    arrow(axes, (10.22, long), (10.85, long))
    between = (short + long) / 2
    for place, text, width, color in (
        (4.05, "mean of\n2×2 pixels", 1.2, PLAIN),
        (5.65, "the T/2 frames most\nlike their neighbours", 1.65, PLAIN),
        (7.25, "conv 1×1×1", 1.15, LONG),
        (8.55, "same norm", 1.05, PLAIN),
    ):
        box(axes, (place, between), text, color, width=width, height=0.56)
    arrow(axes, (3.2, short), (3.2, between), (3.45, between))
    arrow(axes, (4.65, between), (4.82, between))
    arrow(axes, (6.48, between), (6.67, between))
    arrow(axes, (7.83, between), (8.02, between))
    arrow(axes, (9.08, between), (10.05, between), (10.05, long + 0.17))
    note(axes, (3.3, between - 0.5), "lateral connection: what is brief informs what lasts", align="left")

    level = 1.45
    title(axes, (0.2, 2.4), "A block of four (MTBlock); each line stands for both branches")
    for place, text, color, width in (
        (1.75, "MTConv\n1×1×1", CONVOLUTION, 1.0),
        (3.15, "MTConv\n1×1×1", CONVOLUTION, 1.0),
        (4.55, "MTConv\n3×3×3", CONVOLUTION, 1.0),
        (5.95, "MTConv\n1×3×3", CONVOLUTION, 1.0),
        (7.6, "squeeze, GRU\nand multiply", RECURSION, 1.35),
        (9.75, "ReLU", PLAIN, 0.75),
    ):
        box(axes, (place, level), text, color, width=width)
    knot(axes, (8.85, level), "+")
    note(axes, (0.45, level), "short,\nlong", color=INK)
    for start, end in (
        (0.8, 1.25),
        (2.25, 2.65),
        (3.65, 4.05),
        (5.05, 5.45),
        (6.45, 6.92),
        (8.28, 8.68),
        (9.02, 9.37),
        (10.12, 10.85),
    ):
        arrow(axes, (start, level), (end, level))
    for place in (2.45, 3.85, 5.25):
        note(axes, (place, level + 0.22), "ReLU", size=7.5)
    arrow(axes, (1.0, level), (1.0, 0.65), (8.85, 0.65), (8.85, level - 0.17))
    note(
        axes,
        (4.9, 0.38),
        "skip: where the block strides, an MTConv 1×1×1 without lateral connection,\nand the last of the four is 1×1×1",
    )
    note(axes, (7.6, level + 0.48), "aligns each branch", size=7.5)
    return figure


FIGURES = {"srtg": draw_srtg, "mtnet": draw_mtconv}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent, help="(default: docs)")
    parser.add_argument("--ending", default="svg", help="svg, png or pdf (default: svg)")
    arguments = parser.parse_args(argv)
    matplotlib.use("Agg")
    plt.rcParams.update({"svg.hashsalt": "figures", "svg.fonttype": "path"})  # the same file each time
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        path = arguments.folder / f"{name}.{arguments.ending}"
        metadata = {"Date": None} if arguments.ending == "svg" else None
        draw().savefig(path, dpi=110, facecolor="white", metadata=metadata)
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
