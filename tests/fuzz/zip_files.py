"""Checkpoint archives with another pickle in them: a changed one, or one that runs code when it is loaded."""

import pickle
import random
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path


def replace_pickle(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return the archive `data` with `change` applied to its pickle."""
    new = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            content = old.read(name)
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return new.getvalue()


def malicious_pickle(rng: random.Random, target: Path) -> bytes:
    """Return pickle opcodes that create the file `target`, or call what they should not."""
    touch = f"open({str(target)!r}, 'w')"
    calls: list[tuple[str, str, tuple[object, ...]]] = [
        ("os", "system", (f"touch {target}",)),
        ("posix", "system", (f"touch {target}",)),
        ("builtins", "eval", (touch,)),
        ("builtins", "exec", (touch,)),
        ("builtins", "open", (str(target), "w")),
        ("io", "open", (str(target), "w")),
        ("subprocess", "Popen", (["touch", str(target)],)),
        ("pathlib", "Path.touch", (str(target),)),
        ("torch.hub", "load", (str(target.parent), "x")),
        ("torch.serialization", "load", (str(target),)),
        ("numpy.f2py.capi_maps", "getinit", (touch, {})),
        ("timeit", "timeit", (touch,)),
        ("runpy", "run_path", (str(target),)),
        ("builtins", "getattr", ("x", "__class__")),
    ]
    module, name, args = rng.choice(calls)
    function = f"c{module}\n{name}\n".encode()  # GLOBAL
    if rng.random() < 0.5:  # STACK_GLOBAL, of protocol 4
        words = (b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
        function = b"".join(words) + b"\x93"
    return function + pickle.dumps(args, protocol=2)[2:-1] + b"R"


def with_code(data: bytes, code: bytes, rng: random.Random) -> bytes:
    """Return `code` as a bare pickle, in place of the archive's pickle, or at the start of it."""
    alone = b"\x80\x04" + code + b"."
    match rng.choice(["bare", "instead", "before"]):
        case "bare":
            return alone
        case "instead":
            return replace_pickle(data, lambda _: alone)
        case _:
            return replace_pickle(data, lambda whole: b"\x80\x04" + code + b"0" + whole[2:])
