"""python -m tests.fault_injection [--faults 500] [--minutes M] [--seed S] | --leak-minutes M

Inject faults of machines (killed workers, full and stalling disks, damaged files, signals, clocks) into training runs
and check what docs/reliability.md promises; or train as the demo does and check that nothing grows. Exits with 1 if
a promise was broken.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fault_injection.chaos_run import ChaosRuns
from tests.fault_injection.leak_test import run_leak_test
from tests.fault_injection.process import BrokenPromiseError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fault_injection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--faults", type=int, default=500, help="number of faults (default: 500)")
    parser.add_argument("--minutes", type=float, default=120, help="stop after this time (default: 120)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of a run, 30 steps each (default: 8)")
    parser.add_argument("--seed", type=int, default=1, help="of the kinds and moments of faults (default: 1)")
    parser.add_argument("--leak-minutes", type=float, help="check for leaks instead, for this time")
    args = parser.parse_args(argv)
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            if args.leak_minutes:
                print(run_leak_test(Path(folder), args.leak_minutes))
                return 0
            chaos = ChaosRuns(Path(folder), random.Random(args.seed), args.epochs)

            def keep_injecting() -> bool:
                return chaos.injected.total() < args.faults and time.monotonic() - started < 60 * args.minutes

            while keep_injecting():
                run = chaos.run_damaged if chaos.runs % 3 == 2 else chaos.run_disturbed
                run(keep_injecting)
                minutes = (time.monotonic() - started) / 60
                print(f"{minutes:.0f} minutes, seed {args.seed}, all promises kept: {chaos}", flush=True)
    except (BrokenPromiseError, AssertionError) as error:
        print(f"broken promise (seed {args.seed}): {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
