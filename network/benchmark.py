"""python -m network.benchmark [--network NAME_OR_PATTERN ...] [--batch 1] [--length 16] [--size 224] [--no-latency]

Parameters, operations and latency of networks, a row each: forward in evaluation, forward and backward in training.

Operations are counted as 2 per multiply-add, for one clip's forward pass, recurrent cells included. Latencies are
medians over `--repeats` passes after `--warmup` ones, with the interquartile range, for a whole batch; on a GPU from
its own events.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from network.flops import count_flops, count_parameters
from network.registry import create_network, list_networks

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Latency(NamedTuple):
    """Milliseconds a batch: the median, and the interquartile range."""

    median: float
    spread: float


class Row(NamedTuple):
    """What is known of a network; latencies are None where they were not asked for."""

    network: str
    million_parameters: float
    gflops: float
    forward: Latency | None
    backward: Latency | None


def measure_latency(
    network: nn.Module,
    clips: Tensor,
    *,
    warmup: int = 3,
    repeats: int = 10,
    precision: str = "fp32",
) -> tuple[Latency, Latency]:
    """Forward in evaluation, and forward and backward in training, of `clips` `(B, 3, T, H, W)`, where they are.

    The original's README measured both around one call, without waiting for the GPU.
    """
    device = clips.device

    def autocast() -> AbstractContextManager:
        return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")

    def forward() -> None:
        with torch.inference_mode(), autocast():
            network(clips)

    def backward() -> None:
        network.zero_grad(set_to_none=True)
        with autocast():
            logits = network(clips)
        logits.float().sum().backward()

    network.eval()
    first = _median_time(forward, device, warmup, repeats)
    network.train()
    return first, _median_time(backward, device, warmup, repeats)


def _median_time(work: Callable[[], None], device: torch.device, warmup: int, repeats: int) -> Latency:
    for _ in range(warmup):
        work()
    clock = _gpu_milliseconds if device.type == "cuda" else _cpu_milliseconds
    times = sorted(clock(work) for _ in range(repeats))
    low, _, high = statistics.quantiles(times, n=4, method="inclusive") if repeats > 1 else (times[0],) * 3
    return Latency(statistics.median(times), high - low)


def _cpu_milliseconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def _gpu_milliseconds(work: Callable[[], None]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def benchmark(name: str, arguments: argparse.Namespace) -> Row:
    """One network's row."""
    forward = backward = None
    if arguments.latency:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = create_network(name, arguments.num_classes).to(device)
        shape = (arguments.batch, 3, arguments.length, arguments.size, arguments.size)
        clips = torch.randn(shape, device=device)
        if arguments.channels_last:
            network = network.to(memory_format=torch.channels_last_3d)
            clips = clips.to(memory_format=torch.channels_last_3d)
        if arguments.compile:
            torch.compiler.reset()  # after some variants of the code that networks share, none would be compiled
            network.compile()
        forward, backward = measure_latency(
            network, clips, warmup=arguments.warmup, repeats=arguments.repeats, precision=arguments.precision
        )
    return Row(
        network=name,
        million_parameters=count_parameters(name, arguments.num_classes) / 1e6,
        gflops=count_flops(name, arguments.num_classes, arguments.length, arguments.size) / 1e9,
        forward=forward,
        backward=backward,
    )


def describe(row: Row) -> str:
    """A line of the table."""
    times = [
        f"{time.median:10.1f} ± {time.spread:<7.1f}"
        for time in (row.forward, row.backward)
        if time is not None
    ]
    return f"{row.network:24} {row.million_parameters:9.2f} {row.gflops:9.2f} {' '.join(times)}".rstrip()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """Errors are one printable line, as those of the tools in packages that this one knows nothing of."""

    def error(self, message: str) -> NoReturn:
        shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
        self.exit(2, f"{self.prog}: error: {shown}\n")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m network.benchmark", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "--network", nargs="+", default=["srtg_r3d_34"], metavar="NAME", help="names or patterns, as 'r3d_*'"
    )
    for name, value in (
        ("num-classes", 400),
        ("batch", 1),
        ("length", 16),
        ("size", 224),
        ("warmup", 3),
        ("repeats", 10),
    ):
        parser.add_argument(f"--{name}", type=_positive, default=value, help=f"(default: {value})")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32", help="(default: fp32)")
    parser.add_argument("--channels-last", action="store_true", help="memory layout of weights and clips")
    parser.add_argument("--compile", action="store_true", help="compile the network first")
    parser.add_argument("--no-latency", dest="latency", action="store_false", help="only count")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args(argv)
    if unknown := [pattern for pattern in arguments.network if not list_networks(pattern)]:
        parser.error(f"no network is called {' or '.join(map(repr, unknown))}; list_networks() has the names")
    names = [name for pattern in arguments.network for name in list_networks(pattern)]
    arguments.names = list(dict.fromkeys(names))
    if arguments.json:  # not to fail in the end
        try:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.open("a").close()
        except OSError as error:
            parser.error(f"argument --json: {error.strerror}, {str(error.filename)!r}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{device}, {arguments.batch}x{arguments.length}x{arguments.size}x{arguments.size}, {arguments.precision}"
    )
    titles = ["forward, ms", "forward + backward, ms"] if arguments.latency else []
    print(
        f"{'network':24} {'million':>9} {'GFLOPs':>9} {' '.join(f'{title:>20}' for title in titles)}".rstrip()
    )
    shape = ("batch", "length", "size", "precision", "channels_last", "compile")
    content: dict[str, object] = {"device": device, **{name: getattr(arguments, name) for name in shape}}
    content |= {"flops_per_multiply_add": 2, "rows": [], "left_out": {}}
    for name in arguments.names:
        try:
            row = benchmark(name, arguments)
        except (ValueError, RuntimeError) as error:  # too little memory, a norm of one value, no compiler
            reason = f"{type(error).__name__}, {str(error).strip()}".splitlines()[0]
            content["left_out"][name] = reason
            print(f"{name:24} left out: {reason}", flush=True)
        else:
            content["rows"].append(_plain(row))
            print(describe(row), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(bool(content["left_out"]))


def _plain(row: Row) -> dict[str, object]:
    latencies = {
        name: time and time._asdict() for name, time in (("forward", row.forward), ("backward", row.backward))
    }
    return {**row._asdict(), **latencies}


if __name__ == "__main__":
    sys.exit(main())
