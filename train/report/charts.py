"""The geometry of a report's figures over epochs, curves and bars of clip shapes; page.html draws them."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from train.history import History, Panel, clip_fractions

WIDTH, HEIGHT = 340, 190  # of a figure, its labels included
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 24  # margins
MOST_TICKS = 6

Tick = tuple[float, str]  # position, label


class Chart(NamedTuple):
    """A figure. `names`: of line styles, or of shapes.

    `curves`: (SVG path, number of the result, of the name); `bars`: (x, y, width, height, the same numbers).
    """

    title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    names: list[str]
    curves: list[tuple[str, int, int]]
    bars: list[tuple[float, float, float, float, int, int]]


def draw_charts(runs: Sequence[tuple[int, str, History]]) -> Iterator[Chart]:
    """Yield a chart of each panel that a run has, then one of the clips' shapes for each multigrid run.

    `runs`: the number and name of its result, and its history.
    """
    last = max((epoch for *_, history in runs for epoch in history.batches), default=0)
    for title in dict.fromkeys(title for *_, history in runs for title in history.panels):
        panels = [(result, run.panels[title]) for result, _, run in runs if title in run.panels]
        yield _draw_panel(title, panels, last)
    for result, name, history in runs:
        if any(len(clip_fractions(batches)) > 1 for batches in history.batches.values()):
            yield _draw_shapes(f"clips by shape, {name}", result, history, last)


def _draw_panel(title: str, panels: Sequence[tuple[int, Panel]], last: int) -> Chart:
    names = list(dict.fromkeys(name for _, panel in panels for name in panel.lines))
    lines = [(result, name, *line) for result, panel in panels for name, line in panel.lines.items()]
    low, high, ticks, is_log = 0.0, 1.0, _linear_ticks(), panels[0][1].log
    if is_log:
        known = [math.log10(v) for *_, values in lines for v in values if 0 < v < math.inf] or [0.0]
        low, high = min(known) - 0.02, max(known) + 0.02
        ticks = [(_y((value - low) / (high - low)), f"{10**value:.4g}") for value in _log_ticks(known)]
    curves = []
    for result, name, epochs, values in lines:
        heights = [math.log10(v) if 0 < v < math.inf else math.nan for v in values] if is_log else values
        points = [
            f"{_x(epoch, last):.1f} {_y((height - low) / (high - low)):.1f}"
            for epoch, height in zip(epochs, heights, strict=True)
        ]
        # lines between neighbors, and a dot where one begins, for those without
        pairs = itertools.pairwise(["nan", *points])
        path = "".join(f"M{b}h.01" if "nan" in a else f"L{b}" for a, b in pairs if "nan" not in b)
        curves.append((path, result, names.index(name)))
    return Chart(title, _epoch_ticks(last), ticks, names, curves, [])


def _draw_shapes(title: str, result: int, history: History, last: int) -> Chart:
    epochs = {epoch: clip_fractions(batches) for epoch, batches in history.batches.items()}
    shapes = sorted({shape for own in epochs.values() for shape in own}, key=lambda s: s[0] * s[1] ** 2)
    width = 0.9 * (_x(1, last) - _x(0, last))
    bars = []
    for epoch, own in epochs.items():
        tops = itertools.accumulate(own.get(shape, 0.0) for shape in shapes)
        for number, (bottom, top) in enumerate(itertools.pairwise([0.0, *tops])):
            bars.append((_x(epoch, last) - width / 2, _y(top), width, _y(bottom) - _y(top), result, number))
    names = [f"{length}x{size}x{size}" for length, size in shapes]
    return Chart(title, _epoch_ticks(last), _linear_ticks(), names, [], bars)


def _x(epoch: float, last: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * epoch / (last + 1)


def _y(fraction: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * fraction


def _epoch_ticks(last: int) -> list[Tick]:
    step = next(s * 10**k for k in range(9) for s in (1, 2, 5) if last <= MOST_TICKS * s * 10**k)
    return [(_x(epoch, last), str(epoch)) for epoch in range(step, last + 1, step)]


def _linear_ticks() -> list[Tick]:
    return [(_y(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]


def _log_ticks(known: Sequence[float]) -> Sequence[float]:
    """Return logarithms of powers of ten, and of 2 and 5 times those if they are few; the ends if there are no two."""
    low, high = min(known), max(known)
    powers = range(math.floor(low), math.ceil(high) + 1)
    fine = [k + math.log10(f) for k in powers for f in (1, 2, 5) if low <= k + math.log10(f) <= high]
    coarse = [k for k in powers if low <= k <= high]
    values = fine if len(fine) <= MOST_TICKS else coarse[:: math.ceil(len(coarse) / MOST_TICKS)]
    return values if len(values) > 1 else sorted({low, high})
