"""Golden values: in the folder SRTG_SHARED, or in `shared` beside the repository; skipped where absent."""

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]


def golden_folder() -> Path | None:
    """The folder of expected values, or None where it is absent."""
    shared = Path(os.environ.get("SRTG_SHARED", REPOSITORY.parent / "shared"))
    return shared / "golden" if (shared / "golden").is_dir() else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `logits_case` once for each case in the golden folder."""
    if "logits_case" not in metafunc.fixturenames:
        return
    folder = golden_folder()
    cases = json.loads((folder / "logits.json").read_text()) if folder else {}
    metafunc.parametrize("logits_case", cases.values(), ids=cases.keys())  # no cases: skipped by pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of expected values; skips the test where it is absent."""
    folder = golden_folder()
    if folder is None:
        pytest.skip("no golden values: set SRTG_SHARED to the folder that holds golden/")
    return folder


@pytest.fixture(scope="session")
def golden_fill(golden: Path) -> ModuleType:
    """The module that makes the weights and clips of the golden values."""
    spec = importlib.util.spec_from_file_location("golden_fill", golden / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    torch.manual_seed(0)
