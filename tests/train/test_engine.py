"""How steps are computed: micro-batches, EMA, sub-batch BatchNorm; and that a run with everything resumes exactly."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data.batch_sampler import BatchShape
from data.clip_batch import Batch
from data.datasets import CUSTOM
from data.video_transforms import augment_batch
from tests.train.helpers import NAME, assert_fails, assert_same_run, folder, load, rows, train
from train.builders import make_network, make_state, make_trainer
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
def sigterm_at(text: str) -> Iterator[None]:
    """Send SIGTERM to this process with the log line that contains `text`."""

    class Stopper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                signal.raise_signal(signal.SIGTERM)

    handler = Stopper()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


EVERYTHING = (
    "--batch-size 2 --long-cycles --long-cycle-period lr-stage --lr-steps 2 --short-cycles --clip-size 48 "
    "--short-side 48 --sub-bn-size 2 --ema-decay 0.9 --optimizer adamw --lr-base 0.001 --label-smoothing 0.1 "
    "--mixup 0.4 --cutmix 1 --accumulate 2 --end-epoch 3 --log-interval 1 --warmup-epochs 1"
)


def test_a_run_with_everything_is_stopped_within_an_epoch_and_resumed(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO")
    uninterrupted, stopped = tmp_path / "uninterrupted", tmp_path / "stopped"
    assert train(stores, uninterrupted, EVERYTHING) == 0
    with sigterm_at("epoch 2/3 step 1/"):
        assert train(stores, stopped, EVERYTHING) == 128 + signal.SIGTERM
    last = load(stopped, "last")
    assert (last["epoch"], last["step"]) == (1, 2)  # ranks agree on stopping before a step is logged
    for flag, message in (
        ("--batch-size 4", "_last.pth: saved with --batch-size 2, not 4"),
        ("--lr-steps 1", "saved with --lr-steps [2], not [1]"),
        ("--long-cycle-period epoch", "saved with --long-cycle-period lr-stage, not epoch"),
    ):
        flags = f"{EVERYTHING} --resume-epoch auto {flag}"
        assert_fails(capsys, 2, message, run=lambda flags=flags: train(stores, stopped, flags))
    assert train(stores, stopped, EVERYTHING, "--resume-epoch auto") == 0
    assert_same_run(uninterrupted, stopped)
    one, other = (load(results, "ep-0003")["trained"] for results in (uninterrupted, stopped))
    assert one["ema_steps"] == other["ema_steps"] > 3
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


def test_the_device_finishes_the_clips_of_training(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of precise BatchNorm, which are not augmented. Columns: sent, finished, and expected size."""
    sizes = set()

    def finish(clips: Tensor, augmentations: Tensor | None, size: int) -> Tensor:
        assert augmentations is not None
        finished = augment_batch(clips, augmentations, size)
        sizes.add((clips.shape[2], finished.shape[2], size))
        return finished

    monkeypatch.setattr("train.engine.augment_batch", finish)
    flags = "--augment device --short-cycles --precise-bn 4 --end-epoch 3"
    for workers in (0, 2):
        assert train(stores, tmp_path / f"{workers}", flags, f"--workers {workers}") == 0
    assert sizes == {(32, 22, 22), (32, 32, 32)}
    assert_same_run(tmp_path / "0", tmp_path / "2")


def test_the_ema_is_validated_and_saved(stores: Path, tmp_path: Path) -> None:
    ema, plain, again = (tmp_path / name for name in ("ema", "plain", "again"))
    assert train(stores, ema, "--end-epoch 2 --ema-decay 0.9") == 0
    assert train(stores, plain, "--end-epoch 2") == 0
    averaged = load(ema, "ep-0002")["state_dict"]
    trained = load(ema, "ep-0002")["trained"]["state_dict"]
    expected = load(plain, "ep-0002")["state_dict"]
    assert [name for name in expected if not torch.equal(expected[name], trained[name])] == []
    assert rows(ema, "train") == rows(plain, "train")
    assert rows(ema, "val") != rows(plain, "val")
    checkpoint = folder(ema) / f"{NAME}_ep-0002.pth"
    assert train(stores, again, f"--pretrained-3d {checkpoint} --end-epoch 1 --lr-base 1e-12") == 0
    start = load(again, "ep-0001")["state_dict"]
    assert torch.allclose(start["fc.weight"], averaged["fc.weight"], atol=1e-7)
    assert not torch.allclose(start["fc.weight"], trained["fc.weight"], atol=1e-7)


