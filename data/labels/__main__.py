"""python -m data.labels {ucf101,hmdb51,kinetics,hacs,mit,diving48} OFFICIAL_DIR LABELS_DIR
python -m data.labels folders DATASET [--val 0.2 | --val-list FILE | --folds N|groups] [--groups FILE|PATTERN]
python -m data.labels link FLAT VIDEOS LABELS.csv...

Write the label files of a dataset: from the lists that its site distributes, or for a custom dataset with frame stores
DATASET/jpg/<class>/<id>, of which a fraction of each class or a list of videos is for validation, or each video in one
of several folds. Groups, such as persons, are kept on one side. `link` sorts videos from one folder into class folders,
as data.convert needs them, without copying. Prints the number of videos per class.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import coloredlogs

from data.common.cli import OneLineParser, class_table, number, positive
from data.datasets import CUSTOM
from data.label_files import (
    Annotation,
    AnnotationSet,
    Splits,
    class_index_path,
    find_folds,
    read_classes,
    read_label_csv,
    write_classes,
    write_label_csv,
)
from data.labels.groups import add_groups, describe_groups, split_groups, suggest_groups
from data.labels.official import FORMATS, Format, check_classes, resolve_conflicts
from data.labels.splits import link_videos, list_videos, split_by_list, split_classes

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
    """Write the label files of a custom dataset: of one split, or of folds."""
    if (args.train_only or args.folds == "groups") and (args.val_list or not args.groups):
        raise ValueError("--folds groups and --train-only need --groups, and not --val-list")
    rows = list_videos(args.dataset / "jpg")
    classes = sorted({row.label for row in rows})
    if args.groups:
        rows = add_groups(rows, args.groups)
    elif not args.val_list:
        suggest_groups(rows)
    if args.val_list:
        splits = [split_by_list(rows, args.val_list)]
    elif args.groups or args.folds:
        shares = [args.val]
        if args.folds:
            shares = [] if args.folds == "groups" else [1 / args.folds] * args.folds
        splits = split_groups(rows, shares, args.seed, args.train_only)
    else:
        splits = [split_classes(rows, args.val, args.seed)]
    if args.folds:
        write_folds(splits, args.dataset / "labels", classes, overwrite=args.overwrite)
    else:
        paths = AnnotationSet(CUSTOM, "", args.dataset / "labels").paths()
        refuse_to_replace(paths, splits[0], overwrite=args.overwrite)
        write_splits(splits[0], paths, classes)
    if args.folds == "groups":
        print(*(f"fold{fold} {split['val'][0].group}" for fold, split in enumerate(splits, 1)), sep=", ")
    if args.groups and not args.val_list:
        print(describe_groups(splits, args.train_only))


def write_folds(folds: Sequence[Splits], labels: Path, classes: Sequence[str], *, overwrite: bool) -> None:
    """Replace the label files and class indexes of all folds; print the number of validation videos of each class."""
    for existing in find_folds(labels):
        paths = AnnotationSet(CUSTOM, existing, labels).paths()
        refuse_to_replace(paths, folds[0], overwrite=overwrite)
        for path in (*paths.values(), class_index_path(paths["train"])):
            path.unlink(missing_ok=True)
    for fold, splits in enumerate(folds, start=1):
        paths = AnnotationSet(CUSTOM, str(fold), labels).paths()
        for split, rows in splits.items():
            write_label_csv(paths[split], rows, split)
        write_classes(class_index_path(paths["train"]), classes)
    print_counts({f"fold{fold}": splits["val"] for fold, splits in enumerate(folds, start=1)}, classes)
    print(labels / "fold1_train.csv", "to", paths["val"].name)


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
    for split, rows in splits.items():
        write_label_csv(paths[split], rows, split)
    print_counts(splits, classes)
    print(*(paths[split] for split in splits), sep="\n")


def print_counts(columns: Mapping[str, Sequence[Annotation]], classes: Sequence[str]) -> None:
    """Print a table of the number of videos of each class in each column."""
    counts = {column: Counter(row.label for row in rows) for column, rows in columns.items()}
    by_class = {name: {column: count[name] for column, count in counts.items()} for name in classes}
    print(*class_table(by_class, list(columns)), sep="\n")


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
    folders = commands.add_parser("folders", help="label files of a custom dataset")
    add = folders.add_argument
    add("dataset", type=Path, metavar="DATASET", help="folder with jpg/")
    fraction = number(float, "between 0 and 1", lambda value: 0 < value < 1)
    count = number(int, "groups or a whole number of at least 2", lambda value: value >= 2)
    one_of = folders.add_mutually_exclusive_group().add_argument
    one_of("--val", type=fraction, default=0.2, help="fraction of each class for validation (default: 0.2)")
    one_of("--val-list", type=Path, help="file with the validation videos, one <class>/<id> per line")
    text = "number of folds, or 'groups': one group left out in each"
    one_of("--folds", type=lambda text: text if text == "groups" else count(text), help=text)
    text = "keep groups on one side: CSV with video (<class>/<id>) and group, or pattern such as '_(g\\d+)_'"
    add("--groups", metavar="FILE|PATTERN", help=text)
    text = "group that is never for validation; may be repeated"
    add("--train-only", action="append", default=[], metavar="GROUP", help=text)
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
