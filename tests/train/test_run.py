"""Whole runs through `main`: what they leave, dry runs, and what each flag changes."""

import csv
import json
import logging
import multiprocessing
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.synthetic_frames import make_stores
from tests.train.conftest import make_dataset
from tests.train.helpers import NAME, assert_fails, corrupt_store, epochs, folder, load, rows, train, weights


def test_files_of_a_run(reference_run: Path) -> None:
    assert folder(reference_run).name == f"{NAME}_gates_False"
    assert {path.name for path in folder(reference_run).iterdir()} == {
        *(f"{NAME}_ep-000{epoch}.pth" for epoch in (1, 2, 3)),
        *(f"{NAME}_best.pth", "train_results_s0001.csv", "val_results_s0001.csv"),
        *("run.json", "run.lock", "train.log"),
    }
    assert epochs(reference_run) == ["1", "2", "3"]
    content = load(reference_run, "ep-0003")
    assert (content["epoch"], content["step"]) == (3, 0)
    assert content["classes"] == ["a", "b", "c"]
    assert content["options"]["clip_length"] == 4
    assert content["normalization"]["channel_order"] == "bgr"
    assert not any(name.startswith("module.") for name in content["state_dict"])
    described = json.loads((folder(reference_run) / "run.json").read_text())
    assert described["options"]["lr_steps"] == [2]
    assert described["dataset"] == content["dataset"]
    log = (folder(reference_run) / "train.log").read_text()
    assert "epoch 3/3 val  loss" in log
    assert "clip/sec" in log
    assert "\x1b" not in log


def test_the_best_checkpoint_is_of_the_best_epoch(reference_run: Path) -> None:
    best = load(reference_run, "best")
    scores = [float(row[1]) for row in rows(reference_run, "val")]
    assert best["epoch"] == 1 + scores.index(max(scores))
    assert best["metrics"]["best_top1"] == max(scores)


