"""The command line: spellings, defaults, and one line for every bad value."""

import dataclasses
from pathlib import Path

import pytest

from data.datasets import CUSTOM, HACS, HMDB51, KINETICS
from train.cli import make_parser, parse_options
from train.options import Options, network_kwargs

DATASET = ["--dataset", "somewhere"]


def parse(*words: str, spec: object = CUSTOM) -> Options:
    return parse_options(spec, Options(), [*DATASET, *words], prog="train")


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], False),
        (["--fine-tune", "--pretrained-3d", "x"], True),
        (["--fine-tune", "True", "--pretrained-3d", "x"], True),
        (["--fine-tune", "true", "--pretrained-3d", "x"], True),
        (["--fine-tune", "False"], False),
        (["--no-fine-tune"], False),
        (["--fine-tune", "--no-fine-tune"], False),
    ],
)
def test_booleans(words: list[str], value: bool) -> None:
    """The original took "False" for True."""
    assert parse(*words).fine_tune is value


@pytest.mark.parametrize(
    "words", [["40", "60", "75"], ["40,60,75"], ["[40,60,75]"], ["[40,", "60,", "75]"], ["40,", "60", ",75"]]
)
def test_lists(words: list[str]) -> None:
    """The original made characters of them."""
    assert parse("--lr-steps", *words).lr_steps == (40, 60, 75)


def test_gates_take_a_word() -> None:
    assert [parse("--gates", word).gates for word in ("True", "False", "soft")] == [True, False, "soft"]


def test_the_originals_spellings() -> None:
    options = parse("--pretrained_3d", "w.pth", "--train-frame-inteval", "3", "4", "--val-frame-inteval", "5")
    assert options.pretrained_3d == Path("w.pth")
    assert options.train_frame_interval == (3, 4)
    assert options.val_frame_interval == 5


def test_the_originals_arguments_are_all_there() -> None:
    names = """--debug-mode --dataset --clip-length --clip-size --train-frame-interval --val-frame-interval --task-name
    --model-dir --log-file --gpus --network --pretrained-3d --fine-tune --resume-epoch --batch-size --long-cycles
    --short-cycles --lr-base --lr-steps --lr-factor --save-frequency --end-epoch --random-seed"""
    text = make_parser(HACS, Options()).format_help()
    for name in names.split():
        assert f"{name} " in text or f"{name}\n" in text or f"[{name}" in text, name


EXAMPLES = {
    "dataset": ["elsewhere"],
    "labels": ["l"],
    "num_classes": ["7"],
    "train_frame_interval": ["3", "4"],
    "frame_sampling": ["normal"],
    "augment": ["none"],
    "channel_order": ["rgb"],
    "gates": ["soft"],
    "place": ["mid"],
    "pool": ["soft"],
    "pretrained_3d": ["w.pth"],
    "pretrained_format": ["imagenet"],
    "resume_epoch": ["auto"],
    "lr_steps": ["7"],
    "lr_schedule": ["cosine"],
    "long_cycle_period": ["stage"],
    "batch_scaling": ["flops"],
    "optimizer": ["adamw"],
    "sub_bn_size": ["8"],
    "precision": ["bf16"],
    "network": ["r3d_18"],
    "task_name": ["t"],
    "model_dir": ["m"],
    "log_file": ["f"],
    "on_full_disk": ["continue"],
}


