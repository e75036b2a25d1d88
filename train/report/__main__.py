"""python -m train.report RESULTS... [-o report.html] [--dataset DIR] [--all]

Write one HTML file about one or more runs: curves, options, accuracies, confusion matrices and the videos that they get
wrong, as short clips. RESULTS are the results folders of runs, with what train.evaluate wrote there, or folders of
evaluations elsewhere.
"""

import logging  # PYTHON_ARGCOMPLETE_OK
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import coloredlogs
import jinja2

from data.common.atomic_io import atomic_write
from data.common.cli import OneLineParser, output_file
from train.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, draw_charts
from train.report.results import Result, find_dataset, list_facts, list_options, read_results
from train.report.videos import FIRST, Video, add_clips, by_priority, cell_key, collect_videos
from train.scores import class_rows, confusion_matrix

logger = logging.getLogger(__name__)

MAX_BYTES = 25_000_000  # of a report, unless --all
MAX_VIDEOS = 5_000


def render(results: Sequence[Result], videos: Sequence[Video], agreement: dict[str, int]) -> str:
    """Return the page about results and videos. `agreement`: number of videos by `Video.pattern`."""
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    ).get_template("page.html")
    numbered = list(enumerate(results))
    runs = [(number, r.name, r.history) for number, r in numbered if r.history]
    scored = [(number, r.name, r.scores) for number, r in numbered if r.scores]
    changed, others = list_options(results)
    mistakes = [video for video in videos if not video.order[0]]
    return page.render(
        results=results,
        facts=list_facts(results),
        charts=list(draw_charts(runs)),
        box=(LEFT, WIDTH - RIGHT, WIDTH, HEIGHT),
        evaluations=[(number, name) for number, name, _ in scored],
        classes=scored[0][2].classes if scored else (),
        class_rows=list(zip(*(class_rows(scores) for *_, scores in scored), strict=True)),
        confusion=[confusion_matrix(scores).tolist() for *_, scores in scored],
        agreement=agreement,
        galleries=[("mistakes", mistakes), ("hits", videos[len(mistakes) :])],
        first=FIRST,
        changed=changed,
        others=others,
        cell_key=cell_key,
    )


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m train.report", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    text = "results folder of a run, or of train.evaluate"
    add("results", type=Path, nargs="+", metavar="RESULTS", help=text)
    text = "page to write (default: report.html)"
    add("-o", "--output", type=output_file, default="report.html", metavar="FILE", help=text)
    add("--dataset", type=Path, metavar="DIR", help="folder of the dataset (default: as in training)")
    add("--all", action="store_true", help="show all videos, even if the page exceeds 25 MB")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    with parser.one_line_errors():
        results = read_results(arguments.results)
        root = arguments.dataset or find_dataset(results)
        if root and not (root / "jpg").is_dir():
            raise FileNotFoundError(
                f"{root}: --dataset must be a folder with jpg/<class>/<video_id>/frames.db"
            )
        evaluations = [(number, result.scores) for number, result in enumerate(results) if result.scores]
        videos = collect_videos(evaluations)
        common = [video.pattern for video in videos if len(video.predictions) == len(evaluations) > 1]
        agreement = dict(sorted(Counter(common).items()))
        if not arguments.all:
            videos = sorted(by_priority(videos)[:MAX_VIDEOS], key=lambda video: video.order)
        page = render(results, videos, agreement)
        if videos and root:
            room = math.inf if arguments.all else MAX_BYTES - len(page.encode())
            add_clips(by_priority(videos), root / "jpg", room)
            page = render(results, videos, agreement)
        elif videos:
            logger.warning(
                "no clips: the dataset is not where it was in training; --dataset names its folder"
            )
        for result in results:
            if result.scores is None:
                logger.warning("%s: not evaluated; %s", result.name, result.hint)
        atomic_write(arguments.output, page)
        clips = sum(bool(video.clip) for video in videos)
        size = f"{arguments.output.stat().st_size / 1e6:.1f} MB"
        print(f"report: {arguments.output} ({size}, {len(videos)} videos, {clips} with a clip)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
