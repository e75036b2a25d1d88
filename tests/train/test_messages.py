"""What goes wrong in a run, and what it says then."""

import csv
from pathlib import Path

import pytest
import torch

from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import damage, fails, folder, rows, train
from train.engine import Trainer

labels_main = main_of("data.labels")


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


def test_too_little_memory_is_one_line_that_says_at_which_shape(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback, perhaps hours into a run: a cycle's largest shape may come late."""

    def forward(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has ...")

    monkeypatch.setattr("train.engine.Trainer._forward", forward)
    fails(
        capsys, 1, "epoch 1, step 1, batch 4x4x32x32", "out of memory; --accumulate 2",
        run=lambda: train(stores, tmp_path),
    )  # fmt: skip


def test_running_statistics_that_fp16_has_spoilt_stop_the_run(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step whose gradients overflow is skipped, but norms have counted what came through them: for good."""
    update = Trainer._update

    def overflowing(self: Trainer, *arguments: object) -> object:
        done = update(self, *arguments)
        next(self.network.buffers()).fill_(torch.inf)
        return done

    monkeypatch.setattr(Trainer, "_update", overflowing)
    fails(
        capsys, 1, "epoch 1, step ", "running statistics of a norm are not finite; --precision bf16 may help",
        run=lambda: train(stores, tmp_path, "--precision", "fp16"),
    )  # fmt: skip


def test_norms_that_are_frozen_without_weights_are_warned_of(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(stores, tmp_path, "--freeze-batchnorm", "--end-epoch", "1") == 0
    assert "--freeze-batchnorm: without --pretrained-3d FILE norms pass on what they get" in caplog.text


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    make_stores(tmp_path / "set", {name: [f"{i}" for i in range(6)] for name in ("a", "b")}, n_frames=4)
    labels_main(["folders", str(tmp_path / "set"), "--val", "0.34"])
    return tmp_path / "set"


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
    assert f"left out of validation: {store}/frames.db: file is not a database" in caplog.text  # once unsaid
    with (folder(tmp_path / "lenient") / "bad_samples.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["Epoch"], row["Video"]) == ("1", store)
