"""Command line of the training scripts: flags made from the fields of `Options`, and checks of their combinations."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.common.cli import OneLineParser, Values, boolean, choice, complete_by
from data.datasets import DatasetSpec
from network import list_networks
from train.options import GROUPS, Options
from train.run_record import read_run_json

LEGACY_SPELLINGS = {  # of the original code
    "--pretrained-3d": ["--pretrained_3d"],
    "--train-frame-interval": ["--train-frame-inteval"],
    "--val-frame-interval": ["--val-frame-inteval"],
}


def make_parser(spec: DatasetSpec, defaults: Options, prog: str | None = None) -> OneLineParser:
    """Return a parser with one flag per option, in the groups of `--help`."""
    parser = OneLineParser(
        prog=prog, description=f"Train a network on the {spec.name} dataset.", allow_abbrev=False
    )
    for option in dataclasses.fields(Options):
        name, parse, default = option.name, option.metadata["parse"], getattr(defaults, option.name)
        flag, text = flag_of(name, spec), option.metadata["help"]
        if name in GROUPS:
            group = parser.add_argument_group(GROUPS[name])
        if name == "variant":
            if not spec.variant_flag:
                continue
            default = spec.default_variant
            if spec.num_classes:
                parse, text = choice(*spec.num_classes), ", ".join(spec.num_classes)
        details: dict[str, Any] = {"dest": name, "default": default, "help": _help(text, default)}
        if isinstance(default, tuple):
            details.update(action=Values, nargs="+", metavar="N")
        elif parse is boolean:
            details.update(type=boolean, nargs="?", const=True, metavar="True|False")
            hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            group.add_argument(f"--no-{flag[2:]}", dest=name, action="store_false", **hidden)
        else:
            details.update(type=parse, metavar=flag.rsplit("-", maxsplit=1)[-1].upper())
        action = group.add_argument(flag, *LEGACY_SPELLINGS.get(flag, ()), **details)
        if allowed := list_networks() if name == "network" else getattr(parse, "allowed", None):
            complete_by(action, allowed)
    return parser


def flag_of(name: str, spec: DatasetSpec) -> str:
    """Return the flag of an option."""
    return f"--{spec.variant_flag if name == 'variant' else name.replace('_', '-')}"


def _help(text: str, default: Any) -> str:
    if default is None or default == "" or "(default" in text:
        return text
    value = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {value})"


def parse_options(
    spec: DatasetSpec, defaults: Options, argv: Sequence[str] | None = None, prog: str | None = None
) -> Options:
    """Return the options of a run. Invalid values exit with code 2 and a one-line error."""
    parser = make_parser(spec, defaults, prog)
    options = _parse(parser, argv)
    if options.config:
        with parser.one_line_errors():
            record = read_run_json(options.config, spec)
        recorded = _as_flags(record["options"], spec)
        defaults = _parse(make_parser(spec, Options(), f"{parser.prog}: {options.config}"), recorded)
        flags = sys.argv[1:] if argv is None else argv
        options = _parse(make_parser(spec, Options(), prog), [*recorded, *flags])
    if options.dataset is None:
        parser.error("the following arguments are required: --dataset")
    for conflict in _conflicts(options, defaults):
        parser.error(f"argument --{conflict}")
    return options


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> Options:
    return Options(**{"variant": "", **vars(parser.parse_args(argv))})


def _as_flags(recorded: Mapping[str, Any], spec: DatasetSpec) -> list[str]:
    """Return the options of a run's record as flags, which are checked like any, but for where it resumed."""
    left_out = {"resume_epoch", "config"} | (set() if spec.variant_flag else {"variant"})
    flags = []
    for name in (name for name in vars(Options()) if name not in left_out and recorded.get(name) is not None):
        value = recorded[name]
        if name == "max_missing" and isinstance(value, str):
            value += "=1"
        text = ",".join(map(str, value)) if isinstance(value, list) else value
        flags.append(f"{flag_of(name, spec)}={text}")
    return flags


def _conflicts(options: Options, defaults: Options) -> Iterator[str]:  # noqa: PLR0912  one branch per rule
    """Yield the flag and the problem of each combination that makes no sense."""
    steps = options.lr_steps
    has_weights = options.pretrained_3d is not None
    resumes = options.resume_epoch is not None
    has_sub_bn = options.sub_bn_size is not None
    if list(steps) != sorted(set(steps)):
        yield f"lr-steps: {' '.join(map(str, steps))} must be increasing"
    if options.lr_schedule == "cosine" and steps != defaults.lr_steps:
        yield "lr-steps: has no effect with --lr-schedule cosine"
    if options.lr_schedule == "cosine" and options.lr_factor != defaults.lr_factor:
        yield "lr-factor: has no effect with --lr-schedule cosine"
    if options.augment == "none" and options.augment_table != defaults.augment_table:
        yield "augment-table: has no effect with --augment none"
    if options.fine_tune and not has_weights and not isinstance(options.resume_epoch, int):
        yield "fine-tune: needs pretrained weights, --pretrained-3d FILE"
    if options.fine_tune_factor != defaults.fine_tune_factor and not options.fine_tune and not resumes:
        yield "fine-tune-factor: needs --fine-tune"
    if options.pretrained_format != "auto" and not has_weights:
        yield "pretrained-format: needs pretrained weights, --pretrained-3d FILE"
    if options.pool != "max" and not options.stem_pool:
        yield "pool: has no effect with --stem-pool False"
    if "/" in options.task_name:
        yield f"task-name: {options.task_name!r} is part of a folder name, without /"
    if options.long_cycle_period == "lr-stage" and not options.long_cycles:
        yield "long-cycle-period: lr-stage needs --long-cycles"
    if options.batch_scaling == "flops" and not (options.long_cycles or options.short_cycles):
        yield "batch-scaling: flops needs --long-cycles or --short-cycles"
    if options.compile and (options.activation_checkpointing or options.sync_batchnorm):
        # gradients of a compiled all-reduce are NaN on CPUs (torch 2.13)
        yield "compile: does not work with --activation-checkpointing or --sync-batchnorm"
    if options.freeze_batchnorm and has_sub_bn:
        yield "sub-bn-size: has no effect with --freeze-batchnorm"
    if options.freeze_batchnorm and options.precise_bn:
        yield "precise-bn: has no effect with --freeze-batchnorm"
    if options.freeze_batchnorm and options.sync_batchnorm:
        yield "sync-batchnorm: has no effect with --freeze-batchnorm"
    if options.sync_batchnorm and (has_sub_bn or options.accumulate > 1 or options.activation_checkpointing):
        yield "sync-batchnorm: does not work with --sub-bn-size, --accumulate or --activation-checkpointing"
    if isinstance(options.resume_epoch, int) and options.resume_epoch > options.end_epoch + 1:
        yield f"resume-epoch: {options.resume_epoch} is beyond the last epoch, --end-epoch {options.end_epoch}"
    if options.estimate and not options.dry_run:
        yield "estimate: needs --dry-run"
    if options.estimate and options.compile and options.assume_tflops is None:
        yield "estimate: does not time compiled steps; leave --compile out, or give --assume-tflops"
    for name in ("assume_tflops", "assume_cores", "assume_disk"):
        if getattr(options, name) is not None and not options.estimate:
            yield f"{name.replace('_', '-')}: needs --estimate"
    if options.resume_epoch == 1:
        yield "resume-epoch: 1 is the first epoch; leave it out to start there"
