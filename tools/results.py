"""python -m tools.results WORK [--only NAME...]

Cross-validate each row of ROWS on the sets weizmann/, scfd/ and motions/ in WORK, one fold on each core, keep its CSVs
in docs/results/ and write the tables of docs/results.md. Finished rows are not repeated, interrupted ones go on.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from data.common.atomic_io import atomic_write
from data.common.cli import OneLineParser
from data.label_files import find_folds, read_csv

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results.md"
KEPT = ROOT / "docs/results"
CORES = len(os.sched_getaffinity(0))
T_QUANTILE = {4: 2.776, 8: 2.306}  # of 95 % intervals, by degrees of freedom: folds - 1


class Row(NamedTuple):
    """A row of a table: a network, and the flags that it adds to the recipe."""

    dataset: str
    network: str
    flags: str = ""
    seeds: int = 1

    @property
    def name(self) -> str:
        values = re.findall(r"--(?:gates|pretrained-3d|augment-table|end-epoch) (\w+)", self.flags)
        return "-".join([self.dataset, self.network, *values])

    def plain(self) -> "Row":
        """Return the row that this one is compared to: plain convolutions, the recipe as it is, the same start."""
        start = re.findall(r"--pretrained-3d \S+", self.flags)
        return self._replace(network="r3d_18", flags=" ".join(start).replace("srtg_", ""))


SMALL = (
    "--clip-length 8 --clip-size 64 --short-side 72 --augment none --batch-size 8 --workers 0 --optimizer adamw "
    "--lr-base 0.0003 --lr-schedule cosine --warmup-epochs 1 --clip-grad-norm 5"
)
RECIPES = {
    "weizmann": f"{SMALL} --train-frame-interval 3 --val-frame-interval 3 --end-epoch 30",
    "scfd": f"{SMALL} --end-epoch 12",
    "motions": f"{SMALL} --train-frame-interval 4 --val-frame-interval 4 --flip False --end-epoch 8 --save-frequency 8",
}
LONG = {"weizmann": 60, "scfd": 30}  # epochs
ROWS = [
    Row(dataset, network, flags.format(long=LONG[dataset]), seeds)
    for network, flags, seeds in (
        ("r3d_18", "", 2),
        ("srtg_r3d_18", "", 2),
        ("srtg_r3d_18", "--gates soft", 1),
        ("srtg_r3d_18", "--gates True", 1),
        ("r2plus1d_18", "", 1),
        ("mtnet_xs", "", 1),
        ("r3d_18", "--augment fused --augment-table light --end-epoch {long}", 1),
        ("r3d_18", "--pretrained-3d motions/r3d_18.pth", 1),
        ("srtg_r3d_18", "--pretrained-3d motions/srtg_r3d_18.pth", 1),
    )
    for dataset in ("weizmann", "scfd")
]


def start(command: str, work: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a command of this repository in a folder, and print it."""
    print(f"python -m {command}", flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen([sys.executable, "-m", *shlex.split(command)], cwd=work, env=environment)


def train_on_motions(network: str, work: Path) -> None:
    """Train a network on the rendered motions, and keep its weights."""
    command = f"train --dataset motions --network {network} {RECIPES['motions']} --resume-epoch auto"
    if start(command, work, CORES).wait():
        sys.exit(f"{network} failed on the motions; the same command goes on with it")
    checkpoint = f"results/motions/{network}_gates_False/{network}_ep-0008.pth"
    shutil.copy(work / checkpoint, work / f"motions/{network}.pth")


def cross_validate(row: Row, seed: int, work: Path) -> None:
    """Cross-validate a row, a process on each core, and keep its CSVs."""
    if "motions/" in row.flags and not (work / f"motions/{row.network}.pth").exists():
        train_on_motions(row.network, work)
    folder = f"results/{row.name}/seed{seed}"
    words = row.dataset, RECIPES[row.dataset], f"--network {row.network}", row.flags, f"--random-seed {seed}"
    command = f"train.cross_validate {' '.join(filter(None, words))} --model-dir {folder}"
    folds = find_folds(work / row.dataset / "labels")
    shares = [" ".join(folds[core::CORES]) for core in range(min(CORES, len(folds)))]
    processes = [start(f"{command} --fold {share}", work, threads=1) for share in shares]
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(f"{row.name} failed; the same command goes on with it")
    kept = KEPT / row.name / f"seed{seed}"
    kept.mkdir(parents=True, exist_ok=True)
    (table,) = (work / folder / "folds").iterdir()
    for path in table.glob("*.csv"):
        shutil.copy(path, kept)
    (kept / "command.txt").write_text(f"python -m {command}\n")
    for checkpoint in (work / folder).rglob("*.pth"):
        checkpoint.unlink()


def read_folds(row: Row) -> list[list[dict[str, str]]]:
    """Return the rows of `folds.csv` of each seed that is finished."""
    paths = sorted((KEPT / row.name).glob("seed*/folds.csv"))
    return [[values for _, values in read_csv(path, ["Top1"])] for path in paths]


def over_folds(row: Row, column: str = "Top1") -> list[float]:
    """Return the values of a column, one for each fold: the mean over seeds."""
    return [fmean(float(fold[column]) for fold in folds) for folds in zip(*read_folds(row), strict=True)]


def result_table(dataset: str) -> Iterator[str]:
    """Yield the lines of a set's table."""
    yield "| network | flags | seeds | top-1 ± over folds | mean class accuracy | core minutes |"
    yield "|---|---|---|---|---|---|"
    for row in (row for row in ROWS if row.dataset == dataset and read_folds(row)):
        top1, means, minutes = (
            over_folds(row, column) for column in ("Top1", "MeanClassAccuracy", "Minutes")
        )
        link, flags = f"[`{row.network}`](results/{row.name})", row.flags and f"`{row.flags}`"
        cells = [link, flags, f"{len(read_folds(row))}", f"{fmean(top1):.3f} ± {stdev(top1):.3f}"]
        cells += [f"{fmean(means):.3f}", f"{sum(minutes):.0f}"]
        yield f"| {' | '.join(cells)} |"


def difference_table() -> Iterator[str]:
    """Yield the differences to the plain network of the same set and start, paired by fold, with t intervals."""
    yield "| difference of top-1 | mean | 95 % interval |"
    yield "|---|---|---|"
    for row in ROWS:
        if row != row.plain() and read_folds(row) and read_folds(row.plain()):
            differences = [a - b for a, b in zip(over_folds(row), over_folds(row.plain()), strict=True)]
            mean, n = fmean(differences), len(differences)
            half = T_QUANTILE[n - 1] * stdev(differences) / n**0.5
            interval = f"{mean - half:+.3f} to {mean + half:+.3f}"
            yield f"| `{row.name}` - `{row.plain().name}` | {mean:+.3f} | {interval} |"


def write_page() -> None:
    """Replace the tables between the markers of docs/results.md."""
    tables = {name: result_table(name) for name in ("weizmann", "scfd")} | {"differences": difference_table()}
    text = PAGE.read_text("utf-8")
    for name, lines in tables.items():
        marker = f"<!-- {name} -->\n"
        before, _, after = text.split(marker)
        text = "".join((before, marker, "\n", *(f"{line}\n" for line in lines), "\n", marker, after))
    atomic_write(PAGE, text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m tools.results", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("work", type=Path, metavar="WORK", help="folder of the sets")
    names = [row.name for row in ROWS]
    text = "rows, such as weizmann-r3d_18 (default: all)"
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=text)
    args = parser.parse_args(argv)
    for seed in range(1, max(row.seeds for row in ROWS) + 1):
        for row in ROWS:
            done = (KEPT / row.name / f"seed{seed}/folds.csv").exists()
            if row.name in args.only and seed <= row.seeds and not done:
                cross_validate(row, seed, args.work)
            write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
