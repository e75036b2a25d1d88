"""python -m data.labels {ucf101,hmdb51,kinetics,hacs,mit,diving48} OFFICIAL_DIR LABELS_DIR
python -m data.labels folders DATASET [--val 0.2 | --val-list FILE]
python -m data.labels link FLAT VIDEOS LABELS.csv...

Write the label files of a dataset: from the lists that its site distributes, or for a custom dataset with frame stores
DATASET/jpg/<class>/<id>, of which a fraction of each class or a list of videos is for validation. `link` sorts videos
from one folder into class folders, as data.convert needs them, without copying. Prints the number of videos per class.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import coloredlogs

from data.common.cli import OneLineParser, class_table, number, positive
from data.datasets import CUSTOM
from data.label_files import (
    AnnotationSet,
    Splits,
    class_index_path,
    read_classes,
    read_label_csv,
    write_classes,
    write_label_csv,
)
from data.labels.official import FORMATS, Format, check_classes, resolve_conflicts
from data.labels.splits import link_videos, split_by_list, split_folders

logger = logging.getLogger(__name__)


def convert_official(fmt: Format, args: argparse.Namespace) -> None:
    """Write the label files of the chosen variants, after all of them are read and checked."""
    spec = fmt.spec
    checked = []
    for variant in args.variants:
        lists = fmt.read(args.official, variant)
        splits, dropped = resolve_conflicts(lists.splits, leave_out=args.leave_out_conflicts)
        classes = check_classes(lists._replace(splits=splits), fmt, variant, args.num_classes)
        for reason, count in dropped.items():
            logger.warning("%s: dropped %d %s", f"{spec.name} {variant}".strip(), count, reason)
        paths = AnnotationSet(spec, variant, args.labels).paths()
        refuse_to_replace(paths, splits, overwrite=args.overwrite)
        index = class_index_path(paths["train"])
        if index.exists() and (other := sorted({*read_classes(index)} ^ {*classes})):
            raise ValueError(f"{index}: differs in {other[:5]}; remove it if no checkpoint depends on it")
        checked.append((classes, splits, paths, index))
    for classes, splits, paths, index in checked:
        write_splits(splits, paths, classes)
        if not index.exists():  # checkpoints may depend on the numbers of an existing one
            write_classes(index, classes)
            print(index)


def split_custom(args: argparse.Namespace) -> None:
    """Write the label files of a custom dataset."""
    if args.val_list:
        splits = split_by_list(args.dataset / "jpg", args.val_list)
    else:
        splits = split_folders(args.dataset / "jpg", args.val, args.seed)
    paths = AnnotationSet(CUSTOM, "", args.dataset / "labels").paths()
    refuse_to_replace(paths, splits, overwrite=args.overwrite)
    write_splits(splits, paths, sorted({row.label for row in splits["train"]}))


def link_flat(args: argparse.Namespace) -> int:
    """Sort videos by label files; return the exit code."""
    rows = [row for path in args.labels for row in read_label_csv(path, timed_ids=True)]
    counts = link_videos(args.flat, args.videos, rows)
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0 if counts["linked"] + counts["present"] and not counts["failed"] else 1


def refuse_to_replace(paths: Mapping[str, Path], splits: Splits, *, overwrite: bool) -> None:
    """Raise ValueError if the label file of a split exists, unless `overwrite`."""
    existing = [paths[split] for split in splits if paths[split].exists()]
    if existing and not overwrite:
        raise ValueError(f"{existing[0]} exists; --overwrite replaces it")


def write_splits(splits: Splits, paths: Mapping[str, Path], classes: Sequence[str]) -> None:
    """Write the label files, then print the number of videos of each class in each split, and the paths."""
    counts = {split: Counter(row.label for row in rows) for split, rows in splits.items()}
    by_class = {name: {split: count[name] for split, count in counts.items()} for name in classes}
    for split, rows in splits.items():
        write_label_csv(paths[split], rows, split)
    print(*class_table(by_class, list(splits)), *(paths[split] for split in splits), sep="\n")


def make_parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = OneLineParser(prog="python -m data.labels", description=(__doc__ or "").split("\n\n")[1])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, fmt in FORMATS.items():
        add = commands.add_parser(name, help=f"label files of {name}, from its official lists").add_argument
        add("official", type=Path, metavar="OFFICIAL_DIR", help="folder with the official lists")
        add("labels", type=Path, metavar="LABELS_DIR", help="output folder for label files")
        variants, flag = list(fmt.spec.num_classes), fmt.spec.variant_flag
        # all splits are written by default: they are small and of the same videos; versions are not
        default = variants if flag == "split" else variants[:1]
        text = f"one or more (default: {' '.join(default)})" if flag else argparse.SUPPRESS
        add(f"--{flag or 'split'}", dest="variants", nargs="+", choices=variants, default=default, help=text)
        add("--num-classes", type=positive, help="number of classes, if the lists are a subset")
        add("--leave-out-conflicts", action="store_true", help="drop duplicates and videos of other splits")
        add("--overwrite", action="store_true", help="replace existing label files")
    add = commands.add_parser("folders", help="label files of a custom dataset").add_argument
    add("dataset", type=Path, metavar="DATASET", help="folder with jpg/")
    fraction = number(float, "between 0 and 1", lambda value: 0 < value < 1)
    add("--val", type=fraction, default=0.2, help="fraction of each class for validation (default: 0.2)")
    add("--val-list", type=Path, help="file with the validation videos instead, one <class>/<id> per line")
    add("--seed", type=int, default=1, help="random seed of the split (default: 1)")
    add("--overwrite", action="store_true", help="replace existing label files")
    add = commands.add_parser("link", help="link videos from one folder into class folders").add_argument
    add("flat", type=Path, metavar="FLAT", help="folder with <id>.<suffix>, at any depth")
    add("videos", type=Path, metavar="VIDEOS", help="output folder for <class>/<id>.<suffix>")
    add("labels", type=Path, nargs="+", metavar="LABELS.csv", help="label files")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    with parser.one_line_errors():
        if args.command == "link":
            return link_flat(args)
        if args.command == "folders":
            split_custom(args)
        else:
            convert_official(FORMATS[args.command], args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
