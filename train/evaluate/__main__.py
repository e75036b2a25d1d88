"""python -m train.evaluate CHECKPOINT... --dataset DIR [--split val] [--clips 10] [--crops 3] [--output DIR]

How good a network is on whole videos: each is looked at in several views, `--clips` along its time times `--crops` in
its frames, whose probabilities are averaged. Of several checkpoints, or score files (.npz) that this wrote, the average
is judged too. `torchrun --nproc-per-node 4 -m train.evaluate ...` shares the videos between four GPUs.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import coloredlogs
import torch

from data.common.cli import OneLineParser, not_negative, positive
from data.label_files import write_csv
from data.multiview import CROPS
from train.evaluate.multiview import evaluate, open_videos
from train.evaluate.scores import Scores, average, class_rows, confusion, summarize
from train.figures import plot_confusion, pyplot
from train.inference import load_inference_model
from train.options import PRECISIONS, Options, share
from train.parallel.devices import choose_device, oom_as
from train.parallel.distributed import DistContext, RemoteRankError, join

logger = logging.getLogger(__name__)


def table(scores: Scores) -> str:
    """What is printed of an evaluation, a line a number."""
    summary = summarize(scores)
    lines = {}
    if summary.clip:
        lines |= {"clip@1": summary.clip[0], "clip@5": summary.clip[1]}
    lines |= {f"video@{k} ({scores.views})": value for k, value in zip((1, 5), summary.video, strict=True)}
    lines["mean class accuracy"] = summary.class_mean
    width = max(map(len, lines))
    return "\n".join(f"  {name.ljust(width)}  {value:.4f}" for name, value in lines.items())


def write_tables(scores: Scores, folder: Path) -> list[Path]:
    """`scores.npz`, `classes.csv`, `confusion.csv` and `confusion.png` in a folder."""
    names = ("scores.npz", "classes.csv", "confusion.csv", "confusion.png")
    paths = [folder / name for name in names]
    counts = confusion(scores)
    scores.save(paths[0])
    write_csv(paths[1], ["Class", "Videos", "Top1", "Top5", "TakenFor", "Times"], class_rows(scores))
    rows = ([name, *row] for name, row in zip(scores.classes, counts.tolist(), strict=True))
    write_csv(paths[2], ["Class", *scores.classes], rows)
    title = f"video@1 ({scores.views}): {summarize(scores).video[0]:.4f}"
    plot_confusion(counts, scores.classes, title, paths[3])
    return paths


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m train.evaluate", description=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="CHECKPOINT", help="what training saved, or scores (.npz)")
    add("--dataset", type=Path, metavar="DIR", help="folder of the data set, the one that holds jpg/")
    add("--labels", type=Path, metavar="DIR", help="folder of the label files (default: as in training)")
    add("--split", choices=("val", "train"), default="val", help="(default: val)")
    add("--clips", type=positive, default=10, metavar="N", help="along a video's time (default: 10)")
    text = "the centre; 3 along the longer side; 10: corners and centre, and mirrored (default: 3)"
    add("--crops", type=int, choices=CROPS, default=3, help=text)
    add("--output", type=Path, metavar="DIR", help="for what it writes (default: beside the first file)")
    add("--batch-size", type=positive, metavar="N", help="views at once (default: as in training)")
    text = "processes that read videos (default: %(default)s)"
    add("--workers", type=not_negative, default=Options.workers, metavar="N", help=text)
    add("--precision", choices=PRECISIONS, help="(default: fp16 on a GPU, fp32 on the CPU)")
    add("--gpus", type=int, choices=(0, 1), help="0 is the CPU (default: 1 if there is one)")
    text = "share of the videos that may have no store (default: as in training)"
    add("--max-missing", type=share, metavar="SHARE", help=text)
    text = "leave out videos that cannot be read; an error otherwise"
    add("--skip-bad-samples", action="store_true", help=text)
    return parser


def _scores_of(path: Path, arguments: argparse.Namespace, device: torch.device, dist: DistContext) -> Scores:
    """A file's own scores, or a checkpoint's of all videos. Prints how good they are."""
    if path.suffix == ".npz":
        scores, what = Scores.load(path), "scores"
    else:
        trained = load_inference_model(path, device, arguments.precision)
        videos = open_videos(
            trained, arguments.dataset, arguments.labels, arguments.split, arguments.max_missing
        )
        scores, bad = evaluate(
            trained,
            videos,
            dist,
            clips=arguments.clips,
            crops=arguments.crops,
            batch_size=arguments.batch_size or trained.options.batch_size,
            workers=arguments.workers,
            skip_bad_samples=arguments.skip_bad_samples,
        )
        what = f"{trained.options.network} after epoch {trained.epoch}"
        for sample in bad if dist.is_main_process else []:
            logger.warning("left out: %s", sample.reason)
        if bad:
            what += f", {len(bad)} of {len(videos)} videos left out"
    if dist.is_main_process:
        print(f"{path}: {what}, {len(scores.videos)} videos of {len(set(scores.labels))} classes")
        print(table(scores), flush=True)
    return scores


def _run(arguments: argparse.Namespace, dist: DistContext) -> None:
    folder = arguments.output or _default_output(arguments)
    if dist.is_main_process:  # what is missing shows before the work
        pyplot()
        folder.mkdir(parents=True, exist_ok=True)
    device, _ = choose_device(arguments.gpus, dist)
    several, written = [], []
    for number, path in enumerate(arguments.files, start=1):
        several.append(_scores_of(path, arguments, device, dist))
        if dist.is_main_process and len(arguments.files) > 1:  # now, as the next may fail
            written.append(folder / f"{number}_{path.stem}.npz")
            several[-1].save(written[-1])
    if not dist.is_main_process:
        return
    scores = average(several)
    if len(several) > 1:
        print(f"average of {len(several)}")
        print(table(scores))
    written += write_tables(scores, folder)
    print(f"written to {folder}: {', '.join(path.name for path in written)}")


def _default_output(arguments: argparse.Namespace) -> Path:
    first = arguments.files[0]
    if first.suffix == ".npz":
        return first.with_name("average")
    return first.with_name(f"{first.stem}_{arguments.split}_{arguments.clips}x{arguments.crops}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.dataset is None and any(path.suffix != ".npz" for path in arguments.files):
        parser.error("the following arguments are required: --dataset")
    dist = DistContext()
    try:
        dist = join()
        coloredlogs.install(
            level="INFO" if dist.is_main_process else "ERROR", fmt="%(levelname)s %(message)s"
        )
        with dist.explained(), oom_as(OSError, "out of memory; a lower --batch-size may help"):
            _run(arguments, dist)
        dist.leave()
    except KeyboardInterrupt:
        logger.error("stopped")
        return 130
    except (ValueError, LookupError, OSError, RemoteRankError) as error:
        if dist.report(" ".join(str(error).split())):
            parser.error(str(error))
        return 2
    except Exception as error:
        dist.report(f"{type(error).__name__}: {error}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
