"""python -m data.labels {ucf101,hmdb51,kinetics,hacs,mit,diving48} OFFICIAL_DIR LABELS_DIR
python -m data.labels folders DATASET [--val 0.2 | --val-list FILE]
python -m data.labels link FLAT VIDEOS LABELS.csv...

Label files of a data set: from the lists that its site hands out (their formats are in data/labels/official.py), or for one's
own stores DATASET/jpg/<class>/<id>, a share of each class for validation or what a list names. `link` sorts videos that
come in one folder into one a class, as data.convert wants them, without copying. Each prints the videos of each class.

What reads label files, for training and the tools, is in data/label_files.py and data/video_list.py.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import coloredlogs

from data.common.cli import OneLineParser, class_table
from data.label_files import Annotation, AnnotationSet, read_label_csv, write_label_csv
from data.labels.checks import Entry, check, check_dictionary, cut_to_classes, write_annotations
from data.labels.official import FORMATS, Format
from data.labels.splits import class_names, link_videos, split_by_list, split_folders

logger = logging.getLogger(__name__)


def convert_official(form: Format, arguments: argparse.Namespace) -> None:
    """Write the label files of all variants that were asked for; everything is read and checked before."""
    spec = form.spec
    results = []
    for variant in arguments.variants:
        annotations = form.read(arguments.official, variant)
        annotations, left_out = check(annotations, leave_out_conflicts=arguments.leave_out_conflicts)
        name = f"{spec.name} {spec.variant_flag} {variant}" if variant else spec.name
        annotations = cut_to_classes(
            annotations, name, spec.num_classes[variant], arguments.num_classes, may_lack=form.may_lack
        )
        paths = AnnotationSet(spec, variant, arguments.labels).paths()
        refuse_to_replace([paths[split] for split in annotations.splits], overwrite=arguments.overwrite)
        check_dictionary(annotations, paths)
        results.append((annotations, paths, left_out, name))
    for annotations, paths, left_out, name in results:
        for reason, count in left_out.items():
            logger.warning("%s: left out %d %s", name, count, reason)
        written = write_annotations(annotations, paths, timed=spec.timed_ids)
        print_counts(annotations.classes, annotations.splits)
        print(*written, sep="\n")


def split_own(arguments: argparse.Namespace) -> None:
    """Write the label files of a data set of one's own."""
    stores = arguments.dataset / "jpg"
    paths = [arguments.dataset / "labels" / f"{split}.csv" for split in ("train", "val")]
    refuse_to_replace(paths, overwrite=arguments.overwrite)
    if arguments.val_list:
        splits = split_by_list(stores, arguments.val_list)
    else:
        splits = split_folders(stores, arguments.val, arguments.seed)
    print_counts(class_names(splits[0]), {path.stem: rows for path, rows in zip(paths, splits, strict=True)})
    for path, rows in zip(paths, splits, strict=True):
        write_label_csv(path, rows, path.stem)
        print(f"{path}: {len(rows)} videos of {len(class_names(rows))} classes")


def link_flat(arguments: argparse.Namespace) -> int:
    """Sort videos by their label files; the exit status."""
    rows = [row for path in arguments.labels for row in read_label_csv(path, timed_ids=True)]
    counts = link_videos(arguments.flat, arguments.videos, rows)
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return 0 if counts["linked"] + counts["there before"] else 1


def print_counts(classes: Sequence[str], splits: Mapping[str, Sequence[Entry | Annotation]]) -> None:
    """The videos of each class in each split."""
    counts = {split: Counter(row.label for row in rows) for split, rows in splits.items()}
    by_class = {name: {split: count[name] for split, count in counts.items()} for name in classes}
    print(*class_table(by_class, list(splits)), sep="\n")


def refuse_to_replace(paths: Sequence[Path], *, overwrite: bool) -> None:
    present = [path for path in paths if path.exists()]
    if present and not overwrite:
        raise ValueError(f"{present[0]} exists; --overwrite replaces it")


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m data.labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, form in FORMATS.items():
        _add_official(commands.add_parser(name, help=f"label files of {name}, from its site's"), form)
    folders = commands.add_parser("folders", help="label files for a data set of one's own, from its folders")
    folders.add_argument("dataset", type=Path, metavar="DATASET", help="the folder that holds jpg/")
    how = folders.add_mutually_exclusive_group()
    how.add_argument(
        "--val", type=float, default=0.2, help="share of each class for validation (default: 0.2)"
    )
    how.add_argument("--val-list", type=Path, help="file that names the videos for it, <class>/<id> a line")
    folders.add_argument("--seed", type=int, default=1, help="which videos are chosen (default: 1)")
    folders.add_argument("--overwrite", action="store_true", help="replace label files that are there")
    link = commands.add_parser("link", help="sort videos in one folder into one a class, by links")
    link.add_argument("flat", type=Path, metavar="FLAT", help="folder with <id>.<any>, at any depth")
    link.add_argument("videos", type=Path, metavar="VIDEOS", help="folder that gets <class>/<id>.<any>")
    link.add_argument("labels", type=Path, nargs="+", metavar="LABELS.csv", help="label files")
    return parser


def _add_official(parser: argparse.ArgumentParser, form: Format) -> None:
    spec = form.spec
    parser.add_argument("official", type=Path, metavar="OFFICIAL_DIR", help="folder with the site's lists")
    parser.add_argument("labels", type=Path, metavar="LABELS_DIR", help="folder that gets the label files")
    variants = list(spec.num_classes)
    # all splits are of the same videos, and small: they are written together
    default = [spec.default_variant] if spec.variant_flag == "variant" else variants
    if spec.variant_flag:
        parser.add_argument(
            f"--{spec.variant_flag}", dest="variants", nargs="+", choices=variants, default=default,
            help=f"one or more (default: {' '.join(default)})",
        )  # fmt: skip
    else:
        parser.set_defaults(variants=default)
    parser.add_argument("--num-classes", type=int, help="the lists are a subset, of so many classes")
    parser.add_argument(
        "--leave-out-conflicts", action="store_true",
        help="leave out rows that stand twice, and of a video in two splits those for training",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace label files that are there")


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    try:
        if arguments.command == "link":
            return link_flat(arguments)
        if arguments.command == "folders":
            if not 0 < arguments.val < 1:
                parser.error(f"--val {arguments.val}: must be between 0 and 1")
            split_own(arguments)
        else:
            convert_official(FORMATS[arguments.command], arguments)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
