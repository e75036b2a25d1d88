"""python -m network.benchmark [--network NAME_OR_PATTERN ...] [--batch 1] [--length 16] [--size 224] [--no-latency]

Parameters, FLOPs and latency of networks: forward pass in eval mode, forward and backward pass in train mode.

FLOPs are those of one clip's forward pass, 2 per multiply-add, recurrent cells included. Latencies are of a whole
batch: median and interquartile range of `--repeats` passes after `--warmup` passes.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data.common.cli import OneLineParser, complete_by, output_file, positive
from network.compilation import compile_network
from network.flops import count_flops, count_parameters
from network.registry import create_network, list_networks
from train.parallel.devices import configure_backends

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Latency(NamedTuple):
    """Milliseconds per batch: the median, and the interquartile range."""

    median: float
    iqr: float

    def __str__(self) -> str:
        return f"{self.median:10.1f} ± {self.iqr:<7.1f}"


def measure_latency(
    network: nn.Module, clips: Tensor, *, warmup: int = 3, repeats: int = 10, precision: str = "fp32"
) -> tuple[Latency, Latency]:
    """Return the latency of forward in eval mode, and of forward and backward in train mode.

    `clips` `(B, 3, T, H, W)` is on the device of the network. GPU times include waiting for the results, which the
    original's README left out.
    """
    device = clips.device

    def forward() -> Tensor:
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            return network(clips)

    def forward_and_backward() -> None:
        network.zero_grad(set_to_none=True)
        forward().float().sum().backward()

    network.eval()
    with torch.inference_mode():
        forward_latency = _measure(forward, device, warmup, repeats)
    network.train()
    return forward_latency, _measure(forward_and_backward, device, warmup, repeats)


def _measure(work: Callable[[], object], device: torch.device, warmup: int, repeats: int) -> Latency:
    times = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    times = times[warmup:]
    q1, _, q3 = statistics.quantiles(times, n=4, method="inclusive") if repeats > 1 else times * 3
    return Latency(statistics.median(times), q3 - q1)


def benchmark(name: str, arguments: argparse.Namespace, device: torch.device) -> tuple[Latency, Latency]:
    """Return the latencies of a network with random weights, on random clips."""
    configure_backends(device, arguments.precision)  # with the kernels of training
    memory_format = torch.channels_last_3d if arguments.channels_last else torch.contiguous_format
    network = create_network(name, arguments.num_classes)
    network.to(device=device, memory_format=memory_format)  # type: ignore[call-overload] # no such stub
    shape = (arguments.batch, 3, arguments.length, arguments.size, arguments.size)
    clips = torch.randn(shape, device=device).to(memory_format=memory_format)
    if arguments.compile:
        compile_network(network)
    return measure_latency(
        network, clips, warmup=arguments.warmup, repeats=arguments.repeats, precision=arguments.precision
    )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m network.benchmark", description=__doc__.split("\n\n")[1])
    text = "names or patterns such as 'r3d_*'"
    names = parser.add_argument("--network", nargs="+", default=["srtg_r3d_34"], help=text)
    complete_by(names, list_networks())
    sizes = {"num-classes": 400, "batch": 1, "length": 16, "size": 224, "warmup": 3, "repeats": 10}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=positive, default=value, help=f"(default: {value})")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32", help="(default: fp32)")
    parser.add_argument("--channels-last", action="store_true", help="memory format of weights and clips")
    parser.add_argument("--compile", action="store_true", help="compile the network first")
    parser.add_argument("--no-latency", action="store_true", help="only parameters and FLOPs")
    parser.add_argument("--json", type=output_file, help="also write the rows to this file")
    arguments = parser.parse_args(argv)
    if unknown := [pattern for pattern in arguments.network if not list_networks(pattern)]:
        parser.error(f"no network matches {', '.join(unknown)}; network.list_networks() returns the names")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_cuda = device.type == "cuda"
    hardware = torch.cuda.get_device_name() if on_cuda else f"CPU, {torch.get_num_threads()} threads"
    num_classes, length, size = arguments.num_classes, arguments.length, arguments.size
    print(f"{hardware}, {arguments.batch}x{length}x{size}x{size}, {arguments.precision}")
    titles = "" if arguments.no_latency else f"{'forward (ms)':>20} {'forward + backward (ms)':>24}"
    print(f"{'network':24} {'params (M)':>10} {'GFLOPs':>9} {titles}".rstrip())
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name in dict.fromkeys(name for pattern in arguments.network for name in list_networks(pattern)):
        try:
            latencies = [] if arguments.no_latency else [*benchmark(name, arguments, device)]
            params, flops = count_parameters(name, num_classes), count_flops(name, num_classes, length, size)
        except (ValueError, RuntimeError) as error:  # out of memory, a BatchNorm of one value, no compiler
            failed[name] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            print(f"{name:24} failed: {failed[name]}", flush=True)
            continue
        rows.append({"network": name, "params_m": params / 1e6, "gflops": flops / 1e9})
        for key, latency in zip(("forward_ms", "forward_backward_ms"), latencies, strict=False):
            rows[-1][key] = latency._asdict()
        times = " ".join(map(str, latencies))
        print(f"{name:24} {params / 1e6:10.2f} {flops / 1e9:9.2f} {times}".rstrip(), flush=True)
    if arguments.json:
        setup = ("batch", "length", "size", "precision", "channels_last", "compile")
        content = {"device": hardware, **{key: getattr(arguments, key) for key in setup}}
        content |= {"flops_per_multiply_add": 2, "rows": rows, "failed": failed}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
