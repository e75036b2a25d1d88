"""The flags of training: spellings, and complaints. Which there are follows from the fields of `Options`."""

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from data.common.cli import OneLineParser, Values, boolean, choice
from data.datasets import DatasetSpec
from train.options import Options

LEGACY_SPELLINGS = {
    "--pretrained-3d": ["--pretrained_3d"],
    "--train-frame-interval": ["--train-frame-inteval"],
    "--val-frame-interval": ["--val-frame-inteval"],
}


def make_parser(spec: DatasetSpec, defaults: Options, prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description=f"Train a network on {spec.name}.", allow_abbrev=False)
    for option in dataclasses.fields(Options):
        name = option.name
        if name == "variant" and not spec.variant_flag:
            continue
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
            off = {"action": "store_false", "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            parser.add_argument("--no-" + flag[2:], dest=name, **off)
        else:
            details.update(type=option.metadata["parse"], metavar=name.rsplit("_", maxsplit=1)[-1].upper())
        parser.add_argument(flag, *LEGACY_SPELLINGS.get(flag, ()), **details)
    return parser


def _help(option: dataclasses.Field, default: Any) -> str:
    text = option.metadata["help"].replace("%", "%%")
    if default is None or default == "" or "(default" in text:
        return text
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})"


def parse_options(
    spec: DatasetSpec, defaults: Options, argv: Sequence[str] | None = None, prog: str | None = None
) -> Options:
    """The options of a run. A bad value ends the process with status 2 and one line."""
    parser = make_parser(spec, defaults, prog)
    options = Options(**{"variant": "", **vars(parser.parse_args(argv))})
    complaint = _contradiction(options, defaults)
    if complaint:
        parser.error(complaint)
    return options


def _contradiction(options: Options, defaults: Options) -> str | None:
    """What single values cannot show."""
    cycles = options.long_cycles or options.short_cycles
    complaints = {
        "the following arguments are required: --dataset": options.dataset is None,
        f"argument --lr-steps: {' '.join(map(str, options.lr_steps))} must rise": any(
            later <= earlier for earlier, later in itertools.pairwise(options.lr_steps)
        ),
        "argument --fine-tune: needs the weights to start from, --pretrained-3d FILE": (
            options.fine_tune and options.pretrained_3d is None and options.resume_epoch in (None, "auto")
        ),
        "argument --fine-tune-factor: needs --fine-tune": (
            options.fine_tune_factor != defaults.fine_tune_factor
            and not options.fine_tune
            and options.resume_epoch is None
        ),
        "argument --lr-steps: has no effect with --lr-schedule cosine": (
            options.lr_schedule == "cosine" and options.lr_steps != defaults.lr_steps
        ),
        "argument --lr-factor: has no effect with --lr-schedule cosine": (
            options.lr_schedule == "cosine" and options.lr_factor != defaults.lr_factor
        ),
        "argument --pretrained-format: needs the weights to start from, --pretrained-3d FILE": (
            options.pretrained_format != "auto" and options.pretrained_3d is None
        ),
        f"argument --task-name: {options.task_name!r} must be part of a folder's name, without /": (
            "/" in options.task_name or "\0" in options.task_name
        ),
        "argument --long-cycle-period: stage needs --long-cycles": (
            options.long_cycle_period == "stage" and not options.long_cycles
        ),
        "argument --batch-scaling: flops needs --long-cycles or --short-cycles": (
            options.batch_scaling == "flops" and not cycles
        ),
        "argument --compile: does not work with --activation-checkpointing, leave one of them out": (
            options.compile and options.activation_checkpointing
        ),
        "argument --sub-bn-size: there is nothing to group with --freeze-batchnorm": (
            options.sub_bn_size is not None and options.freeze_batchnorm
        ),
        "argument --sync-batchnorm: works without --sub-bn-size, --accumulate and --activation-checkpointing": (
            options.sync_batchnorm
            and (
                options.sub_bn_size is not None or options.accumulate > 1 or options.activation_checkpointing
            )
        ),
        "argument --sync-batchnorm: there is nothing to synchronise with --freeze-batchnorm": (
            options.sync_batchnorm and options.freeze_batchnorm
        ),
        "argument --resume-epoch: 1 is the first epoch, there is nothing to resume from; leave it out": (
            options.resume_epoch == 1
        ),
    }
    return next((complaint for complaint, holds in complaints.items() if holds), None)
