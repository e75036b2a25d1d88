"""python -m tests.gpu [-o gpu_results] [--minutes 8] [--device cuda|cpu] [--tiny]

Check that a GPU computes what the CPU does, then measure training and inference on it. Writes gpu.json and gpu.md into
the output folder as results come. Exits with 1 if a check failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = {  # module -> package, of those in requirements.txt that are needed here
    "torch": "torch", "numpy": "numpy", "cv2": "opencv-python", "simplejpeg": "simplejpeg", "filelock": "filelock",
    "ffmpeg": "ffmpeg-python", "coloredlogs": "coloredlogs", "humanfriendly": "humanfriendly", "tqdm": "tqdm",
    "safetensors": "safetensors", "pytest": "pytest",
}  # fmt: skip


def run_checks(device: str, seconds: float) -> list[dict[str, Any]]:
    """Run the tests marked `gpu` in a process of their own, which an error of a kernel may end; return their rows."""
    environment = {
        "SRTG_DEVICE": device,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # of deterministic products; read when cuBLAS starts
        "GLOO_SOCKET_IFNAME": "lo",  # needs no network
        "NCCL_SOCKET_IFNAME": "lo",
    }
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        # interrupted, pytest still writes what it has
        command = ["timeout", "--foreground", "--signal=INT", "--kill-after=20", str(seconds)]
        command += [
            sys.executable,
            "-m",
            "pytest",
            str(Path(__file__).with_name("test_checks.py")),
            "-m",
            "gpu",
        ]
        command += [
            "-vv",
            "--tb=short",
            "--show-capture=no",
            f"--junitxml={results}",
            "-o",
            "junit_family=xunit1",
        ]
        exit_code = subprocess.run(
            command, env=os.environ | environment, stdout=sys.stderr, check=False
        ).returncode
        rows = [row_of(case) for case in ET.parse(results).iter("testcase")] if results.exists() else []
    if exit_code not in (0, 1):  # passed, failed
        rows.append({"check": "all", "result": "failed", "details": f"pytest ended with {exit_code}"})
    return rows


def row_of(case: ET.Element) -> dict[str, Any]:
    """Return the row of a test, with what it recorded, or why it failed or was skipped."""
    name, bracket, variant = str(case.get("name")).removeprefix("test_").partition("[")
    row = {"check": name.replace("_", " ") + bracket + variant, "result": "passed"}
    details = [f"{entry.get('name')}: {entry.get('value')}" for entry in case.iter("property")]
    for tag, result in (("skipped", "skipped"), ("error", "failed"), ("failure", "failed")):
        if (outcome := case.find(tag)) is not None:
            row["result"] = result
            details.append(str(outcome.get("message")).splitlines()[0])
    return row | {"seconds": float(case.get("time", 0)), "details": "; ".join(details)}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-o", "--output", type=Path, default=Path("gpu_results"), help="folder (default: gpu_results)")
    add("--minutes", type=float, default=8, help="time of the whole run (default: 8)")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="(default: cuda)")
    add("--tiny", action="store_true", help="measure tiny networks on tiny clips, each once")
    args = parser.parse_args(argv)
    if missing := [package for name, package in PACKAGES.items() if find_spec(name) is None]:
        parser.error(f"packages are missing: {' '.join(missing)}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    args = parse_arguments(argv)
    # now that all packages are there
    import torch  # noqa: PLC0415

    import tests.tiny_network  # noqa: F401, PLC0415  registers it
    from data.batch_sampler import BatchShape  # noqa: PLC0415
    from tests.gpu.measurements import Bench, measure  # noqa: PLC0415
    from tests.gpu.report import Report  # noqa: PLC0415

    on_gpu = args.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("python -m tests.gpu: error: torch finds no GPU", file=sys.stderr)
        return 2
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    networks = ("srtg_r3d_34", "r3d_34", "mtnet_s", "srtg_r2plus1d_50", "r2plus1d_50")
    bench = Bench(
        device, (*networks, "srtg_r3d_101", "r3d_101", "mtnet_l"), BatchShape(64, 16, 224), repeats=5
    )
    if args.tiny:
        bench = Bench(device, ("srtg_tiny", "tiny"), BatchShape(2, 4, 32), repeats=1)
    report = Report(args.output, device)
    checks = run_checks(args.device, seconds=60 * args.minutes / 2)
    report.add("checks", *checks)
    # a CPU's compiler takes minutes, if there is one
    with nullcontext() if on_gpu else torch.compiler.set_stance("force_eager"):
        measure(bench.plan(), report, deadline=started + 60 * args.minutes)
    print(report.markdown())
    return int(any(row["result"] == "failed" for row in checks))


if __name__ == "__main__":
    sys.exit(main())
