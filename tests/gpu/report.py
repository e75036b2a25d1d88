"""The results of a run as JSON and as Markdown, written with each of them: a run that is cut off leaves what it has."""

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from data.common.atomic_io import atomic_write

Row = dict[str, Any]

# table -> its title, the format of each column, and what a reader must know
TABLES = {
    "checks": (
        "Checks",
        {"check": "", "result": "", "seconds": ".1f", "details": ""},
        "Numbers are norms of differences, relative to the norm of what is expected.",
    ),
    "steps": (
        "Training steps",
        {"network": "", "batch": "", "memory": "", "mode": "", "step ms": ".1f", "forward": ".1f"}
        | {
            "backward": ".1f",
            "clips/s": ".1f",
            "TFLOP/s": ".1f",
            "MFU": ".1%",
            "GB": ".1f",
            "SRTG/plain": ".2f",
        },
        "In bf16, with the update, on clips in the device's memory; the median of several times. FLOPs are 2 per "
        "multiply-add, the backward pass counts as two forward passes; MFU is relative to the fastest matrix product, "
        "GB the peak of allocated memory, SRTG/plain the ratio of step times with and without recursion.",
    ),
    "profile": (
        "The costliest operations of a training step",
        {"network": "", "batch": "", "operation": "", "calls": ".0f", "ms": ".2f", "share": ".1%"},
        "Mean of ten eager steps. Times on the device of an operation alone, without those that it calls.",
    ),
    "copies": (
        "Training on clips in the device's memory, and in the CPU's",
        {"network": "", "batch": "", "clips from": "", "step ms": ".1f", "waiting": ".1%"},
        "As a loader that is never late delivers them.",
    ),
    "augmentation": (
        "Augmentation by workers, and on the device",
        {"batch": "", "worker, fused": ".2f", "worker, device": ".2f", "device": ".2f"},
        "Milliseconds: of one core for a clip that is in memory, and of the device for a batch under --augment device.",
    ),
    "passes": (
        "Passes without an update",
        {"network": "", "batch": "", "mode": "", "forward": ".1f", "forward and backward": ".1f"},
        "Milliseconds in bf16, channels-last: forward in eval mode, forward and backward in train mode; medians.",
    ),
    "not measured": ("Not measured", {"table": "", "what": "", "reason": ""}, ""),
}


class Report:
    """The results so far; `add` writes `gpu.json` and `gpu.md` into a folder."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.machine = machine_of(device)
        self.tables: dict[str, list[Row]] = {name: [] for name in TABLES}

    def add(self, table: str, *rows: Row) -> None:
        self.tables[table] += rows
        atomic_write(self.folder / "gpu.json", json.dumps(self.machine | self.tables, indent=1) + "\n")
        atomic_write(self.folder / "gpu.md", self.markdown())

    def markdown(self) -> str:
        device, *versions = self.machine.items()
        lines = [f"## {device[1]}", "", ", ".join(f"{name} {version}" for name, version in versions) + "."]
        for name, (title, columns, note) in TABLES.items():
            rows = with_ratios(self.tables[name]) if name == "steps" else self.tables[name]
            used = {column: spec for column, spec in columns.items() if any(column in row for row in rows)}
            if rows:
                lines += ["", f"### {title}", "", *([note, ""] if note else [])]
                lines += [f"| {' | '.join(used)} |", "|---" * len(used) + "|"]
            for row in rows:
                cells = (format(row[name], spec) if name in row else "" for name, spec in used.items())
                lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        return "\n".join(lines) + "\n"


def with_ratios(rows: list[Row]) -> list[Row]:
    """Return rows of steps with the ratio to the time of the same network without recursion."""

    def setting(row: Row, name: str) -> tuple[str, ...]:
        return (name, row["batch"], row["memory"], row["mode"])

    times = {setting(row, row["network"]): row["step ms"] for row in rows}
    plain = [times.get(setting(row, row["network"].replace("srtg_", "", 1)), 0) for row in rows]
    return [
        row | {"SRTG/plain": row["step ms"] / time} if time and row["network"].startswith("srtg_") else row
        for row, time in zip(rows, plain, strict=True)
    ]


def machine_of(device: torch.device) -> dict[str, Any]:
    """Return the name of the device, and the versions that figures depend on."""
    machine = {"device": f"CPU, {torch.get_num_threads()} threads", "torch": torch.__version__}
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            driver = subprocess.run(
                query, capture_output=True, text=True, timeout=20, check=True
            ).stdout.split()[0]
        except (OSError, subprocess.SubprocessError, IndexError):
            driver = "unknown"
        machine |= {"device": torch.cuda.get_device_name(device), "CUDA": str(torch.version.cuda)}
        machine |= {"cuDNN": str(torch.backends.cudnn.version()), "driver": driver}
    return machine | {"date": str(datetime.date.today())}
