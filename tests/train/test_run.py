"""Whole runs through the command line's entry: plans, resuming, fine-tuning, and what goes wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from data.datasets import OWN
from data.labels import main as labels_main
from tests.painting import make_stores
from train.options import Options
from train.run import main

SMALL = [
    "--network",
    "ir_csn_50",
    "--clip-length",
    "4",
    "--clip-size",
    "32",
    "--short-side",
    "36",
    "--batch-size",
    "4",
]
SMALL += ["--workers", "0", "--augment", "none", "--lr-base", "0.01", "--gpus", "0"]
NAME = "ir_csn_50"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    make_stores(root, {name: [f"{name}{i}" for i in range(6)] for name in ("a", "b", "c")}, n_frames=8)
    labels_main(["folders", str(root), "--val", "0.34"])
    return root


def train(dataset: Path, results: Path, *words: str) -> int:
    return main(
        OWN, Options(), ["--dataset", str(dataset), "--model-dir", str(results), *SMALL, *words], "train"
    )


def folder(results: Path) -> Path:
    (path,) = results.iterdir()
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def rows(results: Path, split: str) -> list[list[str]]:
    found = []
    for path in sorted(folder(results).glob(f"{split}_results_s*.csv")):
        with path.open() as file:
            found += [row[:4] for row in csv.reader(file)][1:]
    return found


@pytest.fixture(scope="module")
def undisturbed(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    assert (
        train(
            stores, results, "--end-epoch", "3", "--short-cycles", "--lr-steps", "2", "--warmup-epochs", "1"
        )
        == 0
    )
    return results


def test_what_a_run_leaves(undisturbed: Path, stores: Path) -> None:
    assert folder(undisturbed).name == "ir_csn_50_gates_False"
    names = {path.name for path in folder(undisturbed).iterdir()}
    assert names == {
        *(f"{NAME}_ep-000{epoch}.pth" for epoch in (1, 2, 3)),
        f"{NAME}_best.pth",
        "train_results_s0001.csv",
        "val_results_s0001.csv",
        "run.json",
        "train.log",
    }
    assert [row[0] for row in rows(undisturbed, "val")] == ["1", "2", "3"]
    content = torch.load(folder(undisturbed) / f"{NAME}_ep-0003.pth", weights_only=True)
    assert (content["epoch"], content["step"]) == (3, 0)
    assert content["classes"] == ["a", "b", "c"]
    assert content["options"]["clip_length"] == 4
    assert content["normalisation"]["channel_order"] == "bgr"
    assert not any(name.startswith("module.") for name in content["state_dict"])
    described = json.loads((folder(undisturbed) / "run.json").read_text())
    assert described["options"]["lr_steps"] == [2]
    assert described["dataset"] == content["dataset"]
    log = (folder(undisturbed) / "train.log").read_text()
    assert "epoch 3/3 val  loss" in log
    assert "clip/sec" in log
    assert "\x1b" not in log


@pytest.mark.parametrize("after", [1, 2])
def test_resumed_after_an_epoch_is_the_same_bit_for_bit(
    stores: Path, undisturbed: Path, tmp_path: Path, after: int
) -> None:
    """The original's --resume-epoch never resumed: it went on with random weights."""
    words = ["--short-cycles", "--lr-steps", "2", "--warmup-epochs", "1"]
    assert train(stores, tmp_path, "--end-epoch", str(after), *words) == 0
    assert train(stores, tmp_path, "--end-epoch", "3", "--resume-epoch", str(after + 1), *words) == 0
    assert_same_weights(folder(tmp_path) / f"{NAME}_ep-0003.pth", folder(undisturbed) / f"{NAME}_ep-0003.pth")
    for split in ("train", "val"):
        assert rows(tmp_path, split) == rows(undisturbed, split)
    assert (folder(tmp_path) / f"val_results_s000{after + 1}.csv").exists()