@pytest.mark.parametrize("option", dataclasses.fields(Options), ids=lambda option: option.name)
def test_every_flag_changes_its_option_and_nothing_else(option: dataclasses.Field) -> None:
    spec, flag = (
        (KINETICS, "--variant")
        if option.name == "variant"
        else (CUSTOM, "--" + option.name.replace("_", "-"))
    )
    words = ["400"] if option.name == "variant" else EXAMPLES.get(option.name)
    if words is None:
        words = (
            ["True"]
            if isinstance(option.default, bool) or option.name in ("flip", "channels_last")
            else ["0.5"]
        )
        if isinstance(option.default, int) and not isinstance(option.default, bool):
            words = ["9"]
        if option.name in ("gpus", "short_side"):
            words = ["3"]
    needs = {
        "fine_tune": ["--pretrained-3d", "x"],
        "fine_tune_factor": ["--fine-tune", "--pretrained-3d", "x"],
        "pretrained_format": ["--pretrained-3d", "x"],
        "long_cycle_period": ["--long-cycles"],
        "batch_scaling": ["--long-cycles"],
    }
    extra = needs.get(option.name, [])
    before = parse(*extra, spec=spec)
    after = parse(flag, *words, *extra, spec=spec)
    changed = [
        f.name for f in dataclasses.fields(Options) if getattr(before, f.name) != getattr(after, f.name)
    ]
    assert changed == [option.name]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "0"], "argument --batch-size: '0' is not a whole number of at least 1"),
        (["--batch-size", "many"], "argument --batch-size: 'many' is not a whole number"),
        (["--clip-length", "1.5"], "argument --clip-length: '1.5' is not a whole number"),
        (["--lr-base", "-1"], "argument --lr-base: '-1' is not a number above 0"),
        (["--lr-base", "nan"], "argument --lr-base: 'nan' is not a number above 0"),
        (["--lr-steps", "40", "20"], "argument --lr-steps: 40 20 must rise"),
        (["--lr-steps", "40", "40"], "argument --lr-steps: 40 40 must rise"),
        (["--lr-steps", "0"], "argument --lr-steps: '0' is not a whole number of at least 1"),
        (["--lr-steps", "[]"], "argument --lr-steps: expected at least one number"),
        (["--short-cycles", "maybe"], "argument --short-cycles: 'maybe' is not one of True, False"),
        (["--gates", "hard"], "argument --gates: 'hard' is not one of False, True, soft"),
        (["--precision", "fp8"], "argument --precision: 'fp8' is not one of fp32, fp16, bf16"),
        (["--augment", "all"], "argument --augment: 'all' is not one of fused, imgaug, none"),
        (["--max-missing", "2"], "argument --max-missing: '2' is not a number from 0 to 1"),
        (["--resume-epoch", "last"], "argument --resume-epoch: 'last' is not a whole number of at least 1"),
        (["--resume-epoch", "1"], "argument --resume-epoch: 1 is the first epoch"),
        (["--ema-decay", "1"], "argument --ema-decay: '1' is not a number from 0 to below 1"),
        (["--label-smoothing", "1"], "argument --label-smoothing: '1' is not a number from 0 to below 1"),
        (["--mixup", "-1"], "argument --mixup: '-1' is not a number of at least 0"),
        (["--sub-bn-size", "1"], "argument --sub-bn-size: '1' is not a whole number of at least 2"),
        (["--accumulate", "0"], "argument --accumulate: '0' is not a whole number of at least 1"),
        (["--optimizer", "adam"], "argument --optimizer: 'adam' is not one of sgd, adamw"),
        (["--batch-scaling", "time"], "argument --batch-scaling: 'time' is not one of volume, flops"),
        (
            ["--batch-scaling", "flops"],
            "argument --batch-scaling: flops needs --long-cycles or --short-cycles",
        ),
        (["--long-cycle-period", "run"], "argument --long-cycle-period: 'run' is not one of epoch, stage"),
        (["--long-cycle-period", "stage"], "argument --long-cycle-period: stage needs --long-cycles"),
        (["--compile", "--activation-checkpointing"], "argument --compile: does not work with --checkpoint"),
        (["--fine-tune-factor", "0.1"], "argument --fine-tune-factor: needs --fine-tune"),
        (
            ["--lr-schedule", "cosine", "--lr-steps", "5"],
            "argument --lr-steps: has no effect with --lr-schedule cosine",
        ),
        (
            ["--lr-schedule", "cosine", "--lr-factor", "0.5"],
            "argument --lr-factor: has no effect with --lr-schedule cosine",
        ),
        (["--fine-tune"], "argument --fine-tune: needs the weights to start from, --pretrained-3d FILE"),
        (
            ["--task-name", "a/../b"],
            "argument --task-name: 'a/../b' must be part of a folder's name, without /",
        ),
        (["--on-full-disk", "wait"], "argument --on-full-disk: 'wait' is not one of stop, continue"),
        (
            ["--sync-batchnorm", "--freeze-batchnorm"],
            "there is nothing to synchronise with --freeze-batchnorm",
        ),
        (
            ["--sync-batchnorm", "--accumulate", "2"],
            "--sync-batchnorm: works without --sub-bn-size, --accumulate",
        ),
        (["--freeze-batchnorm", "--sub-bn-size", "2"], "argument --sub-bn-size: there is nothing to group"),
        (
            ["--sync-batchnorm", "--sub-bn-size", "2"],
            "--sync-batchnorm: works without --sub-bn-size, --accumulate",
        ),
        (
            ["--pretrained-format", "imagenet"],
            "argument --pretrained-format: needs the weights to start from",
        ),
        (["--pretrained-format", "caffe"], "'caffe' is not one of auto, own, torchvision, imagenet"),
        (["--random-seed", "9" * 30], "is not a whole number of at least 0"),
        (["--batch-size", "9" * 400], "is not a whole number of at least 1"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--batch", "3"], "unrecognized arguments: --batch 3"),
        (["--variant", "400"], "unrecognized arguments: --variant 400"),
    ],
)
def test_bad_values_end_with_status_2_and_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(*words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("train: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_dataset_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(CUSTOM, Options(), [])
    assert "required: --dataset" in capsys.readouterr().err


def test_variants_and_splits(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(spec=KINETICS).variant == "700"
    assert parse("--variant", "200", spec=KINETICS).variant == "200"
    assert parse("--split", "3", spec=HMDB51).variant == "3"
    with pytest.raises(SystemExit):
        parse("--split", "4", spec=HMDB51)
    assert "argument --split: '4' is not one of 1, 2, 3" in capsys.readouterr().err


def test_only_what_differs_is_asked_of_the_network() -> None:
    assert network_kwargs(parse()) == {}
    assert network_kwargs(parse("--gates", "soft", "--pool", "soft")) == {"gates": "soft", "pool": "soft"}


def test_defaults_of_a_script_hold_until_a_flag_says_otherwise() -> None:
    """A flag's `--no-` form once overwrote what the script had chosen."""
    chosen = Options(long_cycles=True, lr_steps=(40, 60), clip_size=284)
    assert parse_options(CUSTOM, chosen, DATASET) == dataclasses.replace(chosen, dataset=Path("somewhere"))
    assert parse_options(CUSTOM, chosen, [*DATASET, "--no-long-cycles"]).long_cycles is False


def test_help_names_defaults_and_dataset() -> None:
    text = make_parser(KINETICS, Options(lr_steps=(40, 70, 95))).format_help()
    assert "kinetics" in text
    assert "(default: 40 70 95)" in " ".join(text.split())
    assert "(default: 700)" in " ".join(text.split())


def test_options_are_plain_values() -> None:
    plain = parse("--pretrained-3d", "w.pth").plain()
    assert plain["pretrained_3d"] == "w.pth"
    assert plain["lr_steps"] == [15, 30, 40]
    assert all(isinstance(value, str | int | float | bool | list | None) for value in plain.values())


def test_options_come_back_from_what_a_checkpoint_holds() -> None:
    options = parse("--lr-steps", "4", "9", "--gates", "soft", "--model-dir", "there", "--mixup", "0.2")
    assert Options.of(options.plain()) == options
    assert Options.of({"gates": True}) == Options(gates=True)
    with pytest.raises(ValueError, match="has options that are unknown here: gate, places"):
        Options.of({"gate": True, "places": "top"})
