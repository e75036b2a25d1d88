"""A run that goes on finds the data that it began with, or says that it does not."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import NAME, fails, folder, train

labels_main = main_of("data.labels")


def test_data_converted_anew_are_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Same labels, same ids: within an epoch the clips to come would not be those of the plan; after one it is said."""
    dataset, results = tmp_path / "set", tmp_path / "results"
    make_stores(dataset, {name: [f"{name}{i}" for i in range(4)] for name in "ab"}, n_frames=8)
    labels_main(["folders", str(dataset)])
    assert train(dataset, results, "--end-epoch", "1") == 0
    content = torch.load(folder(results) / f"{NAME}_ep-0001.pth", weights_only=True)
    described = json.loads((folder(results) / "run.json").read_text())
    assert re.fullmatch("[0-9a-f]{16}", content["dataset"]["fingerprint"])
    assert described["dataset"]["fingerprint"] == content["dataset"]["fingerprint"]

    shutil.rmtree(dataset / "jpg" / "a" / "a0")
    make_stores(dataset, {"a": ["a0"]}, n_frames=30)
    torch.save(content | {"step": 1}, folder(results) / f"{NAME}_last.pth")
    fails(
        capsys, 2, f"{NAME}_last.pth: was written within an epoch of other videos than those that are here now",
        run=lambda: train(dataset, results, "--end-epoch", "2", "--resume-epoch", "auto"),
    )  # fmt: skip
    assert train(dataset, results, "--end-epoch", "2", "--resume-epoch", "2") == 0
    assert f"{NAME}_ep-0001.pth: was written for other videos than those that are here now" in caplog.text
