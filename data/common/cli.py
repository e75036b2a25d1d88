"""What the command-line tools share."""

import argparse
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

LONGEST_MESSAGE = 1000  # characters


def sanitize(text: object, longest: int = 200) -> str:
    """What a file holds or a user types, in a message: one line, not long, nothing that moves a terminal's cursor."""
    line = " ".join(str(text)[:longest].split())
    return "".join(character if character.isprintable() else "?" for character in line)


Parser = Callable[[str], Any]


class OneLineParser(argparse.ArgumentParser):
    """Errors are one line, without the usage, and end with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {sanitize(message, LONGEST_MESSAGE)}\n")


def output_file(text: str) -> Path:
    """An argument that names a file to be written. Its folder is made, so that long work does not fail in the end."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{sanitize(text)}: {error.strerror}, {error.filename}") from None
    except RecursionError:  # pathlib makes one folder within the other by calling itself
        raise argparse.ArgumentTypeError(f"{sanitize(text)}: lies too many folders deep") from None
    if path.exists() and not path.is_file() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{sanitize(text)}: is no file, and would be replaced by one")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{sanitize(text)}: cannot be written there")
    return path.resolve() if path.is_symlink() else path


def number(kind: type, rule: str, allowed: Callable[[float], bool]) -> Parser:
    """Of argparse: finite numbers of a kind that are `allowed`; others are not `rule`, such as "a number above 0"."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
            fits = math.isfinite(value) and allowed(value) and (kind is float or value < 2**63)
        except (ValueError, OverflowError):
            fits = False
        if not fits:
            raise argparse.ArgumentTypeError(f"{text!r} is not {rule}")
        return value

    return parse


def choice(*allowed: str) -> Parser:
    """Of argparse: one of these, in whatever case."""

    def parse(text: str) -> str:
        value = next((name for name in allowed if name.lower() == text.lower()), None)
        if value is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(allowed)}")
        return value

    return parse


def boolean(text: str) -> bool:
    return choice("True", "False")(text) == "True"


positive = number(int, "a whole number of at least 1", lambda value: value >= 1)
not_negative = number(int, "a whole number of at least 0", lambda value: value >= 0)


class Values(argparse.Action):
    """Lists in three spellings: `40 60`, `40,60` and `[40,60]`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, flag: str | None = None
    ) -> None:
        words = " ".join(values).replace("[", " ").replace("]", " ").replace(",", " ").split()
        if not words:
            parser.error(f"argument {flag}: expected at least one number")
        try:
            parsed = tuple(positive(word) for word in words)
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument {flag}: {error}")
        setattr(namespace, self.dest, parsed)


def class_table(counts: Mapping[str, Mapping[str, int]], columns: Sequence[str]) -> Iterator[str]:
    """Lines of a table: a row a class with its count in each column, and last their sums."""
    title = f"{len(counts)} classes"
    width = max(map(len, (*counts, title)))
    sums = {column: sum(count[column] for count in counts.values()) for column in columns}
    yield " " * width + "".join(f"{column:>9}" for column in columns)
    for name, count in (*counts.items(), (title, sums)):
        yield f"{name:{width}}" + "".join(f"{count[column]:9}" for column in columns)
