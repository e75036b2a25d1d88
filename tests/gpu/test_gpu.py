"""`make gpu` with tiny networks on the CPU, and what becomes of a measurement that fails."""

import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from data.batch_sampler import BatchShape
from tests.commands import REPOSITORY
from tests.gpu.measurements import Measurement, measure
from tests.gpu.report import TABLES, Report, Row
from train.engine import StepOutOfMemoryError


def test_all_of_its_code_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.gpu", "--tiny", "--device", "cpu", "-o", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["result"] for row in found["checks"]} <= {"passed", "skipped"}
    assert found["not measured"] == []
    settings = {(row["batch"], row["memory"], row["mode"]) for row in found["steps"]}
    assert len(settings) == 7
    assert all(row["step ms"] > 0 and row["MFU"] > 0 for row in found["steps"])
    assert len(found["profile"]) == 10
    page = (tmp_path / "gpu.md").read_text()
    assert page.startswith(f"## {found['device']}\n\ntorch {torch.__version__}, ")
    assert [title for title, *_ in TABLES.values() if f"### {title}\n" not in page] == ["Not measured"]


def test_a_failed_measurement_is_a_row(tmp_path: Path) -> None:
    shape, report = BatchShape(8, 4, 32), Report(tmp_path, torch.device("cpu"))

    def fits_two(shape: BatchShape) -> list[Row]:
        if shape.batch > 2:
            raise StepOutOfMemoryError
        return [{"step ms": 7.0, "clips from": "CPU"}]

    def fails(shape: BatchShape) -> list[Row]:
        raise RuntimeError("no such kernel\nand more")

    def takes_long(shape: BatchShape) -> list[Row]:
        time.sleep(60)
        return []

    works = {"large": fits_two, "broken": fails, "slow": takes_long, "after": fits_two}
    plan = [Measurement("copies", {"network": name}, shape, work) for name, work in works.items()]
    measure(plan, report, deadline=time.monotonic() + 4)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["copies"] == [
        {"network": "large", "batch": "2x4x32x32", "step ms": 7.0, "clips from": "CPU"}
    ]
    assert [row["reason"] for row in found["not measured"]] == [
        "RuntimeError: no such kernel", "out of time", "out of time",
    ]  # fmt: skip
    assert "| copies | slow, 8x4x32x32 | out of time |" in (tmp_path / "gpu.md").read_text()
