"""The archives that checkpoints are, with code, bombs or other pickles in them."""

import pickle
import random
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

BOMB = 3 * 10**9  # bytes that a bomb has when unpacked


def _pickle_name(archive: zipfile.ZipFile) -> str:
    return next(name for name in archive.namelist() if name.endswith("data.pkl"))


def replaced(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The archive with another pickle in it."""
    new = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        pickle_name = _pickle_name(old)
        for name in old.namelist():
            content = old.read(name)
            archive.writestr(name, change(content) if name == pickle_name else content)
    return new.getvalue()


def code_that_runs(generator: random.Random, outside: Path) -> bytes:
    """A pickle that writes a file into `outside`, if it is let."""
    target = str(outside / "ran")
    touch = f"open({target!r}, 'w')"
    calls: list[tuple[str, str, tuple[object, ...]]] = [
        ("os", "system", (f"touch {target}",)),
        ("posix", "system", (f"touch {target}",)),
        ("builtins", "eval", (touch,)),
        ("builtins", "exec", (touch,)),
        ("builtins", "open", (target, "w")),
        ("io", "open", (target, "w")),
        ("subprocess", "Popen", (["touch", target],)),
        ("pathlib", "Path.touch", (target,)),
        ("torch.hub", "load", (str(outside), "x")),
        ("torch.serialization", "load", (target,)),
        ("torch._utils", "_rebuild_device_tensor_from_numpy", (touch,)),
        ("numpy.f2py.capi_maps", "getinit", (touch, {})),
        ("numpy.testing._private.utils", "runstring", (touch, {})),
        ("timeit", "timeit", (touch,)),
        ("runpy", "run_path", (target,)),
        ("builtins", "getattr", ("x", "__class__")),
    ]
    module, name, arguments = generator.choice(calls)
    words = pickle.dumps(arguments, protocol=2)[2:-1]
    start = f"c{module}\n{name}\n".encode()
    if generator.random() < 0.5:
        start = _stacked(module, name)
    return start + words + b"R"


def _stacked(module: str, name: str) -> bytes:
    """The same by the opcode of protocol 4."""
    words = (b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    return b"".join(words) + b"\x93"


def with_code(data: bytes, payload: bytes, generator: random.Random) -> bytes:
    """The payload alone, as a bare file, as the archive's pickle, or before what the pickle holds."""
    alone = b"\x80\x04" + payload + b"."
    way = generator.choice(["bare", "archive", "before"])
    if way == "bare":
        return alone
    if way == "archive":
        return replaced(data, lambda _: alone)
    return replaced(data, lambda whole: b"\x80\x04" + payload + b"0" + whole[2:])


@cache
def bomb(data: bytes) -> bytes:
    """One record of zeros that is 3 MB packed and 3 GB unpacked, in place of the largest tensor and of the pickle."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(10**6)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(10**6)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block + again * (BOMB // 10**6 - 1) + packer.flush()
    new = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            is_bomb = name.endswith("data/0")
            archive.writestr(name, packed if is_bomb else old.read(name))
            if is_bomb:
                info = archive.getinfo(name)
                info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, BOMB
    return new.getvalue()


@cache
def overlapping(data: bytes) -> bytes:
    """Every record claims the bytes of all that follow it as well."""
    new = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            archive.writestr(name, old.read(name))
        for info in archive.infolist():
            if not info.filename.endswith("data.pkl"):
                info.file_size = info.compress_size = len(data) - info.header_offset
    return new.getvalue()
