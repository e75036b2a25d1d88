"""The number of ATen operations of a training step, so that nobody adds passes over features unnoticed.

Those that other operations call do not count, as they depend on the processor. Lower a budget that a change undercuts.
"""

from collections import Counter
from typing import Any

import pytest
from torch.profiler import ProfilerActivity, profile

from data.batch_sampler import BatchShape
from data.datasets import CUSTOM
from network.recursion import GRU, LSTM
from train.benchmark.step_time import make_benchmark_trainer, random_batch
from train.multigrid import Step
from train.options import Options, resolve

SHAPE = BatchShape(2, 16, 32)
NUM_CLASSES = 10
BUDGETS = {
    "r3d_34": {
        "detach": 113, "add_": 53, "conv3d": 36, "batch_norm": 36, "native_batch_norm_backward": 36,
        "convolution_backward": 36, "relu_": 33, "threshold_backward": 33, "others": 68,
    },
    "srtg_r3d_34": {
        "detach": 113, "add_": 69, "permute": 65, "mul": 50, "conv3d": 36, "batch_norm": 36,
        "unsqueeze": 36, "native_batch_norm_backward": 36, "convolution_backward": 36, "to": 34,
        "relu_": 33, "sum": 33, "div": 33, "threshold_backward": 33, "neg": 32, "others": 118,
    },
    "mtnet_s": {
        "detach": 362, "add_": 342, "reshape": 196, "conv3d": 151, "batch_norm": 151,
        "native_batch_norm_backward": 151, "convolution_backward": 151, "add": 111, "unflatten": 110,
        "flatten": 99, "permute": 97, "relu_": 97, "threshold_backward": 97, "mul": 86, "avg_pool2d": 69,
        "avg_pool2d_backward": 69, "unsqueeze": 68, "div": 62, "slice": 56, "sum": 53, "to": 50,
        "neg": 48, "expand": 39, "others": 239,
    },
}  # fmt: skip


def count_operations(network: str) -> Counter[str]:
    """Train an eager step in fp32 and return how often it calls each operation."""
    options = resolve(CUSTOM, Options(network=network, precision="fp32"), gpus=0)
    trainer = make_benchmark_trainer(options, NUM_CLASSES)
    batch = random_batch(SHAPE, NUM_CLASSES, trainer.device)
    trainer.normalization(batch.clips)  # copies its constants once
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        assert len(list(trainer.train_epoch(1, [Step(0, SHAPE)], [[batch]]))) == 1

    def is_operation(event: Any) -> bool:
        return event is not None and event.name.startswith("aten::")

    events = (
        event for event in profiler.events() if is_operation(event) and not is_operation(event.cpu_parent)
    )
    return Counter(event.name.removeprefix("aten::") for event in events)


@pytest.mark.parametrize("network", BUDGETS)
def test_a_step_calls_no_more_operations(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for cell in (LSTM, GRU):  # one operation, as on a GPU: on a CPU their number depends on oneDNN
        monkeypatch.setattr(cell, "kernel", staticmethod(lambda x, *_: (x.neg(),)))
    budget, calls = BUDGETS[network], count_operations(network)
    others = {name: count for name, count in calls.items() if name not in budget}
    grouped = {name: calls[name] for name in budget} | {"others": sum(others.values())}
    grown = ", ".join(f"{name} {budget[name]} -> {n}" for name, n in grouped.items() if n > budget[name])
    limit = sum(budget.values())
    assert calls.total() <= limit, (
        f"{calls.total()} operations instead of {limit}: {grown}; others are {others}"
    )
