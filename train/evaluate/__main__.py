"""python -m train.evaluate CHECKPOINT... --dataset DIR [--split val] [--clips 10] [--crops 3] [--output DIR]

Evaluate checkpoints on whole videos: the probabilities of `--clips` clips along the time axis times `--crops` spatial
crops are averaged. Given several checkpoints, or scores files (.npz) of earlier evaluations, their average is evaluated
too. `torchrun --nproc-per-node 4 -m train.evaluate ...` shares the videos among four GPUs.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import coloredlogs
import torch

from data.common.cli import OneLineParser, not_negative, positive
from data.label_files import write_csv
from data.multiview import CROPS
from network.published import PREFIX
from train.evaluate.multiview import evaluate, load_split
from train.figures import plot_confusion
from train.inference import WeightsInfo, add_weights_flags, load_inference_model
from train.options import DEFAULT_PRECISION, PRECISIONS, Options, missing_limit
from train.parallel.devices import choose_device, oom_as
from train.parallel.distributed import DistContext, init_distributed
from train.scores import Scores, average_scores, class_rows, confusion_matrix, summarize

logger = logging.getLogger(__name__)


def summary_text(scores: Scores) -> str:
    """Return the accuracies of an evaluation, one per line."""
    accuracies = summarize(scores)
    width = max(map(len, accuracies))
    return "\n".join(f"  {name.ljust(width)}  {value:.4f}" for name, value in accuracies.items())


def write_results(scores: Scores, folder: Path) -> None:
    """Write `scores.npz`, `classes.csv`, `confusion.csv` and `confusion.png`."""
    scores.save(folder / "scores.npz")
    columns = ["Class", "Videos", "Top1", "Top5", "ConfusedWith", "Count"]
    write_csv(folder / "classes.csv", columns, class_rows(scores))
    counts = confusion_matrix(scores)
    name = f"video@1 ({scores.views})"
    title = f"{name}: {summarize(scores)[name]:.4f}"
    plot_confusion(counts, scores.classes, title, folder / "confusion.png")
    rows = ([name, *row] for name, row in zip(scores.classes, counts.tolist(), strict=True))
    # last, as train.cross_validate repeats an evaluation without it
    write_csv(folder / "confusion.csv", ["Class", *scores.classes], rows)


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m train.evaluate", description=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="CHECKPOINT", help="checkpoint, weights, zoo:NAME or .npz")
    add("--dataset", type=Path, metavar="DIR", help="folder of the dataset, which contains jpg/")
    add("--labels", type=Path, metavar="DIR", help="folder of the label files (default: as in training)")
    add("--split", choices=("val", "train"), default="val", help="split to evaluate (default: val)")
    add("--clips", type=positive, default=10, metavar="N", help="clips per video (default: 10)")
    text = "1: center; 3: along the longer side; 10: corners and center, and flipped (default: 3)"
    add("--crops", type=int, choices=CROPS, default=3, help=text)
    add("--output", type=Path, metavar="DIR", help="folder for the results (default: beside the first file)")
    add("--batch-size", type=positive, metavar="N", help="views per batch (default: as in training)")
    text = "dataloader worker processes (default: %(default)s)"
    add("--workers", type=not_negative, default=Options.workers, metavar="N", help=text)
    add("--precision", choices=PRECISIONS, help=f"of the network (default: {DEFAULT_PRECISION})")
    add("--gpus", type=int, choices=(0, 1), help="0: use the CPU (default: 1 if there is a GPU)")
    text = "as of training (default: as in training)"
    add("--max-missing", type=missing_limit, metavar="FRACTION|CLASS=1", help=text)
    add("--skip-bad-samples", action="store_true", help="skip corrupt videos instead of failing")
    add_weights_flags(parser)
    return parser


def _load_or_evaluate(
    path: Path, arguments: argparse.Namespace, device: torch.device, dist: DistContext
) -> tuple[Scores, str]:
    """Return the scores in a scores file, or of a checkpoint on all videos, and where they come from."""
    if path.suffix == ".npz":
        scores, source = Scores.load(path), "scores"
    else:
        info = WeightsInfo.from_arguments(arguments)
        model = load_inference_model(path, device, arguments.precision, info)
        videos = load_split(
            model, arguments.dataset, arguments.labels, arguments.split, arguments.max_missing
        )
        scores, bad = evaluate(
            model,
            videos,
            dist,
            clips=arguments.clips,
            crops=arguments.crops,
            batch_size=arguments.batch_size or model.options.batch_size,
            workers=arguments.workers,
            skip_bad_samples=arguments.skip_bad_samples,
        )
        trained = "" if model.epoch is None else f" after epoch {model.epoch}"
        source = f"{model.options.network}{trained}"
        if bad:
            for sample in bad:
                logger.warning("corrupt video skipped: %s", sample.reason)
            source += f", {len(bad)} of {len(videos)} videos skipped"
    return scores, f"{path}: {source}, {len(scores.videos)} videos of {len(set(scores.labels))} classes"


def _run(arguments: argparse.Namespace, dist: DistContext) -> None:
    folder: Path = arguments.output
    if folder is None:
        first = arguments.files[0]
        suffix = f"{arguments.split}_{arguments.clips}x{arguments.crops}"
        stem = first.stem.removeprefix(PREFIX)
        folder = first.with_name("average" if first.suffix == ".npz" else f"{stem}_{suffix}")
    if dist.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)  # fail before the work, not after it
    device, _ = choose_device(arguments.gpus, dist)
    results = []
    for number, path in enumerate(arguments.files, start=1):
        scores, source = _load_or_evaluate(path, arguments, device, dist)
        results.append(scores)
        if dist.is_main_process and len(arguments.files) > 1:  # before the next file, which may fail
            scores.save(folder / f"{number}_{path.stem}.npz")
            print(f"{source}\n{summary_text(scores)}", flush=True)
    if dist.is_main_process:
        scores = average_scores(results)
        write_results(scores, folder)
        title = f"average of {len(results)}" if len(results) > 1 else source
        print(f"{title}\n{summary_text(scores)}\nresults: {folder}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.dataset is None and any(path.suffix != ".npz" for path in arguments.files):
        parser.error("the following arguments are required: --dataset")
    with parser.one_line_errors(), oom_as(OSError, "out of memory; try a lower --batch-size"):
        dist = init_distributed()
        level = "INFO" if dist.is_main_process else "ERROR"
        coloredlogs.install(level=level, fmt="%(levelname)s %(message)s")
        with dist.translate_dist_errors():
            _run(arguments, dist)
        dist.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
