"""python -m train.benchmark [--network NAME] [--batch-size 32] [--precision fp16] [other flags of python -m train]
python -m train.benchmark --time-to-accuracy [--cycles none short] [other flags of python -m train]

The first form times training steps at each batch shape: on clips in device memory, in each precision and memory format
unless `--precision` and `--channels-last` choose one, with `--compile` eager and compiled; then through the DataLoader,
on a synthetic dataset unless `--dataset` names one. FLOPs are those of convolutions, recurrent cells and linear layers,
2 per multiply-add, the backward pass as two forward passes; MFU compares FLOP/s with the fastest matrix product.

The second form trains a network on rendered videos with each of multigrid's cycles until it reaches the same top-1.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data.common.cli import OneLineParser, output_file, positive
from data.datasets import CUSTOM
from data.synthetic.shapes import MOTION_CLASSES, write_shapes_dataset
from train.benchmark.step_time import StepTime, make_benchmark_trainer, random_batch, time_epoch
from train.benchmark.time_to_accuracy import CONFIGS, MovingShapes, config_options, train_to_accuracy
from train.builders import make_schedule
from train.cli import parse_options
from train.dry_run import make_clip_flops
from train.engine import StepOutOfMemoryError, TrainingError
from train.lr_schedule import LRSchedule
from train.multigrid import Step
from train.options import PRECISIONS, Options, fraction, resolve
from train.parallel.devices import NoCompilerError, choose_num_gpus
from train.parallel.distributed import DistContext
from train.run import Run

NUM_CLASSES = 400
SYNTHETIC = Path("synthetic")  # the default of --dataset
STEP_COLUMNS = f"{'':28} {'batch':>16} {'step ms':>9} {'data':>7} {'forward':>9} {'backward':>9}"
STEP_COLUMNS += f" {'clips/s':>9} {'TFLOP/s':>8} {'MFU':>6} {'GB':>6}"
ACCURACY_COLUMNS = f"{'cycles':14} {'epochs':>7} {'steps':>7} {'clips':>8} {'seconds':>9} {'top-1':>6}"
ACCURACY_COLUMNS += f" {'speed-up':>9}"
# small enough for two CPU cores
STEP_TIME_DEFAULTS = Options(
    dataset=SYNTHETIC,
    network="r3d_18",
    clip_length=8,
    clip_size=64,
    short_side=64,
    batch_size=8,
    augment="none",
    flip=False,
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


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m train.benchmark",
        description="Benchmark training steps. All flags of `python -m train` apply too.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--json", type=output_file, metavar="FILE", help="also write the results to this file")
    add("--warmup", type=positive, default=2, metavar="N", help="untimed steps per shape (default: 2)")
    add("--repeats", type=positive, default=5, metavar="N", help="timed steps per shape (default: 5)")
    text = "clips to read through the DataLoader (default: 512)"
    add("--loader-clips", type=positive, default=512, metavar="N", help=text)
    add("--no-loader", dest="loader", action="store_false", help="time clips in device memory only")
    add("--time-to-accuracy", action="store_true", help="train with each of --cycles to --target-top1")
    add("--cycles", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="of multigrid (default: all)")
    add("--target-top1", type=fraction, default=0.8, help="validation accuracy to reach (default: 0.8)")
    add("--videos", type=positive, default=2048, metavar="N", help="training videos (default: 2048)")
    text = "number without cycles; with cycles 1.5 times as many (default: 2)"
    add("--epochs", type=positive, default=2, metavar="N", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    defaults = TIME_TO_ACCURACY_DEFAULTS if args.time_to_accuracy else STEP_TIME_DEFAULTS
    options = parse_options(CUSTOM, defaults, rest, parser.prog)
    try:
        num_gpus = min(1, choose_num_gpus(options.gpus))
        device = torch.cuda.get_device_name() if num_gpus else f"CPU, {torch.get_num_threads()} threads"
        print(f"{device}, torch {torch.__version__}, {options.network}")
        configs = step_configs(options, num_gpus)
        options = resolve(CUSTOM, options, num_gpus)
        results: dict[str, Any] = {"device": device, "torch": torch.__version__, "options": options.to_dict()}
        if args.time_to_accuracy:
            results["time_to_accuracy"] = _time_to_accuracy(options, args)
        else:
            results["steps"] = _time_steps(configs, args)
            results["loader"] = _time_loader(options, args) if args.loader else []
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")
    except (ValueError, LookupError, OSError, TrainingError) as error:
        parser.error(str(error))
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


def _print_row(name: str, row: StepTime) -> None:
    line = f"{name:28} {row.shape!s:>16} {1000 * row.seconds:9.1f} {1000 * row.data:7.1f}"
    line += f" {1000 * row.forward:9.1f} {1000 * row.backward:9.1f} {row.clips_per_second:9.1f}"
    line += f" {row.flops / 1e12:8.3f} {row.mfu:6.1%}"
    print(line if row.memory is None else f"{line} {row.memory / 1e9:6.1f}", flush=True)


def _time_steps(configs: Sequence[Options], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time each config on random clips in device memory, and print a row for each shape of the schedule."""
    print(f"\nsteps on clips in device memory\n{STEP_COLUMNS}")
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
                count = args.warmup + args.repeats
                batches = [random_batch(shape, num_classes, trainer.device)] * count
                (row,) = time_epoch(trainer, [Step(0, shape)] * count, batches, clip_flops, args.warmup)
                _print_row(name, row)
                results.append({"config": name, **row._asdict()})
        except (NoCompilerError, StepOutOfMemoryError) as error:
            print(f"{name:28} skipped: {error}", flush=True)
    return results


