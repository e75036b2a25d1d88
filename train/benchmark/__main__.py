"""python -m train.benchmark [--precisions fp32 bf16] [--layouts channels-last] [--modes eager] [flags of training]
python -m train.benchmark --time-to-accuracy [flags of training]

How fast steps are, at each shape of the schedule: first on clips in the device's memory, every combination asked for,
then through the loader, with the share of time spent waiting for it. `--precision`, `--channels-last` and `--compile`
choose one combination for both; `--precisions`, `--layouts` and `--modes` choose those of the first.

TFLOP/s are those of the network's convolutions, recurrent cells and linear layers, 2 per multiply-add, the backward
pass as two forward ones; the peak is that of a large matrix product, measured here. Without `--dataset` the loader
reads motions rendered for the occasion. `--time-to-accuracy` trains one network on motions in memory with each of
multigrid's cycles to the same accuracy. All flags of `python -m train` say what is measured, such as `--network`,
`--batch-size` and `--long-cycles`.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data.batch_sampler import BatchShape
from data.common.cli import OneLineParser, output_file, positive
from data.datasets import CUSTOM
from data.synthetic.shapes import MOTIONS, write_shapes_dataset
from train.benchmark.step_time import (
    LoadingTime,
    StepConfig,
    StepTime,
    peak_matmul_flops,
    time_loading,
    time_steps,
)
from train.benchmark.time_to_accuracy import VARIANTS, Lap, Motions, Result, run_variant, variant_options
from train.builders import make_schedule
from train.cli import parse_options
from train.dry_run import flops_of
from train.engine import StepOutOfMemoryError, TrainingError
from train.options import PRECISIONS, Options, resolve, share
from train.parallel.devices import NoCompilerError, choose_gpus

CHECKPOINT_FORMATS = {"contiguous": False, "channels-last": True}
MODES = {"eager": False, "compiled": True}
NUM_CLASSES = 400

# small enough for two cores; every flag can be given
SMALL = Options(
    dataset=Path("rendered"),
    network="r3d_18",
    clip_length=8,
    clip_size=64,
    short_side=64,
    batch_size=8,
    augment="none",
    flip=False,
    lr_base=0.01,
)
RACE = replace(
    SMALL,
    clip_length=16,
    clip_size=48,
    batch_size=4,
    optimizer="adamw",
    lr_base=3e-4,
    lr_schedule="cosine",
    warmup_epochs=0.25,
    clip_grad_norm=5.0,
)
# flags without effect: a race has clips of its own and tries all cycles
NOT_OF_STEPS = ("race_clips", "race_epochs", "race_target", "race_variants")
NOT_OF_RACE = ("precisions", "layouts", "modes", "loader", "loader_clips")
NOT_OF_RACES_TRAINING = (
    *(
        "dataset",
        "labels",
        "num_classes",
        "workers",
        "short_side",
        "train_frame_interval",
        "val_frame_interval",
    ),
    *("frame_sampling", "augment", "flip", "end_epoch", "long_cycles", "short_cycles", "long_cycle_period"),
)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m train.benchmark",
        description="The speed of training steps. Flags of `python -m train` say what is measured.",
        allow_abbrev=False,
    )
    for name, allowed, flag, remark in (
        ("precisions", PRECISIONS, "--precision", ", without fp16 on a CPU"),
        ("layouts", tuple(CHECKPOINT_FORMATS), "--channels-last", ""),
        ("modes", tuple(MODES), "--compile", "; eager on a CPU"),
    ):
        text = f"of steps, from {' '.join(allowed)} (default: as {flag} says, else all{remark})"
        parser.add_argument(f"--{name}", nargs="+", choices=allowed, help=text)
    for name, default, text in (
        ("warmup", 2, "steps before those that count"),
        ("repeats", 5, "steps of a shape that count"),
        ("loader-clips", 512, "read through the loader"),
        ("race-clips", 2048, "of the race, a motion each"),
        ("race-epochs", 2, "of the race without cycles; half as many more with them"),
    ):
        parser.add_argument(f"--{name}", type=positive, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--no-loader", dest="loader", action="store_false", help="only clips in memory")
    parser.add_argument(
        "--time-to-accuracy", action="store_true", help="train with each of multigrid's cycles"
    )
    parser.add_argument(
        "--race-target", type=share, default=0.8, help="validation top-1 that ends it (default: 0.8)"
    )
    parser.add_argument(
        "--race-variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="(default: all)"
    )
    parser.add_argument("--json", type=output_file, help="also write what was measured to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    options = parse_options(CUSTOM, RACE if arguments.time_to_accuracy else SMALL, rest, parser.prog)
    try:
        gpus = min(1, choose_gpus(options.gpus))
    except ValueError as error:
        parser.error(str(error))
    if unused := without_effect(parser, arguments, options):
        parser.error(unused)
    asked = combinations(options, arguments, gpus)
    options = resolve(CUSTOM, options, gpus)
    if options.activation_checkpointing and any(combination.compiled for combination in asked):
        parser.error(
            "argument --activation-checkpointing: does not work with --modes compiled; --modes eager does"
        )
    device = torch.cuda.get_device_name() if options.gpus else f"CPU, {torch.get_num_threads()} threads"
    print(f"{device}, torch {torch.__version__}, {options.network}")
    content: dict[str, Any] = {"device": device, "torch": torch.__version__, "options": options.plain()}
    try:
        if arguments.time_to_accuracy:
            content |= _race(options, arguments)
        else:
            content |= {"steps": _steps(options, asked, arguments)}
            content |= {"loading": _loading(options, arguments) if arguments.loader else []}
        if arguments.json:
            arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    except (ValueError, LookupError, OSError, TrainingError) as error:
        parser.error(str(error))
    return 0


def without_effect(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, options: Options
) -> str | None:
    """A complaint about a flag that was given, and that the race, or else the table of steps, takes no notice of."""
    race = arguments.time_to_accuracy
    given = [
        name
        for name in (NOT_OF_RACE if race else NOT_OF_STEPS)
        if getattr(arguments, name) != parser.get_default(name)
    ]
    given += [
        name for name in NOT_OF_RACES_TRAINING if race and getattr(options, name) != getattr(RACE, name)
    ]
    if not given:
        return None
    flag = "no-loader" if given[0] == "loader" else given[0].replace("_", "-")
    return f"argument --{flag}: has no effect {'with' if race else 'without'} --time-to-accuracy"


def _shapes(options: Options) -> list[BatchShape]:
    """Those of the schedule, coarse to fine."""
    schedule = make_schedule(options, 10**6, flops_of(options, NUM_CLASSES))
    return list(dict.fromkeys(shape for shapes in schedule.phases for shape in shapes))


def combinations(options: Options, arguments: argparse.Namespace, gpus: int) -> list[StepConfig]:
    """Those asked for by lists, else by the flags of training, else all that may pay on the device."""
    chosen = {
        "precisions": options.precision,
        "layouts": {None: None, False: "contiguous", True: "channels-last"}[options.channels_last],
        "modes": "compiled" if options.compile else None,
    }
    worthwhile = {
        "precisions": PRECISIONS if gpus else ("fp32", "bf16"),
        "layouts": CHECKPOINT_FORMATS,
        "modes": MODES if gpus else ("eager",),
    }
    lists = [
        getattr(arguments, name) or ([choice] if choice else worthwhile[name])
        for name, choice in chosen.items()
    ]
    return [
        StepConfig(precision, CHECKPOINT_FORMATS[layout], MODES[mode])
        for precision, layout, mode in itertools.product(*lists)
    ]


def _steps(
    options: Options, combinations: Sequence[StepConfig], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    device = torch.device("cuda" if options.gpus else "cpu")
    print("\nsteps on clips in memory")
    print(f"{'':28} {'batch':>16} {'ms':>9} {'clips/s':>9} {'TFLOP/s':>8} {'of peak':>8} {'GB':>6}")
    sizes = {"num_classes": NUM_CLASSES, "warmup": arguments.warmup, "repeats": arguments.repeats}
    peaks = {name: peak_matmul_flops(device, name) for name in {entry.precision for entry in combinations}}
    rows = []
    for combination in combinations:
        peak = peaks[combination.precision]
        try:
            for row in time_steps(options, combination, _shapes(options), **sizes):
                print(_describe_step(combination, row, peak), flush=True)
                rows.append({**combination._asdict(), **_plain(row), "peak_teraflops": peak})
        except (NoCompilerError, StepOutOfMemoryError) as error:
            print(f"{combination!s:28} left out: {error}", flush=True)
    return rows


def _describe_step(combination: StepConfig, row: StepTime, peak: float) -> str:
    memory = "" if row.gigabytes is None else f"{row.gigabytes:6.1f}"
    line = f"{combination!s:28} {row.shape!s:>16} {1000 * row.seconds:9.1f} {row.clips_per_second:9.1f}"
    return f"{line} {row.teraflops:8.3f} {row.teraflops / peak:8.1%} {memory}".rstrip()


def _loading(options: Options, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        # nothing is saved, and no run that has been elsewhere is in the way
        options = replace(options, model_dir=Path(folder) / "results", resume_epoch=None)
        if options.dataset == SMALL.dataset:
            root = Path(folder) / "motions"
            per_class = max(5, -(-arguments.loader_clips * 5 // (4 * len(MOTIONS))))  # one for validation
            length = options.val_frame_interval * options.clip_length
            write_shapes_dataset(root, per_class, length, options.short_side, options.random_seed)
            options = replace(options, dataset=root)
        rows = time_loading(options, arguments.loader_clips)
    print(f"\nsteps through the loader, {options.workers} workers, in {options.precision}")
    print(f"{'batch':>16} {'steps':>6} {'ms':>9} {'clips/s':>9} {'waiting':>8}")
    for row in rows:
        print(_describe_loading(row))
    total = sum(row.seconds for row in rows)
    print(f"share of time waiting for data: {sum(row.waited for row in rows) / total:.1%}")
    return [_plain(row) for row in rows]


def _describe_loading(row: LoadingTime) -> str:
    milliseconds = 1000 * row.seconds / row.steps
    rate = row.steps * row.shape.batch / row.seconds
    waiting = row.waited / row.seconds
    return f"{row.shape!s:>16} {row.steps:6} {milliseconds:9.1f} {rate:9.1f} {waiting:8.1%}"


def _race(options: Options, arguments: argparse.Namespace) -> dict[str, Any]:
    length, size, seed = options.clip_length, options.clip_size, options.random_seed
    train = Motions(arguments.race_clips, length, size, seed, moves=True)
    val = Motions(max(80, arguments.race_clips // 10), length, size, seed + 1, moves=False)
    print(f"{len(train)} motions to train on, {len(val)} to validate, until top-1 {arguments.race_target}\n")
    print(f"{'cycles':12} {'epochs':>7} {'steps':>7} {'clips':>8} {'seconds':>9} {'top-1':>6} {'gain':>6}")
    results: list[Result] = []
    for variant in arguments.race_variants:
        chosen = variant_options(options, variant, arguments.race_epochs)
        results.append(run_variant(variant, chosen, train, val, arguments.race_target, _show_lap))
        print(_describe_result(results[-1], results[0]), flush=True)
    costs = _shape_costs(options, arguments)
    return {
        "race": [result._asdict() | {"laps": [_plain(lap) for lap in result.laps]} for result in results],
        **costs,
    }


def _show_lap(variant: str, lap: Lap) -> None:
    seconds = f"{lap.seconds:.1f} s"
    print(
        f"  {variant} epoch {lap.epoch}: {seconds}, {lap.steps} steps, top-1 {lap.top1:.3f}", file=sys.stderr
    )


def _describe_result(result: Result, first: Result) -> str:
    last = result.laps[-1]
    epochs = f"{last.epoch}/{result.epochs}"
    line = (
        f"{result.variant:12} {epochs:>7} {last.steps:7} {last.clips:8} {last.seconds:9.1f} {last.top1:6.3f}"
    )
    if not result.reached:
        return f"{line}   not reached"
    return f"{line} {first.laps[-1].seconds / last.seconds:6.2f}" if first.reached else line


def _shape_costs(options: Options, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a step costs at each shape of both cycles, to one at the base shape: measured, and by operations."""
    cycled = replace(options, long_cycles=True, short_cycles=True)
    combination = StepConfig(options.precision, bool(options.channels_last), options.compile)
    sizes = {"num_classes": len(MOTIONS), "warmup": arguments.warmup, "repeats": arguments.repeats}
    rows = list(time_steps(cycled, combination, _shapes(cycled), **sizes))
    shape = BatchShape(options.batch_size, options.clip_length, options.clip_size)
    base = next(row for row in rows if row.shape == shape)
    print("\ncost of a step to that of the base shape; equal in theory")
    print(f"{'batch':>16} {'ms':>9} {'time':>6} {'operations':>11}")
    for row in rows:
        time_ratio, ratio = row.seconds / base.seconds, _operations(row) / _operations(base)
        print(f"{row.shape!s:>16} {1000 * row.seconds:9.1f} {time_ratio:6.2f} {ratio:11.2f}")
    return {"shapes": [_plain(row) for row in rows]}


def _operations(row: StepTime) -> float:
    return row.teraflops * row.seconds


def _plain(row: StepTime | LoadingTime | Lap) -> dict[str, Any]:
    return row._asdict()


if __name__ == "__main__":
    sys.exit(main())
