"""Run a command on an untrusted input and decide whether it ended as promised: in success, or in one clear line."""

import enum
import random
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.commands import run_command

MAX_MESSAGE = 1200  # characters
RIGHT_TO_LEFT = "\u202e"  # printable to Python, but reorders what a terminal shows


class FuzzInput(NamedTuple):
    """A command, run in the folder that holds its untrusted files.

    An error message must contain one of `names`. With `must_fail`, success is wrong. `check` is called after success
    and raises AssertionError if the result is wrong.
    """

    command: Sequence[str]
    names: Sequence[str]
    must_fail: bool = False
    check: Callable[[], None] | None = None


# Writes its files into an empty folder.
Generator = Callable[[Path, random.Random], FuzzInput]


class Verdict(enum.Enum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCLEAR = "unclear"


class Outcome(NamedTuple):
    """A verdict, with the error message or what was unclear about it."""

    verdict: Verdict
    detail: str = ""


def judge(fuzz_input: FuzzInput) -> Outcome:
    """Run the command in the current folder and return the verdict."""
    try:
        exit_code, output = run_command(*fuzz_input.command)
        if exit_code == 0 and fuzz_input.check is not None:
            fuzz_input.check()
    except BaseException as error:  # also what extensions in C and Rust raise
        lines = "".join(traceback.format_exception(error)).splitlines()
        return Outcome(Verdict.UNCLEAR, "\n".join(line[:200] for line in lines[-9:]))
    if exit_code == 0:
        return Outcome(Verdict.UNCLEAR, "was accepted") if fuzz_input.must_fail else Outcome(Verdict.ACCEPTED)
    message = error_message(output, fuzz_input.names)
    problem = find_problem(exit_code, output, message, fuzz_input.names)
    return Outcome(Verdict.REFUSED, message) if problem is None else Outcome(Verdict.UNCLEAR, problem)


def error_message(output: str, names: Sequence[str]) -> str:
    """Return the line that reports the error: `error: ...`, else the last that has one of `names`, else the end."""
    lines = output.replace("\r", "\n").split("\n")
    errors = [line for line in lines if "error: " in line or " ERROR " in line]
    named = [line for line in lines if any(name in line for name in names)]
    return (errors or named or [output[-300:]])[-1]


def find_problem(exit_code: int, output: str, message: str, names: Sequence[str]) -> str | None:
    """Return what is wrong with an error report, None if it is clear."""
    if exit_code not in (1, 2):
        return f"exit code {exit_code}: {output[-300:]}"
    if "Traceback" in output:
        return f"traceback: {output[-600:]}"
    if not any(name in message for name in names):
        return f"names none of {names}: {message[:MAX_MESSAGE]}"
    if "error: " in message and len(message) > MAX_MESSAGE + max(map(len, names)):
        return f"a message of {len(message)} characters: {message[:MAX_MESSAGE]}"
    if not message.replace(RIGHT_TO_LEFT, "\0").isprintable():
        return f"control characters in a message: {message[:MAX_MESSAGE]!r}"
    return None
