"""Command line of the training scripts: flags made from the fields of `Options`, and checks of their combinations."""

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from data.common.cli import OneLineParser, Values, boolean, choice
from data.datasets import DatasetSpec
from train.options import GROUPS, Options

LEGACY_SPELLINGS = {  # of the original code
    "--pretrained-3d": ["--pretrained_3d"],
    "--train-frame-interval": ["--train-frame-inteval"],
    "--val-frame-interval": ["--val-frame-inteval"],
}


def make_parser(spec: DatasetSpec, defaults: Options, prog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser with one flag per option, in the groups of `--help`."""
    parser = OneLineParser(
        prog=prog, description=f"Train a network on the {spec.name} dataset.", allow_abbrev=False
    )
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for option in dataclasses.fields(Options):
        name = option.name
        if name == "variant" and not spec.variant_flag:
            continue
        group = groups[option.metadata["group"]]
        flag = "--" + (spec.variant_flag if name == "variant" else name.replace("_", "-"))
        default = getattr(defaults, name)
        details: dict[str, Any] = {"dest": name, "default": default, "help": _help(option, default)}
        if name == "variant":
            details.update(type=choice(*spec.num_classes), default=spec.default_variant)
            details["help"] = f"{', '.join(spec.num_classes)} (default: {spec.default_variant})"
        elif option.metadata["many"]:
            details.update(action=Values, nargs="+", metavar="N")
        elif option.metadata["parse"] is boolean:
            details.update(type=boolean, nargs="?", const=True, metavar="True|False")
            group.add_argument(
                "--no-" + flag[2:],
                dest=name,
                action="store_false",
                default=argparse.SUPPRESS,
                help=argparse.SUPPRESS,
            )
        else:
            details.update(type=option.metadata["parse"], metavar=name.rsplit("_", maxsplit=1)[-1].upper())
        group.add_argument(flag, *LEGACY_SPELLINGS.get(flag, ()), **details)
    return parser


def _help(option: dataclasses.Field, default: Any) -> str:
    text = option.metadata["help"].replace("%", "%%")
    if default is None or default == "" or "(default" in text:
        return text
    value = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {value})"


def parse_options(
    spec: DatasetSpec, defaults: Options, argv: Sequence[str] | None = None, prog: str | None = None
) -> Options:
    """Return the options of a run. Invalid values exit with code 2 and a one-line error."""
    parser = make_parser(spec, defaults, prog)
    options = Options(**{"variant": "", **vars(parser.parse_args(argv))})
    if options.dataset is None:
        parser.error("the following arguments are required: --dataset")
    for flag, problem, found in _conflicts(options, defaults):
        if found:
            parser.error(f"argument --{flag}: {problem}")
    return options


def _conflicts(options: Options, defaults: Options) -> list[tuple[str, str, bool]]:
    """Return (flag, problem, whether it applies) for every combination that makes no sense."""

    def is_set(name: str) -> bool:
        return getattr(options, name) != getattr(defaults, name)

    steps, task = options.lr_steps, options.task_name
    increasing = all(earlier < later for earlier, later in itertools.pairwise(steps))
    cosine = options.lr_schedule == "cosine"
    no_cosine = "has no effect with --lr-schedule cosine"
    no_weights = options.pretrained_3d is None
    needs_weights = "needs pretrained weights, --pretrained-3d FILE"
    resumes_epoch = isinstance(options.resume_epoch, int)
    factor_only = is_set("fine_tune_factor") and not options.fine_tune and options.resume_epoch is None
    lr_stage = options.long_cycle_period == "lr-stage"
    by_flops = options.batch_scaling == "flops"
    cycles = options.long_cycles or options.short_cycles
    needs_cycles = "flops needs --long-cycles or --short-cycles"
    checkpointing = options.activation_checkpointing
    frozen, sync = options.freeze_batchnorm, options.sync_batchnorm
    sub_bn = options.sub_bn_size is not None
    unsynced = sub_bn or options.accumulate > 1 or checkpointing
    no_sync = "does not work with --sub-bn-size, --accumulate or --activation-checkpointing"
    return [
        ("lr-steps", f"{' '.join(map(str, steps))} must be increasing", not increasing),
        ("lr-steps", no_cosine, cosine and is_set("lr_steps")),
        ("lr-factor", no_cosine, cosine and is_set("lr_factor")),
        ("fine-tune", needs_weights, options.fine_tune and no_weights and not resumes_epoch),
        ("fine-tune-factor", "needs --fine-tune", factor_only),
        ("pretrained-format", needs_weights, options.pretrained_format != "auto" and no_weights),
        ("task-name", f"{task!r} is part of a folder name, without /", "/" in task or "\0" in task),
        ("long-cycle-period", "lr-stage needs --long-cycles", lr_stage and not options.long_cycles),
        ("batch-scaling", needs_cycles, by_flops and not cycles),
        ("compile", "does not work with --activation-checkpointing", options.compile and checkpointing),
        ("sub-bn-size", "has no effect with --freeze-batchnorm", sub_bn and frozen),
        ("sync-batchnorm", no_sync, sync and unsynced),
        ("sync-batchnorm", "has no effect with --freeze-batchnorm", sync and frozen),
        ("resume-epoch", "1 is the first epoch; leave it out to start there", options.resume_epoch == 1),
    ]
