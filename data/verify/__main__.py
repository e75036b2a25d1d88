"""python -m data.verify DATASET [--labels DIR|FILE...] [--full] [--fix] [--json FILE] [--csv FILE] [--workers N]

Look at every store DATASET/jpg/<class>/<id> that the label files name: is it there, does it open, are its frames
numbered without a gap and as many as n_frames says, do the first, the last and some others decode, at the size they
state. Prints a table: of each class the stores that are found, missing and broken, and short ones, with fewer frames
than a clip. Ends with status 1 where one is missing or broken.

Label files are looked for as in training, which reads those of training and validation: name a test split's with
--labels. Without any, all stores that are there are looked at.
"""

import argparse
import functools
import json
import multiprocessing
import os
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from data.common.atomic_io import atomic_write
from data.common.cli import OneLineParser, class_table, output_file
from data.common.cpus import available_cpus
from data.label_files import Annotation, find_label_sets, has_timed_ids, read_label_csv, write_csv
from data.verify.checks import NO_FILE, Finding, inspect_store, repair_store
from data.video_list import find_stores

SHOWN = 20  # stores with something wrong that are printed; the files have all
COLUMNS = ("found", "missing", "broken", "short")


class Verdict(NamedTuple):
    """What was found out about a store. `fixed`: what was put right, after which nothing else was wrong."""

    row: Annotation
    frames: int
    wrong: list[Finding]
    slow: list[str]
    fixed: list[str]

    @property
    def status(self) -> str:
        """found, missing or broken."""
        if not self.wrong:
            return "found"
        return "missing" if self.wrong[0].kind == NO_FILE else "broken"

    def line(self) -> str:
        details = "; ".join(f"{kind} ({detail})" for kind, detail in self.wrong)
        return f"{self.row.label}/{self.row.video_id}: {details}"


def verify_store(row: Annotation, *, root: Path, random_frames: int, full: bool, fix: bool) -> Verdict:
    """Look at one store, and put right what can be: then all of its frames are decoded first."""
    folder = root / row.label / row.video_id
    seed = zlib.crc32(os.fsencode(folder.name))
    inspection = inspect_store(folder, seed=seed, random_frames=random_frames, full=full)
    fixed: list[str] = []
    if fix and inspection.fixable and (inspection.wrong or inspection.slow):
        inspection = inspect_store(folder, seed=seed, full=True)
        try:
            fixed = repair_store(folder, inspection)
        except OSError as error:
            inspection.wrong.append(Finding("not fixed", str(error)))
        else:
            inspection = inspect_store(folder, seed=seed, full=True)
    return Verdict(row, inspection.frames, inspection.wrong, inspection.slow, fixed)


