"""Checkpoints and weights from strangers, resumed from and loaded as training does."""

import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from data.datasets import CUSTOM
from data.video_list import Dataset, VideoIndex
from network.pretrained_formats import CHECKPOINT_FORMATS
from tests.fuzz.mutation import WORDS, mutated
from tests.fuzz.verdict import Input
from tests.fuzz.zip_files import bomb, code_that_runs, overlapping, replaced, with_code
from train.checkpointing.checkpoint import error_context
from train.options import Options
from train.run_folder import find_resume_point
from train.state import init_state, load_state

NAME = "stranger"
CPU = torch.device("cpu")


def _network() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv3d(3, 4, 3), norm=nn.BatchNorm3d(4), conv1=nn.Conv3d(4, 4, 1), fc=nn.Linear(4, 2)
        )
    )


def _scaler() -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=False)


@cache
def _dataset() -> Dataset:
    videos = VideoIndex(
        Path("jpg"), np.array([b"a/0", b"b/0"]), np.array([0, 1]), np.array([9, 9]), Counter()
    )
    return Dataset(("a", "b"), videos, videos)


def _content() -> dict[str, Any]:
    choices: dict[str, Any] = {"weights": None, "layout": "auto", "channel_order": None, "fine_tune": False}
    state = init_state(
        *(_network(), _scaler(), CPU), **choices, fine_tune_factor=0.6, optimizer="sgd", ema=0.0
    )
    state.epochs_done = 1
    for parameter in state.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    return {
        **state.content(torch.zeros(4, dtype=torch.float64)),
        "options": Options(network=NAME).plain(),
        "classes": ["a", "b"],
        "dataset": _dataset().summary(),
    }


def _saved(content: Any, legacy: bool = False) -> bytes:
    file = BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@cache
def _whole(legacy: bool) -> bytes:
    return _saved(_content(), legacy)


def _resume(folder: Path, generator: random.Random) -> Callable[[], None]:
    options = Options(network=NAME, resume_epoch=generator.choice(["auto", 2]))

    def use() -> None:
        start = find_resume_point(folder, options, CUSTOM, _dataset())
        assert start is not None
        settings = {"fine_tune_factor": 0.6, "optimizer": "sgd", "ema": 0.0}
        with error_context(start.path):
            state = load_state(_network(), _scaler(), CPU, checkpoint=start.content, **settings)
        numbers = (state.epochs_done, state.step, state.bad_samples)
        assert all(type(number) is int and number >= 0 for number in numbers), numbers
        assert state.sums.shape == (4,)
        assert isinstance(state.best_top1, float)
        _assert_plain_weights(state.network)
        for parameter in state.network.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimizer.step()
        _assert_plain_weights(state.network)

    return use


def _start_from(path: Path, generator: random.Random) -> Callable[[], None]:
    layout = generator.choice(["auto", *CHECKPOINT_FORMATS])

    def use() -> None:
        choices = {"layout": layout, "channel_order": None, "fine_tune": True}
        state = init_state(
            *(_network(), _scaler(), CPU),
            weights=path,
            **choices,
            fine_tune_factor=0.6,
            optimizer="sgd",
            ema=0.0,
        )
        state.normalization(torch.zeros(1, 2, 2, 2, 3, dtype=torch.uint8))
        _assert_plain_weights(state.network)

    return use


def _assert_plain_weights(network: nn.Module) -> None:
    for name, expected in _network().state_dict().items():
        found = network.state_dict()[name]
        assert (found.shape, found.dtype, found.layout) == (
            expected.shape,
            expected.dtype,
            expected.layout,
        ), name
        assert not found.is_meta, name


def _input(place: Path, generator: random.Random, kind: str, data: bytes, must_refuse: bool = False) -> Input:
    """`data` as the checkpoint of a run, or as weights to start from."""
    folder = place / "results"
    folder.mkdir()
    if generator.random() < 0.5:
        path = folder / f"{NAME}_ep-0001.pth"
        use = _resume(folder, generator)
    else:
        path = folder / "weights.pth"
        use = _start_from(path, generator)
    path.write_bytes(data)
    return Input(kind, (str(folder),), use, must_refuse)


def changed_bytes(place: Path, generator: random.Random) -> Input:
    data = mutated(_whole(generator.random() < 0.3), generator)
    return _input(place, generator, "checkpoint, bytes changed", data)


def changed_pickle(place: Path, generator: random.Random) -> Input:
    """The archive is whole, so that the unpickler gets to see what has changed."""
    data = replaced(_whole(False), lambda pickle: mutated(pickle, generator))
    return _input(place, generator, "checkpoint, pickle changed", data)


def code(place: Path, generator: random.Random) -> Input:
    """Pickles that run code when they are loaded."""
    payload = code_that_runs(generator, place.parent / "outside")
    data = with_code(_whole(False), payload, generator)
    return _input(place, generator, "checkpoint, code", data, must_refuse=True)


