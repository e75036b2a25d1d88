"""Run a script in a page in headless Chromium, and take a picture of it: nothing to install but the browser."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

Size = tuple[int, int]

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
FLAGS += ["--dump-dom", "--allow-file-access-from-files", "--enable-logging=stderr"]
# the page is in a frame, as a window is at least 500 pixels wide; its script can click the middle of an element
FRAME = """<style>body { margin: 0; overflow: hidden } iframe { border: 0; width: %dpx; height: %dpx }</style>
<iframe src="%s"></iframe>
<script>
onload = () => { document.documentElement.dataset.answer = JSON.stringify(frames[0].eval(%s) ?? null); };
</script>"""
CLICK = """function click(selector) {
  const element = document.querySelector(selector);
  element.scrollIntoView({ block: "center", behavior: "instant" });
  const { x, y, width, height } = element.getBoundingClientRect();
  document.elementFromPoint(x + width / 2, y + height / 2).dispatchEvent(new MouseEvent("click", { bubbles: true }));
}
"""


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def look(
    browser: str, page: Path, script: str, size: Size, *, dark: bool = False, picture: Path | None = None
) -> Any:
    """Return the value of a script that runs when a page is loaded, and take a picture of what is then visible.

    `size`: width and height in pixels. Raise RuntimeError if the console shows anything, such as an error.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(FRAME % (*size, page.resolve().as_uri(), json.dumps(CLICK + script)), "utf-8")
        flags = [*FLAGS, f"--user-data-dir={folder}/profile", "--window-size={},{}".format(*size)]
        flags.append(f"--blink-settings=preferredColorScheme={0 if dark else 1}")
        if picture:  # virtual time ends when images that have come into view are there
            flags += [f"--screenshot={picture.resolve()}", "--virtual-time-budget=3000"]
            flags.append("--run-all-compositor-stages-before-draw")
        done = subprocess.run([browser, *flags, str(frame)], capture_output=True, text=True, check=True)
    if console := re.findall(r":CONSOLE.*", done.stderr):
        raise RuntimeError("\n".join(console))
    _, answer, *_ = done.stdout.split('"', 2)  # <html data-answer="...">
    return json.loads(html.unescape(answer))
