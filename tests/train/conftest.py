"""A small dataset, and a run on it that tests compare others with."""

from pathlib import Path

import pytest

from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import REFERENCE, train


def make_dataset(root: Path, videos: int, classes: str = "abc", n_frames: int = 8, val: str = "0.34") -> Path:
    """Write frame databases and label files."""
    make_stores(root, {name: [f"{name}{i}" for i in range(videos)] for name in classes}, n_frames=n_frames)
    main_of("data.labels")(["folders", str(root), "--val", val])
    return root


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and six validation videos of three classes. Read only."""
    return make_dataset(tmp_path_factory.mktemp("set"), videos=6)


@pytest.fixture
def own_stores(tmp_path: Path) -> Path:
    """A dataset that a test may change: eight training and four validation videos of two classes."""
    return make_dataset(tmp_path / "set", videos=6, classes="ab", n_frames=4)


@pytest.fixture(scope="session")
def reference_run(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an uninterrupted run with the flags REFERENCE. Read only."""
    results = tmp_path_factory.mktemp("reference")
    assert train(stores, results, REFERENCE) == 0
    return results
