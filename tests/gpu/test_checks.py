"""What a GPU must give: the numbers of the CPU, and less memory where a flag promises it.

`python -m tests.gpu` runs these checks first. SRTG_DEVICE=cpu runs their code on the CPU, with tiny networks.
A deviation is the norm of the difference over the norm of what is expected; fp32 is without TF32.
"""

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import data_parallel

from data.batch_sampler import BatchShape
from data.common.cpus import cpus_per_rank
from data.datasets import CUSTOM
from data.video_transforms import augment_batch
from network import create_network
from tests.data.test_device_engine import encoded, sampled, sent
from tests.network.test_compile import calm
from tests.network.test_golden import CASES, fill, meta_network  # noqa: F401  fill is a fixture
from tests.train.conftest import make_dataset
from tests.train.helpers import assert_close_weights, folder, train, weights
from train.benchmark.step_time import random_batch
from train.builders import make_state, make_trainer
from train.engine import AUTOCAST_DTYPES, Trainer
from train.multigrid import Step
from train.options import Options, resolve
from train.parallel.data_parallel import AutocastModule, DataParallel
from train.parallel.distributed import DDPModel, DistContext
from train.state import TrainState

ON_GPU, CPU = os.environ.get("SRTG_DEVICE") != "cpu", torch.device("cpu")
DEVICE = torch.device("cuda", 0) if ON_GPU else CPU
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="no GPU; make gpu checks one"),
    pytest.mark.filterwarnings("default"),  # such as those of operations without a deterministic form
]
# each kind of convolution and recursion
NETWORKS = (
    ("r3d_18", "r2plus1d_18", "ir_csn_50", "srtg_r3d_34", "mtnet_s") if ON_GPU else ("tiny", "srtg_tiny")
)
COMPILED = ("srtg_r3d_18", "mtnet_xs") if ON_GPU else ("srtg_tiny",)
NETWORK, CLASSES = "srtg_r3d_18" if ON_GPU else "srtg_tiny", 8
SHAPE = BatchShape(8, 8, 64) if ON_GPU else BatchShape(4, 4, 32)
GOLDEN = CASES if ON_GPU else dict(list(CASES.items())[:1])
# greatest deviation of logits and of gradients; a ReLU or a maximum that flips costs gradients more
TOLERANCES = {"fp32": (1e-4, 1e-2), "bf16": (0.05, 0.6)}
Record = Callable[[str, object], None]


@pytest.fixture(autouse=True)
def _setting() -> Iterator[None]:
    """Seed, turn TF32 off, compute the CPU's part on all cores; leave neither memory nor flags to the next check."""
    cudnn, mkldnn, threads = torch.backends.cudnn, torch.backends.mkldnn, torch.get_num_threads()
    before = cudnn.allow_tf32, cudnn.benchmark, mkldnn.enabled
    torch.manual_seed(0)
    cudnn.allow_tf32 = False
    if ON_GPU:
        torch.set_num_threads(cpus_per_rank())
    yield
    cudnn.allow_tf32, cudnn.benchmark, mkldnn.enabled = before
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    gc.collect()
    torch.cuda.empty_cache()


def deviation(actual: Tensor, expected: Tensor) -> float:
    expected = expected.detach().double().cpu()
    return float((actual.detach().double().cpu() - expected).norm() / expected.norm())


def flat(tensors: Iterable[Tensor | None]) -> Tensor:
    """Return all values in one float64 tensor on the CPU, a copy."""
    return torch.cat([tensor.detach().double().cpu().flatten() for tensor in tensors if tensor is not None])


def random_clips(device: torch.device) -> Tensor:
    return torch.randn(SHAPE.batch, 3, SHAPE.length, SHAPE.size, SHAPE.size).to(device)


def logits_and_gradients(network: nn.Module, clips: Tensor, precision: str = "fp32") -> tuple[Tensor, Tensor]:
    """Return the logits in training mode and the gradients of the cross entropy, as one tensor."""
    network.train().zero_grad()
    with torch.autocast(clips.device.type, AUTOCAST_DTYPES[precision], enabled=precision != "fp32"):
        logits = network(clips)
        cross_entropy(logits, torch.arange(len(clips), device=clips.device)).backward()
    return logits, flat(parameter.grad for parameter in network.parameters())


def assert_close(
    actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], precision: str, record: Record
) -> None:
    """Assert that logits and gradients deviate by no more than `TOLERANCES`, and report by how much."""
    found = [deviation(*pair) for pair in zip(actual, expected, strict=True)]
    record(precision, "logits {:.1e}, gradients {:.1e}".format(*found))
    assert all(value < limit for value, limit in zip(found, TOLERANCES[precision], strict=True)), found


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_are_those_of_the_cpu_in_float64(name: str, record_property: Record) -> None:
    network, clips = calm(create_network(name, CLASSES)), random_clips(CPU)
    expected = logits_and_gradients(network.double(), clips.double())
    network.float().to(DEVICE)
    for precision in TOLERANCES:
        assert_close(
            logits_and_gradients(network, clips.to(DEVICE), precision), expected, precision, record_property
        )


