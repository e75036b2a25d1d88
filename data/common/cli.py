"""What the command-line tools share: a parser with one-line errors, argument types, and safe messages."""

import argparse
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

LONGEST_MESSAGE = 1000  # characters

Parser = Callable[[str], Any]


def sanitize(text: object, longest: int = 200) -> str:
    """Return untrusted text as one short line without terminal control characters."""
    line = " ".join(str(text)[:longest].split())
    return "".join(character if character.isprintable() else "?" for character in line)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage, with exit code 2.

    The name of an existing file may begin with a dash, as in `*.mp4`. From parsing on, a letter that the terminal lacks
    is printed as `?`. The tab key completes flags and values if argcomplete is installed and switched on. A wrong flag
    is answered with the nearest.
    """

    returns_unknown = False  # `parse_known_args`, what is no argument of the command

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.complete()
        return super().parse_args(args, namespace)

    def complete(self) -> None:
        """If the shell asks for completions, print them and exit."""
        if "_ARGCOMPLETE" in os.environ and find_spec("argcomplete"):
            import argcomplete  # noqa: PLC0415  optional

            argcomplete.autocomplete(self)

    def _reject(self, words: Sequence[str]) -> NoReturn:
        known = re.findall(r"--[\w-]+", self.format_usage())
        message = f"unrecognized arguments: {' '.join(words)}"
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            if nearest := get_close_matches(flag, known, n=1, cutoff=0.7):
                message += f"; {flag}: did you mean {nearest[0]}?"
        self.error(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        words = sys.argv[1:] if args is None else args
        words = [f"./{word}" if word.startswith("-") and os.path.lexists(word) else word for word in words]
        parsed, unknown = super().parse_known_args(words, namespace)
        if unknown and not self.returns_unknown:
            self._reject(unknown)
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {sanitize(message, LONGEST_MESSAGE)}\n")

    @contextmanager
    def one_line_errors(self, *others: type[Exception]) -> Iterator[None]:
        """Exit with one line, with code 2 after an error of invalid input or one of `others`, 130 after Ctrl-C."""
        expected: tuple[type[Exception], ...] = (ValueError, LookupError, OSError, *others)
        try:
            yield
        except KeyboardInterrupt:
            self.exit(130, f"{self.prog}: interrupted\n")
        except expected as error:
            self.error(str(error))


def complete_by(action: argparse.Action, names: Iterable[str]) -> None:
    """Let the tab key complete the values of an argument."""
    action.completer = lambda **_: names  # type: ignore[attr-defined]  # read by argcomplete


def output_file(text: str) -> Path:
    """Parse the path of a file to write. Create its folder, so that a wrong path fails before the work is done.

    A symbolic link is resolved, as writing renames a temporary file to the path.
    """
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{sanitize(text)}: {error.strerror}, {error.filename}") from None
    if path.exists() and not path.is_file():
        raise argparse.ArgumentTypeError(f"{sanitize(text)}: exists and is not a regular file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{sanitize(text)}: no permission to write")
    return path.resolve() if path.is_symlink() else path


def number(kind: type, rule: str, allowed: Callable[[float], bool]) -> Parser:
    """Return an argparse type for finite numbers that are `allowed`; the error reads "... is not <rule>"."""

    def parse(text: str) -> Any:
        with suppress(ValueError, OverflowError):
            value = kind(text)
            if math.isfinite(value) and allowed(value) and (kind is float or value < 2**63):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {rule}")

    return parse


positive = number(int, "a whole number of at least 1", lambda value: value >= 1)
not_negative = number(int, "a whole number of at least 0", lambda value: value >= 0)
# timers and sockets refuse longer ones
seconds = number(float, "a number of seconds above 0, at most 1000000", lambda value: 0 < value <= 1e6)
frame_rate = number(float, "a number above 0, at most 1000", lambda value: 0 < value <= 1000)


def choice(*allowed: str) -> Parser:
    """Return an argparse type for one of these words, in upper or lower case."""

    def parse(text: str) -> str:
        for name in allowed:
            if name.lower() == text.lower():
                return name
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(allowed)}")

    parse.allowed = allowed  # type: ignore[attr-defined]
    return parse


def boolean(text: str) -> bool:
    """Parse True or False."""
    return choice("True", "False")(text) == "True"


class Values(argparse.Action):
    """A list of positive whole numbers in three spellings: `40 60`, `40,60` and `[40,60]`."""

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
    """Yield the lines of a table: the counts of each class in each column, then their sums."""
    title = f"{len(counts)} classes"
    width = max(map(len, (*counts, title)))
    sums = {column: sum(count[column] for count in counts.values()) for column in columns}
    yield " " * width + "".join(f"{column:>9}" for column in columns)
    for name, count in (*counts.items(), (title, sums)):
        yield f"{name:{width}}" + "".join(f"{count[column]:9}" for column in columns)
