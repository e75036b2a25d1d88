"""What the command-line tools share."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from data.limits import LONGEST_MESSAGE, shown


class OneLineParser(argparse.ArgumentParser):
    """Errors are one line, without the usage, and end with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {shown(message, LONGEST_MESSAGE)}\n")


def output_file(text: str) -> Path:
    """An argument that names a file to be written. Its folder is made, so that long work does not fail in the end."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{shown(text)}: {error.strerror}, {error.filename}") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{shown(text)}: cannot be written there")
    return path


def class_table(counts: Mapping[str, Mapping[str, int]], columns: Sequence[str]) -> Iterator[str]:
    """Lines of a table: a row a class with its count in each column, and last their sums."""
    title = f"{len(counts)} classes"
    width = max(map(len, (*counts, title)))
    sums = {column: sum(count[column] for count in counts.values()) for column in columns}
    yield " " * width + "".join(f"{column:>9}" for column in columns)
    for name, count in (*counts.items(), (title, sums)):
        yield f"{name:{width}}" + "".join(f"{count[column]:9}" for column in columns)
