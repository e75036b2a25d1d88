"""What README and docs tell people to type."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
KNOWN = ("python ", "make ", "torchrun ", "tensorboard ", "mount ", "srun ")  # how a line of a command begins


def code_lines(text: str) -> list[str]:
    """The lines of a page's code blocks, those that go on in the next one joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


LINES = list(dict.fromkeys(line for page in PAGES for line in code_lines(page.read_text("utf-8"))))
COMMANDS = [line for line in LINES if line.startswith(KNOWN) and "error:" not in line]


def commands_of(page: str, section: str = "") -> list[str]:
    """The commands of a page, as `docs/annotations_and_checks.md`, or of one of its sections, that are Python's."""
    text = (ROOT / page).read_text("utf-8")
    if section:
        text = re.split(r"^## ", text.partition(f"\n## {section}\n")[2], flags=re.MULTILINE)[0]
    return [line for line in code_lines(text) if line.startswith("python ")]