def test_the_network_is_made_as_the_flags_say() -> None:
    def network_of(*flags: str) -> nn.Module:
        torch.manual_seed(0)
        argv = ["--dataset", "d", "--sub-bn-size", "4", *flags]
        return make_network(parse_options(CUSTOM, Options(), argv), 3, DistContext())

    last = network_of("--network", "tiny", "--channels-last")
    first = network_of("--network", "tiny", "--no-channels-last")
    for network, channels_last in ((last, True), (first, False)):
        weight = network.stem[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last_3d) is channels_last
    assert last.stem[1].sub_batch_size == 4
    clips = torch.randn(8, 3, 4, 32, 32)
    assert torch.allclose(last(clips), first(clips), atol=1e-4)


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_and_inputs_have_the_memory_format_of_the_flag(channels_last: bool) -> None:
    """A channels-last input made all activations of contiguous networks channels-last, and those slower."""
    options = Options(network="tiny", precision="fp32", channels_last=channels_last)
    state = make_state(options, 3, torch.device("cpu"), DistContext())
    inputs = state.normalization(torch.zeros(2, 4, 32, 32, 3, dtype=torch.uint8))
    weight = state.network.stem[0].weight
    for tensor in (inputs, weight, state.optimizer.state[weight]["momentum_buffer"]):
        assert tensor.is_contiguous(memory_format=torch.channels_last_3d) is channels_last
        assert tensor.is_contiguous() is not channels_last


def test_data_parallel_logs_the_torchrun_command_once(caplog: pytest.LogCaptureFixture) -> None:
    options = Options(network="tiny", precision="fp32", gpus=2, ema_decay=0.9)
    state = make_state(options, 3, torch.device("cpu"), DistContext())
    make_trainer(options, state, torch.device("cpu"), DistContext())
    assert (
        caplog.text.count("DataParallel is slower than one process per GPU: torchrun --nproc-per-node 2 ")
        == 1
    )


class Plain(nn.Module):
    """A network without BatchNorm, so that micro-batches are independent."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(3, 8, 3)
        self.fc = nn.Linear(8, 5)
        self.batches: list[int] = []

    def forward(self, clips: Tensor) -> Tensor:
        self.batches.append(len(clips))
        return self.fc(self.conv(clips).relu().mean(dim=(2, 3, 4)))


def train_a_step(accumulate: int, clips: int, **mixing: float) -> tuple[Plain, StepReport]:
    network = Plain()
    trainer = Trainer(
        network=network,
        eval_network=network,
        optimizer=make_optimizer(network, param_roles(network, [], False), 0.6),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        lr_schedule=LRSchedule(0.1, "step", (9,), 0.1, 9, 0),
        normalization=ClipNormalizer(),
        mixup=MixupCutmix(**mixing),
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
    (report,) = trainer.train_epoch(1, [step], [[Batch(pixels, labels, labels, [])]])
    return network, report


@pytest.mark.parametrize(
    ("accumulate", "clips", "micro_batches"),
    [(2, 8, [4, 4]), (3, 8, [3, 3, 2]), (4, 9, [3, 3, 3]), (8, 8, [2, 2, 2, 2]), (5, 3, [3])],
)
@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.4, "label_smoothing": 0.1}], ids=["plain", "mixed"])
def test_micro_batches_accumulate_the_gradient_of_the_batch(
    accumulate: int, clips: int, micro_batches: list[int], mixing: dict[str, float]
) -> None:
    """None of them is a single clip, as BatchNorm needs two."""
    whole, expected = train_a_step(1, clips, **mixing)
    split, report = train_a_step(accumulate, clips, **mixing)
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    assert torch.allclose(expected.sums, report.sums, rtol=1e-5)
    assert split.batches == micro_batches
    assert report.times.clips == clips
    monitor = SpeedMonitor()
    monitor.on_step(report)
    assert monitor.rates()["forward"] == pytest.approx(clips / report.times.forward)
