"""python -m tools.docs.report_pictures REPORT [-o docs/images]

Take pictures of a report of `python -m train.report`: light, dark with the videos of a cell, and on a phone.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from tools.docs.browser import find_browser, open_browser

LARGEST_MISTAKE = """[...document.querySelectorAll("#confusion g[data-title*='taken for']")]
    .sort((a, b) => b.dataset.n - a.dataset.n)[0].dataset.show"""
SETTLE = 1  # seconds for clips and the dialog to appear


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("report", type=Path, metavar="REPORT")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images"), metavar="DIR")
    arguments = parser.parse_args(argv)
    browser = find_browser()
    if browser is None:
        raise SystemExit("needs Chromium or Chrome on the PATH")
    with open_browser(browser) as page:
        for name, width, height, section in (
            ("report", 1200, 800, "curves"),
            ("report_dark", 1000, 700, "confusion"),
            ("report_narrow", 390, 780, "mistakes"),
        ):
            page.resize(width, height, dark=name == "report_dark")
            page.open(arguments.report)
            page.run(f"document.getElementById('{section}').scrollIntoView({{behavior: 'instant'}})")
            if section == "confusion":
                cell = page.run(LARGEST_MISTAKE)
                page.click(f'#confusion g[data-show="{cell}"]')
            time.sleep(SETTLE)
            path = arguments.output / f"{name}.jpg"
            page.screenshot(path)
            print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
