"""Whole runs through the command line's entry: what they leave, plans, flags, fine-tuning."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import NAME, folder, rows, train, weights

labels_main = main_of("data.labels")


def test_what_a_run_leaves(undisturbed: Path, stores: Path) -> None:
    assert folder(undisturbed).name == "ir_csn_50_gates_False"
    names = {path.name for path in folder(undisturbed).iterdir()}
    assert names == {
        *(f"{NAME}_ep-000{epoch}.pth" for epoch in (1, 2, 3)),
        f"{NAME}_best.pth",
        "train_results_s0001.csv",
        "val_results_s0001.csv",
        "run.json",
        "run.lock",
        "train.log",
    }
    assert [row[0] for row in rows(undisturbed, "val")] == ["1", "2", "3"]
    content = torch.load(folder(undisturbed) / f"{NAME}_ep-0003.pth", weights_only=True)
    assert (content["epoch"], content["step"]) == (3, 0)
    assert content["classes"] == ["a", "b", "c"]
    assert content["options"]["clip_length"] == 4
    assert content["normalization"]["channel_order"] == "bgr"
    assert not any(name.startswith("module.") for name in content["state_dict"])
    described = json.loads((folder(undisturbed) / "run.json").read_text())
    assert described["options"]["lr_steps"] == [2]
    assert described["dataset"] == content["dataset"]
    log = (folder(undisturbed) / "train.log").read_text()
    assert "epoch 3/3 val  loss" in log
    assert "clip/sec" in log
    assert "\x1b" not in log


def test_same_seed_same_run_another_seed_another(stores: Path, undisturbed: Path, tmp_path: Path) -> None:
    """The original took its seeds from the clock."""
    words = ["--end-epoch", "1", "--short-cycles", "--lr-steps", "2", "--warmup-epochs", "1"]
    train(stores, tmp_path / "same", *words)
    train(stores, tmp_path / "other", *words, "--random-seed", "2")
    assert rows(tmp_path / "same", "train")[0] == rows(undisturbed, "train")[0]
    assert rows(tmp_path / "other", "train")[0] != rows(undisturbed, "train")[0]


@pytest.fixture(scope="module")
def one_epoch(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("one_epoch")
    assert train(stores, results, "--end-epoch", "1") == 0
    return results


@pytest.mark.parametrize(
    "words",
    [
        "--clip-grad-norm 0.01", "--frame-sampling normal", "--flip False", "--augment imgaug",
        "--lr-schedule cosine", "--warmup-epochs 1", "--pool soft", "--short-side 40", "--train-frame-interval 1",
        "--lr-base 0.02", "--batch-size 6", "--clip-length 2", "--short-cycles", "--random-seed 9",
        "--sub-bn-size 2", "--ema-decay 0.9", "--optimizer adamw", "--label-smoothing 0.1", "--mixup 0.4", "--cutmix 1",
        "--accumulate 2", "--freeze-batchnorm",
    ],
)  # fmt: skip
def test_flag_changes_what_is_learned(stores: Path, one_epoch: Path, tmp_path: Path, words: str) -> None:
    """Half of the original's flags had no effect."""
    assert train(stores, tmp_path, "--end-epoch", "1", *words.split()) == 0
    assert rows(tmp_path, "val") != rows(one_epoch, "val")


def test_frozen_norms_keep_the_statistics_of_the_weights(
    stores: Path, undisturbed: Path, tmp_path: Path
) -> None:
    start = folder(undisturbed) / f"{NAME}_ep-0003.pth"
    words = ["--pretrained-3d", str(start), "--freeze-batchnorm", "--end-epoch", "1", "--lr-base", "1e-4"]
    words += ["--clip-grad-norm", "1"]  # statistics of nine steps fit no clip, so gradients are large
    assert train(stores, tmp_path, *words) == 0
    before, after = weights(start), weights(folder(tmp_path) / f"{NAME}_ep-0001.pth")
    statistics = [name for name in before if "running_" in name or "num_batches" in name]
    assert len(statistics) > 100
    assert [name for name in statistics if not torch.equal(before[name], after[name])] == []
    assert not torch.equal(before["stem.1.weight"], after["stem.1.weight"])


