"""What the tests share."""

import os
from pathlib import Path

import pytest

# For tiny tensors threads cost more than they give, and those that wait should leave the core to others. Read when
# torch is imported, here and in the processes that tests start.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

REPOSITORY = Path(__file__).parents[1]


def shared_folder(name: str) -> Path:
    """A folder of golden values or videos, in $SRTG_SHARED or beside the repository; tests are skipped without."""
    folder = Path(os.environ.get("SRTG_SHARED", REPOSITORY.parent / "shared")) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; SRTG_SHARED names the folder that holds {name}/")
    return folder


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """Seven real videos, which are not part of the project."""
    return shared_folder("videos")


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY
