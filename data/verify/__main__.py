"""python -m data.verify DATASET [--labels DIR|FILE...] [--full] [--fix] [--json FILE] [--csv FILE] [--workers N]

Check the frame store DATASET/jpg/<class>/<id> of each video in the label files: it exists and can be read, its frames
are numbered without gaps and as many as n_frames, and the first, the last, the smallest and some random ones decode
to the same size. Prints the number of found, missing and corrupt stores per class, and of short ones, which have fewer
frames than a clip. Exits with code 1 if any store is missing or corrupt. --fix writes n_frames files and adds indexes.

Label files are searched as in training, which reads those of training and validation; --labels names others, such as a
test split's. Without label files, all stores are checked.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.common.atomic_io import atomic_write
from data.common.cli import OneLineParser, class_table, not_negative, output_file, positive, sanitize
from data.common.cpus import available_cpus
from data.label_files import Annotation, find_label_sets, has_timed_ids, read_label_csv, write_csv
from data.verify.checks import CheckResult, verify_stores
from data.video_list import find_stores

MAX_PRINTED = 20  # stores with issues; the output files list all
COLUMNS = ("found", "missing", "corrupt", "short")


def find_label_files(dataset: Path, labels: Sequence[Path] | None) -> list[Path]:
    """Return the given files, the label files in given folders, or those that training would find, perhaps none."""
    files: list[Path] = []
    for path in labels or [dataset]:
        if not path.is_dir():
            files.append(path)
            continue
        sets = find_label_sets(dataset, path if labels else None)
        if labels and not sets:
            raise ValueError(f"{path}: has no training label file")
        paths = [found.paths()[split] for found in sets for split in ("train", "val")]
        files += [path for path in paths if path.is_file()]
    return files


def find_rows(dataset: Path, files: Sequence[Path]) -> list[Annotation]:
    """Return the videos of the label files, each once; without label files, those of all stores."""
    if not (dataset / "jpg").is_dir():
        raise ValueError(f"{dataset}: must be a folder with jpg/<class>/<id>/frames.db")
    rows = {row.folder: row for path in files for row in read_label_csv(path, has_timed_ids(path))}
    found = list(rows.values()) or find_stores(dataset / "jpg")
    if not found:
        raise ValueError(f"{dataset}: has no label files and no stores")
    return found


def class_counts(results: Sequence[CheckResult]) -> dict[str, dict[str, int]]:
    """Return the number of stores in each of COLUMNS by class. Short ones also count as found."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        count = counts.setdefault(result.label, dict.fromkeys(COLUMNS, 0))
        count[result.status] += 1
        count["short"] += result.short
    return counts


def make_report(results: Sequence[CheckResult], files: Sequence[Path]) -> dict[str, Any]:
    """Return the content of the `--json` file: counts, and the stores with issues or repairs."""
    counts = class_counts(results)
    return {
        "labels": [str(path) for path in files],
        "total": {column: sum(count[column] for count in counts.values()) for column in COLUMNS},
        "classes": counts,
        "stores": [result._asdict() for result in results if result.issues or result.fixed],
    }


def print_results(results: Sequence[CheckResult]) -> None:
    """Print the table of classes, then the stores with issues, and the number of repairs."""
    print(*class_table(class_counts(results), COLUMNS), sep="\n")
    with_issues = [result for result in results if result.issues]
    for result in with_issues[:MAX_PRINTED]:
        print(sanitize(f"{result.label}/{result.id}: {'; '.join(result.issues)}", 1000))
    if len(with_issues) > MAX_PRINTED:
        print(f"... and {len(with_issues) - MAX_PRINTED} more; --csv FILE lists all")
    for name, count in Counter(name for result in results for name in result.fixed).items():
        print(f"fixed: {name} of {count} stores")
    for name, count in Counter(name for result in results for name in result.repairable).items():
        print(f"repairable by --fix: {name} of {count} stores")


def make_parser() -> OneLineParser:
    """Return the parser of the command line."""
    parser = OneLineParser(
        prog="python -m data.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dataset", type=Path, metavar="DATASET", help="folder with jpg/")
    add("--labels", type=Path, nargs="+", metavar="DIR|FILE", help="label files (default: as in training)")
    add("--full", action="store_true", help="decode all frames")
    add("--frames", type=not_negative, default=3, help="random frames to decode per store (default: 3)")
    add("--fix", action="store_true", help="if all frames decode, write n_frames and add an index")
    add("--clip-length", type=positive, default=16, help="stores with fewer frames are short (default: 16)")
    add("--json", type=output_file, help="output file for the report")
    add("--csv", type=output_file, help="output file with a row per store")
    add("--workers", type=positive, default=available_cpus(), help="processes (default: number of CPUs)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        files = find_label_files(args.dataset, args.labels)
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
        results = list(tqdm(reports, total=len(rows), unit="store", disable=None))
        print_results(results)
        if args.json:
            atomic_write(args.json, json.dumps(make_report(results, files), indent=1) + "\n")
        if args.csv:
            table = (["; ".join(v) if isinstance(v, list) else v for v in result] for result in results)
            write_csv(args.csv, CheckResult._fields, table)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenProcessPool:
        parser.error("a worker process was killed, perhaps out of memory; use fewer --workers")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 1 if any(result.issues for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
