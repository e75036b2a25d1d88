"""Entry point of the training scripts: parse options, train, return the exit code."""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import coloredlogs

from data.common.cli import LONGEST_MESSAGE, sanitize
from data.datasets import DatasetSpec
from train.cli import parse_options
from train.engine import TrainingError
from train.options import Options
from train.parallel.distributed import DistContext, RemoteRankError, init_distributed
from train.plan import make_plan
from train.run import Run
from train.run_folder import LOG_FORMAT, LogFile
from train.run_record import describe_changes, read_run_json

logger = logging.getLogger(__name__)


def main(
    spec: DatasetSpec, defaults: Options, argv: Sequence[str] | None = None, prog: str | None = None
) -> int:
    """Train and return the exit code: 0, 2 for invalid input and 1 for a run that cannot continue, with one line each,
    128 + n after signal n.
    """
    options = parse_options(spec, defaults, argv, prog)
    prog = prog or Path(sys.argv[0]).name
    dist = DistContext()
    try:
        dist = init_distributed()
        exit_code = _train(spec, options, dist)
        dist.shutdown()
        return exit_code
    except KeyboardInterrupt:
        print(f"{prog}: stopped before the first step", file=sys.stderr)
        return 130
    except (ValueError, LookupError, OSError, TrainingError, RemoteRankError) as error:
        if options.debug_mode:
            raise
        rank = f"rank {dist.rank}/{dist.world_size}: " if dist.world_size > 1 else ""
        print(f"{prog}: error: {rank}{sanitize(error, LONGEST_MESSAGE)}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError | RemoteRankError) else 2


def _train(spec: DatasetSpec, options: Options, dist: DistContext) -> int:
    level = "DEBUG" if options.debug_mode else "INFO" if dist.is_main_process else "ERROR"
    coloredlogs.install(level=level, fmt=LOG_FORMAT)
    logging.getLogger("filelock").setLevel("INFO")
    logging.raiseExceptions = False  # a log file on a full disk does not print tracebacks
    log_file = LogFile()
    logging.getLogger().addHandler(log_file)
    try:
        with dist.translate_dist_errors():
            plan = make_plan(spec, options, dist)
            if options.config and dist.is_main_process:
                dataset = {"name": spec.name, **plan.dataset.summary()}
                for change in describe_changes(read_run_json(options.config, spec), plan.options, dataset):
                    logger.warning("%s: %s", options.config, sanitize(change))
            run = Run(plan, dist)
            if not options.dry_run:
                return run.train(log_file)
        if dist.is_main_process:
            print(json.dumps(run.describe(), indent=1))
        return 0
    except Exception as error:
        log_file.write_error(error)
        raise
    finally:
        logging.getLogger().removeHandler(log_file)
        log_file.close()
