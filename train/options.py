"""Every option of a run once: name, type, default, help. Flags, `--help` and checkpoints follow from the fields."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.common.cli import Parser, boolean, choice, frame_rate, not_negative, number, positive
from data.common.cpus import cpus_per_rank
from data.datasets import DatasetSpec
from data.label_files import clean
from data.video_sampler import START_DISTRIBUTIONS
from data.video_transforms import AUGMENTATION_TABLES, ENGINES
from network.pretrained_formats import CHECKPOINT_FORMATS
from train.lr_schedule import SCHEDULES
from train.multigrid import BATCH_SCALINGS, LONG_CYCLE_PERIODS
from train.optimizer import OPTIMIZERS
from train.parallel.devices import default_precision

SRTG_POSITIONS = ("start", "top", "mid", "end", "skip", "final")
PRECISIONS = ("fp32", "fp16", "bf16")
DEFAULT_PRECISION = "bf16 on a GPU, fp16 if it has no bf16, fp32 on the CPU"
PRECISE_BN_CLIPS = 1024  # with cycles, whose running averages mix the statistics of all shapes
GROUPS = {  # of --help, by their first option
    "dataset": "data",
    "clip_length": "clips",
    "network": "network",
    "batch_size": "schedule",
    "optimizer": "optimization",
    "gpus": "hardware",
    "resume_epoch": "output",
}


def bytes_per_second(text: str) -> float:
    """Parse `2GB/s`, `500MB/s` or a plain number."""
    unit = {"kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9}.get(text[-4:], 1.0)
    rule = "bytes a second, such as 2GB/s, 500MB/s or 2e9"
    return unit * number(float, rule, lambda value: value * unit >= 1)(text[:-4] if unit > 1 else text)


def _gates(text: str) -> bool | str:
    value = choice("False", "True", "soft")(text)
    return value if value == "soft" else value == "True"


def missing_limit(text: str) -> float | str:
    """Parse a fraction, or <class>=1 for a class that may lose all its videos; of that return the name."""
    name, _, limit = text.rpartition("=")
    return clean(name) if name and limit == "1" else fraction(text)


def _resume_epoch(text: str) -> int | str:
    return text if text == "auto" else positive(text)


def _fold(text: str) -> str:
    return text and str(positive(text))  # argparse parses the default, "", too


dimension = number(int, "a whole number from 1 to 65536", lambda value: 1 <= value <= 65536)
num_epochs = number(int, "a whole number from 1 to 1000000", lambda value: 1 <= value <= 10**6)
non_negative = number(float, "a number of at least 0", lambda value: value >= 0)
above_zero = number(float, "a number above 0", lambda value: value > 0)
tflops = number(float, "a number from 0.000001 to 1000000000", lambda value: 1e-6 <= value <= 1e9)
fraction = number(float, "a number from 0 to 1", lambda value: 0 <= value <= 1)
fraction_below_one = number(float, "a number from 0 to below 1", lambda value: 0 <= value < 1)
two_or_more = number(int, "a whole number of at least 2", lambda value: value >= 2)


def _option(default: Any, parse: Parser, text: str) -> Any:
    return field(default=default, metadata={"parse": parse, "help": text})


@dataclass(frozen=True)
class Options:
    """The choices of a run. Entry scripts replace defaults; the command line replaces those."""

    dataset: Path | None = _option(None, Path, "dataset folder, which holds jpg/")
    labels: Path | None = _option(None, Path, "label file folder (default: labels/ in or above it)")
    variant: str = _option("", _fold, "number of a fold (default: train.csv and val.csv, without folds)")
    num_classes: int | None = _option(None, positive, "classes, or those with videos (default: dataset's)")
    max_missing: float | str = _option(
        0.2, missing_limit, "fraction of a split's videos that may be missing, or CLASS=1: all of this class"
    )
    max_bad_samples: float = _option(0.01, fraction, "fraction of an epoch's clips that may be corrupt")
    skip_bad_samples: bool = _option(False, boolean, "validate without corrupt clips, do not stop")
    workers: int = _option(
        cpus_per_rank(), not_negative, "dataloader workers per rank; 0: none (default: one per core)"
    )

    clip_length: int = _option(16, dimension, "frames per clip")
    clip_size: int = _option(224, dimension, "height and width of a clip in pixels")
    short_side: int | None = _option(
        None, dimension, "short side of training frames before the crop, in pixels (default: the dataset's)"
    )
    train_frame_interval: tuple[int, ...] = _option(
        (2,), positive, "temporal stride in frames; if several, one is sampled per clip"
    )
    val_frame_interval: int = _option(2, positive, "temporal stride in frames in validation")
    target_fps: float | None = _option(
        None, frame_rate, "choose frames by time, so many a second (default: all)"
    )
    frame_sampling: str = _option(
        "uniform", choice(*START_DISTRIBUTIONS), "clip start times: uniform, or normal at the middle"
    )
    augment: str = _option(
        "fused",
        choice(*ENGINES),
        "augmentation engine: fused, device (fused, but on the GPU), imgaug or none",
    )
    augment_table: str = _option(
        "full", choice(*AUGMENTATION_TABLES), "full, or light: without noise and blur, for small clips"
    )
    flip: bool | None = _option(None, boolean, "flip half of the clips (default: the dataset's)")
    channel_order: str | None = _option(
        None, choice("bgr", "rgb"), "bgr or rgb (default: that of the pretrained weights, else bgr)"
    )

    network: str = _option("srtg_r3d_34", str, "name of the network")
    gates: bool | str = _option(False, _gates, "cyclic gates of srtg_ networks: True, False, soft")
    srtg_position: str = _option(
        "final",
        choice(*SRTG_POSITIONS),
        f"position of the recurrent branch in the blocks of srtg_ networks: {', '.join(SRTG_POSITIONS)}",
    )
    pool: str = _option("max", choice("max", "soft"), "pooling: max or soft (SoftPool)")
    stem_pool: bool = _option(True, boolean, "pooling after the stem of ResNets (before 11/2020: False)")
    pretrained_3d: Path | None = _option(None, Path, "weights, zoo:NAME, or a checkpoint to resume")
    pretrained_format: str = _option(
        "auto",
        choice("auto", *CHECKPOINT_FORMATS),
        f"format of the pretrained weights: auto, {', '.join(CHECKPOINT_FORMATS)} (2D, inflated)",
    )
    allow_partial: bool = _option(False, boolean, "accept weights of which less than a tenth fits")
    fine_tune: bool = _option(False, boolean, "train pretrained layers at a lower learning rate")
    fine_tune_factor: float = _option(
        0.6, fraction, "learning rate multiplier of pretrained layers; recurrent cells have 0.5"
    )
    freeze_batchnorm: bool = _option(False, boolean, "use and keep the pretrained running statistics")
    precise_bn: int | None = _option(
        None,
        not_negative,
        "training clips for precise BatchNorm statistics before validation, at most a tenth of an epoch's time; 0: "
        "running averages (default: 1024 with cycles, else 0)",
    )
    sub_bn_size: int | None = _option(
        None, two_or_more, "clips that share BatchNorm statistics (default: the batch)"
    )
    sync_batchnorm: bool = _option(False, boolean, "compute BatchNorm statistics over all ranks")

    batch_size: int = _option(32, positive, "clips per batch at the base shape, over all ranks")
    end_epoch: int = _option(100, num_epochs, "last epoch")
    lr_base: float = _option(0.1, above_zero, "learning rate; with long cycles, of their first shape")
    lr_schedule: str = _option("step", choice(*SCHEDULES), "step, or cosine decay to 0")
    lr_steps: tuple[int, ...] = _option((15, 30, 40), positive, "epochs after which the learning rate decays")
    lr_factor: float = _option(0.1, above_zero, "learning rate decay factor (gamma)")
    warmup_epochs: float = _option(0.0, non_negative, "epochs of linear warm-up from 0")
    long_cycles: bool = _option(False, boolean, "multigrid long cycle")
    short_cycles: bool = _option(False, boolean, "multigrid short cycle")
    long_cycle_period: str = _option(
        "epoch", choice(*LONG_CYCLE_PERIODS), "one long cycle per epoch, or per lr-stage"
    )
    batch_scaling: str = _option(
        "volume", choice(*BATCH_SCALINGS), "cycles keep the volume of a batch, or its flops"
    )
    random_seed: int = _option(1, not_negative, "random seed")

    optimizer: str = _option("sgd", choice(*OPTIMIZERS), "sgd (Nesterov momentum) or adamw")
    accumulate: int = _option(1, positive, "gradient accumulation: micro-batches per batch")
    clip_grad_norm: float | None = _option(None, above_zero, "maximum norm of the gradients")
    label_smoothing: float = _option(0.0, fraction_below_one, "label smoothing")
    mixup: float = _option(0.0, non_negative, "alpha of mixup; 0 is off")
    cutmix: float = _option(0.0, non_negative, "alpha of CutMix; 0 is off")
    ema_decay: float = _option(
        0.0, fraction_below_one, "decay of an EMA of the weights, which is validated; 0 is off"
    )

    gpus: int | None = _option(
        None, not_negative, "GPUs of one process (default: one for 8 clips of the batch); 0 is the CPU"
    )
    precision: str | None = _option(
        None, choice(*PRECISIONS), f"fp32, fp16 or bf16 (default: {DEFAULT_PRECISION})"
    )
    channels_last: bool | None = _option(
        None, boolean, "channels-last weights and activations (default: on a GPU in half precision)"
    )
    activation_checkpointing: bool = _option(
        False, boolean, "recompute blocks in the backward pass: less memory, a third more time"
    )
    compile: bool = _option(False, boolean, "torch.compile: slow first steps, faster after")
    deterministic: bool = _option(False, boolean, "deterministic kernels; warn where there is none")

    resume_epoch: int | str | None = _option(None, _resume_epoch, "epoch to resume from, or auto")
    config: Path | None = _option(None, Path, "repeat the run of this run.json; flags replace its options")
    task_name: str = _option("", str, "suffix of the output folder's name")
    model_dir: Path | None = _option(None, Path, "output root (default: results/<dataset>)")
    log_file: Path | None = _option(None, Path, "log file (default: train.log in the output folder)")
    save_frequency: int = _option(1, positive, "epochs between checkpoints")
    save_minutes: float = _option(10.0, non_negative, "minutes between checkpoints in an epoch; 0: none")
    log_interval: int = _option(20, positive, "steps between log lines")
    tensorboard: bool = _option(False, boolean, "write TensorBoard events to the output folder")
    wandb: bool = _option(False, boolean, "send results to Weights & Biases")
    profile: int = _option(0, not_negative, "training steps to trace with torch.profiler; 0: none")
    dry_run: bool = _option(False, boolean, "print the options and steps as JSON and exit")
    estimate: bool = _option(False, boolean, "in a dry run: measure for a minute what the run will take")
    assume_tflops: float | None = _option(None, tflops, "estimate for GPUs of this many TFLOP/s")
    assume_cores: int | None = _option(None, positive, "estimate for these cores, a worker on each")
    assume_disk: float | None = _option(None, bytes_per_second, "estimate for a disk of 2GB/s or so")
    debug_mode: bool = _option(False, boolean, "log the first clips and steps in detail, show tracebacks")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which JSON and `weights_only` checkpoints can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=str))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Options":
        """Return the options of a checkpoint; those that it lacks have their defaults.

        Raises ValueError for unknown names.
        """
        parsers = {option.name: option.metadata["parse"] for option in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - parsers.keys()):
            raise ValueError(f"unknown options: {', '.join(unknown)}")
        restored: dict[str, Any] = {}
        for name, value in values.items():
            is_path = parsers[name] is Path and value is not None
            restored[name] = Path(value) if is_path else tuple(value) if isinstance(value, list) else value
        return cls(**restored)


def resolve(spec: DatasetSpec, options: Options, gpus: int) -> Options:
    """Return the options with every default that depends on the dataset or the machine filled in."""
    precision = options.precision or default_precision(gpus)
    channels_last = options.channels_last
    cycles = options.long_cycles or options.short_cycles
    precise_bn = PRECISE_BN_CLIPS if cycles and not options.freeze_batchnorm else 0
    return dataclasses.replace(
        options,
        network=options.network.lower(),
        gpus=gpus,
        num_classes=options.num_classes or spec.num_classes.get(options.variant),
        precise_bn=precise_bn if options.precise_bn is None else options.precise_bn,
        precision=precision,
        channels_last=gpus > 0 and precision != "fp32" if channels_last is None else channels_last,
        flip=spec.flip if options.flip is None else options.flip,
        short_side=options.short_side or spec.short_side,
    )


# option -> builder's keyword
NETWORK_OPTIONS = {"gates": "gates", "srtg_position": "place", "pool": "pool", "stem_pool": "stem_pool"}


def network_kwargs(options: Options) -> dict[str, bool | str]:
    """Return the keyword arguments of the network's builder. Defaults are left out: plain networks have no gates."""
    defaults = Options()
    return {
        keyword: getattr(options, name)
        for name, keyword in NETWORK_OPTIONS.items()
        if getattr(options, name) != getattr(defaults, name)
    }
