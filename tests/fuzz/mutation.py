"""Random changes to the bytes of a real file, and strings that programs trip over."""

import random
from collections.abc import Callable

BOUNDARIES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1]

# what a name, a label, an id or a path may be in somebody else's file
WORDS = [
    *(".", "..", "../../outside", "/etc/passwd", "a/../../b", "a//b", "a/", "~", "-", "--help", "*"),
    *("#?%20&", "%s%n%d", "{0}{1}", "`id`", "$(touch x)", "'; DROP TABLE Images; --", "NULL", "True"),
    *("", " ", "a;b", "a,b", "a'b", 'a"b', "a\nb", "a\r\nb", "a\0b", "\x1b[31mred", "\u202etxt"),
    *("é", "e\u0301", "日本語", "🎬", "\ufeffa", "nan", "inf", "-1", "0", "1e308", "[]"),
    *("9" * 30, "9" * 5000, "x" * 300, "x" * 70_000, "a/" * 2000),
]


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _write_boundary(data: bytearray, rng: random.Random) -> None:
    """Write a number at which sizes and offsets overflow, in either byte order."""
    width = rng.choice([1, 2, 4, 8])
    number = rng.choice(BOUNDARIES) & (1 << 8 * width) - 1
    start = rng.randrange(len(data))
    data[start : start + width] = number.to_bytes(width, rng.choice(["big", "little"]))


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _delete(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice([1, 4, 64, 1024])]


def _insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.choice([1, 4, 100]))


def _repeat(data: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(data)), rng.choice([1, 16, 512])
    data[start:start] = data[start : start + length] * rng.choice([1, 3, 100])


def _blank(data: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(data)), rng.choice([16, 512, 4096])
    data[start : start + length] = rng.choice([b"\0", b"\xff"]) * len(data[start : start + length])


def _copy(data: bytearray, rng: random.Random) -> None:
    source, target, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice([4, 64, 1024])
    data[target : target + length] = data[source : source + length]


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    *(_flip_bits, _flip_bits, _write_boundary, _write_boundary),  # the more likely ones
    *(_truncate, _delete, _insert, _repeat, _blank, _copy),
]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one to four random changes."""
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        if mutated:
            rng.choice(MUTATIONS)(mutated, rng)
    return bytes(mutated)