def test_best_checkpoint_is_of_the_best_epoch(undisturbed: Path) -> None:
    best = torch.load(folder(undisturbed) / f"{NAME}_best.pth", weights_only=True)
    scores = [float(row[1]) for row in rows(undisturbed, "val")]
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert best["metrics"]["best_top1"] == max(scores)


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
    lines = [line.split() for line in caplog.text.splitlines()]
    assert ["fc.weight", "400x512", "3x512"] in lines
    assert ["other", "2", "-"] in lines
    after = weights(folder(tmp_path / "results") / f"{NAME}_ep-0001.pth")
    assert torch.allclose(after["stem.0.weight"], published["module.stem.0.weight"], atol=1e-6)
    for resumed in ([], ["--resume-epoch", "2", "--end-epoch", "2"]):
        if resumed:
            assert train(stores, tmp_path / "results", *resumed) == 0
        path = max((folder(tmp_path / "results")).glob("*_ep-*.pth"))
        content = torch.load(path, weights_only=True)
        assert content["options"]["fine_tune"] is True  # as it began, whatever the command says now
        groups = content["optimizer"]["param_groups"]
        assert {name for group in groups if group["role"] == "new" for name in group["names"]} == {
            "fc.weight",
            "fc.bias",
        }
        factors = {group["role"]: group["lr_factor"] for group in groups}
        assert factors == {"new": 1.0, "filled": 0.6 if resumed else 0.25}
    # its own command and the number of an epoch: the weights it began with were once taken for the checkpoint
    assert train(stores, tmp_path / "results", *words, "--end-epoch", "3", "--resume-epoch", "3") == 0
    assert f"{NAME}_ep-0002.pth: going on with epoch 3" in caplog.text


