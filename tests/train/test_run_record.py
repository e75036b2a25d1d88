"""run.json: what a run was, and runs repeated from it by `--config`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from data.datasets import CUSTOM, KINETICS, SPECS, DatasetSpec
from tests.train.helpers import assert_same_run, folder
from train.cli import parse_options
from train.main import main
from train.options import Options
from train.run_record import describe_changes, make_record, read_run_json, write_run_json

CHANGED = Options(
    dataset=Path("-some set"),
    max_missing="turn left",
    lr_steps=(3, 7),
    gates="soft",
    stem_pool=False,
    clip_grad_norm=1e-5,
    flip=True,
    long_cycles=True,
    task_name="-a b",
)


def record_of(spec: DatasetSpec, options: Options, path: Path) -> Path:
    write_run_json(path, options, {"name": spec.name, "fingerprint": "abc"})
    return path / "run.json"


def test_a_run_is_repeated_from_its_record_alone(reference_run: Path, tmp_path: Path) -> None:
    config = folder(reference_run) / "run.json"
    assert main(CUSTOM, Options(), ["--config", str(config), "--model-dir", str(tmp_path)], "train") == 0
    assert_same_run(reference_run, tmp_path)


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_flags_win_over_the_record_and_the_record_over_the_script(spec: DatasetSpec, tmp_path: Path) -> None:
    """Of where to resume nothing is taken."""
    options = dataclasses.replace(
        CHANGED, variant=(list(spec.num_classes) or ["3"])[-1] if spec.variant_flag else ""
    )
    path = record_of(spec, dataclasses.replace(options, resume_epoch="auto"), tmp_path)
    script = Options(batch_size=9, lr_steps=(1, 2), wandb=True)
    expected = dataclasses.replace(options, config=path)
    assert parse_options(spec, script, ["--config", str(path)]) == expected
    flags = ["--no-flip", "--config", str(path), "--lr-schedule", "cosine", "--dataset", "x"]
    changes: dict[str, Any] = {"flip": False, "lr_schedule": "cosine", "dataset": Path("x")}
    assert parse_options(spec, script, flags) == dataclasses.replace(expected, **changes)


def test_what_has_changed_since_is_said(tmp_path: Path) -> None:
    dataset = {"name": "custom", "train": {"videos": 9}, "fingerprint": "abc"}
    record = make_record(Options(), dataset)
    assert list(describe_changes(record, Options(batch_size=5), dataset)) == []
    record["options"] |= {"old": 3}
    del record["options"]["mixup"]
    record["versions"]["torch"] = "2.0"
    now = record["code"].pop("network")
    assert list(
        describe_changes(
            record, Options(batch_size=5), {**dataset, "train": {"videos": 8}, "fingerprint": "d"}
        )
    ) == [
        "option mixup was unknown, is 0.0",
        "option old was 3, is unknown",
        f"versions torch was 2.0, is {make_record(Options(), {})['versions']['torch']}",
        f"code network was unknown, is {now}",
        "dataset train was {'videos': 9}, is {'videos': 8}",
        "dataset fingerprint was abc, is d",
    ]


def test_changes_are_logged(reference_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tmp_path / "run.json"
    record = read_run_json(folder(reference_run) / "run.json", CUSTOM)
    config.write_text(json.dumps({**record, "dataset": {"name": "custom", "classes": 4}}))
    assert (
        main(CUSTOM, Options(), ["--config", str(config), "--task-name", "again", "--dry-run"], "train") == 0
    )
    assert f"{config}: dataset classes was 4, is 3" in caplog.messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "run.json: not the run.json of a training run"),
        ('{"options": 3, "dataset": {"name": "custom"}}', "run.json: not the run.json of a training run"),
        ("[]", "run.json: not the run.json of a training run"),
        (
            '{"options": {}, "dataset": {"name": "custom"}, "code": null}',
            "run.json: not the run.json of a training run",
        ),
        ('{"options": {}, "dataset": {"name": "ucf101"}}', "a run on ucf101, which train_ucf101.py repeats"),
        (
            '{"options": {"batch_size": 0}, "dataset": {"name": "custom"}}',
            "run.json: error: argument --batch-size: '0' is not a whole number of at least 1",
        ),
        (
            '{"options": {}, "dataset": {"name": "custom"}}',
            "train: error: the following arguments are required",
        ),
    ],
)
def test_an_unusable_record_is_one_line(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SystemExit, match="2"):
        parse_options(CUSTOM, Options(), ["--config", str(tmp_path / "run.json")], "train")
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_record_of_another_dataset_names_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record_of(CUSTOM, Options(), tmp_path)
    with pytest.raises(SystemExit, match="2"):
        parse_options(KINETICS, Options(), ["--config", str(path)])
    assert f"{path}: a run on custom, which python -m train repeats" in capsys.readouterr().err
