"""python -m tools.docs.report_pictures REPORT [-o docs/images]

Take pictures of a report of `python -m train.report`: light, dark with the videos of a cell, and on a phone.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tools.docs.browser import find_browser, look

SHOW = "document.getElementById('{}').scrollIntoView({{ behavior: 'instant' }});"
CLICK_LARGEST_MISTAKE = """
const cells = [...document.querySelectorAll("#confusion g[data-title*='taken for']")];
const [largest] = cells.sort((a, b) => b.dataset.n - a.dataset.n);
click(`#confusion g[data-show="${largest.dataset.show}"]`);"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("report", type=Path, metavar="REPORT")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"), metavar="DIR")
    arguments = parser.parse_args(argv)
    browser = find_browser()
    if browser is None:
        raise SystemExit("needs Chromium or Chrome on the PATH")
    for name, size, script in (
        ("report", (1200, 800), SHOW.format("curves")),
        ("report_dark", (1000, 700), CLICK_LARGEST_MISTAKE),
        ("report_narrow", (390, 780), SHOW.format("mistakes")),
    ):
        path = arguments.output / f"{name}.jpg"
        look(browser, arguments.report, script, size=size, dark=name == "report_dark", picture=path)
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
