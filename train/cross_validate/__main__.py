"""python -m train.cross_validate SET [--fold 1 3] [--clips 10] [--crops 3] [flags of python -m train]

Train and evaluate the folds of a dataset one after the other, and keep one table of those that are done, whoever
trained them. The last epoch is evaluated, not the best one, which is chosen by the videos that accuracy is measured on.
`--fold` names the folds of this process or machine. The same command resumes after an interruption.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import FrameType

from filelock import FileLock

from data.common.cli import OneLineParser, positive, sanitize
from data.datasets import CUSTOM
from data.label_files import AnnotationSet, find_folds, find_label_folder
from data.multiview import CROPS
from data.video_list import load_dataset
from train.checkpointing.checkpoint import checkpoint_path
from train.cli import parse_options
from train.cross_validate.table import FoldResult, read_result, write_table
from train.csv_log import read_rows
from train.options import Options, resolve
from train.run_folder import run_folder
from train.signals import SIGNALS

NAMES = list(vars(Options()))
# of clips, network, schedule and optimization
SAME_OPTIONS = NAMES[NAMES.index("clip_length") : NAMES.index("gpus")]


def check_fold(options: Options) -> None:
    """Raise ValueError if the run of a fold has been started with other options or videos, and as `load_dataset`."""
    assert options.dataset is not None
    place = options.dataset, CUSTOM, options.variant, options.labels
    dataset = load_dataset(*place, options.num_classes, options.max_missing)
    path = run_folder(CUSTOM, options) / "run.json"
    if not path.is_file():
        return
    run, now = json.loads(path.read_text("utf-8")), options.to_dict()
    saved = Options().to_dict() | run["options"]
    now["channel_order"] = now["channel_order"] or saved["channel_order"]  # of the pretrained weights
    how = "other label files or videos" if run["dataset"]["fingerprint"] != dataset.fingerprint() else ""
    for name in SAME_OPTIONS:
        if saved[name] != now[name]:
            how = f"--{name.replace('_', '-')} {sanitize(saved[name])}, not {now[name]}"
    if how:
        raise ValueError(f"{path}: trained with {how}; --task-name starts another cross-validation")


def last_checkpoint(options: Options) -> Path:
    return checkpoint_path(run_folder(CUSTOM, options), options.network, options.end_epoch)


def find_result(options: Options, views: str) -> FoldResult | None:
    """Return the result of a fold if train.evaluate has ended, by the last file that it writes."""
    checkpoint = last_checkpoint(options)
    path = checkpoint.with_name(f"{checkpoint.stem}_val_{views}") / "confusion.csv"
    if not path.is_file():
        return None
    seconds = sum(row["Seconds"] for name in ("train", "val") for row in read_rows(checkpoint.parent, name))
    return read_result(options.variant, path, seconds / 60)


def run_module(module: str, *words: object) -> int:
    """Run `python -m <module> <words>`, pass SIGNALS on to it, and return its exit code, 128 + n after signal n."""
    received: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(signum: int, _: FrameType | None) -> None:
        received.append(signum)
        if process:
            process.send_signal(signum)

    previous = {signum: signal.signal(signum, forward) for signum in SIGNALS}
    try:
        process = subprocess.Popen([sys.executable, "-m", module, *map(str, words)])
        for signum in received:  # while it was started
            process.send_signal(signum)
        code = process.wait()
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if code == 0 and received:  # it ended before the signal reached it
        return 128 + received[0]
    return 128 - code if code < 0 else code


def cross_validate(args: argparse.Namespace, flags: Sequence[str], options: Options) -> int:
    """Train and evaluate the chosen folds that are not evaluated yet; return the exit code."""
    chosen = [str(number) for number in args.folds or ()]
    for number in chosen or ["1"]:
        name = AnnotationSet(CUSTOM, number, args.dataset).paths()["train"].name
        labels = find_label_folder(args.dataset, name, options.labels)
    resolved = replace(resolve(CUSTOM, options, gpus=0), variant="")  # --config may name the record of a fold
    views = f"{args.clips}x{args.crops}"
    folds = {number: replace(resolved, variant=number) for number in find_folds(labels)}
    for fold in folds.values():
        check_fold(fold)
    run = run_folder(CUSTOM, resolved)
    folder = run.parent / "folds" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    # the best checkpoint, and one every --save-minutes, are enough to resume from
    train = [f"--save-frequency={options.end_epoch}", *flags, "--resume-epoch=auto"]
    shared = {"clips": args.clips, "crops": args.crops, "workers": options.workers}
    shared |= {"precision": options.precision, "gpus": options.gpus and 1}
    evaluate = [f"--{name}={value}" for name, value in shared.items() if value is not None]
    evaluate += ["--skip-bad-samples"] if options.skip_bad_samples else []
    for number in chosen or folds:
        fold, dataset = folds[number], ["--dataset", str(args.dataset)]
        if not find_result(fold, views):
            code = run_module("train", *train, *dataset, "--fold", number)
            code = code or run_module("train.evaluate", last_checkpoint(fold), *dataset, *evaluate)
            if code:
                return code
        with FileLock(folder / "table.lock"):  # who writes last has read all folds
            results = {n: result for n in folds if (result := find_result(folds[n], views))}
            count = f"{len(results)} of {len(folds)} folds"
            title = f"{run.name} after epoch {options.end_epoch}, {count}, {views} views"
            text = write_table(folder, list(results.values()), options.end_epoch, title)
        line = (
            f"fold {number}/{len(folds)}: top-1 {results[number].top1:.3f} ({results[number].videos} videos)"
        )
        print(f"{line}, mean of {count} {fmean(r.top1 for r in results.values()):.3f}", flush=True)
    print(f"\n{text}\nresults: {folder}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(
        prog="python -m train.cross_validate",
        description=__doc__.split("\n\n")[1] + " All flags of `python -m train` apply too.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("dataset", type=Path, metavar="SET", help="folder with jpg/ and labels/fold1_train.csv, ...")
    text = "folds to train here (default: all)"
    add("--fold", dest="folds", type=positive, nargs="+", action="extend", metavar="N", help=text)
    add("--clips", type=positive, default=10, metavar="N", help="evaluated clips per video (default: 10)")
    add("--crops", type=int, choices=CROPS, default=3, help="crops of each clip (default: 3)")
    parser.returns_unknown = True
    parser.complete()
    args, flags = parser.parse_known_args(argv)
    options = parse_options(CUSTOM, Options(), ["--dataset", str(args.dataset), *flags], parser.prog)
    if options.dataset != args.dataset or options.resume_epoch not in (None, "auto") or options.dry_run:
        parser.error("--dataset, --resume-epoch and --dry-run are for one fold: python -m train --fold N")
    with parser.one_line_errors():
        return cross_validate(args, flags, options)


if __name__ == "__main__":
    sys.exit(main())
