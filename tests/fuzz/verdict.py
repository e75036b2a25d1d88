"""What is tried, and whether it ended as promised: in success, or in one clear line."""

import enum
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

LONGEST = 1200  # characters of a message that somebody will read


class Input(NamedTuple):
    """Something hostile, in place, and how a user comes upon it.

    `use` raises AssertionError where a result is wrong. A refusal names one of `named`. With `must_refuse` success
    is wrong.
    """

    kind: str
    named: tuple[str, ...]
    use: Callable[[], None]
    must_refuse: bool = False


# writes an input into an empty folder
Maker = Callable[[Path, random.Random], Input]


class Verdict(enum.Enum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNCLEAR = "unclear"


class Outcome(NamedTuple):
    """`detail` is the message, or what was unclear."""

    kind: str
    verdict: Verdict
    detail: str = ""


class RefusalError(Exception):
    """What a command printed before it ended with an exit status other than 0."""


# what commands turn into a line
CLEAR = (ValueError, FileNotFoundError, OSError, RefusalError)


def judge(attempt: Input) -> Outcome:
    """Use the input, here and now."""
    try:
        attempt.use()
    except CLEAR as error:
        complaint = unclear(" ".join(str(error).split()), attempt.named)
        if complaint is None:
            return Outcome(attempt.kind, Verdict.REFUSED, str(error))
        return Outcome(attempt.kind, Verdict.UNCLEAR, f"{complaint}\n{_short_traceback(error)}")
    except BaseException as error:  # whatever else it is, it is unclear; also what Rust and C raise
        return Outcome(attempt.kind, Verdict.UNCLEAR, _short_traceback(error))
    if attempt.must_refuse:
        return Outcome(attempt.kind, Verdict.UNCLEAR, "was accepted")
    return Outcome(attempt.kind, Verdict.ACCEPTED)


def unclear(message: str, named: tuple[str, ...]) -> str | None:
    """What is wrong with a message, as a command prints it; None for one that is clear."""
    if not any(name in message for name in named):
        return f"names none of {named}: {message[:LONGEST]}"
    if len(message) > LONGEST + max(map(len, named)):
        return f"a message of {len(message)} characters: {message[:LONGEST]}"
    if not message.replace("\u202e", "\0").isprintable():
        return f"a message that moves the terminal: {message[:LONGEST]!r}"
    return None


def _short_traceback(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(line[:200] for line in lines[-9:])
