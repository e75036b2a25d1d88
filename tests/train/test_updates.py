"""Flags that change how steps are made: parts, groups, averages, mixing. What they do in a run, and that it resumes."""

import json
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data.batch_sampler import BatchShape
from data.datasets import CUSTOM
from data.video_iterator import Batch
from tests.train.helpers import NAME, assert_same_weights, fails, folder, rows, train, weights
from train.builders import make_network
from train.callbacks import SpeedMonitor
from train.cli import parse_options
from train.engine import StepReport, Trainer
from train.input_norm import ClipNormalizer
from train.lr_schedule import LRSchedule
from train.mixup import MixupCutmix
from train.multigrid import Step
from train.optimizer import make_optimizer, param_roles
from train.options import Options
from train.parallel.distributed import DistContext


@contextmanager
def stopping_at(place: str) -> Iterator[None]:
    """Within, SIGTERM comes with the log line that has `place`."""

    class Stopper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if place in record.getMessage():
                signal.raise_signal(signal.SIGTERM)

    handler = Stopper()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


ALL = "--batch-size 2 --long-cycles --long-cycle-period stage --lr-steps 2 --short-cycles --clip-size 48 --short-side 48"
ALL += " --sub-bn-size 2 --ema-decay 0.9 --optimizer adamw --lr-base 0.001 --label-smoothing 0.1 --mixup 0.4 --cutmix 1"
ALL += " --accumulate 2 --end-epoch 3 --log-interval 1 --warmup-epochs 1"


