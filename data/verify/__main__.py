"""python -m data.verify DATASET [--labels FILE...] [--full] [--fix] [--json FILE] [--csv FILE] [--workers N]

Check the frame store DATASET/jpg/<class>/<id> of each video in the label files: it exists and can be read, its frames
are numbered without gaps and as many as n_frames, and the first, the last, the smallest and some random ones decode
to the same size, and to half of it in the half level, if there is one. Prints the number of found, missing and corrupt
stores per class, and of short ones, which have fewer frames than a clip. Exits with code 1 if any store is missing or
corrupt. --fix writes n_frames files and adds indexes.

Label files are searched as in training, which reads those of training and validation; --labels names others, such as a
test split's. Without label files, all stores are checked.
"""

import json  # PYTHON_ARGCOMPLETE_OK
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import coloredlogs
from tqdm import tqdm

from data.common.atomic_io import atomic_write
from data.common.cli import OneLineParser, class_table, not_negative, output_file, positive, sanitize
from data.common.cpus import available_cpus
from data.label_files import Annotation, find_label_sets, read_splits, write_csv
from data.verify.checks import StoreReport, verify_stores
from data.video_list import find_stores

MAX_PRINTED = 20  # stores with issues; the output files list all
COLUMNS = ("found", "missing", "corrupt", "short")
Results = Sequence[tuple[Annotation, StoreReport]]


def find_label_files(dataset: Path) -> dict[Path, bool]:
    """Return the label files that training would find, perhaps none, and whether their ids are timed."""
    sets = find_label_sets(dataset, None)
    files = {found.paths()[split]: found.spec.timed_ids for found in sets for split in ("train", "val")}
    return {path: timed_ids for path, timed_ids in files.items() if path.is_file()}


def find_rows(dataset: Path, files: Mapping[Path, bool]) -> list[Annotation]:
    """Return the videos of the label files, each once; without label files, those of all stores."""
    if not (dataset / "jpg").is_dir():
        raise ValueError(f"{dataset}: must be a folder with jpg/<class>/<id>/frames.db")
    rows = {row.folder: row for row in chain(*read_splits(files).values())}
    found = list(rows.values()) or find_stores(dataset / "jpg")
    if not found:
        raise ValueError(f"{dataset}: has no label files and no stores")
    return found


def class_counts(results: Results) -> dict[str, dict[str, int]]:
    """Return the number of stores in each of COLUMNS by class. Short ones also count as found."""
    counts: dict[str, dict[str, int]] = {}
    for row, report in results:
        count = counts.setdefault(row.label, dict.fromkeys(COLUMNS, 0))
        count[report.status] += 1
        count["short"] += report.short
    return counts


def make_report(results: Results, files: Iterable[Path]) -> dict[str, Any]:
    """Return the content of the `--json` file: counts, and the stores with issues or repairs."""
    counts = class_counts(results)
    return {
        "labels": [str(path) for path in files],
        "total": {column: sum(count[column] for count in counts.values()) for column in COLUMNS},
        "classes": counts,
        "stores": [
            {"label": row.label, "id": row.video_id, **report._asdict()}
            for row, report in results
            if report.issues or report.fixed
        ],
    }


def print_results(results: Results) -> None:
    """Print the table of classes, then the stores with issues, and the number of repairs."""
    print(*class_table(class_counts(results), COLUMNS), sep="\n")
    with_issues = [(row, report) for row, report in results if report.issues]
    for row, report in with_issues[:MAX_PRINTED]:
        print(sanitize(f"{row.folder}: {'; '.join(report.issues)}", 1000))
    if len(with_issues) > MAX_PRINTED:
        print(f"... and {len(with_issues) - MAX_PRINTED} more; --csv FILE lists all")
    for title, field in (("fixed", "fixed"), ("repairable by --fix", "repairable")):
        counts = Counter(name for _, report in results for name in getattr(report, field))
        for name, count in counts.items():
            print(f"{title}: {name} of {count} stores")


def make_parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = OneLineParser(prog="python -m data.verify", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    add("dataset", type=Path, metavar="DATASET", help="folder with jpg/")
    add("--labels", type=Path, nargs="+", metavar="FILE", help="label files (default: as in training)")
    add("--full", action="store_true", help="decode all frames")
    add("--frames", type=not_negative, default=3, help="random frames to decode per store (default: 3)")
    add("--fix", action="store_true", help="if all frames decode, write n_frames and add an index")
    add("--clip-length", type=positive, default=16, help="stores with fewer frames are short (default: 16)")
    add("--json", type=output_file, help="output file for the report")
    add("--csv", type=output_file, help="output file with a row per store")
    add("--workers", type=positive, default=available_cpus(), help="threads (default: number of CPUs)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    with parser.one_line_errors():
        files = dict.fromkeys(args.labels, True) if args.labels else find_label_files(args.dataset)
        rows = find_rows(args.dataset, files)
        reports = verify_stores(
            rows,
            workers=min(args.workers, len(rows)),
            root=args.dataset / "jpg",
            random_frames=args.frames,
            full=args.full,
            fix=args.fix,
            clip_length=args.clip_length,
        )
        results = list(zip(rows, tqdm(reports, total=len(rows), unit="store", disable=None), strict=True))
        if args.json:
            atomic_write(args.json, json.dumps(make_report(results, files), indent=1) + "\n")
        if args.csv:
            table = [
                (row.label, row.video_id, *report[:3], *map("; ".join, report[3:])) for row, report in results
            ]
            write_csv(args.csv, ("label", "id", *StoreReport._fields), table)
        print_results(results)
    return 1 if any(report.issues for _, report in results) else 0


if __name__ == "__main__":
    sys.exit(main())