def zip_bomb(place: Path, generator: random.Random) -> Input:
    make = generator.choice([bomb, overlapping])
    return _input(place, generator, "checkpoint, zip bomb", make(_whole(False)), must_refuse=True)


def _laughs(depth: int = 40) -> list[Any]:
    """2^40 laughs in a few bytes."""
    laughs: list[Any] = ["ha"]
    for _ in range(depth):
        laughs = [laughs, laughs]
    return laughs


def _nest(depth: int = 200) -> list[Any]:
    nest: list[Any] = []
    for _ in range(depth):
        nest = [nest]
    return nest


def _odd_tensors() -> list[Any]:
    plain = torch.ones(4, 4, 1, 1, 1)
    return [
        *(
            torch.ones(1).expand(10**12),
            torch.ones(1).expand(10**6, 10**6, 3, 3),
            torch.ones(()),
            torch.ones(0),
        ),
        *(
            torch.ones(4, 3, 3, 3, 3, dtype=torch.complex64),
            torch.ones(4, dtype=torch.int64),
            torch.ones(4) > 0,
        ),
        *(
            torch.ones(4, device="meta"),
            torch.eye(4).to_sparse(),
            torch.ones(2, 4).half(),
            torch.full((4,), torch.nan),
        ),
        *(
            torch.ones(1).expand(4),
            plain.to_sparse(),
            plain.to("meta"),
            plain.to(torch.complex64),
            nn.Parameter(plain),
        ),
        torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
    ]


def _junk(generator: random.Random) -> Any:
    plain = [None, True, 0, -1, 1.5, float("nan"), 10**30, b"x", [], {}, [1, 2], {"a": 1}, {1: 2}, (), ("x",)]
    tensors = _odd_tensors()
    return generator.choice(
        [
            *plain,
            *WORDS,
            *tensors,
            _laughs(),
            _nest(),
            {"a": _laughs()},
            OrderedDict(a=_nest()),
            torch.Size([1]),
        ]
    )


def wrong_content(place: Path, generator: random.Random) -> Input:
    """Loads, and holds something else than it should, somewhere."""
    content = _content()
    for _ in range(generator.choice([1, 1, 2])):
        holder = content
        while True:
            key = generator.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            below = holder[key]
            if not isinstance(below, dict | list) or not below or generator.random() < 0.3:
                break
            holder = below
        if generator.random() < 0.2:
            del holder[key]
        elif generator.random() < 0.1 and isinstance(holder, dict):
            holder[generator.choice([None, 1, 2.5, "x", ("a", 1), "module.fc.weight"])] = _junk(generator)
        else:
            holder[key] = _junk(generator)
    if generator.random() < 0.05:
        content = _junk(generator)
    return _input(place, generator, "checkpoint, wrong content", _saved(content))


def odd_weights(place: Path, generator: random.Random) -> Input:
    """Tensors that are not what the network's are, under its names and others'."""
    weights: dict[Any, Any] = dict(_network().state_dict())
    for _ in range(generator.choice([1, 3])):
        names = [*weights, "conv1.weight", "layer1.0.conv1.0.weight", "stem.3.weight", "x"]
        weights[generator.choice(names)] = generator.choice(_odd_tensors())
    wrapped = {"state_dict": weights, "normalization": _junk(generator)}
    return _input(
        place, generator, "weights, odd tensors", _saved(wrapped if generator.random() < 0.5 else weights)
    )


def safetensors_file(place: Path, generator: random.Random) -> Input:
    data = safetensors.torch.save(dict(_network().state_dict()))
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    headers = [
        *(b"[" * 50_000, b"{}", b"null", b'{"a":1}', b'{"fc.weight":{"dtype":"F32"}}'),
        *(b'{"fc.weight":{"dtype":"F32","shape":[%s],"data_offsets":[0,4]}}' % number for number in NUMBERS),
        *(b'{"fc.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,%s]}}' % number for number in NUMBERS),
        *(b'{"fc.weight":{"dtype":"%s","shape":[4,1],"data_offsets":[0,4]}}' % kind for kind in KINDS),
        header.replace(b"fc.weight", generator.choice(WORDS).encode(errors="replace")[:9].ljust(9)),
    ]
    way = generator.random()
    if way < 0.4:
        data = mutated(data, generator)
    elif way < 0.5:
        data = generator.choice([0, 2**63, 2**64 - 1, size * 2, 100 * 2**20]).to_bytes(8, "little") + data[8:]
    else:
        header = mutated(header, generator) if way < 0.75 else generator.choice(headers)
        data = len(header).to_bytes(8, "little") + header + body
    path = place / "weights.safetensors"
    path.write_bytes(data)
    return Input("weights, safetensors", (str(path),), _start_from(path, generator))


NUMBERS = [
    b"-1",
    b"0",
    b"1.5",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551616",
    b'"4"',
    b"[]",
    b"1e3",
]
KINDS = [b"BOOL", b"I8", b"U64", b"F8_E4M3", b"F4", b"F9", b"C64", b"", b"\\u0000"]
