"""The command line: spellings, defaults, groups, and a one-line error for every invalid value."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest

from data.datasets import CUSTOM, HACS, HMDB51, KINETICS, DatasetSpec
from train.cli import make_parser, parse_options
from train.options import GROUPS, Options, network_kwargs

DATASET = ["--dataset", "somewhere"]


def parse(flags: str = "", spec: DatasetSpec = CUSTOM) -> Options:
    return parse_options(spec, Options(), [*DATASET, *flags.split()], prog="train")


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ("", False),
        ("--fine-tune --pretrained-3d x", True),
        ("--fine-tune True --pretrained-3d x", True),
        ("--fine-tune true --pretrained-3d x", True),
        ("--fine-tune False", False),
        ("--no-fine-tune", False),
        ("--fine-tune --no-fine-tune", False),
    ],
)
def test_booleans(flags: str, value: bool) -> None:
    """The original read "False" as true."""
    assert parse(flags).fine_tune is value


@pytest.mark.parametrize("steps", ["40 60 75", "40,60,75", "[40,60,75]", "[40, 60, 75]", "40, 60 ,75"])
def test_lists(steps: str) -> None:
    """The original split them into characters."""
    assert parse(f"--lr-steps {steps}").lr_steps == (40, 60, 75)


def test_gates_are_true_false_or_soft() -> None:
    assert [parse(f"--gates {word}").gates for word in ("True", "False", "soft")] == [True, False, "soft"]


def test_the_flags_of_the_original_and_their_misspellings() -> None:
    options = parse("--pretrained_3d w.pth --train-frame-inteval 3 4 --val-frame-inteval 5")
    assert options.pretrained_3d == Path("w.pth")
    assert options.train_frame_interval == (3, 4)
    assert options.val_frame_interval == 5
    flags = """--debug-mode --dataset --clip-length --clip-size --train-frame-interval --val-frame-interval
    --task-name --model-dir --log-file --gpus --network --pretrained-3d --fine-tune --resume-epoch --batch-size
    --long-cycles --short-cycles --lr-base --lr-steps --lr-factor --save-frequency --end-epoch --random-seed"""
    text = make_parser(HACS, Options()).format_help()
    for flag in flags.split():
        assert f"{flag} " in text or f"{flag}\n" in text, flag


def test_help_has_groups_and_defaults() -> None:
    text = make_parser(KINETICS, Options(lr_steps=(40, 70, 95))).format_help()
    positions = [text.index(f"\n{group}:") for group in GROUPS.values()]
    assert positions == sorted(positions)
    words = " ".join(text.split())
    assert "kinetics" in words
    assert "(default: 40 70 95)" in words
    assert "(default: 700)" in words


EXAMPLES = {
    "bool": "True",
    "int": "9",
    "float": "0.5",
    "variant": "400",
    "train_frame_interval": "3 4",
    "frame_sampling": "normal",
    "augment": "none",
    "augment_table": "light",
    "flip": "True",
    "channel_order": "rgb",
    "gates": "soft",
    "srtg_position": "mid",
    "pool": "soft",
    "stem_pool": "False",
    "pretrained_format": "imagenet",
    "resume_epoch": "auto",
    "lr_steps": "7",
    "lr_schedule": "cosine",
    "long_cycle_period": "lr-stage",
    "batch_scaling": "flops",
    "optimizer": "adamw",
    "clip_grad_norm": "0.5",
    "sub_bn_size": "8",
    "precision": "bf16",
    "channels_last": "True",
}
NEEDED = {
    "fine_tune": "--pretrained-3d x",
    "fine_tune_factor": "--fine-tune --pretrained-3d x",
    "pretrained_format": "--pretrained-3d x",
    "allow_partial": "--pretrained-3d x",
    "long_cycle_period": "--long-cycles",
    "batch_scaling": "--long-cycles",
    "estimate": "--dry-run",
    "assume_tflops": "--dry-run --estimate",
    "assume_cores": "--dry-run --estimate",
    "assume_disk": "--dry-run --estimate",
}


FLAGS = [option for option in dataclasses.fields(Options) if option.name != "config"]


@pytest.mark.parametrize("option", FLAGS, ids=lambda option: option.name)
def test_a_flag_changes_its_option_only(option: dataclasses.Field) -> None:
    spec = KINETICS if option.name == "variant" else CUSTOM
    example = EXAMPLES.get(option.name) or EXAMPLES.get(type(option.default).__name__, "9")
    needed = NEEDED.get(option.name, "")
    before = dataclasses.asdict(parse(needed, spec))
    after = dataclasses.asdict(parse(f"--{option.name.replace('_', '-')} {example} {needed}", spec))
    assert [name for name in before if before[name] != after[name]] == [option.name]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--batch-size 0", "argument --batch-size: '0' is not a whole number of at least 1"),
        ("--batch-size many", "argument --batch-size: 'many' is not a whole number"),
        (f"--batch-size {'9' * 400}", "9' is not a whole number of at least 1"),
        ("--clip-size 9223372036854775807", "is not a whole number from 1 to 65536"),
        ("--end-epoch 99999999999", "is not a whole number from 1 to 1000000"),
        ("--clip-length 1.5", "argument --clip-length: '1.5' is not a whole number"),
        ("--lr-base -1", "argument --lr-base: '-1' is not a number above 0"),
        ("--lr-base nan", "argument --lr-base: 'nan' is not a number above 0"),
        ("--lr-steps 40 20", "argument --lr-steps: 40 20 must be increasing"),
        ("--lr-steps 40 40", "argument --lr-steps: 40 40 must be increasing"),
        ("--lr-steps 0", "argument --lr-steps: '0' is not a whole number of at least 1"),
        ("--lr-steps []", "argument --lr-steps: expected at least one number"),
        ("--short-cycles maybe", "argument --short-cycles: 'maybe' is not one of True, False"),
        ("--gates hard", "argument --gates: 'hard' is not one of False, True, soft"),
        ("--precision fp8", "argument --precision: 'fp8' is not one of fp32, fp16, bf16"),
        ("--max-missing run=0.5", "argument --max-missing: 'run=0.5' is not a number from 0 to 1"),
        ("--max-missing 2", "argument --max-missing: '2' is not a number from 0 to 1"),
        ("--resume-epoch last", "argument --resume-epoch: 'last' is not a whole number of at least 1"),
        ("--resume-epoch 1", "argument --resume-epoch: 1 is the first epoch"),
        ("--estimate", "argument --estimate: needs --dry-run"),
        ("--assume-tflops 400", "argument --assume-tflops: needs --estimate"),
        (
            "--assume-tflops 1e99",
            "argument --assume-tflops: '1e99' is not a number from 0.000001 to 1000000000",
        ),
        ("--assume-cores 64 --dry-run", "argument --assume-cores: needs --estimate"),
        ("--assume-disk 2GB/s --dry-run", "argument --assume-disk: needs --estimate"),
        ("--assume-disk 2GiB", "argument --assume-disk: '2GiB' is not bytes a second, such as 2GB/s"),
        ("--assume-disk 0MB/s", "argument --assume-disk: '0' is not bytes a second, such as 2GB/s"),
        ("--dry-run --estimate --compile", "argument --estimate: does not time compiled steps"),
        ("--resume-epoch 102", "argument --resume-epoch: 102 is beyond the last epoch, --end-epoch 100"),
        ("--ema-decay 1", "argument --ema-decay: '1' is not a number from 0 to below 1"),
        ("--mixup -1", "argument --mixup: '-1' is not a number of at least 0"),
        ("--sub-bn-size 1", "argument --sub-bn-size: '1' is not a whole number of at least 2"),
        ("--batch-scaling flops", "argument --batch-scaling: flops needs --long-cycles or --short-cycles"),
        ("--long-cycle-period run", "argument --long-cycle-period: 'run' is not one of epoch, lr-stage"),
        ("--long-cycle-period lr-stage", "argument --long-cycle-period: lr-stage needs --long-cycles"),
        ("--compile --activation-checkpointing", "argument --compile: does not work with --activation-ch"),
        ("--fine-tune-factor 0.1", "argument --fine-tune-factor: needs --fine-tune"),
        ("--lr-schedule cosine --lr-steps 5", "--lr-steps: has no effect with --lr-schedule cosine"),
        ("--lr-schedule cosine --lr-factor 0.5", "--lr-factor: has no effect with --lr-schedule cosine"),
        ("--fine-tune", "argument --fine-tune: needs pretrained weights, --pretrained-3d FILE"),
        ("--task-name a/../b", "argument --task-name: 'a/../b' is part of a folder name, without /"),
        ("--compile --sync-batchnorm", "--compile: does not work with --activation-checkpointing or"),
        ("--augment none --augment-table light", "--augment-table: has no effect with --augment none"),
        ("--precise-bn 8 --freeze-batchnorm", "--precise-bn: has no effect with --freeze-batchnorm"),
        ("--sync-batchnorm --freeze-batchnorm", "--sync-batchnorm: has no effect with --freeze-batchnorm"),
        ("--sync-batchnorm --accumulate 2", "--sync-batchnorm: does not work with --sub-bn-size, --accum"),
        ("--sync-batchnorm --sub-bn-size 2", "--sync-batchnorm: does not work with --sub-bn-size, --accum"),
        ("--freeze-batchnorm --sub-bn-size 2", "--sub-bn-size: has no effect with --freeze-batchnorm"),
        ("--pretrained-format imagenet", "--pretrained-format: needs pretrained weights"),
        ("--pool soft --stem-pool False", "--pool: has no effect with --stem-pool False"),
        ("--no-such-flag", "unrecognized arguments: --no-such-flag"),
        ("--batch 3", "unrecognized arguments: --batch 3; --batch: did you mean --batch-size?"),
        (
            "--clip-lenght=3 --flipp",
            "--clip-lenght: did you mean --clip-length?; --flipp: did you mean --flip?",
        ),
        ("--variant 400", "unrecognized arguments: --variant 400"),
    ],
)
def test_an_invalid_value_ends_with_exit_code_2_and_one_line(
    capsys: pytest.CaptureFixture[str], flags: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(flags)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("train: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert len(error) < 1100


def test_the_dataset_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(CUSTOM, Options(), [])
    assert "required: --dataset" in capsys.readouterr().err


def test_variants_and_splits(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(spec=KINETICS).variant == "700"
    assert parse("--variant 200", KINETICS).variant == "200"
    assert parse("--split 3", HMDB51).variant == "3"
    with pytest.raises(SystemExit):
        parse("--split 4", HMDB51)
    assert "argument --split: '4' is not one of 1, 2, 3" in capsys.readouterr().err


def test_the_defaults_of_a_script_hold_until_a_flag_changes_them() -> None:
    chosen = Options(long_cycles=True, lr_steps=(40, 60), clip_size=284)
    assert parse_options(CUSTOM, chosen, DATASET) == dataclasses.replace(chosen, dataset=Path("somewhere"))
    assert parse_options(CUSTOM, chosen, [*DATASET, "--no-long-cycles"]).long_cycles is False


def test_a_class_that_may_lose_all_its_videos() -> None:
    for flags, limit in (
        ("", 0.2),
        ("--max-missing 0.5", 0.5),
        ("--max-missing 'turn left=1'", "turn left"),
        ("--max-missing 'a=b, c=1'", "a=b, c"),
    ):
        options = parse_options(CUSTOM, Options(), [*DATASET, *shlex.split(flags)])
        assert options.max_missing == Options.from_dict(options.to_dict()).max_missing == limit


def test_network_kwargs_leave_out_defaults() -> None:
    assert network_kwargs(parse()) == {}
    options = parse("--gates soft --pool soft --srtg-position mid")
    assert network_kwargs(options) == {"gates": "soft", "pool": "soft", "place": "mid"}


def test_options_are_saved_as_plain_values_and_restored() -> None:
    options = parse("--pretrained-3d w.pth --lr-steps 4 9 --gates soft --model-dir there --mixup 0.2")
    plain: dict[str, Any] = options.to_dict()
    assert (plain["pretrained_3d"], plain["lr_steps"]) == ("w.pth", [4, 9])
    assert all(isinstance(value, str | int | float | bool | list | None) for value in plain.values())
    assert Options.from_dict(plain) == options
    assert Options.from_dict({"gates": True}) == Options(gates=True)
    with pytest.raises(ValueError, match="unknown options: gate, places"):
        Options.from_dict({"gate": True, "places": "top"})
