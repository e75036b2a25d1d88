"""python -m train.benchmark [--network NAME] [--batch-size 32] [--precision fp16] [other flags of python -m train]
python -m train.benchmark --time-to-accuracy [--cycles none short] [other flags of python -m train]

The first form times training steps at each batch shape on random clips in device memory, in each precision and memory
format unless `--precision` and `--channels-last` choose one, with `--compile` eager and compiled. FLOPs are those of
convolutions, recurrent cells and linear layers, 2 per multiply-add, the backward pass as two forward passes; MFU
compares FLOP/s with the fastest matrix product.

The second form trains a network on rendered videos with each of multigrid's cycles until it reaches the same top-1.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data.common.cli import OneLineParser, output_file, positive
from data.datasets import CUSTOM
from train.benchmark.step_time import make_benchmark_trainer, random_batch, time_steps
from train.benchmark.time_to_accuracy import CONFIGS, MovingShapes, config_options, train_to_accuracy
from train.builders import make_schedule
from train.cli import parse_options
from train.dry_run import make_clip_flops
from train.engine import StepOutOfMemoryError, TrainingError
from train.lr_schedule import LRSchedule
from train.options import PRECISIONS, Options, fraction, resolve
from train.parallel.devices import NoCompilerError, choose_device
from train.parallel.distributed import DistContext

NUM_CLASSES = 400
# column -> format
STEP_COLUMNS = {"config": ">27", "batch": ">15", "step ms": ">9.1f", "forward": ">9.1f", "backward": ">9.1f"}
STEP_COLUMNS |= {"clips/s": ">9.1f", "TFLOP/s": ">8.3f", "MFU": ">6.1%", "GB": ">6.1f"}
ACCURACY_COLUMNS = {"cycles": ">14", "epochs": ">7", "steps": ">7", "clips": ">8", "seconds": ">9.1f"}
ACCURACY_COLUMNS |= {"top-1": ">6.3f", "speed-up": ">12"}
# small enough for two CPU cores
STEP_TIME_DEFAULTS = Options(
    dataset=Path(),  # not read
    network="r3d_18",
    clip_length=8,
    clip_size=64,
    batch_size=8,
    lr_base=0.01,
)
TIME_TO_ACCURACY_DEFAULTS = replace(
    STEP_TIME_DEFAULTS,
    clip_length=16,
    clip_size=48,
    batch_size=4,
    optimizer="adamw",
    lr_base=3e-4,
    lr_schedule="cosine",
    warmup_epochs=0.25,
    clip_grad_norm=5.0,
)


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m train.benchmark",
        description="Benchmark training steps. All flags of `python -m train` apply too.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--json", type=output_file, metavar="FILE", help="also write the results to this file")
    add("--warmup", type=positive, default=2, metavar="N", help="untimed steps per shape (default: 2)")
    add("--repeats", type=positive, default=5, metavar="N", help="timed steps per shape (default: 5)")
    add("--time-to-accuracy", action="store_true", help="train with each of --cycles to --target-top1")
    add("--cycles", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="of multigrid (default: all)")
    add("--target-top1", type=fraction, default=0.8, help="validation accuracy to reach (default: 0.8)")
    add("--videos", type=positive, default=2048, metavar="N", help="training videos (default: 2048)")
    text = "number without cycles; with cycles 1.5 times as many (default: 2)"
    add("--epochs", type=positive, default=2, metavar="N", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    parser.returns_unknown = True
    args, rest = parser.parse_known_args(argv)
    defaults = TIME_TO_ACCURACY_DEFAULTS if args.time_to_accuracy else STEP_TIME_DEFAULTS
    options = parse_options(CUSTOM, defaults, rest, parser.prog)
    with parser.one_line_errors(TrainingError):
        num_gpus = min(1, choose_device(options.gpus, DistContext())[1])
        device = torch.cuda.get_device_name() if num_gpus else f"CPU, {torch.get_num_threads()} threads"
        print(f"{device}, torch {torch.__version__}, {options.network}")
        configs = step_configs(options, num_gpus)
        resolved = resolve(CUSTOM, options, num_gpus)
        results: dict[str, Any] = {
            "device": device,
            "torch": torch.__version__,
            "options": resolved.to_dict(),
        }
        if args.time_to_accuracy:
            results["time_to_accuracy"] = _time_to_accuracy(options, args, num_gpus)
        else:
            results["steps"] = _time_steps(configs, args)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def step_configs(options: Options, num_gpus: int) -> list[Options]:
    """Return options for each precision and memory format that flags leave open, with `--compile` for both modes."""
    on_device = PRECISIONS if num_gpus else ("fp32", "bf16")
    precisions = [options.precision] if options.precision else on_device
    memory_formats = [False, True] if options.channels_last is None else [options.channels_last]
    modes = [False, True] if options.compile else [False]
    return [
        replace(resolve(CUSTOM, options, num_gpus), precision=precision, channels_last=last, compile=compiled)
        for precision, last, compiled in itertools.product(precisions, memory_formats, modes)
    ]


def _print_header(columns: Mapping[str, str]) -> None:
    print(*(f"{name:{spec.partition('.')[0]}}" for name, spec in columns.items()))


def _print_row(columns: Mapping[str, str], row: Mapping[str, Any]) -> None:
    print(*(f"{row[name]:{spec}}" for name, spec in columns.items() if name in row), flush=True)


def _time_steps(configs: Sequence[Options], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time each config on random clips, and print a row for each shape of the schedule."""
    _print_header(STEP_COLUMNS)
    results = []
    for options in configs:
        memory_format = "channels-last" if options.channels_last else "contiguous"
        name = f"{options.precision} {memory_format} {'compiled' if options.compile else 'eager'}"
        num_classes = options.num_classes or NUM_CLASSES
        clip_flops = make_clip_flops(options, num_classes)
        phases = make_schedule(options, 10**6, clip_flops).phases
        try:
            trainer = make_benchmark_trainer(options, num_classes)
            trainer.lr_schedule = LRSchedule(1e-9, "step", (), 1.0, 1, 0)  # training on noise stays finite
            for shape in dict.fromkeys(itertools.chain.from_iterable(phases)):
                batch = random_batch(shape, num_classes, trainer.device)
                row = time_steps(trainer, batch, shape, clip_flops, warmup=args.warmup, repeats=args.repeats)
                results.append({"config": name, **row})
                _print_row(STEP_COLUMNS, results[-1])
        except (NoCompilerError, StepOutOfMemoryError) as error:
            print(f"{name:>27} skipped: {error}")
    return results


