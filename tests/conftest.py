"""What the tests share."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: threads cost more than they give

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
