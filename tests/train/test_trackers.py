"""Where results are sent: CSV files, and TensorBoard and W&B alike."""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.helpers import assert_fails, corrupt_store, folder, rows, train
from tests.train.test_callbacks import csv_rows, epoch_report
from train.csv_log import truncate_results
from train.figures import plot_confusion
from train.trackers import CSVLogger


def test_csv_files_have_a_row_per_epoch_after_each(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path, first_epoch=3)
    for epoch in (3, 4):
        log.on_epoch(epoch_report(epoch))
        rows = csv_rows(tmp_path / "val_results_s0003.csv")
        assert [int(row["Epoch"]) for row in rows] == list(range(3, epoch + 1))
    assert list(rows[0])[:4] == ["Epoch", "Top1", "Top5", "Loss"]
    assert float(rows[0]["Loss"]) == 1 / 3  # exact, so that runs can be compared
    assert (tmp_path / "train_results_s0003.csv").read_text().startswith("Epoch,Top1,Top5,Loss,LR,Seconds,")


def test_no_epoch_is_duplicated_after_resuming(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path, 1)
    for epoch in range(1, 12):
        log.on_epoch(epoch_report(epoch))
    with (tmp_path / "val_results_s0001.csv").open("a") as file:
        file.write("12,0.5,0")  # a row cut off by a kill
    (tmp_path / "train_results_s0012.csv").write_text("Epo")  # a header cut off by a kill
    truncate_results(tmp_path, 10)
    CSVLogger(tmp_path, 10).on_epoch(epoch_report(10))
    for split in ("train", "val"):
        paths = sorted(tmp_path.glob(f"{split}_results_s*.csv"))
        assert [int(row["Epoch"]) for path in paths for row in csv_rows(path)] == list(range(1, 11))
        assert len(paths) == 2


def wandb_records(run: Path) -> Iterator[Any]:
    """Yield the records of an offline W&B run: chunks with a header of 7 bytes, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2 as protocol  # noqa: PLC0415  optional

    (path,) = run.glob("*.wandb")
    data, at, content = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        content += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield protocol.Record.FromString(content)
            content = b""


def read_wandb(run: Path) -> tuple[Any, list[dict[str, Any]], int]:
    """Return the description of an offline W&B run, what it logged, and its exit code."""
    import wandb  # noqa: PLC0415  optional

    wandb.teardown()  # its process writes the file in the background
    records = list(wandb_records(run))
    logged = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    (description,) = (record.run for record in records if record.HasField("run"))
    (exit_code,) = (record.exit.exit_code for record in records if record.HasField("exit"))
    return description, logged, exit_code


def test_wandb_gets_what_tensorboard_gets_and_a_resumed_run_goes_on_in_its_run(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    for name, value in {"MODE": "offline", "SILENT": "true", "PROJECT": "tests"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    plotted: list[tuple[np.ndarray, Sequence[str]]] = []

    def plot(counts: np.ndarray, classes: Sequence[str], *args: Any) -> None:
        plotted.append((counts, classes))
        plot_confusion(counts, classes, *args)

    monkeypatch.setattr("train.figures.plot_confusion", plot)
    flags = "--tensorboard --wandb --batch-size 2 --network srtg_tiny --gates soft"
    assert train(stores, tmp_path, flags, "--end-epoch 2 --profile 1") == 0
    assert train(stores, tmp_path, flags, "--end-epoch 3 --resume-epoch auto") == 0
    runs = [read_wandb(run) for run in sorted(folder(tmp_path).glob("wandb/offline-run-*"))]
    ids = {(run.run_id, run.project) for run, _, _ in runs}
    assert ids == {((folder(tmp_path) / "wandb_id").read_text().strip(), "tests")}
    config = {item.key: json.loads(item.value_json) for item in runs[0][0].config.update}
    options = json.loads((folder(tmp_path) / "run.json").read_text())["options"]
    assert {**options, "end_epoch": 2, "profile": 1, "resume_epoch": None}.items() <= config.items()

    events = EventAccumulator(str(folder(tmp_path)))
    events.Reload()
    logged = [values for _, history, _ in runs for values in history]
    epochs = {int(values["epoch"]): values for values in logged if "lr" in values}
    assert list(epochs) == [1, 2, 3]
    assert {"gates/layer1", "throughput/data", "step/ms"} < {*events.Tags()["scalars"]}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            assert event.value == pytest.approx(epochs[event.step][name])
    assert {"batches", "profile"} < {name.partition("/")[0] for values in logged for name in values}

    assert len([*folder(tmp_path).glob("wandb/offline-run-*/files/media/images/confusion*.png")]) == 2
    counts, classes = plotted[-1]
    assert counts.sum(axis=1).tolist() == [2, 2, 2]
    assert counts.trace() / 6 == pytest.approx(float(rows(tmp_path, "val")[-1][1]))
    assert list(classes) == ["a", "b", "c"]


def test_a_failed_run_is_failed_for_wandb(
    own_stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    for name, value in {"MODE": "offline", "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    corrupt_store(own_stores, "val", row=1)
    assert train(own_stores, tmp_path / "results", "--wandb --end-epoch 1") == 1
    (run,) = folder(tmp_path / "results").glob("wandb/offline-run-*")
    assert read_wandb(run)[2] == 1


def test_wandb_without_an_account_is_one_line(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="pip install wandb")

    def init(**_: object) -> None:
        raise wandb.Error("No API key configured.")

    monkeypatch.setattr(wandb, "init", init)
    message = "--wandb: No API key configured; WANDB_MODE=offline needs no server"
    assert_fails(capsys, 2, message, run=lambda: train(stores, tmp_path, "--wandb"))
