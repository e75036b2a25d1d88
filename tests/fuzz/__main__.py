"""A campaign of hostile input: files from strangers through all that reads files, and what careless users type.

`python -m tests.fuzz --minutes 10` is part of `make soak`. `--seed S --first N --inputs 1` repeats one input.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tests.fuzz import checkpoints, stores, videos
from tests.fuzz import cli_flags as careless
from tests.fuzz import csv_files as tables
from tests.fuzz.sandbox import Numbered, run_confined
from tests.fuzz.verdict import Maker, Outcome, Verdict

# how often each comes
MAKERS: dict[Maker, int] = {
    stores.changed_bytes: 30,
    stores.hostile_rows: 20,
    stores.hostile_jpegs: 10,
    stores.other_schema: 6,
    stores.frames_in_disorder: 3,
    stores.hostile_count: 8,
    stores.no_database: 4,
    stores.pages_in_circles: 1,
    checkpoints.changed_bytes: 15,
    checkpoints.changed_pickle: 25,
    checkpoints.code: 6,
    checkpoints.zip_bomb: 1,
    checkpoints.wrong_content: 20,
    checkpoints.odd_weights: 10,
    checkpoints.safetensors_file: 8,
    tables.changed_bytes: 25,
    tables.hostile_rows: 25,
    tables.climbing_names: 8,
    tables.quote_left_open: 3,
    tables.other_encoding: 3,
    tables.no_label_file: 4,
    tables.hostile_dictionary: 12,
    tables.results_to_plot: 6,
    videos.changed_bytes: 3,
    videos.odd_names: 1,
    videos.playlist: 1,
    videos.no_video: 1,
    careless.one_flag: 4,
    careless.odd_set: 1,
    careless.tool_flag: 3,
}
# these take seconds; a campaign begins with them
ONCE: list[Maker] = [stores.a_gigabyte, tables.a_million_rows]
SLOW = {maker for maker in MAKERS if maker.__module__ in (careless.__name__, videos.__name__)}
ROUND = 2000  # inputs from line to line
MOST_SHOWN = 50


def numbered(seed: int, first: int, count: int, slow: bool = True) -> list[Numbered]:
    """(number, name, maker) of inputs: which maker makes one is a function of the seed and its number.

    Without `slow` ones, which start programs or train, others take their place.
    """
    makers = {maker: share for maker, share in MAKERS.items() if slow or maker not in SLOW}
    chosen = []
    for number in range(first, first + count):
        (maker,) = random.Random(f"{seed} kind {number}").choices(list(makers), makers.values())
        chosen.append((number, maker.__name__, maker))
    return chosen


class Tally:
    """Counts of what was tried, by kind."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[Verdict]] = {}
        self.unclear: list[str] = []

    def add(self, number: int, outcome: Outcome) -> None:
        self.counts.setdefault(outcome.kind, Counter())[outcome.verdict] += 1
        if outcome.verdict is Verdict.UNCLEAR:
            self.unclear.append(f"input {number}, {outcome.kind}: {outcome.detail}")

    def total(self) -> int:
        return sum(self.counts.values(), Counter()).total()

    def __str__(self) -> str:
        rows = [*sorted(self.counts.items()), ("all", sum(self.counts.values(), Counter()))]
        lines = [f"{'':40} {'tried':>8} {'refused':>8} {'accepted':>8} {'unclear':>8}"]
        for kind, counts in rows:
            numbers = (
                counts.total(),
                counts[Verdict.REFUSED],
                counts[Verdict.ACCEPTED],
                counts[Verdict.UNCLEAR],
            )
            lines.append(f"{kind:40} " + " ".join(f"{number:8}" for number in numbers))
        return "\n".join(lines)


def attack(
    seed: int, first: int, count: int, folder: Path, slow: bool = True
) -> Iterator[tuple[int, Outcome]]:
    """(number, outcome) of each input, tried in `folder`."""
    return run_confined(numbered(seed, first, count, slow), folder, seed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, help="how many (default: as many as --minutes allow)")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    started, tally, done = time.monotonic(), Tally(), 0
    with tempfile.TemporaryDirectory() as place:
        if arguments.first == 0:
            long = [(-1 - index, make.__name__, make) for index, make in enumerate(ONCE)]
            for number, outcome in run_confined(long, Path(place) / "attack", arguments.seed):
                tally.add(number, outcome)
        while (
            done < arguments.inputs
            if arguments.inputs
            else time.monotonic() - started < 60 * arguments.minutes
        ):
            count = min(ROUND, (arguments.inputs or sys.maxsize) - done)
            for number, outcome in attack(
                arguments.seed, arguments.first + done, count, Path(place) / "attack"
            ):
                tally.add(number, outcome)
            done += count
            print(
                f"{done} inputs, {time.monotonic() - started:.0f} s, {len(tally.unclear)} unclear", flush=True
            )
    print(tally)
    for complaint in tally.unclear[:MOST_SHOWN]:
        print(complaint)
    return 1 if tally.unclear else 0


if __name__ == "__main__":
    sys.exit(main())