def test_stopped_within_an_epoch_and_resumed_is_the_same_with_everything(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert train(stores, tmp_path / "undisturbed", *ALL.split()) == 0
    with stopping_at("epoch 2/3 step 1/"):
        assert train(stores, tmp_path / "stopped", *ALL.split()) == 128 + signal.SIGTERM
    last = torch.load(folder(tmp_path / "stopped") / f"{NAME}_last.pth", weights_only=True)
    assert (last["epoch"], last["step"]) == (1, 2)  # processes agree on stopping before a step is logged
    assert train(stores, tmp_path / "stopped", *ALL.split(), "--resume-epoch", "auto") == 0
    paths = [folder(tmp_path / name) / f"{NAME}_ep-0003.pth" for name in ("undisturbed", "stopped")]
    assert_same_weights(*paths)
    for split in ("train", "val"):
        assert rows(tmp_path / "stopped", split) == rows(tmp_path / "undisturbed", split)
    contents = [torch.load(path, weights_only=True)["trained"] for path in paths]
    assert contents[0]["ema_steps"] == contents[1]["ema_steps"] > 3
    for name, value in contents[0]["state_dict"].items():
        assert torch.equal(value, contents[1]["state_dict"][name])


def test_schedule_is_printed_before_training(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = ["--long-cycles", "--long-cycle-period", "stage", "--lr-steps", "5", "--end-epoch", "6"]
    assert train(stores, tmp_path, *words, "--batch-size", "2") == 0
    lines = [record.getMessage() for record in caplog.records]
    first = next(i for i, line in enumerate(lines) if line.startswith("operations of the run"))
    assert float(lines[first].split()[-1]) < 0.9
    table = [line.split() for line in lines[first + 1 : first + 7]]
    assert table[0] == ["epochs", "steps", "rate", "compute", "batches"]
    assert table[1] == ["1-2", "2", "0.01", table[1][3], "16x1x22x22"]
    assert table[5] == ["6", "6", "0.000125", table[5][3], "2x4x32x32"]
    assert sum(float(row[3].rstrip("%")) for row in table[1:6]) == pytest.approx(100, abs=0.3)
    assert not any("step 1/" in line for line in lines[: first + 6])


def dry_run(capsys: pytest.CaptureFixture[str], stores: Path, results: Path, *words: str) -> dict:
    assert train(stores, results, "--dry-run", *words) == 0
    return json.loads(capsys.readouterr().out)


def test_span_and_batch_rule_change_the_plan(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--batch-size", "2", "--long-cycles", "--lr-steps", "20", "--end-epoch", "30"]
    plans = [
        dry_run(capsys, stores, tmp_path, *words, *more.split())
        for more in ("", "--long-cycle-period stage", "--batch-scaling flops")
    ]
    assert len({plan["steps"][0]["lr"] for plan in plans}) == 1
    lengths = [[step["length"] for step in plan["steps"]] for plan in plans]
    assert set(lengths[1]) == {1}
    assert len(set(lengths[2])) > 1
    assert plans[2]["steps"][0]["batch"] < plans[0]["steps"][0]["batch"]
    assert len({plan["compute_ratio"] for plan in plans}) == 3


def test_another_plan_within_an_epoch_is_refused(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopping_at("epoch 2/3 step 1/"):
        assert train(stores, tmp_path, *ALL.split()) == 128 + signal.SIGTERM
    for flag, value, message in (
        ("--lr-steps", "1", "was written with --lr-steps [2], not [1]"),
        ("--long-cycle-period", "epoch", "was written with --long-cycle-period stage, not epoch"),
        ("--optimizer", "sgd", "was written with --optimizer adamw, not sgd"),
    ):
        words = [*ALL.split(), "--resume-epoch", "auto", flag, value]
        fails(capsys, 2, message, run=lambda words=words: train(stores, tmp_path, *words))


def test_average_is_what_is_validated_and_saved(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path / "average", "--end-epoch", "2", "--ema-decay", "0.9") == 0
    assert train(stores, tmp_path / "plain", "--end-epoch", "2") == 0
    path = folder(tmp_path / "average") / f"{NAME}_ep-0002.pth"
    trained = torch.load(path, weights_only=True)["trained"]["state_dict"]
    plain = weights(folder(tmp_path / "plain") / f"{NAME}_ep-0002.pth")
    assert [name for name in plain if not torch.equal(plain[name], trained[name])] == []
    assert rows(tmp_path / "average", "train") == rows(tmp_path / "plain", "train")
    assert rows(tmp_path / "average", "val") != rows(tmp_path / "plain", "val")
    words = ["--pretrained-3d", str(path), "--end-epoch", "1", "--lr-base", "1e-12"]
    assert train(stores, tmp_path / "again", *words) == 0  # starts from the average
    again = weights(folder(tmp_path / "again") / f"{NAME}_ep-0001.pth")
    assert torch.allclose(again["fc.weight"], weights(path)["fc.weight"], atol=1e-7)
    assert not torch.allclose(again["fc.weight"], trained["fc.weight"], atol=1e-7)


def test_recomputed_run_learns_the_same(stores: Path, tmp_path: Path) -> None:
    assert train(stores, tmp_path / "plain", "--end-epoch", "1") == 0
    assert train(stores, tmp_path / "recomputed", "--end-epoch", "1", "--activation-checkpointing") == 0
    assert rows(tmp_path / "recomputed", "val") == rows(tmp_path / "plain", "val")


def test_network_is_made_as_the_flags_say() -> None:
    words = ["--dataset", "d", "--network", "r3d_18", "--sub-bn-size", "4"]
    networks = []
    for name in ("--channels-last", "--no-channels-last"):
        torch.manual_seed(0)
        networks.append(make_network(parse_options(CUSTOM, Options(), [*words, name]), 3, DistContext()))
    layouts = [
        network.stem[0].weight.is_contiguous(memory_format=torch.channels_last_3d) for network in networks
    ]
    assert layouts == [True, False]
    assert networks[0].stem[1].group == 4
    clips = torch.randn(8, 3, 4, 32, 32)
    assert torch.allclose(*(network(clips) for network in networks), atol=1e-4)


def test_norms_that_cannot_be_grouped_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    words = ["--dataset", "d", "--network", "mtnet_xs_g8", "--sub-bn-size", "4"]
    make_network(parse_options(CUSTOM, Options(), words), 3, DistContext())
    assert "norms of mtnet_xs_g8 are of each clip alone" in caplog.text


class Plain(nn.Module):
    """A network without norms, so that the parts of a batch do not see each other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(3, 8, 3)
        self.fc = nn.Linear(8, 5)
        self.passes: list[int] = []  # clips of each

    def forward(self, clips: Tensor) -> Tensor:
        self.passes.append(len(clips))
        return self.fc(self.conv(clips).relu().mean(dim=(2, 3, 4)))


def one_step(accumulate: int, clips: int, **mixing: float) -> tuple[Plain, StepReport]:
    network = Plain()
    trainer = Trainer(
        network=network,
        validated=network,
        optimizer=make_optimizer(network, param_roles(network, [], False), 0.6),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        learning_rate=LRSchedule(0.1, "step", (9,), 0.1, 9, 0),
        normalization=ClipNormalizer(),
        regularisation=MixupCutmix(**mixing),
        device=torch.device("cpu"),
        precision="fp32",
        accumulate=accumulate,
        clip_grad_norm=None,
        log_gates=False,
    )
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (clips, 4, 8, 8, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(5, (clips,), generator=generator)
    step = Step(0, BatchShape(clips, 4, 8))
    (report,) = trainer.train_epoch(1, [step], [Batch(pixels, labels, labels, [])])
    return network, report


def gradients(network: nn.Module) -> Sequence[Tensor]:
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize(
    ("parts", "clips", "passes"),
    [(2, 8, [4, 4]), (3, 8, [3, 3, 2]), (4, 9, [3, 3, 3]), (8, 8, [2, 2, 2, 2]), (5, 3, [3])],
)
@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.4, "label_smoothing": 0.1}], ids=["plain", "mixed"])
def test_parts_of_a_batch_add_up_to_its_gradient(
    parts: int, clips: int, passes: list[int], mixing: dict[str, float]
) -> None:
    """No part is a single clip, which a norm could not use."""
    whole, report = one_step(1, clips, **mixing)
    split, reports = one_step(parts, clips, **mixing)
    for one, other in zip(gradients(whole), gradients(split), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert torch.allclose(report.sums, reports.sums, rtol=1e-5)
    assert split.passes == passes
    assert reports.times.clips == clips
    monitor = SpeedMonitor()
    monitor.on_step(reports)
    assert monitor.rates()["f"] == pytest.approx(clips / reports.times.forward)