@pytest.fixture(scope="module")
def one_epoch(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("one_epoch")
    assert train(stores, results, "--end-epoch 1") == 0
    return results


@pytest.mark.parametrize("flags", ["", "--activation-checkpointing"])
def test_the_same_seed_gives_the_same_run(stores: Path, one_epoch: Path, tmp_path: Path, flags: str) -> None:
    assert train(stores, tmp_path, "--end-epoch 1", flags) == 0
    assert rows(tmp_path, "val") == rows(one_epoch, "val")


@pytest.mark.parametrize(
    "flags",
    [
        "--clip-grad-norm 0.01", "--frame-sampling normal", "--flip False", "--augment imgaug",
        "--lr-schedule cosine", "--warmup-epochs 1", "--pool soft", "--short-side 40", "--train-frame-interval 1",
        "--lr-base 0.02", "--batch-size 6", "--clip-length 2", "--short-cycles", "--random-seed 9",
        "--sub-bn-size 2", "--ema-decay 0.9", "--optimizer adamw", "--label-smoothing 0.1", "--mixup 0.4", "--cutmix 1",
        "--accumulate 2", "--freeze-batchnorm", "--precise-bn 8", "--long-cycles",
    ],
)  # fmt: skip
def test_a_flag_changes_what_is_learned(stores: Path, one_epoch: Path, tmp_path: Path, flags: str) -> None:
    assert train(stores, tmp_path, "--end-epoch 1", flags) == 0
    assert rows(tmp_path, "val") != rows(one_epoch, "val")


@pytest.mark.parametrize(("precision", "end_epoch"), [("bf16", 1), ("fp16", 4)])
def test_half_precision(stores: Path, tmp_path: Path, precision: str, end_epoch: int) -> None:
    """GradScaler skips its first steps until its scale fits."""
    flags = f"--lr-base 0.001 --end-epoch {end_epoch} --save-frequency {end_epoch}"
    assert train(stores, tmp_path, flags, f"--precision {precision}") == 0
    assert np.isfinite(float(rows(tmp_path, "train")[0][3]))
    state = load(tmp_path, f"ep-000{end_epoch}")["optimizer"]["state"].values()
    momentum = [parameter["momentum_buffer"] for parameter in state]
    assert all(torch.isfinite(buffer).all() for buffer in momentum)
    assert any(buffer.any() for buffer in momentum)


def test_a_tiny_dataset_is_learned(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", videos=4, n_frames=6, val="0.25")
    flags = "--batch-size 9 --flip False --lr-base 0.1 --clip-grad-norm 1 --end-epoch 20 --save-frequency 20"
    assert train(dataset, tmp_path / "results", flags) == 0
    losses = [float(row[3]) for row in rows(tmp_path / "results", "train")]
    assert losses[-1] < 0.1 * losses[0]
    assert float(rows(tmp_path / "results", "train")[-1][1]) == 1.0


def test_frozen_batchnorm_keeps_the_running_stats(stores: Path, reference_run: Path, tmp_path: Path) -> None:
    start = folder(reference_run) / f"{NAME}_ep-0003.pth"
    flags = f"--pretrained-3d {start} --freeze-batchnorm --end-epoch 1 --lr-base 1e-4 --clip-grad-norm 1"
    assert train(stores, tmp_path, flags) == 0
    before, after = weights(start), load(tmp_path, "ep-0001")["state_dict"]
    stats = [name for name in before if "running_" in name or "num_batches" in name]
    assert len(stats) > 20
    assert [name for name in stats if not torch.equal(before[name], after[name])] == []
    assert not torch.equal(before["stem.1.weight"], after["stem.1.weight"])


@pytest.mark.parametrize("flags", ["", "--ema-decay 0.9", "--sub-bn-size 2"])
def test_precise_batchnorm_changes_only_the_statistics(stores: Path, tmp_path: Path, flags: str) -> None:
    """Running averages of all shapes of the cycles made validation lose up to a third of its top-1."""
    for clips in (0, 8):
        flags_of_run = f"--end-epoch 2 --short-cycles --precise-bn {clips}"
        assert train(stores, tmp_path / str(clips), flags_of_run, flags) == 0
    without, precise = (load(tmp_path / str(clips), "ep-0002")["state_dict"] for clips in (0, 8))
    changed = {name.rpartition(".")[2] for name in without if not torch.equal(without[name], precise[name])}
    assert changed == {"running_mean", "running_var"}
    assert [row[1:] for row in rows(tmp_path / "0", "train")] == [
        row[1:] for row in rows(tmp_path / "8", "train")
    ]


def test_one_set_of_workers_reads_for_all_phases_and_epochs(stores: Path, tmp_path: Path) -> None:
    earlier = multiprocessing.active_children()
    seen: set[int | None] = set()

    class Watcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.update(child.pid for child in multiprocessing.active_children() if child not in earlier)

    watcher = Watcher()
    logging.getLogger().addHandler(watcher)
    flags = "--end-epoch 2 --short-cycles --precise-bn 4"
    assert train(stores, tmp_path / "2", flags, "--workers 2") == 0
    logging.getLogger().removeHandler(watcher)
    assert len(seen) == 2
    assert train(stores, tmp_path / "0", flags) == 0
    assert rows(tmp_path / "2", "val") == rows(tmp_path / "0", "val")


def test_precise_batchnorm_is_on_with_cycles(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = {"plain": "", "cycles": "--short-cycles", "frozen": "--short-cycles --freeze-batchnorm"}
    for name, flag in flags.items():
        caplog.clear()
        assert train(stores, tmp_path / name, "--end-epoch 1", flag) == 0
        assert ("precise BatchNorm: 4 clips, " in caplog.text) == (name == "cycles")


def test_save_frequency_and_task_name(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path, "--end-epoch 3 --save-frequency 2 --task-name 'second try'") == 0
    assert folder(tmp_path).name == f"{NAME}_gates_False_second try"
    saved = sorted(path.name for path in folder(tmp_path).glob("*_ep-*.pth"))
    assert saved == [f"{NAME}_ep-0002.pth", f"{NAME}_ep-0003.pth"]


def test_fine_tuning(
    stores: Path, reference_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    published = {f"module.{name}": w for name, w in load(reference_run, "ep-0003")["state_dict"].items()}
    published["module.fc.weight"] = torch.zeros(400, 16)
    published["module.other"] = torch.zeros(2)
    torch.save({"state_dict": published}, tmp_path / "w.pth")
    results = tmp_path / "results"
    flags = f"--pretrained-3d {tmp_path / 'w.pth'} --fine-tune --fine-tune-factor 0.25 --lr-base 1e-9"
    assert train(stores, results, flags, "--end-epoch 1") == 0
    assert "fc.weight: (400, 16) in the file, (3, 16) in the network" in caplog.text
    assert "other: not in the network" in caplog.text
    trained = load(results, "ep-0001")["state_dict"]["stem.0.weight"]
    assert torch.allclose(trained, published["module.stem.0.weight"], atol=1e-6)

    assert train(stores, results, "--resume-epoch 2 --end-epoch 2") == 0
    for epoch, factor in ((1, 0.25), (2, 0.6)):  # resumed with the default factor
        content = load(results, f"ep-000{epoch}")
        assert content["options"]["fine_tune"] is True  # as the run began
        groups = {group["role"]: group for group in content["optimizer"]["param_groups"]}
        assert groups["new"]["names"] == ["fc.weight", "fc.bias"]
        assert {role: group["lr_scale"] for role, group in groups.items()} == {
            "new": 1.0,
            "pretrained": factor,
        }
    # --pretrained-3d still names the weights that the run started from, not the checkpoint to resume from
    assert train(stores, results, flags, "--end-epoch 3 --resume-epoch 3") == 0
    assert f"{NAME}_ep-0002.pth: resuming from epoch 3" in caplog.text


def test_the_normalization_of_the_pretrained_weights_is_kept(stores: Path, tmp_path: Path) -> None:
    """That of ImageNet weights is for RGB."""
    stem = {"conv1.weight": torch.randn(8, 3, 7, 7), "bn1.weight": torch.ones(8), "bn1.bias": torch.zeros(8)}
    torch.save(stem, tmp_path / "image.pth")
    flags = f"--pretrained-3d {tmp_path / 'image.pth'} --allow-partial --end-epoch 1 --lr-base 1e-9"
    assert train(stores, tmp_path / "auto", flags) == 0
    content = load(tmp_path / "auto", "ep-0001")
    assert content["normalization"]["mean"] == [0.485, 0.456, 0.406]
    assert content["normalization"]["channel_order"] == content["options"]["channel_order"] == "rgb"
    inflated = stem["conv1.weight"].unsqueeze(2).expand(-1, -1, 3, -1, -1) / 3
    assert torch.allclose(content["state_dict"]["stem.0.weight"], inflated, atol=1e-6)
    assert train(stores, tmp_path / "auto", "--resume-epoch 2 --end-epoch 2") == 0
    assert load(tmp_path / "auto", "ep-0002")["normalization"] == content["normalization"]
    assert train(stores, tmp_path / "forced", flags, "--channel-order bgr") == 0
    assert load(tmp_path / "forced", "ep-0001")["normalization"]["channel_order"] == "bgr"
    assert train(stores, tmp_path / "wrong", flags, "--pretrained-format own") == 2


def dry_run(capsys: pytest.CaptureFixture[str], dataset: Path, results: Path, *flags: str) -> dict[str, Any]:
    capsys.readouterr()
    assert train(dataset, results, "--dry-run", *flags) == 0
    return json.loads(capsys.readouterr().out)


def test_a_dry_run_prints_the_steps_and_writes_nothing(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = dry_run(capsys, stores, tmp_path)
    assert plan["dataset"]["train"] == {"videos": 12, "missing": 0}
    assert plan["dataset"]["val"] == {"videos": 6, "missing": 0}
    assert plan["dataset"]["classes"] == 3
    assert (plan["options"]["precision"], plan["options"]["short_side"]) == ("fp32", 36)
    step = {"batch": 4, "length": 4, "size": 32, "lr": 0.01}
    assert plan["steps"] == [{"epoch": 1, "step": number, **step} for number in (1, 2, 3)]
    assert (plan["relative_flops"], plan["shared_memory_bytes"]) == (1, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_remaining_steps(
    stores: Path, reference_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = folder(reference_run) / f"{NAME}_ep-0002.pth"
    flags = f"--pretrained-3d {checkpoint} --resume-epoch 3 --end-epoch"
    assert dry_run(capsys, stores, tmp_path, f"{flags} 2")["steps"] == []
    assert len(dry_run(capsys, stores, tmp_path, f"{flags} 3")["steps"]) == 3
    last = tmp_path / f"{NAME}_gates_False" / f"{NAME}_last.pth"
    last.parent.mkdir()
    torch.save(load(reference_run, "ep-0002") | {"step": 1}, last)
    steps = dry_run(capsys, stores, tmp_path, "--resume-epoch auto --short-cycles --end-epoch 3")["steps"]
    assert [(step["epoch"], step["step"]) for step in steps] == [(3, 2)]  # of batches 4 and 8


def test_a_dry_run_with_both_cycles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "set"
    make_stores(dataset, {"a": ["0"], "b": ["0"]}, n_frames=1)
    videos = [(name, i) for name in "ab" for i in range(2520)]
    for name, i in videos:
        if i:
            (dataset / "jpg" / name / str(i)).symlink_to(dataset / "jpg" / name / "0")
    (dataset / "labels").mkdir()
    lines = ["label,id", *(f"{name},{i}" for name, i in videos)]
    (dataset / "labels" / "train.csv").write_text("\n".join(lines))
    (dataset / "labels" / "val.csv").write_text("\n".join(lines[:3]))
    flags = "--batch-size 48 --clip-length 16 --clip-size 224 --workers 8 --lr-base 0.8 --network r3d_18"
    plan = dry_run(capsys, dataset, tmp_path, flags, "--long-cycles --short-cycles")
    steps = plan["steps"]
    shapes = {(step["batch"], step["length"], step["size"]) for step in steps}
    assert {(1536, 4, 80), (384, 8, 112), (96, 16, 158), (48, 16, 224)} <= shapes
    assert sum(step["batch"] for step in steps) == 5040
    by_lr = [sum(abs(step["lr"] - 0.8 / 2**phase) < 1e-9 for step in steps) for phase in range(4)]
    assert sum(by_lr) == len(steps)
    assert max(by_lr) - min(by_lr) <= 1
    # the largest batch in use, and two of chunks as they are prefetched by 8 workers, 16 of each
    largest = max(b * t * s * s * 3 for b, t, s in shapes)
    assert plan["shared_memory_bytes"] == 3 * largest
    # a step costs about the same at any shape, and 14 steps replace 105
    assert len(steps) / 105 < 1.3 * plan["relative_flops"] < 1.5 * len(steps) / 105


def test_a_dry_run_without_a_checkpoint_shows_the_schedule_of_an_epoch(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    flags = "--short-cycles --lr-steps 20 40 --lr-base 0.8 --resume-epoch"
    before, after, fine_tuned = (
        dry_run(capsys, stores, tmp_path, flags, epoch)["steps"] for epoch in ("40", "41", "41 --fine-tune")
    )
    assert [(step["epoch"], step["step"], step["batch"]) for step in after] == [(41, 1, 4), (41, 2, 8)]
    assert [step["lr"] for step in (*before, *after)] == pytest.approx([0.08] * 2 + [0.008] * 2)
    assert fine_tuned == after
    assert f"{NAME}_ep-0040.pth: there is no such checkpoint; showing the schedule alone" in caplog.text
    assert_fails(
        capsys, 2, "no.pth: there is no such checkpoint",
        run=lambda: train(stores, tmp_path, "--dry-run --resume-epoch 41 --pretrained-3d no.pth"),
    )  # fmt: skip
    assert_fails(capsys, 2, "ep-0040.pth", run=lambda: train(stores, tmp_path, "--resume-epoch 41"))
    assert list(tmp_path.iterdir()) == []


def test_debug_mode_describes_data_steps_and_sources(
    own_stores: Path, one_epoch: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corrupt = corrupt_store(own_stores, "train")
    flags = "--end-epoch 1 --log-interval 1 --augment fused --max-bad-samples 1 --precise-bn 8"
    for name, more in {"plain": "", "debug": "--debug-mode --workers 2"}.items():
        caplog.clear()
        assert train(own_stores, tmp_path / name, flags, more) == 0
    assert rows(tmp_path / "plain", "val") == rows(tmp_path / "debug", "val")
    lines = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    labels = own_stores / "labels"
    assert f"labels: {labels}/train.csv and {labels}/val.csv, class index: {labels}/dictionary.json" in lines
    assert "weights: new, by --random-seed 1" in lines

    clips = [line for line in lines if line.startswith("clip: ")]
    assert len(clips) == 4  # of the first batch
    assert not any(corrupt in line for line in clips)  # what is trained on in its place
    for line in clips:
        pattern = (
            r"clip: \S+/jpg/([ab])/\1\d \(50x50\), class [01], 4x32: frames [^;]*; crop 44x44 at \(\d, \d\).*"
        )
        assert re.fullmatch(pattern, line), line
    text = " ".join(clips)
    assert "; flipped" in text
    assert re.search(r"; (contrast|color|rotation) -?\d", text)

    for name in (f"{NAME}_ep-0001.pth", "pretrained"):
        caplog.clear()
        path = folder(one_epoch) / f"{NAME}_ep-0001.pth"
        more = "--resume-epoch 2 --end-epoch 2" if name != "pretrained" else f"--pretrained-3d {path}"
        results = tmp_path / ("debug" if name != "pretrained" else name)
        assert train(own_stores, results, flags, "--debug-mode", more) == 0
        source = path if name == "pretrained" else folder(results) / name
        assert f"weights: {source}" in caplog.text
    assert "tensors loaded, 2 with a different shape, 0 not in the file" in caplog.text


def test_csv_and_tensorboard_agree(stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    flags = "--network srtg_tiny --gates soft --short-cycles --tensorboard --end-epoch 1"
    assert train(stores, tmp_path, flags) == 0
    assert folder(tmp_path).name == "srtg_tiny_gates_soft"
    assert "gates layer1 0." in caplog.text
    with (folder(tmp_path) / "train_results_s0001.csv").open() as file:
        (row,) = csv.DictReader(file)
    events = EventAccumulator(str(folder(tmp_path)))
    events.Reload()
    scalars = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    columns = {"loss/train": "Loss", "top1/train": "Top1", "top5/train": "Top5", "lr": "LR"}
    columns |= {
        f"throughput/{name}": f"{name.title()}ClipsPerSec" for name in ("data", "forward", "backward")
    }
    columns |= {f"gates/layer{stage}": f"Gates layer{stage}" for stage in (1, 2, 3, 4)}
    step_cost = {f"step/{name}" for name in ("ms", "data_fraction", "peak_gb", "tflops")}
    assert scalars.keys() == {*columns, *step_cost, "loss/val", "top1/val", "top5/val"}
    for tag, column in columns.items():
        assert scalars[tag] == pytest.approx(float(row[column]), rel=1e-2, abs=1e-4), tag
        assert scalars[tag] > 0 or tag.startswith("top")
    assert row["Batches"] == "1*4x4x32x32 1*8x4x22x22"
    (text,) = events.Tensors("batches/text_summary")
    assert text.tensor_proto.string_val == [row["Batches"].encode()]


def test_the_schedule_is_logged_before_training(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flags = "--long-cycles --long-cycle-period lr-stage --lr-steps 5 --end-epoch 6 --batch-size 2"
    assert train(stores, tmp_path, flags) == 0
    lines = [record.getMessage() for record in caplog.records]
    first = next(i for i, line in enumerate(lines) if line.startswith("FLOPs relative to a run without"))
    assert float(lines[first].split()[-1]) < 0.9
    table = [line.split() for line in lines[first + 1 : first + 7]]
    assert table[0] == ["epochs", "steps", "lr", "compute", "batches"]
    assert table[1] == ["1-2", "2", "0.01", table[1][3], "16x1x22x22"]
    assert table[5] == ["6", "6", "0.000125", table[5][3], "2x4x32x32"]
    assert sum(float(row[3].rstrip("%")) for row in table[1:6]) == pytest.approx(100, abs=0.3)


def test_the_long_cycle_period_and_batch_scaling_change_the_steps(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--network ir_csn_50 --batch-size 2 --long-cycles --lr-steps 20 --end-epoch 30"
    epoch, lr_stage, flops = (
        dry_run(capsys, stores, tmp_path, flags, more)
        for more in ("", "--long-cycle-period lr-stage", "--batch-scaling flops")
    )
    assert {step["length"] for step in lr_stage["steps"]} == {1}
    assert len({step["length"] for step in flops["steps"]}) > 1
    assert flops["steps"][0]["batch"] < epoch["steps"][0]["batch"]
    assert len({plan["relative_flops"] for plan in (epoch, lr_stage, flops)}) == 3
