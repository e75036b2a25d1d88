"""SQLite files, perhaps from strangers, opened to be read: nothing that they define is run, and nothing has no end."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from data.limits import LONGEST_VALUE, shown

STEPS_OF_A_BYTE = 1
REASONS = {
    "SQLITE_AUTH": "Images is not a plain table",
    "SQLITE_INTERRUPT": "has more rows than its size allows, its pages go in circles",
}


class DatabaseError(ValueError):
    """A file that SQLite cannot read, or may not go on reading; the message is the reason alone."""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Read-only and immutable, so that nothing is locked or written, also on read-only disks.

    Raises DatabaseError, also for what is done within.
    """
    try:
        # as_uri escapes what a URI cannot hold: ids with #, ? and % are found
        with closing(
            sqlite3.connect(path.absolute().as_uri() + "?mode=ro&immutable=1", uri=True)
        ) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
            connection.set_authorizer(_allow)
            # honest databases are gone over in far fewer steps of SQLite's machine than they have bytes
            steps = STEPS_OF_A_BYTE * path.stat().st_size + 100_000
            connection.set_progress_handler(lambda: True, min(steps, 2**31 - 1))
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where its message has bytes of the file
        reason = REASONS.get(getattr(error, "sqlite_errorname", ""), shown(error))
        raise DatabaseError(reason) from error


def _allow(action: int, first: str | None, second: str | None, database: str | None, view: str | None) -> int:
    """SQLite's question while it compiles a query: whatever a view asks for, and recursion, is denied."""
    denied = view is not None or action == sqlite3.SQLITE_RECURSIVE
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK
