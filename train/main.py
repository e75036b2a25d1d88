"""What the training commands call: options from the command line, a run, and the status that it ends with."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import coloredlogs

from data.common.cli import LONGEST_MESSAGE, sanitize
from data.datasets import DatasetSpec
from train.cli import parse_options
from train.engine import TrainingError
from train.options import Options
from train.parallel.distributed import DistContext, RemoteRankError, join
from train.run import Run
from train.run_folder import kept_log


def main(
    spec: DatasetSpec, defaults: Options, argv: Sequence[str] | None = None, prog: str | None = None
) -> int:
    """Train as the command line says. Bad input ends with status 2 and one line, a run that cannot go on with 1."""
    options = parse_options(spec, defaults, argv, prog)
    prog = prog or Path(sys.argv[0]).name
    dist = DistContext()
    try:
        dist = join()
        status = _run(spec, options, dist)
        dist.leave()
        return status
    except KeyboardInterrupt:
        print(f"{prog}: stopped before the first step", file=sys.stderr)
        return 130
    except (ValueError, LookupError, OSError, TrainingError, RemoteRankError) as error:
        message = sanitize(error, LONGEST_MESSAGE)
        is_news = dist.report(message)
        if options.debug_mode:
            raise
        if is_news:
            place = f"process {dist.rank} of {dist.size}: " if dist.size > 1 else ""
            print(f"{prog}: error: {place}{message}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError | RemoteRankError) else 2
    except Exception as error:
        dist.report(f"{type(error).__name__}: {error}")
        raise


def _run(spec: DatasetSpec, options: Options, dist: DistContext) -> int:
    level = "DEBUG" if options.debug_mode else "INFO" if dist.is_main_process else "ERROR"
    coloredlogs.install(level=level, fmt="%(asctime)s %(levelname)s %(message)s")
    with kept_log() as early, dist.explained():
        run = Run(spec, options, dist)
        if not options.dry_run:
            return run.train(early)
        if dist.is_main_process:
            print(json.dumps(run.plan(), indent=1))
        return 0