@pytest.mark.skipif(not CASES, reason="no reference values")
@pytest.mark.parametrize("case", GOLDEN.values(), ids=GOLDEN.keys())
def test_golden_logits(case: dict[str, Any], fill: ModuleType, record_property: Record) -> None:  # noqa: F811
    network = meta_network(case["network"], case["num_classes"], **case.get("options", {}))
    network.load_state_dict(fill.fill(network.state_dict(), case["running_var"]), assign=True)
    height, width = case.get("height", case.get("size")), case.get("width", case.get("size"))
    clips = fill.clip(case["batch"], case["frames"], max(height, width))[..., :height, :width]
    expected = torch.tensor(case["logits_eval"], dtype=torch.float64)
    with torch.no_grad():
        for precision, (tolerance, _) in TOLERANCES.items():
            with torch.autocast(DEVICE.type, AUTOCAST_DTYPES[precision], enabled=precision != "fp32"):
                found = deviation(network.to(DEVICE).eval()(clips.to(DEVICE)), expected)
            record_property(precision, f"logits {found:.1e}")
            assert found < tolerance, precision


def new_run(device: torch.device = DEVICE, **changes: Any) -> tuple[TrainState, Trainer]:
    """Return the state and the trainer of a run with a new network, whose weights are the same on each device."""
    torch.manual_seed(0)
    settings = {"network": NETWORK, "precision": "fp32", "channels_last": False, "lr_base": 0.01, **changes}
    options = resolve(CUSTOM, Options(dataset=Path(), **settings), int(device.type == "cuda"))
    state = make_state(options, CLASSES, device, DistContext())
    calm(state.network)
    return state, make_trainer(options, state, device, DistContext())


def train_steps(trainer: Trainer, count: int, shape: BatchShape = SHAPE) -> Tensor:
    """Train on the same random clips in each step; return the mean losses."""
    torch.manual_seed(1)
    batch = random_batch(shape, CLASSES, CPU)
    reports = list(trainer.train_epoch(1, [Step(0, shape)] * count, [[batch]] * count))
    trainer.check_finite()
    return torch.stack([report.sums[-1] / report.sums[0] for report in reports])


def test_three_steps_are_those_of_the_cpu(record_property: Record) -> None:
    before = flat(new_run(CPU)[0].network.parameters())
    losses, changes = [], []
    for device in (DEVICE, CPU):
        state, trainer = new_run(device)
        losses.append(train_steps(trainer, 3))
        changes.append(flat(state.network.parameters()) - before)
    found = deviation(*losses), deviation(*changes)
    record_property("fp32", "losses {:.1e}, changes of weights {:.1e}".format(*found))
    assert found[0] < 1e-4
    assert found[1] < 1e-2


def test_fp16_skips_a_step_whose_gradients_overflow(record_property: Record) -> None:
    state, trainer = new_run(precision="fp16", ema_decay=0.9)
    train_steps(trainer, 1)

    def snapshot() -> tuple[float, Tensor]:
        ema = [state.ema.ema_steps, *state.ema.ema_model.parameters()]
        return trainer.scaler.get_scale(), flat([*state.network.parameters(), *ema])

    scale, values = snapshot()
    overflow = state.network.get_parameter("fc.weight").register_hook(lambda grad: grad * torch.inf)
    train_steps(trainer, 1)
    overflow.remove()
    skipped_scale, skipped_values = snapshot()
    record_property("loss scale", f"{scale:g}, then {skipped_scale:g}")
    assert skipped_scale == scale / 2
    assert torch.equal(skipped_values, values)
    train_steps(trainer, 3)
    assert deviation(snapshot()[1], values) > 0


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("set"), videos=2)


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    stores: Path, tmp_path: Path, record_property: Record
) -> None:
    flags = f"--gpus {int(ON_GPU)} --precision fp32 --deterministic"
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert train(stores, whole, flags, "--end-epoch 2") == 0
    assert train(stores, resumed, flags, "--end-epoch 1") == 0
    assert train(stores, resumed, flags, "--end-epoch 2 --resume-epoch 2") == 0
    one, other = (folder(results) / "tiny_ep-0002.pth" for results in (whole, resumed))
    assert_close_weights(one, other, within=1e-4)
    first, second = weights(one), weights(other)
    record_property("bit for bit", all(torch.equal(value, second[name]) for name, value in first.items()))