def dry_run(dataset: Path, results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert train(dataset, results, "--dry-run", *words) == 0
    return json.loads(capsys.readouterr().out)


def test_plan_is_of_the_steps_that_are_left(
    stores: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a complete run those of an epoch after the last were printed; within an epoch those that are done, too."""
    done = folder(undisturbed) / f"{NAME}_ep-0002.pth"
    words = ["--pretrained-3d", str(done), "--resume-epoch", "3", "--end-epoch"]
    assert dry_run(stores, tmp_path, capsys, *words, "2")["steps"] == []
    assert len(dry_run(stores, tmp_path, capsys, *words, "3")["steps"]) == 3
    within = tmp_path / f"{NAME}_gates_False" / f"{NAME}_last.pth"
    within.parent.mkdir()
    torch.save(torch.load(done, weights_only=True) | {"step": 1}, within)
    words = ["--resume-epoch", "auto", "--short-cycles", "--end-epoch", "3"]
    left = dry_run(stores, tmp_path, capsys, *words)["steps"]
    assert [(step["epoch"], step["step"]) for step in left] == [(3, 2)]  # of batches 4 and 8


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
    # 17 of the largest batches would be more than 2 GB; nine are held
    assert plan["shared_memory_bytes"] == 9 * max(b * t * s * s * 3 for b, t, s in shapes)
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


@pytest.mark.parametrize(("precision", "epochs"), [("bf16", "1"), ("fp16", "4")])
def test_half_precision_trains(stores: Path, tmp_path: Path, precision: str, epochs: str) -> None:
    """The fp16 scaler skips its first steps until its scale fits, so one epoch of three steps changes nothing."""
    words = ["--lr-base", "0.001", "--end-epoch", epochs, "--save-frequency", epochs]
    assert train(stores, tmp_path, *words, "--precision", precision) == 0
    assert np.isfinite(float(rows(tmp_path, "train")[0][3]))
    last = torch.load(folder(tmp_path) / f"{NAME}_ep-000{epochs}.pth", weights_only=True)
    momentum = [state["momentum_buffer"] for state in last["optimizer"]["state"].values()]
    assert len(momentum) > 100
    assert all(torch.isfinite(buffer).all() for buffer in momentum)
    assert any(buffer.any() for buffer in momentum)


def test_gates_are_reported_by_stage(stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert train(stores, tmp_path, "--network", "srtg_ir_csn_50", "--gates", "True", "--end-epoch", "1") == 0
    assert folder(tmp_path).name == "srtg_ir_csn_50_gates_True"
    assert "gates layer1 0." in caplog.text


def test_tables_and_tensorboard_say_the_same(stores: Path, tmp_path: Path) -> None:
    """Speeds, soft gates by stage, and shapes of batches besides loss and accuracy."""
    words = ["--network", "srtg_ir_csn_50", "--gates", "soft", "--short-cycles", "--tensorboard"]
    assert train(stores, tmp_path, "--end-epoch", "1", *words) == 0
    with (folder(tmp_path) / "train_results_s0001.csv").open() as file:
        (row,) = csv.DictReader(file)
    events = EventAccumulator(str(folder(tmp_path)))
    events.Reload()
    scalars = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    columns = {
        "loss/train": "Loss",
        "top1/train": "Top1",
        "top5/train": "Top5",
        "learning_rate": "LRSchedule",
    }
    columns |= {f"clips_a_second/{name.lower()}": name for name in ("Reading", "Forward", "Backward")}
    columns |= {f"gates/layer{stage}": f"Gates layer{stage}" for stage in (1, 2, 3, 4)}
    assert scalars.keys() == {*columns, "loss/val", "top1/val", "top5/val"}
    for tag, column in columns.items():
        assert scalars[tag] == pytest.approx(float(row[column]), rel=1e-2, abs=1e-4), tag
        assert scalars[tag] > 0 or tag.startswith("top")
    assert row["Batches"] == "1*4x4x32x32 1*8x4x22x22"
    (text,) = events.Tensors("batches/text_summary")
    assert text.tensor_proto.string_val == [row["Batches"].encode()]


def test_tiny_set_is_learned_by_heart(tmp_path: Path) -> None:
    """Nine painted videos of three classes."""
    make_stores(tmp_path / "set", {name: [f"{i}" for i in range(4)] for name in ("a", "b", "c")}, n_frames=6)
    labels_main(["folders", str(tmp_path / "set"), "--val", "0.25"])
    words = [
        "--network",
        "r3dxt34_32d",
        "--clip-size",
        "48",
        "--short-side",
        "48",
        "--batch-size",
        "9",
        "--flip",
        "False",
    ]
    words += ["--lr-base", "0.1", "--clip-grad-norm", "1", "--end-epoch", "12", "--save-frequency", "12"]
    assert train(tmp_path / "set", tmp_path / "results", *words) == 0
    learned = [float(row[3]) for row in rows(tmp_path / "results", "train")]
    assert learned[-1] < 0.1 * learned[0]
    assert float(rows(tmp_path / "results", "train")[-1][1]) == 1.0


def test_a_run_normalises_as_the_weights_it_starts_from_expect(stores: Path, tmp_path: Path) -> None:
    """ImageNet's are for RGB pictures; the checkpoint says so, and resuming goes on with it."""
    stem = {
        "conv1.weight": torch.randn(64, 3, 7, 7),
        "bn1.weight": torch.ones(64),
        "bn1.bias": torch.zeros(64),
    }
    torch.save(stem, tmp_path / "image.pth")
    words = ["--pretrained-3d", str(tmp_path / "image.pth"), "--end-epoch", "1", "--lr-base", "1e-9"]
    assert train(stores, tmp_path / "auto", *words) == 0
    path = folder(tmp_path / "auto") / f"{NAME}_ep-0001.pth"
    content = torch.load(path, weights_only=True)
    assert content["normalization"]["means"] == [0.485, 0.456, 0.406]
    assert content["normalization"]["channel_order"] == content["options"]["channel_order"] == "rgb"
    expected = stem["conv1.weight"].unsqueeze(2).expand(-1, -1, 3, -1, -1) / 3
    assert torch.allclose(content["state_dict"]["stem.0.weight"], expected, atol=1e-6)
    assert train(stores, tmp_path / "auto", "--resume-epoch", "2", "--end-epoch", "2") == 0
    resumed = torch.load(path.with_name(f"{NAME}_ep-0002.pth"), weights_only=True)
    assert resumed["normalization"] == content["normalization"]
    assert train(stores, tmp_path / "forced", *words, "--channel-order", "bgr") == 0
    forced = torch.load(folder(tmp_path / "forced") / f"{NAME}_ep-0001.pth", weights_only=True)
    assert forced["normalization"]["channel_order"] == "bgr"
    assert train(stores, tmp_path / "auto", "--resume-epoch", "3", "--channel-order", "bgr") == 2
    assert train(stores, tmp_path / "wrong", *words, "--pretrained-format", "own") == 2
