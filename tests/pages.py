"""What README and docs tell people to type."""

import re


def code_lines(text: str) -> list[str]:
    """The lines of a page's code blocks, those that go on in the next one joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
