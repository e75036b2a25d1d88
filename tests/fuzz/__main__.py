"""python -m tests.fuzz [--inputs 10000 | --minutes M] [--seed S] [--first N]

Run the commands on untrusted input: mutated and malicious checkpoints, frame stores, CSV and JSON files and videos, and
wrong command lines. Each input must end in success or in one clear line. Input N of a seed is always the same:
`--seed S --first N --inputs 1` repeats it. Exits with 1 if the outcome of any input was unclear.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.fuzz.checkpoints import checkpoint
from tests.fuzz.fuzzer import Tally

CHUNK = 1000  # inputs from one progress line to the next
MAX_SHOWN = 50  # unclear outcomes that are printed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, help="number of inputs (default: 10000, or as --minutes allow)")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--seed", type=int, default=1, help="of all inputs (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: 0)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    inputs = args.inputs or (sys.maxsize if args.minutes else 10_000)
    started, tally, done = time.monotonic(), Tally(), 0
    checkpoint()  # cached before the sandbox's processes are forked
    with tempfile.TemporaryDirectory() as folder:
        while done < inputs and time.monotonic() - started < 60 * (args.minutes or float("inf")):
            count = min(CHUNK, inputs - done)
            tally.fuzz(args.seed, args.first + done, count, Path(folder) / "sandbox")
            done += count
            seconds = time.monotonic() - started
            print(
                f"{done} inputs, {seconds:.0f} s, {len(tally.unclear)} unclear, seed {args.seed}", flush=True
            )
    print(tally)
    print(*tally.unclear[:MAX_SHOWN], sep="\n")
    return 1 if tally.unclear else 0


if __name__ == "__main__":
    sys.exit(main())
