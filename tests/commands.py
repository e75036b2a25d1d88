"""Run the commands of the project in this process: by their `main`, or as `python -m <command>` runs them."""

import importlib
import io
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

REPOSITORY = Path(__file__).parents[1]


class Completed(NamedTuple):
    """A command that ended. `output` is its stdout and stderr, in order."""

    exit_code: int
    output: str


def main_of(command: str) -> Callable[[Sequence[str] | None], int]:
    """Return the `main(argv)` that `python -m <command>` calls, such as `main_of("data.convert")`."""
    module = importlib.import_module(command)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{command}.__main__")
    return module.main


def error_of(main: Callable[[Sequence[str] | None], int], *words: object) -> str:
    """Run a command that must end with exit code 2; return its error, the only line on stderr but for warnings."""
    errors = io.StringIO()
    with redirect_stderr(errors), pytest.raises(SystemExit) as end:
        main([*map(str, words)])
    assert end.value.code == 2
    (error,) = (line for line in errors.getvalue().splitlines() if not line.startswith("WARNING"))
    return error


def run_command(command: str, *args: str, cwd: Path | None = None) -> Completed:
    """Run `python -m <command> <args>`, or `python <script>.py <args>`, and return how it ended.

    What the command does not catch is raised here, as Python would print a traceback.
    """
    output = io.StringIO()
    exit_code: object = 0
    with (
        chdir(cwd or os.curdir),
        redirect_stdout(output),
        redirect_stderr(output),
        mock.patch.object(sys, "argv", [command, *args]),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            if command.endswith(".py"):
                runpy.run_path(str(REPOSITORY / command), run_name="__main__")
            elif command == "train":  # its `main` also takes a dataset
                runpy.run_module(command, run_name="__main__", alter_sys=True)
            else:
                exit_code = main_of(command)(args)
        except SystemExit as end:
            exit_code = end.code
    return Completed(
        exit_code if isinstance(exit_code, int) else int(exit_code is not None), output.getvalue()
    )