def verify_stores(rows: Sequence[Annotation], *, workers: int, **how: Any) -> Iterator[Verdict]:
    """A verdict on each, in order; by `workers` processes, or in this one where that is 1."""
    work = functools.partial(verify_store, **how)
    if workers == 1:
        yield from map(work, rows)
        return
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(workers, context, initializer=_leave_signals_to_the_first) as pool:
        try:
            yield from pool.map(work, rows, chunksize=4)
        except BrokenProcessPool:
            raise OSError(
                "a process was killed, perhaps as memory ran out: fewer --workers take less"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _leave_signals_to_the_first() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def label_files(dataset: Path, labels: Sequence[Path] | None) -> list[Path]:
    """The files that are given, those of folders that are given, or those that training would find; perhaps none.

    Raises ValueError where a folder holds those of several data sets.
    """
    files = []
    for path in labels or (None,):
        if path is not None and not path.is_dir():
            files.append(path)
            continue
        sets = find_label_sets(dataset, path)
        if path is not None and not sets:
            raise ValueError(f"{path}: holds no label files of training")
        # the splits of a set are of the same videos, its variants are not
        if len({(s.spec.name, s.variant if s.spec.variant_flag == "variant" else "") for s in sets}) > 1:
            names = " and ".join(s.paths()["train"].name for s in sets)
            raise ValueError(f"{sets[0].folder}: holds {names}; --labels FILE... says which are meant")
        used = [found.paths()[split] for found in sets for split in ("train", "val")]
        files += [file for file in used if file.is_file()]
    return files


def listed_rows(dataset: Path, files: Sequence[Path]) -> list[Annotation]:
    """The stores to look at, each once: those of the label files, without any those that are there."""
    if not (dataset / "jpg").is_dir():
        raise ValueError(f"{dataset}: is not a folder that holds jpg/<class>/<id>/frames.db")
    rows = [row for path in files for row in read_label_csv(path, has_timed_ids(path))]
    rows = list(dict.fromkeys(rows)) or find_stores(dataset / "jpg")
    if not rows:
        raise ValueError(f"{dataset}: holds neither label files nor stores")
    return rows


def class_counts(verdicts: Sequence[Verdict], clip_length: int) -> dict[str, Counter[str]]:
    """Of each class, in the order of first appearance, how many stores are what. Short ones are among those found."""
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        count = counts.setdefault(verdict.row.label, Counter(dict.fromkeys(COLUMNS, 0)))
        count[verdict.status] += 1
        count["short"] += is_short(verdict, clip_length)
    return counts


def is_short(verdict: Verdict, clip_length: int) -> bool:
    return verdict.status == "found" and verdict.frames < clip_length


def report(verdicts: Sequence[Verdict], files: Sequence[Path], clip_length: int) -> dict[str, Any]:
    """What `--json` writes: the table, and all stores that are not as they should be."""
    counts = class_counts(verdicts, clip_length)
    return {
        "labels": [str(path) for path in files],
        "total": {column: sum(count[column] for count in counts.values()) for column in COLUMNS},
        "classes": counts,
        "wrong": [
            {
                "class": verdict.row.label,
                "id": verdict.row.video_id,
                "status": verdict.status,
                "findings": [finding._asdict() for finding in verdict.wrong],
            }
            for verdict in verdicts
            if verdict.wrong
        ],
        "fixed": [f"{v.row.label}/{v.row.video_id}: {', '.join(v.fixed)}" for v in verdicts if v.fixed],
    }


def write_table(path: Path, verdicts: Sequence[Verdict], clip_length: int) -> None:
    """A row a store: what it is, and everything that was found."""
    columns = ("class", "id", "status", "short", "frames", "findings", "slow", "fixed")
    rows = (
        (
            *verdict.row,
            verdict.status,
            str(int(is_short(verdict, clip_length))),
            str(verdict.frames),
            "; ".join(f"{kind}: {detail}" for kind, detail in verdict.wrong),
            "; ".join(verdict.slow),
            "; ".join(verdict.fixed),
        )
        for verdict in verdicts
    )
    write_csv(path, columns, rows)


def show(verdicts: Sequence[Verdict], clip_length: int) -> None:
    print(*class_table(class_counts(verdicts, clip_length), COLUMNS), sep="\n")
    wrong = [verdict.line() for verdict in verdicts if verdict.wrong]
    print(*wrong[:SHOWN], sep="\n", end="\n" if wrong else "")
    if len(wrong) > SHOWN:
        print(f"... and {len(wrong) - SHOWN} more; --csv FILE has all")
    fixed = Counter(what for verdict in verdicts for what in verdict.fixed)
    slow = Counter(what for verdict in verdicts for what in verdict.slow)
    print(
        *(f"fixed: {what} of {count} stores" for what, count in fixed.items()),
        sep="\n",
        end="\n" if fixed else "",
    )
    for what, count in slow.items():
        print(f"{what}: {count} stores, which are read more slowly; --fix adds it")


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m data.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dataset", type=Path, metavar="DATASET", help="the folder that holds jpg/")
    add("--labels", type=Path, nargs="+", metavar="DIR|FILE", help="label files (default: as in training)")
    add("--full", action="store_true", help="decode every frame")
    add("--frames", type=int, default=3, help="random ones to decode of each store (default: 3)")
    add("--fix", action="store_true", help="where all frames are sound, write n_frames anew and add a key")
    add("--clip-length", type=int, default=16, help="stores of fewer frames are short (default: 16)")
    add("--json", type=output_file, help="file for the report")
    add("--csv", type=output_file, help="file for a row a store")
    add("--workers", type=int, default=available_cpus(), help="processes (default: one a core)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    for name, least in (("frames", 0), ("clip_length", 1), ("workers", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least {least}")
    length = arguments.clip_length
    try:
        files = label_files(arguments.dataset, arguments.labels)
        rows = listed_rows(arguments.dataset, files)
        found = verify_stores(
            rows,
            workers=min(arguments.workers, len(rows)),
            root=arguments.dataset / "jpg",
            random_frames=arguments.frames,
            full=arguments.full,
            fix=arguments.fix,
        )
        verdicts = list(tqdm(found, total=len(rows), unit="store", disable=None))
        show(verdicts, length)
        if arguments.json:
            atomic_write(arguments.json, json.dumps(report(verdicts, files, length), indent=1) + "\n")
        if arguments.csv:
            write_table(arguments.csv, verdicts, length)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 1 if any(verdict.wrong for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
