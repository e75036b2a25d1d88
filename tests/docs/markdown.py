"""The pages of the documentation, and the commands in their code blocks."""

import re
from functools import cache
from pathlib import Path

from tests.commands import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
FIRST_WORDS = re.compile(  # of lines that are commands; other lines of code blocks are output or configuration
    r"(python3?|pip|make|torchrun|srun|sbatch|tensorboard|mount|git|bash|sh|source|export|cd|mkdir|ln|sudo|curl|wget|tar)\s|\./"
)


@cache
def code_lines(page: Path, section: str = "") -> list[str]:
    """Return the lines of the code blocks of a page, or of one of its sections, with continued lines joined."""
    text = page.read_text("utf-8")
    if section:
        text = re.split(r"^## ", text.partition(f"\n## {section}\n")[2], flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def commands(page: Path, section: str = "") -> list[str]:
    """Return the commands of a page, without those in the job script, which is run as a whole, and in output."""
    lines = [line for line in code_lines(page, section) if FIRST_WORDS.match(line) and "error:" not in line]
    return [line for line in lines if "$SLURM" not in line]
