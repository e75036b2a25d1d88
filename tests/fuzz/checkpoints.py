"""Untrusted checkpoints and weights: resumed from, trained from, evaluated and exported."""

import random
import tempfile
from collections import OrderedDict
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from network import create_network
from network.pretrained_formats import CHECKPOINT_FORMATS
from tests.commands import run_command
from tests.fuzz.dataset import TRAIN_ON_SET, write_dataset
from tests.fuzz.mutation import WORDS, mutate
from tests.fuzz.verdict import FuzzInput
from tests.fuzz.zip_files import malicious_pickle, replace_pickle, with_code

RUN = Path("results/srtg_tiny_gates_False")
CHECKPOINT = "srtg_tiny_ep-0001.pth"
NOT_FINITE = "the loss is not finite"  # weights may be any numbers


@cache
def checkpoint() -> bytes:
    """Return a checkpoint of an epoch of srtg_tiny on the dataset that `_fuzz_input` writes."""
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder) / "set", ["a", "b"], ["v"])
        exit_code, output = run_command(*TRAIN_ON_SET, cwd=Path(folder))
        assert exit_code == 0, output
        return (Path(folder) / RUN / CHECKPOINT).read_bytes()


def _saved(content: object) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _fuzz_input(folder: Path, rng: random.Random, data: bytes, *, must_fail: bool = False) -> FuzzInput:
    """A command that reads `data` as the checkpoint of a run, or as weights to start from."""
    write_dataset(folder / "set", ["a", "b"], ["v"])
    (folder / RUN).mkdir(parents=True)
    path = RUN / CHECKPOINT
    (folder / path).write_bytes(data)
    commands = [
        [*TRAIN_ON_SET, "--end-epoch", "2", "--resume-epoch", rng.choice(["auto", "2"])],
        [*_TRAIN_FROM, str(path), "--pretrained-format", rng.choice(["auto", *CHECKPOINT_FORMATS])],
        ["train.evaluate", str(path), "--dataset", "set", "--clips", "1", "--crops", "1", "--workers", "0"],
        ["train.export", str(path), "-o", "exported.safetensors"],
    ]
    return FuzzInput(rng.choice(commands), [str(RUN), NOT_FINITE, "exported.safetensors: "], must_fail)


_TRAIN_FROM = [*TRAIN_ON_SET, "--task-name", "fine_tuned", "--fine-tune", "--pretrained-3d"]


def mutated_bytes(folder: Path, rng: random.Random) -> FuzzInput:
    return _fuzz_input(folder, rng, mutate(checkpoint(), rng))


def mutated_pickle(folder: Path, rng: random.Random) -> FuzzInput:
    """An intact archive, so that the unpickler gets to read what changed."""
    return _fuzz_input(folder, rng, replace_pickle(checkpoint(), lambda pickle: mutate(pickle, rng)))


def code(folder: Path, rng: random.Random) -> FuzzInput:
    """A pickle that runs code when it is loaded."""
    malicious = malicious_pickle(rng, folder.parent / "outside" / "created")
    return _fuzz_input(folder, rng, with_code(checkpoint(), malicious, rng), must_fail=True)


def _odd_tensors() -> list[Any]:
    kernel = torch.ones(8, 3, 1, 1, 1)
    return [
        *(torch.ones(()), torch.ones(0), torch.ones(4) > 0, torch.ones(4, dtype=torch.int64)),
        *(torch.ones(1).expand(8), torch.ones(2, 4).half(), torch.full((8,), torch.nan)),
        *(
            kernel,
            kernel.to_sparse(),
            kernel.to("meta"),
            kernel.to(torch.complex64),
            torch.nn.Parameter(kernel),
        ),
    ]


def unexpected_content(folder: Path, rng: random.Random) -> FuzzInput:
    """A file that torch loads, which is not a checkpoint or has a part of one."""
    content = torch.load(BytesIO(checkpoint()), weights_only=True)
    junk = [None, True, 0, 1.5, b"x", [], {}, [1, 2], {"a": 1}, {1: 2}, (), OrderedDict(a=[]), *WORDS]
    if rng.random() < 0.5:
        content = {key: content[key] for key in content if rng.random() < 0.8}
    else:
        content = rng.choice([*junk, *_odd_tensors(), torch.Size([1])])
    return _fuzz_input(folder, rng, _saved(content))


def unexpected_weights(folder: Path, rng: random.Random) -> FuzzInput:
    """Tensors of other shapes and types, under the network's names and others."""
    weights: dict[Any, Any] = dict(create_network("srtg_tiny", num_classes=2).state_dict())
    for _ in range(rng.choice([1, 3])):
        names = [*weights, "conv1.weight", "layer1.0.conv1.0.weight", "stem.3.weight", "x"]
        weights[rng.choice(names)] = rng.choice(_odd_tensors())
    wrapped = {"state_dict": weights, "normalization": rng.choice([None, {}, "x", {"mean": [0.0]}])}
    return _fuzz_input(folder, rng, _saved(wrapped if rng.random() < 0.5 else weights))


def safetensors_file(folder: Path, rng: random.Random) -> FuzzInput:
    """Mutated bytes, a header of another length, a mutated header, or one that describes other tensors."""
    write_dataset(folder / "set", ["a", "b"], ["v"])
    data = safetensors.torch.save(dict(create_network("srtg_tiny", num_classes=2).state_dict()))
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    dtype, number = rng.choice([b"F32", b"I8", b"F4", b"C64", b""]), rng.choice(JSON_NUMBERS)
    headers = [
        *(b"[" * 50_000, b"{}", b"null", b'{"a":1}', b'{"fc.weight":{"dtype":"F32"}}'),
        b'{"fc.weight":{"dtype":"%s","shape":[%s],"data_offsets":[0,4]}}' % (dtype, number),
        b'{"fc.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,%s]}}' % number,
    ]
    lengths = [0, 2**63, 2**64 - 1, size * 2, 100 * 2**20]
    header = rng.choice([header, header, mutate(header, rng), rng.choice(headers)])
    length = rng.choice([len(header)] * 9 + lengths)
    data = length.to_bytes(8, "little") + header + body
    (folder / "weights.safetensors").write_bytes(mutate(data, rng) if rng.random() < 0.4 else data)
    return FuzzInput([*_TRAIN_FROM, "weights.safetensors"], ["weights.safetensors", NOT_FINITE])


JSON_NUMBERS = [b"-1", b"0", b"1", b"1.5", b"4294967296", b"18446744073709551616", b'"4"', b"[]", b"1e3"]
