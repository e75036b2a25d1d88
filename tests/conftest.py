"""Settings and fixtures of all tests."""

import os
from pathlib import Path

import pytest

# read by OpenMP when torch is imported, here and in child processes: tiny tensors are faster without threads
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

REPOSITORY = Path(__file__).parents[1]


def shared_folder(name: str) -> Path:
    """Return a folder of reference values or videos, below $SRTG_SHARED or beside the repository; skip without it."""
    folder = Path(os.environ.get("SRTG_SHARED", REPOSITORY.parent / "shared")) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} not found; SRTG_SHARED names the folder that holds {name}/")
    return folder


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """Seven real videos, not part of the repository."""
    return shared_folder("videos")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
