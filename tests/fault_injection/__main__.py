"""python -m tests.fault_injection [--faults 500] [--minutes M] [--seed S] | --spell MINUTES

Do to training runs what flaky machines do, and judge what comes of it; or leave the training of the demo alone, where
nothing may grow. Ends with status 0 where every promise was kept.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fault_injection.chaos_run import Campaign
from tests.fault_injection.leak_test import spell
from tests.fault_injection.processes import SHARED_MEMORY, BrokenPromiseError

OWN_NAMESPACE = "SRTG_MACHINES_OWN_SHARED_MEMORY"
MEGABYTES = 16  # of shared memory, of which a run takes less than three


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault_injection", description=__doc__)
    parser.add_argument("--faults", type=int, default=500, help="how many (default: 500)")
    parser.add_argument("--minutes", type=float, default=120, help="fewer faults if this is over first")
    parser.add_argument("--epochs", type=int, default=8, help="of thirty steps, of a run (default: 8)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--spell", type=float, metavar="MINUTES", help="train as the demo does instead")
    arguments = parser.parse_args(argv)
    owns = _own_shared_memory()
    try:
        with tempfile.TemporaryDirectory() as place:
            if arguments.spell:
                print(spell(Path(place), arguments.spell, owns))
            else:
                _faults(Path(place), arguments, owns)
    except (BrokenPromiseError, AssertionError, OSError) as error:
        print(f"NOT KEPT: {error}", file=sys.stderr)
        return 1
    return 0


def _own_shared_memory() -> bool:
    """Go on in a mount namespace with a small /dev/shm of its own, which ends with it, where that is allowed."""
    if OWN_NAMESPACE in os.environ:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(SHARED_MEMORY)]
        subprocess.run(mount, check=True)
        return True
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode == 0:
        command = [unshare, "-m", "--propagation", "private", sys.executable, "-m", "tests.fault_injection"]
        os.execve(unshare, [*command, *sys.argv[1:]], os.environ | {OWN_NAMESPACE: "1"})
    print("no right to mount: shared memory is not filled", file=sys.stderr)
    return False


def _faults(place: Path, arguments: argparse.Namespace, owns_shared_memory: bool) -> None:
    started = time.monotonic()

    def go_on() -> bool:
        enough = campaign.faults.total() >= arguments.faults
        return not enough and time.monotonic() - started < 60 * arguments.minutes

    campaign = Campaign(
        place, random.Random(arguments.seed), arguments.epochs, owns_shared_memory=owns_shared_memory
    )
    while go_on():
        campaign.disturb(go_on)
        if go_on() and campaign.runs % 4 == 3:
            campaign.damage(go_on)
        minutes = (time.monotonic() - started) / 60
        print(
            f"{campaign.faults.total()} faults, {campaign.runs} runs started {campaign.starts} times, "
            f"{campaign.stopped} of these ended with one line and were gone on with, {minutes:.0f} minutes: "
            f"all promises kept; {dict(campaign.faults.most_common())}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