def _time_loader(options: Options, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time an epoch through the DataLoader, as in a run, and print a row for each shape."""
    with tempfile.TemporaryDirectory() as folder:
        options = replace(options, model_dir=Path(folder) / "results", resume_epoch=None)
        if options.dataset == SYNTHETIC:
            root, height = Path(folder) / "synthetic", options.short_side or options.clip_size
            num_videos = args.loader_clips * 5 / 4  # a fifth is for validation
            per_class = max(5, math.ceil(num_videos / len(MOTION_CLASSES)))
            length = options.val_frame_interval * options.clip_length
            write_shapes_dataset(root, per_class, length, height, options.random_seed)
            options = replace(options, dataset=root)
        run = Run(CUSTOM, options, DistContext())
        num_clips = min(args.loader_clips, len(run.dataset.train))
        steps = make_schedule(run.options, num_clips, run.clip_flops).epoch(1)
        run.loaders.batch_sampler.set_epoch(1, [step.shape for step in steps])
        rows = time_epoch(run.trainer, steps, run.loaders.train, run.clip_flops, args.warmup)
    if not rows:
        raise ValueError(f"--loader-clips {num_clips}: too few, no shape has more than {args.warmup} steps")
    print(f"\nsteps through the DataLoader, {options.workers} workers, {options.precision}\n{STEP_COLUMNS}")
    for row in rows:
        _print_row(f"{row.steps} steps", row)
    data_time = sum(row.steps * row.data for row in rows) / sum(row.steps * row.seconds for row in rows)
    print(f"data time: {data_time:.1%}")
    return [row._asdict() for row in rows]


def _time_to_accuracy(options: Options, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train with each of the cycles, and print a row for each."""
    length, size, seed = options.clip_length, options.clip_size, options.random_seed
    train = MovingShapes(args.videos, length, size, seed, train=True)
    val = MovingShapes(max(80, args.videos // 10), length, size, seed + 1, train=False)
    print(f"{len(train)} training and {len(val)} validation videos, until top-1 {args.target_top1}\n")
    print(ACCURACY_COLUMNS)
    results: list[dict[str, Any]] = []
    for cycles in args.cycles:
        config = config_options(options, cycles, args.epochs)
        epochs = []
        for last in train_to_accuracy(config, train, val, args.target_top1):
            epochs.append(last._asdict())
            print(f"  epoch {last.epoch}: {last.seconds:.1f} s, top-1 {last.top1:.3f}", file=sys.stderr)
        reached = last.top1 >= args.target_top1
        results.append({"cycles": cycles, "reached": reached, "epochs": epochs})
        line = f"{cycles:14} {f'{last.epoch}/{config.end_epoch}':>7} {last.steps:7} {last.clips:8}"
        line += f" {last.seconds:9.1f} {last.top1:6.3f}"
        if not reached:
            line += "  not reached"
        elif results[0]["reached"]:
            line += f" {results[0]['epochs'][-1]['seconds'] / last.seconds:9.2f}"
        print(line, flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
