"""Every option once: name, type, default, help. The command line, checkpoints and `--help` follow from the fields."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.common.cli import Parser, boolean, choice, not_negative, number, positive
from data.common.cpus import cpus_per_rank
from data.datasets import DatasetSpec
from data.video_sampler import START_DISTRIBUTIONS
from network.pretrained_formats import CHECKPOINT_FORMATS
from train.lr_schedule import SCHEDULES
from train.multigrid import BATCH_SCALINGS, SPANS
from train.optimizer import OPTIMIZERS

PLACES = ("start", "top", "mid", "end", "skip", "final")
PRECISIONS = ("fp32", "fp16", "bf16")


def _gates(text: str) -> bool | str:
    value = choice("False", "True", "soft")(text)
    return value if value == "soft" else value == "True"


def _resume_epoch(text: str) -> int | str:
    return text if text == "auto" else positive(text)


extent = number(int, "a whole number from 1 to 65536", lambda value: 1 <= value <= 65536)
epochs = number(int, "a whole number from 1 to 1000000", lambda value: 1 <= value <= 10**6)
amount = number(float, "a number of at least 0", lambda value: value >= 0)
above_zero = number(float, "a number above 0", lambda value: value > 0)
share = number(float, "a number from 0 to 1", lambda value: 0 <= value <= 1)
part = number(float, "a number from 0 to below 1", lambda value: 0 <= value < 1)
two_or_more = number(int, "a whole number of at least 2", lambda value: value >= 2)


def _option(default: Any, parse: Parser, text: str, *, many: bool = False) -> Any:
    return field(default=default, metadata={"parse": parse, "help": text, "many": many})


@dataclass(frozen=True)
class Options:
    """What was chosen for a run. Entry scripts replace defaults; the command line replaces those."""

    # data
    dataset: Path | None = _option(None, Path, "folder of the data set, the one that holds jpg/")
    labels: Path | None = _option(
        None, Path, "folder of the label files (default: labels in it, or beside data/ above it)"
    )
    variant: str = _option("", str, "of the data set")
    num_classes: int | None = _option(
        None, positive, "classes, where they are not as many as the data set has"
    )
    max_missing: float = _option(0.2, share, "share of the videos of a label file that may be missing")
    max_bad_samples: float = _option(
        0.01, share, "share of an epoch's clips that may be unreadable before training stops"
    )
    skip_bad_samples: bool = _option(
        False, boolean, "validate without the clips that are unreadable; an error otherwise"
    )
    workers: int = _option(
        min(8, cpus_per_rank()), not_negative, "processes that read clips; 0 is none beside this"
    )
    # clips
    clip_length: int = _option(16, extent, "frames of a clip")
    clip_size: int = _option(224, extent, "height and width of a clip in pixels")
    short_side: int | None = _option(
        None, extent, "short side that frames are scaled to before the crop (default: the data set's)"
    )
    train_frame_interval: tuple[int, ...] = _option(
        (2,), positive, "from frame to frame, one or several to draw from", many=True
    )
    val_frame_interval: int = _option(2, positive, "from frame to frame in validation")
    frame_sampling: str = _option(
        "uniform", choice(*START_DISTRIBUTIONS), "where clips start: uniform, or normal about the middle"
    )
    augment: str = _option(
        "fused", choice("fused", "imgaug", "none"), "engine of the augmentations: fused, imgaug or none"
    )
    flip: bool | None = _option(None, boolean, "mirror half of the clips (default: the data set's)")
    channel_order: str | None = _option(
        None,
        choice("bgr", "rgb"),
        "of the network's input: bgr or rgb (default: that of the weights it starts from, bgr where that is unknown)",
    )
    # network
    network: str = _option("srtg_r3d_34", str, "name of the network")
    gates: bool | str = _option(False, _gates, "cyclic gates of srtg_ networks: True, False or soft")
    place: str = _option(
        "final", choice(*PLACES), f"of the recursion in a block of srtg_ networks: {', '.join(PLACES)}"
    )
    pool: str = _option("max", choice("max", "soft"), "pooling after the stem: max or soft")
    pretrained_3d: Path | None = _option(
        None, Path, "weights to start from, or the checkpoint to resume from"
    )
    pretrained_format: str = _option(
        "auto",
        choice("auto", *CHECKPOINT_FORMATS),
        f"whose names and shapes the weights have: auto, {', '.join(CHECKPOINT_FORMATS)} (2D, inflated)",
    )
    fine_tune: bool = _option(False, boolean, "train what the weights filled at lower rates than the rest")
    fine_tune_factor: float = _option(
        0.6, share, "of the learning rate, for what the weights filled, recurrent cells (0.5) aside"
    )
    resume_epoch: int | str | None = _option(
        None, _resume_epoch, "epoch to go on with, or auto: where the last run stopped"
    )
    # steps
    batch_size: int = _option(32, positive, "clips of a batch at the base shape")
    long_cycles: bool = _option(False, boolean, "multigrid's long cycle")
    short_cycles: bool = _option(False, boolean, "multigrid's short cycle")
    long_cycle_period: str = _option(
        "epoch", choice(*SPANS), "the long cycle runs once an epoch, or once a stage of the learning rate"
    )
    batch_scaling: str = _option(
        "volume",
        choice(*BATCH_SCALINGS),
        "cycles size batches by clips' volume, or by the network's operations: flops",
    )
    accumulate: int = _option(
        1, positive, "parts that a batch goes through the network in, one after the other"
    )
    lr_base: float = _option(
        0.1, above_zero, "learning rate; with long cycles that of the first, coarsest phase"
    )
    lr_steps: tuple[int, ...] = _option(
        (15, 30, 40), positive, "epochs after which the learning rate falls", many=True
    )
    lr_factor: float = _option(0.1, above_zero, "what it falls by")
    lr_schedule: str = _option("step", choice(*SCHEDULES), "step, or cosine down to 0 at the end")
    warmup_epochs: float = _option(0.0, amount, "epochs over which the learning rate rises from 0")
    optimizer: str = _option("sgd", choice(*OPTIMIZERS), "sgd with Nesterov momentum, or adamw")
    clip_grad_norm: float | None = _option(None, above_zero, "largest norm of the gradient")
    sub_bn_size: int | None = _option(
        None,
        two_or_more,
        "clips that share batch-norm statistics, of batches of any size (default: the batch)",
    )
    label_smoothing: float = _option(0.0, part, "share of a label that is spread over all classes")
    mixup: float = _option(
        0.0, amount, "mix clips in pairs: parameter of the beta distribution of shares; 0 is off"
    )
    cutmix: float = _option(0.0, amount, "swap boxes of clips in pairs: parameter as for --mixup; 0 is off")
    ema: float = _option(
        0.0, part, "validate a moving average of the weights that keeps this share a step; 0 is off"
    )
    end_epoch: int = _option(100, epochs, "last epoch")
    random_seed: int = _option(1, not_negative, "everything random follows from it")
    freeze_batchnorm: bool = _option(
        False, boolean, "normalise with the running statistics of the weights, and leave them as they are"
    )
    # device
    sync_batchnorm: bool = _option(
        False, boolean, "take the statistics of batch norms over the clips of all processes"
    )
    gpus: int | None = _option(
        None,
        not_negative,
        "GPUs to use in one process (default: as many as have 8 clips of a batch each); 0 is the CPU",
    )
    precision: str | None = _option(
        None, choice(*PRECISIONS), "fp32, fp16 or bf16 (default: fp16 on a GPU, fp32 on the CPU)"
    )
    channels_last: bool | None = _option(
        None, boolean, "channels last in the memory of weights (default: on a GPU in half precision)"
    )
    activation_checkpointing: bool = _option(
        False, boolean, "compute each block again in the backward pass: less memory, a third more time"
    )
    compile: bool = _option(False, boolean, "compile the network: slow to start, faster after")
    # what it leaves
    task_name: str = _option("", str, "of the run; follows the name of the results folder")
    model_dir: Path | None = _option(
        None, Path, "folder for results (default: ./results/ and the data set's name)"
    )
    log_file: Path | None = _option(None, Path, "(default: train.log in the results folder)")
    save_frequency: int = _option(1, positive, "epochs from checkpoint to checkpoint")
    save_minutes: float = _option(
        10.0, amount, "minutes from checkpoint to checkpoint within an epoch; 0 is never"
    )
    on_full_disk: str = _option(
        "stop", choice("stop", "continue"), "stop, or continue and try again with the next checkpoint"
    )
    log_interval: int = _option(20, positive, "steps from log line to log line")
    tensorboard: bool = _option(False, boolean, "write events for TensorBoard into the results folder")
    dry_run: bool = _option(False, boolean, "print the plan as JSON, train nothing")
    debug_mode: bool = _option(False, boolean, "log more, and show tracebacks")

    def plain(self) -> dict[str, Any]:
        """Values that JSON and `weights_only` checkpoints can hold."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Options":
        """From what `plain` gave, as checkpoints hold it; what was not known yet has its default.

        ValueError for names that are not known here.
        """
        options = {option.name: option for option in dataclasses.fields(cls)}
        unknown = sorted(plain.keys() - options.keys())
        if unknown:
            raise ValueError(f"has options that are unknown here: {', '.join(unknown)}")
        return cls(**{name: _from_plain(options[name], value) for name, value in plain.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _from_plain(option: dataclasses.Field, value: Any) -> Any:
    if value is not None and option.metadata["parse"] is Path:
        return Path(value)
    return tuple(value) if option.metadata["many"] else value


def resolve(spec: DatasetSpec, options: Options, gpus: int) -> Options:
    """Options with every default that depends on the data set or the machine filled in."""
    precision = options.precision or ("fp16" if gpus else "fp32")
    return dataclasses.replace(
        options,
        network=options.network.lower(),
        gpus=gpus,
        num_classes=options.num_classes or spec.num_classes.get(options.variant),
        precision=precision,
        channels_last=(gpus > 0 and precision != "fp32")
        if options.channels_last is None
        else options.channels_last,
        flip=spec.flip if options.flip is None else options.flip,
        short_side=options.short_side or spec.short_side,
    )


NETWORK_KWARGS = ("gates", "place", "pool")


def network_kwargs(options: Options) -> dict[str, bool | str]:
    """What is asked of the network beyond its name. Defaults are left out, as plain networks have no gates."""
    defaults = Options()
    values = {name: getattr(options, name) for name in NETWORK_KWARGS}
    return {name: value for name, value in values.items() if value != getattr(defaults, name)}