def test_a_run_of_one_rank(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment that torchrun sets."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert train(stores, tmp_path, "--end-epoch 1") == 0


class OneReplica(DataParallel):
    """Goes the way of several GPUs with one, which `DataParallel` leaves out."""

    def forward(self, clips: Tensor) -> Tensor:
        return data_parallel(AutocastModule(self.network, DEVICE.type), clips, [0])


@pytest.mark.parametrize("precision", TOLERANCES)
def test_data_parallel_on_one_device(precision: str, record_property: Record) -> None:
    network, clips = calm(create_network(NETWORK, CLASSES)).to(DEVICE), random_clips(DEVICE)
    expected = logits_and_gradients(network, clips, precision)
    model = OneReplica(network, 1) if ON_GPU else DataParallel(network, 1)
    assert_close(logits_and_gradients(model, clips, precision), expected, precision, record_property)


def test_distributed_data_parallel_on_one_device(record_property: Record) -> None:
    """NCCL on a GPU, gloo on the CPU."""
    network, clips = calm(create_network(NETWORK, CLASSES)).to(DEVICE), random_clips(DEVICE)
    expected = logits_and_gradients(network, clips)
    backend = "cpu:gloo,cuda:nccl" if ON_GPU else "gloo"
    torch_dist.init_process_group(backend, store=torch_dist.HashStore(), rank=0, world_size=1)
    try:
        model = DDPModel(
            *(network, DistContext(), DEVICE), num_classes=CLASSES, num_gates=0, sync_batchnorm=False
        )
        assert_close(logits_and_gradients(model, clips), expected, "fp32", record_property)
        del model
        gc.collect()  # a DistributedDataParallel that outlives its group hangs in its destructor
    finally:
        torch_dist.destroy_process_group()


def test_augmentations_are_those_of_the_cpu(record_property: Record) -> None:
    """And the CPU does not wait for the device."""
    frames, size = encoded(), 158
    clips, augmentations = sent(frames, [sampled(frames, seed, size) for seed in range(12)], size)
    expected, on_device = augment_batch(clips, augmentations, size), clips.to(DEVICE)
    try:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("error")
        finished = [augment_batch(on_device, augmentations, size) for _ in range(2)]
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")
    record_property("uint8", f"{deviation(finished[0], expected):.1e}")
    assert torch.equal(*finished)
    assert deviation(finished[0], expected) < 1e-2


def test_precise_batchnorm_is_that_of_the_cpu(record_property: Record) -> None:
    batches = [[random_batch(SHAPE._replace(batch=size), CLASSES, CPU)] for size in (SHAPE.batch, 2)]
    statistics = []
    for device in (DEVICE, CPU):
        state, trainer = new_run(device)
        before = flat(state.network.buffers())
        trainer.update_batchnorm(state.network, batches, DistContext())
        statistics.append(flat(state.network.buffers()))
        assert deviation(statistics[-1], before) > 0.1
    record_property("fp32", f"statistics {deviation(*statistics):.1e}")
    assert deviation(*statistics) < 1e-4


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_networks_give_the_numbers_of_eager_ones(name: str, record_property: Record) -> None:
    network, clips = calm(create_network(name, CLASSES)).to(DEVICE), random_clips(DEVICE)
    expected = logits_and_gradients(network, clips)
    torch.compiler.reset()
    backend = "inductor" if ON_GPU else "aot_eager"  # which needs no C++ compiler
    network.compile(backend=backend, fullgraph=True, dynamic=False)
    assert_close(logits_and_gradients(network, clips), expected, "fp32", record_property)


@pytest.mark.parametrize(
    ("flags", "common"),
    [
        # statistics of BatchNorm are those of two clips, with and without micro-batches
        ({"accumulate": 4}, {"sub_bn_size": 2}),
        ({"activation_checkpointing": True}, {"network": "r3d_101" if ON_GPU else "tiny"}),
    ],
    ids=["accumulate", "activation checkpointing"],
)
def test_the_same_gradients_with_less_memory(
    flags: dict[str, Any], common: dict[str, Any], record_property: Record
) -> None:
    shape = BatchShape(16, 16, 112) if ON_GPU else BatchShape(8, 4, 32)
    gradients, peaks = [], []
    for changes in ({}, flags):
        state, trainer = new_run(**common, **changes)
        train_steps(trainer, 1, shape)
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()
        train_steps(trainer, 1, shape)
        peaks.append(torch.cuda.max_memory_allocated() / 1e9 if ON_GPU else 0)
        gradients.append(flat(parameter.grad for parameter in state.network.parameters()))
        del state, trainer
        gc.collect()
    record_property("GB", "{:.2f} instead of {:.2f}".format(*reversed(peaks)))
    assert deviation(*gradients) < 1e-2
    assert peaks[1] < 0.9 * peaks[0] or not ON_GPU
