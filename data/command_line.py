"""What the command-line tools share."""

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Errors are one line, without the usage, and end with status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")
