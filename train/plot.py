"""python -m train.plot RESULTS_DIR... -o curves.png

Loss and accuracy over the epochs of one or more runs as a picture (PNG, SVG or PDF, by its ending), and each run's best
epoch as text.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.command_line import OneLineParser


class Curve(NamedTuple):
    """One split of one run, an entry an epoch, in order."""

    epochs: list[int]
    top1: list[float]
    top5: list[float]
    loss: list[float]


def read_curve(folder: Path, split: str) -> Curve:
    """The rows of all `<split>_results_s*.csv` of a run. FileNotFoundError, or ValueError for bad ones."""
    paths = sorted(folder.glob(f"{split}_results_s*.csv"))
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no {split}_results_s*.csv")
    rows = []
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                try:
                    rows.append((int(row["Epoch"]), *(float(row[name]) for name in ("Top1", "Top5", "Loss"))))
                except (KeyError, TypeError, ValueError):
                    raise ValueError(f"{path}: {row} is not a row Epoch,Top1,Top5,Loss") from None
    if not rows:
        raise ValueError(f"{paths[-1]}: no epoch has ended yet")
    return Curve(*map(list, zip(*sorted(rows), strict=True)))


def draw(runs: dict[str, tuple[Curve, Curve]], picture: Path) -> None:
    """Three panels, a colour a run; training dashed, validation solid."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
    for panel, (name, title) in zip(
        axes, (("loss", "loss"), ("top1", "top-1"), ("top5", "top-5")), strict=True
    ):
        for number, (run, curves) in enumerate(runs.items()):
            for curve, split, line in zip(curves, ("train", "val"), ("--", "-"), strict=True):
                values = getattr(curve, name)
                panel.plot(curve.epochs, values, line, color=f"C{number}", marker=".", label=f"{run} {split}")
        panel.set(title=title, xlabel="epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        if name == "loss":
            panel.set_yscale("log")  # before batch norms have settled, the first validations may be far off
        else:
            panel.set_ylim(0, 1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib  # noqa: PLC0415  only drawing needs it
    except ImportError:
        raise ValueError("train.plot needs the package matplotlib: pip install matplotlib") from None
    matplotlib.use("Agg")  # no display needed
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m train.plot", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RESULTS_DIR", help="folder with the results of a run"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"), help="(default: curves.png)")
    arguments = parser.parse_args(argv)
    try:
        names = [path.resolve().name for path in arguments.runs]
        labels = [
            name if names.count(name) == 1 else str(path)
            for name, path in zip(names, arguments.runs, strict=True)
        ]
        curves = [(read_curve(path, "train"), read_curve(path, "val")) for path in arguments.runs]
        runs = dict(zip(labels, curves, strict=True))
        draw(runs, arguments.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for path, (_, val) in zip(arguments.runs, curves, strict=True):
        best = max(range(len(val.epochs)), key=val.top1.__getitem__)
        print(
            f"{path}: best val top-1 {val.top1[best]:.3f}, top-5 {val.top5[best]:.3f} (epoch {val.epochs[best]})"
        )
        for result in sorted([*path.glob("val_results_s*.csv"), *path.glob("*_best.pth")]):
            print(f"  {result}")
    print(f"picture: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
