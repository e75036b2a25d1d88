"""python -m data.benchmark [--videos FOLDER] [--quality 3] [--rounds 9] [--clips 5000] [--json FILE]

Measure how fast one process reads training clips and converts videos.

Pipelines take turns on the same clips with the same augmentations; each is compared with the original recipe turn by
turn (median and quartiles), and a clip's milliseconds are split into what is not pixels (opening, fetching, drawing),
decoding (or exact decoding) and augmenting. Frames are 360 pixels high; without --videos, test videos are generated.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from data.benchmark.loading import SHAPE, load_ratios
from data.benchmark.reading import compare, conversion_rate, make_readers, memory_growth, milliseconds, reader
from data.benchmark.test_videos import make_videos, write_inputs
from data.common.cli import LONGEST_MESSAGE, OneLineParser, number, output_file, positive, sanitize
from data.ffmpeg.side_files import may_be_video

SHAPES = ((4, 80), (8, 112), (16, 158), (16, 224))  # length, size: the multigrid shapes of 16 x 224


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m data.benchmark", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    add("--videos", type=Path, help="folder of video files, or of folders of them (default: test videos)")
    quality = number(int, "2 to 31, or 0 for ffmpeg's default", lambda value: value == 0 or 2 <= value <= 31)
    add("--quality", type=quality, default=3, help="JPEG quality, 0 is ffmpeg's default (default: 3)")
    rounds = number(int, "a whole number of at least 2", lambda value: value >= 2)
    add("--rounds", type=rounds, default=9, help="turns of each pipeline (default: 9)")
    add("--clips", type=positive, default=5000, help="clips of the memory leak check (default: 5000)")
    add("--json", type=output_file, help="also write the results to this file")
    return parser


def run(arguments: argparse.Namespace, videos: Sequence[Path], folder: Path) -> dict[str, dict[str, object]]:
    """Measure and print everything; return the results by section and name."""
    inputs = write_inputs(videos, folder, arguments.quality)
    cv2.setNumThreads(0)
    two_workers, first_batch = load_ratios(inputs.stores)
    print(f"loading {SHAPE}: two workers {two_workers:.2f}x one")
    print(f"first batch of an epoch: {first_batch:.2f}x the time of its clips in two workers", flush=True)
    results: dict[str, dict[str, object]] = {}
    results["loading"] = {"two_workers": two_workers, "first_batch": first_batch}
    for length, size in SHAPES:
        section = f"{length} x {size}"
        print(section)
        ratios = compare(make_readers(inputs, length, size), arguments.rounds)
        results[section] = {name: ratio._asdict() for name, ratio in ratios.items()}
        for name, (times, low, high, speed) in ratios.items():
            print(f"  {name:24} {times:6.2f}x ({low:.2f} to {high:.2f}) {speed:9.1f} clips/s", flush=True)
        for name, stores in (("ours, fused", inputs.stores), ("ours, half level", inputs.half_level)):
            parts = milliseconds(stores, length, size, arguments.rounds)
            listed = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
            print(f"  {name}, milliseconds: {listed}", flush=True)
            results[section][f"{name}, milliseconds"] = parts
    rate = conversion_rate(videos, folder / "converted")
    print(f"conversion: {rate:.0f} frames/s")
    results["conversion"] = {"frames_per_second": rate}
    clips = arguments.clips
    megabytes, files = memory_growth(reader(inputs.half_level, 2, 80), clips)
    print(f"memory leak check: {megabytes:.1f} MB and {files} open files more after {clips} clips")
    results["memory_leak_check"] = {"clips": clips, "megabytes": megabytes, "open_files": files}
    return results


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as place:
            if arguments.videos is None:
                videos = make_videos(Path(place) / "videos")
            else:
                files = (path for path in sorted(arguments.videos.rglob("*.*")) if path.is_file())
                videos = list(filter(may_be_video, files))
            if not videos:
                parser.error(f"--videos {arguments.videos}: has no video files")
            results = run(arguments, videos, Path(place))
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        parser.error(sanitize(error, LONGEST_MESSAGE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
