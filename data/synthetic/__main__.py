"""python -m data.synthetic VIDEOS [--videos-per-class 40] [--frames 40] [--height 96] [--seed 1]

Render moving shapes to mp4 files VIDEOS/<class>/<number>.mp4. The eight classes differ only in the motion: shape,
color, position, size, speed and background are random, so a single frame does not show the class.
"""

import functools  # PYTHON_ARGCOMPLETE_OK
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data.common.cli import OneLineParser, not_negative, number, positive
from data.common.cpus import available_cpus
from data.synthetic.shapes import MOTION_CLASSES, render_video, write_video


def write_numbered_video(path: Path, seed: int, n_frames: int, height: int) -> None:
    """Write `<class>/<number>.mp4`; class, number and seed determine its content."""
    name = path.parent.name
    generator = np.random.default_rng((seed, list(MOTION_CLASSES).index(name), int(path.stem)))
    write_video(path, render_video(name, generator, n_frames, height))


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m data.synthetic", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    two_or_more = number(int, "a whole number of at least 2", lambda value: value >= 2)
    height = number(int, "a whole number of at least 32", lambda value: value >= 32)
    add("videos", type=Path, metavar="VIDEOS", help="folder for <class>/<number>.mp4")
    add("--videos-per-class", type=positive, default=40, metavar="N", help="(default: 40)")
    add("--frames", type=two_or_more, default=40, metavar="N", help="frames per video (default: 40)")
    add("--height", type=height, default=96, metavar="N", help="height in pixels (default: 96)")
    add("--seed", type=not_negative, default=1, metavar="N", help="random seed (default: 1)")
    options = parser.parse_args(argv)
    names = [f"{index:05d}.mp4" for index in range(options.videos_per_class)]
    paths = [options.videos / name / file_name for name in MOTION_CLASSES for file_name in names]
    missing = [path for path in paths if not path.exists()]
    settings = {"seed": options.seed, "n_frames": options.frames, "height": options.height}
    with parser.one_line_errors(), ThreadPoolExecutor(available_cpus()) as pool:
        list(pool.map(functools.partial(write_numbered_video, **settings), missing))
    num_existing = len(paths) - len(missing)
    kept = f", {num_existing} of them existed and were kept" if num_existing else ""
    print(f"{options.videos}: {len(paths)} videos of {len(MOTION_CLASSES)} classes{kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
