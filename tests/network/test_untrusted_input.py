"""Weights from strangers: what they once did to who loaded them."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from network.pretrained import load_weights, read_tensors_file
from tests.fuzz.zip_files import bomb, code_that_runs, overlapping, with_code


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2))


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_code_is_named_and_no_way_to_run_it(tmp_path: Path) -> None:
    """torch's own message advises to load the file with its code, in bold."""
    whole = saved(tmp_path / "whole.pth", {"a": torch.ones(1)}).read_bytes()
    for seed in range(20):
        generator = random.Random(seed)
        path = tmp_path / "code.pth"
        path.write_bytes(with_code(whole, code_that_runs(generator, tmp_path), generator))
        with pytest.raises(ValueError, match=r"code\.pth: (holds more than tensors|is damaged)") as caught:
            read_tensors_file(path)
        assert "weights_only" not in str(caught.value)
        assert str(caught.value).isprintable()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make", [bomb, overlapping])
def test_records_that_unpack_to_more_than_the_file_are_refused(
    tmp_path: Path, make: Callable[[bytes], bytes]
) -> None:
    path = saved(tmp_path / "bomb.pth", {"a": torch.ones(100), "b": torch.ones(100)})
    path.write_bytes(make(path.read_bytes()))
    with pytest.raises(ValueError, match=r"bomb\.pth: .*records are packed, or lie over one another"):
        read_tensors_file(path)


def test_whatever_a_pickle_makes_of_its_reader_names_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {})
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    for pickle in (b"\x80\x02.", b"\x80\x02b.", b"\x80\x02K\x01K\x02s.", b"\x80\x02X\xff\xff\xff\x7fa"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in records.items():
                archive.writestr(name, pickle if name.endswith("data.pkl") else content)
        with pytest.raises(ValueError, match=r"x\.pth: "):
            read_tensors_file(path)


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(2, 4).to_sparse(), torch.ones(2, 4, dtype=torch.complex64), torch.ones(2, 4, device="meta")],
)
def test_tensors_without_plain_numbers_are_refused(tmp_path: Path, tensor: Tensor) -> None:
    """Of complex ones the real part was loaded; the others ended in tracebacks."""
    path = saved(tmp_path / "x.pth", {"0.weight": tensor})
    with pytest.raises(ValueError, match=r"x\.pth: '0\.weight' is no plain tensor"):
        load_weights(network(), path)


def test_whole_numbers_do_not_fill_weights(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pth", {"0.weight": torch.ones(2, 4, dtype=torch.int8)})
    with pytest.raises(
        ValueError, match=r"x\.pth: 0\.weight holds torch\.int8, the network's holds torch\.float32"
    ):
        load_weights(network(), path)


def test_a_head_that_is_one_number_and_a_kernel_without_an_end_do_not_fit(tmp_path: Path) -> None:
    """Both were gone into before anybody asked whether they fit: the second would take 4 TB."""
    huge = torch.ones(1).expand(10**6, 10**6, 1, 1)
    weights = {"conv1.weight": huge, "fc.weight": torch.ones(()), "stem.3.weight": torch.ones(1, 1, 1, 1, 1)}
    path = saved(tmp_path / "x.pth", weights)
    with pytest.raises(ValueError, match="none of its 3 tensors"):
        load_weights(network(), path)
    path = saved(tmp_path / "x.pth", {name: weights[name] for name in ("fc.weight", "stem.3.weight")})
    with pytest.raises(ValueError, match="none of its 2 tensors"):
        load_weights(network(), path)
