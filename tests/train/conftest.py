"""A small data set, and a run on it that nothing disturbs: to be read alone, as all tests share them."""

from pathlib import Path

import pytest

from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import UNDISTURBED, train

labels_main = main_of("data.labels")


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    make_stores(root, {name: [f"{name}{i}" for i in range(6)] for name in ("a", "b", "c")}, n_frames=8)
    labels_main(["folders", str(root), "--val", "0.34"])
    return root


@pytest.fixture(scope="session")
def undisturbed(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("undisturbed")
    assert train(stores, results, *UNDISTURBED) == 0
    return results
