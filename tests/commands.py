"""The `main` of each command, as `python -m <command>` runs it, without importing a `__main__` by name."""

import importlib
from collections.abc import Callable, Sequence


def main_of(command: str) -> Callable[[Sequence[str] | None], int]:
    """Return the `main(argv)` that `python -m <command>` calls, such as `main_of("data.convert")`."""
    module = importlib.import_module(command)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{command}.__main__")
    return module.main
