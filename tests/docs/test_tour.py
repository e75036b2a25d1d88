"""docs/tour.ipynb runs, here with fewer videos and one epoch, and is stored as a run left it."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.commands import REPOSITORY

TOUR = REPOSITORY / "docs/tour.ipynb"
SMALL = {"--videos-per-class 40": "--videos-per-class 3", "--end-epoch 6": "--end-epoch 1"}


def pictures(notebook: dict[str, Any]) -> list[np.ndarray]:
    """Return the decoded pictures of a notebook's outputs, in order."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    jpegs = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", ())]
    return [cv2.imdecode(np.frombuffer(base64.b64decode(jpeg), np.uint8), cv2.IMREAD_COLOR) for jpeg in jpegs]


def test_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "pip install -r requirements-optional.txt"
    nbformat = pytest.importorskip("nbformat", reason=reason)
    pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    from tools.docs.notebook import execute  # noqa: PLC0415

    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # not the user's
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("data", "network", "train"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "docs").mkdir()
    text = TOUR.read_text("utf-8")
    for flag, smaller in SMALL.items():
        assert text.count(flag) == 1
        text = text.replace(flag, smaller)
    notebook = nbformat.reads(text, as_version=4)
    execute(notebook, tmp_path / "docs")
    expected = [picture.shape for picture in pictures(json.loads(TOUR.read_text("utf-8")))]
    assert [picture.shape for picture in pictures(notebook)] == expected
    assert "matches the network" in json.dumps(notebook)


def test_tour_is_stored_with_its_outputs() -> None:
    text = TOUR.read_text("utf-8")
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(notebook["cells"]) <= 12
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(picture.std() > 10 for picture in pictures(notebook))
    assert len(pictures(notebook)) == 4
    assert len(text) < 600_000
    outputs = json.dumps([cell["outputs"] for cell in cells])
    assert '"error"' not in outputs
    assert "stderr" not in outputs
    prose = re.sub(r'"image/jpeg": "[^"]*"', "", outputs)
    assert not re.search(r"(?<![\w./])/\w", prose), "a path of the machine"
    for cell in notebook["cells"]:
        for link in re.findall(r"\]\(([^)#]+)", "".join(cell["source"])):
            assert (TOUR.parent / link).exists(), link
