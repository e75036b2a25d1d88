"""python -m data.benchmark [--videos FOLDER] [--quality 3] [--rounds 15] [--json FILE]

How fast clips are read, augmentations and all, beside the original's recipe on the same frames: clips a second of one
process on one core, and how many times the recipe's. Frames are 360 lines high.

Variants take turns, a few clips each, the same ones with the same operations; ratios are taken turn by turn, and
medians and quartiles of them reported. Makes its own videos where none are given.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.benchmark.conversion import convert_gain, convert_rates, on_cores
from data.benchmark.reading import (
    CLIPS_A_TURN,
    SHAPES,
    Ratio,
    compare,
    cost_of_sources,
    growth,
    reader,
    variants,
    workers_rate,
)
from data.benchmark.test_videos import made, make_videos, prepare
from data.common.cli import LONGEST_MESSAGE, OneLineParser, output_file, sanitize
from data.convert.converter import ConversionError
from data.ffmpeg import NO_VIDEOS


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m data.benchmark", description=__doc__.split("\n\n")[1])
    parser.add_argument("--videos", type=Path, help="folder of video files (default: some are made)")
    parser.add_argument(
        "--quality", type=int, default=3, help="of the JPEGs; 0 is ffmpeg's default (default: 3)"
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of each variant (default: 15)")
    parser.add_argument("--clips", type=int, default=5000, help="clips to watch memory over (default: 5000)")
    parser.add_argument("--json", type=output_file, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: must be at least 2")
    if not (arguments.quality == 0 or 2 <= arguments.quality <= 31):
        parser.error(f"--quality {arguments.quality}: must be 2 to 31, or 0 for ffmpeg's default")
    if arguments.videos is not None and not videos_in(arguments.videos):
        parser.error(f"--videos {arguments.videos}: holds no videos")
    return arguments


def videos_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.*")) if path.suffix.lower() not in NO_VIDEOS]


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, object]]:
    """(section, name, figure) of all that is measured, as it comes."""
    videos = videos_in(arguments.videos) if arguments.videos else make_videos(made(folder / "videos"))
    sources = prepare(videos, folder, arguments.quality or None)
    for length, size in SHAPES:
        readers = variants(sources, length, size)
        with on_cores(1):
            ratios = compare(readers, arguments.rounds)
        for name, ratio in ratios.items():
            yield f"{length} x {size}", name, ratio
        for workers in (1, 2):
            rate = workers_rate(readers["ours, fused"], workers, clips=CLIPS_A_TURN * arguments.rounds)
            yield f"{length} x {size}", f"ours, fused, clips/s of {workers} workers", rate
    with on_cores(1):
        costs = cost_of_sources(folder / "sources", arguments.rounds)
        rates = convert_rates(videos, folder / "converted")
        megabytes, files = growth(reader(sources.stores, 4, 80), arguments.clips)
    for name, ratio in costs.items():
        yield "cost of a clip", name, ratio
    for name, rate in rates.items():
        yield "converting, frames/s of one core", name, rate
    yield "converting, two processes to one", "times", convert_gain(videos, folder / "gain")
    yield f"over {arguments.clips} clips", "MB by which memory grows", megabytes
    yield f"over {arguments.clips} clips", "files left open", float(files)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        figures = report(arguments)
        if arguments.json:
            arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    except (OSError, ValueError, ConversionError, subprocess.CalledProcessError) as error:
        print(f"python -m data.benchmark: error: {sanitize(error, LONGEST_MESSAGE)}", file=sys.stderr)
        return 2
    return 0


def report(arguments: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Print all figures as they come; returns them, by section and name."""
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for section, name, figure in measure(arguments, Path(folder)):
            if section not in figures:
                print(f"\n{section}")
            figures.setdefault(section, {})[name] = figure._asdict() if isinstance(figure, Ratio) else figure
            if isinstance(figure, Ratio):
                times = f"{figure.times:6.2f} ({figure.low:.2f} to {figure.high:.2f}) times"
                text = f"{times:32} {figure.clips_per_second:9.1f} clips/s"
            else:
                text = f"{figure:6.1f}"
            print(f"  {name:40} {text}", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())