def _time_to_accuracy(options: Options, args: argparse.Namespace, num_gpus: int) -> list[dict[str, Any]]:
    """Train with each of the cycles, and print a row for each."""
    length, size, seed = options.clip_length, options.clip_size, options.random_seed
    train = MovingShapes(args.videos, length, size, seed, train=True)
    val = MovingShapes(max(80, args.videos // 10), length, size, seed + 1, train=False)
    print(f"{len(train)} training and {len(val)} validation videos, until top-1 {args.target_top1}")
    _print_header(ACCURACY_COLUMNS)
    results: list[dict[str, Any]] = []
    for cycles in args.cycles:
        config = resolve(CUSTOM, config_options(options, cycles, args.epochs), num_gpus)
        epochs = []
        for last in train_to_accuracy(config, train, val, args.target_top1):
            epochs.append(last._asdict())
            print(f"  epoch {last.epoch}: {last.seconds:.1f} s, top-1 {last.top1:.3f}", file=sys.stderr)
        reached = last.top1 >= args.target_top1
        results.append({"cycles": cycles, "reached": reached, "epochs": epochs})
        speed_up = "" if reached else "not reached"
        if reached and results[0]["reached"]:
            speed_up = f"{results[0]['epochs'][-1]['seconds'] / last.seconds:.2f}"
        row = {"cycles": cycles, "epochs": f"{last.epoch}/{config.end_epoch}", "speed-up": speed_up}
        row |= {"steps": last.steps, "clips": last.clips, "seconds": last.seconds, "top-1": last.top1}
        _print_row(ACCURACY_COLUMNS, row)
    return results


if __name__ == "__main__":
    sys.exit(main())