def test_same_seed_same_run_another_seed_another(stores: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The original took its seeds from the clock."""
    words = ["--end-epoch", "1", "--short-cycles", "--lr-steps", "2", "--warmup-epochs", "1"]
    train(stores, tmp_path / "same", *words)
    train(stores, tmp_path / "other", *words, "--random-seed", "2")
    assert rows(tmp_path / "same", "train")[0] == rows(undisturbed, "train")[0]
    assert rows(tmp_path / "other", "train")[0] != rows(undisturbed, "train")[0]


def test_stopped_within_an_epoch_and_resumed_is_the_same(stores: Path, tmp_path: Path) -> None:
    words = ["--end-epoch", "2", "--batch-size", "2", "--log-interval", "1", "--lr-schedule", "cosine"]
    assert train(stores, tmp_path / "undisturbed", *words) == 0
    command = [
        sys.executable,
        "-m",
        "train",
        "--dataset",
        str(stores),
        "--model-dir",
        str(tmp_path / "stopped"),
    ]
    command += [*SMALL, *words, "--resume-epoch", "auto"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        if "epoch 1/2 step 3/6" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM, rest
    assert "--resume-epoch auto goes on from there" in rest
    last = torch.load(folder(tmp_path / "stopped") / f"{NAME}_last.pth", weights_only=True)
    assert last["epoch"] == 0
    assert 3 <= last["step"] < 6
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    assert_same_weights(
        *(folder(tmp_path / name) / f"{NAME}_ep-0002.pth" for name in ("undisturbed", "stopped"))
    )
    for split in ("train", "val"):
        assert rows(tmp_path / "stopped", split) == rows(tmp_path / "undisturbed", split)


def test_best_checkpoint_is_gone_on_from_where_it_is_the_furthest(stores: Path, tmp_path: Path) -> None:
    """With --save-frequency 8 a run that died in epoch 5 once started anew, over its own results."""
    words = ["--save-frequency", "8", "--end-epoch"]
    assert train(stores, tmp_path, *words, "1") == 0
    (folder(tmp_path) / f"{NAME}_ep-0001.pth").unlink()
    assert train(stores, tmp_path, *words, "2", "--resume-epoch", "auto") == 0
    assert [row[0] for row in rows(tmp_path, "val")] == ["1", "2"]
    assert (folder(tmp_path) / "val_results_s0002.csv").exists()


def test_checkpoints_that_cannot_be_read_are_no_fresh_start(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ir_csn_50_gates_False").mkdir()
    (tmp_path / "ir_csn_50_gates_False" / f"{NAME}_ep-0003.pth").write_bytes(b"damaged")
    fails(
        capsys, 2, "none of its checkpoints can be read",
        run=lambda: train(stores, tmp_path, "--resume-epoch", "auto"),
    )  # fmt: skip


def test_going_back_sets_the_other_branch_aside(stores: Path, tmp_path: Path) -> None:
    """`auto` once went on from the abandoned branch, and an epoch's row was lost."""
    assert train(stores, tmp_path, "--end-epoch", "3") == 0
    assert train(stores, tmp_path, "--end-epoch", "2", "--resume-epoch", "2", "--lr-base", "0.001") == 0
    assert (folder(tmp_path) / f"{NAME}_ep-0003.pth.old").exists()
    assert train(stores, tmp_path, "--end-epoch", "4", "--resume-epoch", "auto") == 0
    assert [row[0] for row in rows(tmp_path, "val")] == ["1", "2", "3", "4"]


def test_log_of_a_run_tells_how_it_began_and_why_it_ended(
    stores: Path, undisturbed: Path, tmp_path: Path
) -> None:
    checkpoint = folder(undisturbed) / f"{NAME}_ep-0002.pth"
    words = [
        "--pretrained-3d",
        str(checkpoint),
        "--resume-epoch",
        "3",
        "--end-epoch",
        "3",
        "--lr-base",
        "1e30",
    ]
    assert train(stores, tmp_path, *words) == 1
    log = (folder(tmp_path) / "train.log").read_text()
    assert f"{checkpoint}: going on with epoch 3, step 1" in log
    assert "ERROR epoch 3, step " in log


def test_an_epoch_that_has_begun_goes_on_as_planned_or_not_at_all(
    stores: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(folder(undisturbed) / f"{NAME}_ep-0001.pth", weights_only=True)
    (tmp_path / "ir_csn_50_gates_False").mkdir()
    torch.save(content | {"step": 1}, tmp_path / "ir_csn_50_gates_False" / f"{NAME}_last.pth")
    words = ["--resume-epoch", "auto", "--short-cycles"]
    fails(
        capsys, 2, "_last.pth: was written with --batch-size 4, not 2",
        run=lambda: train(stores, tmp_path, *words, "--batch-size", "2"),
    )  # fmt: skip


def test_auto_starts_where_there_is_nothing_and_ends_where_all_is_done(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert train(stores, tmp_path, "--end-epoch", "1", "--resume-epoch", "auto") == 0
    assert "no checkpoint, starting at epoch 1" in caplog.text
    before = rows(tmp_path, "val")
    assert train(stores, tmp_path, "--end-epoch", "1", "--resume-epoch", "auto") == 0
    assert "the run is complete, 1 epochs are done" in caplog.text
    assert rows(tmp_path, "val") == before


@pytest.fixture(scope="module")
def one_epoch(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("one_epoch")
    assert train(stores, results, "--end-epoch", "1") == 0
    return results


@pytest.mark.parametrize(
    "words",
    [
        "--clip-gradient 0.01", "--frame-sampling normal", "--flip False", "--augment imgaug",
        "--lr-schedule cosine", "--warmup-epochs 1", "--pool soft", "--short-side 40", "--train-frame-interval 1",
        "--lr-base 0.02", "--batch-size 6", "--clip-length 2", "--short-cycles", "--random-seed 9",
    ],
)  # fmt: skip
def test_flag_changes_what_is_learned(stores: Path, one_epoch: Path, tmp_path: Path, words: str) -> None:
    """Half of the original's flags had no effect."""
    assert train(stores, tmp_path, "--end-epoch", "1", *words.split()) == 0
    assert rows(tmp_path, "val") != rows(one_epoch, "val")


def test_best_checkpoint_is_of_the_best_epoch(undisturbed: Path) -> None:
    best = torch.load(folder(undisturbed) / f"{NAME}_best.pth", weights_only=True)
    scores = [float(row[1]) for row in rows(undisturbed, "val")]
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert best["metrics"]["best_top1"] == max(scores)


def test_checkpoints_within_an_epoch_by_the_clock(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch", "1", "--save-minutes", "1e-6") == 0
    last = torch.load(folder(tmp_path) / f"{NAME}_last.pth", weights_only=True)
    assert (last["epoch"], last["step"]) == (0, 3)


def test_save_frequency_and_task_name(stores: Path, tmp_path: Path) -> None:
    assert (
        train(stores, tmp_path, "--end-epoch", "3", "--save-frequency", "2", "--task-name", "second try") == 0
    )
    assert folder(tmp_path).name == "ir_csn_50_gates_False_second try"
    saved = sorted(path.name for path in folder(tmp_path).glob("*_ep-*.pth"))
    assert saved == [f"{NAME}_ep-0002.pth", f"{NAME}_ep-0003.pth"]


def test_starting_from_weights_lists_what_did_not_fit(
    stores: Path, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    published = {
        f"module.{name}": w for name, w in weights(folder(undisturbed) / f"{NAME}_ep-0003.pth").items()
    }
    published["module.fc.weight"] = torch.zeros(400, 512)
    published["module.other"] = torch.zeros(2)
    torch.save({"state_dict": published}, tmp_path / "w.pth")
    words = [
        "--pretrained-3d",
        str(tmp_path / "w.pth"),
        "--fine-tune",
        "--fine-tune-factor",
        "0.25",
        "--end-epoch",
        "1",
        "--lr-base",
        "1e-9",
    ]
    assert train(stores, tmp_path / "results", *words) == 0
    assert "of another shape, not loaded: fc.weight (400, 512), here (3, 512)" in caplog.text
    assert "not in the network, ignored: other" in caplog.text
    after = weights(folder(tmp_path / "results") / f"{NAME}_ep-0001.pth")
    assert torch.allclose(after["stem.0.weight"], published["module.stem.0.weight"], atol=1e-6)
    for resumed in ([], ["--resume-epoch", "2", "--end-epoch", "2"]):
        if resumed:
            assert train(stores, tmp_path / "results", *resumed) == 0
        path = max((folder(tmp_path / "results")).glob("*_ep-*.pth"))
        groups = torch.load(path, weights_only=True)["optimiser"]["param_groups"]
        assert {name for group in groups if group["role"] == "new" for name in group["names"]} == {
            "fc.weight",
            "fc.bias",
        }
        factors = {group["role"]: group["lr_factor"] for group in groups}
        assert factors == {"new": 1.0, "filled": 0.6 if resumed else 0.25}


def dry_run(dataset: Path, results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert train(dataset, results, "--dry-run", *words) == 0
    return json.loads(capsys.readouterr().out)


def test_dry_run_prints_the_plan_and_leaves_nothing(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = dry_run(stores, tmp_path, capsys)
    assert set(plan) == {"options", "dataset", "steps", "compute_ratio", "shared_memory_bytes"}
    assert plan["dataset"]["train"] == {"videos": 12, "missing": 0}
    assert plan["dataset"]["val"] == {"videos": 6, "missing": 0}
    assert plan["dataset"]["classes"] == 3
    assert plan["options"]["precision"] == "fp32"
    assert plan["options"]["short_side"] == 36
    step = {"batch": 4, "length": 4, "size": 32, "lr": 0.01}
    assert plan["steps"] == [{"epoch": 1, "step": i, **step} for i in (1, 2, 3)]
    assert plan["compute_ratio"] == 1
    assert plan["shared_memory_bytes"] == 0
    assert list(tmp_path.iterdir()) == []


def test_plan_of_both_cycles_for_5040_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_stores(tmp_path / "set", {"a": ["0"], "b": ["0"]}, n_frames=1)
    for name in ("a", "b"):
        for i in range(1, 2520):
            (tmp_path / "set/jpg" / name / str(i)).symlink_to(tmp_path / "set/jpg" / name / "0")
    (tmp_path / "set/labels").mkdir()
    lines = ["label,id", *(f"{name},{i}" for name in ("a", "b") for i in range(2520))]
    (tmp_path / "set/labels/train.csv").write_text("\n".join(lines))
    (tmp_path / "set/labels/val.csv").write_text("\n".join(lines[:3]))
    words = [
        "--batch-size",
        "48",
        "--clip-length",
        "16",
        "--clip-size",
        "224",
        "--workers",
        "8",
        "--lr-base",
        "0.8",
    ]
    plan = dry_run(
        tmp_path / "set", tmp_path, capsys, *words, "--long-cycles", "--short-cycles", "--network", "r3d_18"
    )
    steps = plan["steps"]
    shapes = {(step["batch"], step["length"], step["size"]) for step in steps}
    assert {(1536, 4, 80), (384, 8, 112), (96, 16, 158), (48, 16, 224)} <= shapes
    assert sum(step["batch"] for step in steps) == 5040
    by_rate = [sum(abs(step["lr"] - 0.8 / 2**phase) < 1e-9 for step in steps) for phase in range(4)]
    assert sum(by_rate) == len(steps)
    assert max(by_rate) - min(by_rate) <= 1
    assert plan["shared_memory_bytes"] == 17 * max(b * t * s * s * 3 for b, t, s in shapes)
    # a step costs about as much at any shape, and 14 steps stand for 105
    assert len(steps) / 105 < 1.3 * plan["compute_ratio"] < 1.5 * len(steps) / 105


def test_long_cycles_train(stores: Path, tmp_path: Path) -> None:
    """So small a set gives few steps; what matters is that every shape goes through."""
    words = [
        "--long-cycles",
        "--short-cycles",
        "--batch-size",
        "2",
        "--clip-size",
        "48",
        "--short-side",
        "48",
    ]
    assert train(stores, tmp_path, "--end-epoch", "1", *words) == 0
    assert len(rows(tmp_path, "val")) == 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(stores: Path, tmp_path: Path, precision: str) -> None:
    """The fp16 scaler skips its first steps until its scale fits, so one epoch of three steps changes nothing."""
    words = ["--lr-base", "0.001", "--end-epoch", "4", "--save-frequency", "4"]
    assert train(stores, tmp_path, *words, "--precision", precision) == 0
    assert np.isfinite(float(rows(tmp_path, "train")[0][3]))
    last = torch.load(folder(tmp_path) / f"{NAME}_ep-0004.pth", weights_only=True)
    momentum = [state["momentum_buffer"] for state in last["optimiser"]["state"].values()]
    assert len(momentum) > 100
    assert all(torch.isfinite(buffer).all() for buffer in momentum)
    assert any(buffer.any() for buffer in momentum)


def test_run_in_fp32_goes_on_in_fp16(stores: Path, tmp_path: Path) -> None:
    """From a laptop to a GPU, where fp16 is the default."""
    assert train(stores, tmp_path, "--end-epoch", "1") == 0
    assert train(stores, tmp_path, "--end-epoch", "2", "--resume-epoch", "2", "--precision", "fp16") == 0
    assert [row[0] for row in rows(tmp_path, "val")] == ["1", "2"]


@pytest.mark.parametrize("gates", ["True", "soft"])
def test_gates_are_reported_by_stage(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, gates: str
) -> None:
    caplog.set_level("INFO")
    assert train(stores, tmp_path, "--network", "srtg_ir_csn_50", "--gates", gates, "--end-epoch", "1") == 0
    assert folder(tmp_path).name == f"srtg_ir_csn_50_gates_{gates}"
    assert "gates layer1 0." in caplog.text


def test_tensorboard_events(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch", "1", "--tensorboard") == 0
    assert list(folder(tmp_path).glob("events.out.tfevents.*"))


def fails(capsys: pytest.CaptureFixture[str], status: int, *message: str, run: object) -> None:
    capsys.readouterr()
    assert run() == status
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    for part in message:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "srtg_r3d_33"], "unknown network 'srtg_r3d_33'; the closest names are srtg_r3d_34"),
        (["--network", "r3d_18", "--gates", "True"], "r3d_18 does not take gates"),
        (
            ["--num-classes", "51"],
            "train.csv: has 3 classes where 51 are expected; --num-classes 3 accepts it",
        ),
        (["--labels", "/nowhere"], "label file train.csv: not found in /nowhere; --labels names its folder"),
        (["--resume-epoch", "21"], "ir_csn_50_ep-0020.pth: there is no such checkpoint"),
        (["--pretrained-3d", "/nowhere/w.pth"], "/nowhere/w.pth: there is no such checkpoint"),
        (["--dataset", "/nowhere"], "/nowhere: --dataset must be a folder that holds jpg/"),
        (["--clip-size", "18", "--short-cycles"], "clips of 12 pixels are too small, need at least 16"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_line(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    fails(capsys, 2, "train: error: ", message, run=lambda: train(stores, tmp_path, *words))
    assert list(tmp_path.iterdir()) == []


def test_debug_mode_shows_the_traceback(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown network"):
        train(stores, tmp_path, "--network", "nothing", "--debug-mode")


def test_fresh_start_into_results_is_refused(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stores, tmp_path, "--end-epoch", "1") == 0
    before = rows(tmp_path, "val")
    fails(capsys, 2, "--task-name", "--resume-epoch", run=lambda: train(stores, tmp_path, "--end-epoch", "1"))
    assert rows(tmp_path, "val") == before


def test_checkpoint_of_something_else_is_refused(
    stores: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = folder(undisturbed) / f"{NAME}_ep-0002.pth"
    words = ["--pretrained-3d", str(checkpoint), "--resume-epoch"]
    fails(
        capsys,
        2,
        "was written in epoch 3",
        "--resume-epoch 9",
        run=lambda: train(stores, tmp_path, *words, "9"),
    )
    fails(
        capsys, 2, "was written with --channel-order bgr, not rgb",
        run=lambda: train(stores, tmp_path, *words, "3", "--channel-order", "rgb"),
    )  # fmt: skip
    other = ["--network", "ir_csn_101"]
    fails(
        capsys, 2, "was written with --network ir_csn_50, not ir_csn_101",
        run=lambda: train(stores, tmp_path, *words, "3", *other),
    )  # fmt: skip
    make_stores(tmp_path / "two", {"a": ["0", "1"], "b": ["0", "1"]}, n_frames=4)
    labels_main(["folders", str(tmp_path / "two")])
    fails(
        capsys, 2, "was written for 3 classes, which are not the 2",
        run=lambda: train(tmp_path / "two", tmp_path / "results", *words, "3"),
    )  # fmt: skip


def test_weights_of_which_nothing_fits(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counters = {"stem.1.num_batches_tracked": torch.tensor(7)}  # fits, and is worth nothing
    torch.save({"encoder.weight": torch.zeros(3)} | counters, tmp_path / "w.pth")
    fails(
        capsys, 2, "w.pth: none of its 2 tensors has a name and shape of this network's",
        run=lambda: train(stores, tmp_path / "results", "--pretrained-3d", str(tmp_path / "w.pth")),
    )  # fmt: skip


def test_loss_that_is_no_number_stops_the_run_and_says_where(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(
        capsys, 1, "epoch 1, step ", "batch 4x4x32x32, learning rate 1e+30", "the loss is not finite",
        run=lambda: train(stores, tmp_path, "--lr-base", "1e30"),
    )  # fmt: skip
    assert not list(folder(tmp_path).glob("*.pth"))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    make_stores(tmp_path / "set", {name: [f"{i}" for i in range(6)] for name in ("a", "b")}, n_frames=4)
    labels_main(["folders", str(tmp_path / "set"), "--val", "0.34"])
    return tmp_path / "set"


def damage(dataset: Path, split: str) -> str:
    with (dataset / "labels" / f"{split}.csv").open() as file:
        row = next(csv.DictReader(file))
    store = dataset / "jpg" / row["label"] / row["id"]
    (store / "frames.db").write_bytes(b"damaged" * 1000)
    return str(store)


def test_bad_training_samples_are_replaced_up_to_a_limit(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = damage(damaged, "train")
    fails(
        capsys, 1, "1 clips of 8 could not be read, more than --max-bad-samples 0.01", "bad_samples.csv names them",
        run=lambda: train(damaged, tmp_path / "strict"),
    )  # fmt: skip
    assert store in (folder(tmp_path / "strict") / "bad_samples.csv").read_text()
    assert train(damaged, tmp_path / "lenient", "--max-bad-samples", "0.5", "--end-epoch", "1") == 0
    assert len(rows(tmp_path / "lenient", "train")) == 1


def test_bad_validation_sample_is_an_error_or_left_out(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = damage(damaged, "val")
    fails(
        capsys, 1, f"validation: {store}/frames.db: file is not a database; --skip-bad-samples",
        run=lambda: train(damaged, tmp_path / "strict", "--end-epoch", "1"),
    )  # fmt: skip
    assert train(damaged, tmp_path / "lenient", "--end-epoch", "1", "--skip-bad-samples") == 0
    assert "validation left out 1 of 4 videos" in caplog.text


def test_tiny_set_is_learned_by_heart(tmp_path: Path) -> None:
    """Nine painted videos of three classes."""
    make_stores(tmp_path / "set", {name: [f"{i}" for i in range(4)] for name in ("a", "b", "c")}, n_frames=6)
    labels_main(["folders", str(tmp_path / "set"), "--val", "0.25"])
    words = [
        "--network",
        "r3d_18",
        "--clip-size",
        "48",
        "--short-side",
        "48",
        "--batch-size",
        "9",
        "--flip",
        "False",
    ]
    words += ["--lr-base", "0.01", "--clip-gradient", "1", "--end-epoch", "12", "--save-frequency", "12"]
    assert train(tmp_path / "set", tmp_path / "results", *words) == 0
    learned = [float(row[3]) for row in rows(tmp_path / "results", "train")]
    assert learned[-1] < 0.1 * learned[0]
    assert float(rows(tmp_path / "results", "train")[-1][1]) == 1.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_answered_within_seconds(stores: Path, tmp_path: Path, number: int) -> None:
    """What Ctrl-C, `timeout` and batch systems do: the workers get the signal too, and must not die of it."""
    command = [sys.executable, "-m", "train", "--dataset", str(stores), "--model-dir", str(tmp_path), *SMALL]
    command += ["--workers", "2", "--log-interval", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if "step 1/" in line:
            os.killpg(process.pid, number)
            break
    started = time.monotonic()
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 128 + number, rest
    assert time.monotonic() - started < 30
    assert "Traceback" not in rest
    assert (folder(tmp_path) / f"{NAME}_last.pth").exists()
