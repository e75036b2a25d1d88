"""Bytes of a real file, changed as damage and malice change them; and values that programs trip over."""

import random
from collections.abc import Callable

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1]

# what a name, a label, an id or a path may be where a stranger chooses it
WORDS = [
    *("", " ", ".", "..", "../../outside", "/etc/passwd", "a/../../b", "a//b", "a/", "~", "-", "--help", "*"),
    *(
        "'; DROP TABLE Images; --",
        'a"b',
        "a'b",
        "a,b",
        "a;b",
        "#?%20&",
        "%s%n%d",
        "{0}{1}",
        "$(touch x)",
        "`id`",
    ),
    *(
        "a\nb",
        "a\r\nb",
        "a\0b",
        "\x1b[31mred",
        "\ufeffa",
        "é",
        "e\u0301",
        "日本語",
        "🎬",
        "\u202etxt",
        "NULL",
    ),
    *(
        "nan",
        "inf",
        "-1",
        "0",
        "1e308",
        "9" * 30,
        "9" * 5000,
        "x" * 300,
        "x" * 70_000,
        "a/" * 2000,
        "True",
        "[]",
    ),
]


def _flip_bits(data: bytearray, generator: random.Random) -> None:
    for _ in range(generator.choice([1, 1, 2, 8, 64])):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def _overwrite(data: bytearray, generator: random.Random) -> None:
    """A number that sizes and offsets are fond of, either way round."""
    width = generator.choice([1, 2, 4, 8])
    number = generator.choice(INTERESTING) & (1 << 8 * width) - 1
    place = generator.randrange(len(data))
    data[place : place + width] = number.to_bytes(width, generator.choice(["big", "little"]))


def _truncate(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(len(data)) :]


def _drop(data: bytearray, generator: random.Random) -> None:
    place = generator.randrange(len(data))
    del data[place : place + generator.choice([1, 4, 64, 1024])]


def _repeat(data: bytearray, generator: random.Random) -> None:
    place, length = generator.randrange(len(data)), generator.choice([1, 16, 512])
    data[place:place] = data[place : place + length] * generator.choice([1, 3, 100])


def _insert(data: bytearray, generator: random.Random) -> None:
    place = generator.randrange(len(data))
    data[place:place] = generator.randbytes(generator.choice([1, 4, 100]))


def _blank(data: bytearray, generator: random.Random) -> None:
    place, length = generator.randrange(len(data)), generator.choice([16, 512, 4096])
    data[place : place + length] = bytes([generator.choice([0, 0xFF])]) * len(data[place : place + length])


def _move(data: bytearray, generator: random.Random) -> None:
    """A stretch of the file to another place of it."""
    length = generator.choice([4, 64, 1024])
    source, target = (generator.randrange(len(data)) for _ in range(2))
    data[target : target + length] = data[source : source + length]


CHANGES: list[Callable[[bytearray, random.Random], None]] = [
    *(_flip_bits, _flip_bits, _overwrite, _overwrite, _truncate, _drop, _repeat, _insert, _blank, _move),
]


def mutated(data: bytes, generator: random.Random) -> bytes:
    """One to four changes, anywhere."""
    changed = bytearray(data)
    for _ in range(generator.choice([1, 1, 2, 4])):
        if changed:
            generator.choice(CHANGES)(changed, generator)
    return bytes(changed)
