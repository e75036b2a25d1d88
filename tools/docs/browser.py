"""Drive headless Chromium over its DevTools protocol, through a pipe: nothing to install but the browser."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str | None:
    """Return the path of Chromium or Chrome, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab. `problems`: what its console has shown of errors and warnings, and exceptions of its scripts."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, os.fdopen(answers, "rb", buffering=0)
        self.buffer, self.count, self.session = b"", 0, ""
        self.problems: list[str] = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            received = self.answers.read(1 << 20)
            if not received:
                raise RuntimeError("the browser has ended")
            self.buffer += received
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        method = message.get("method")
        if method == "Runtime.exceptionThrown" or (
            method in ("Runtime.consoleAPICalled", "Log.entryAdded")
            and any(f'"{level}"'.encode() in text for level in ("error", "warning"))
        ):
            self.problems.append(text.decode())
        self.loaded |= method == "Page.loadEventFired"
        return message

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, or of the promise that it is, as a plain value."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def click(self, selector: str) -> None:
        """Click the middle of the first element of a CSS selector."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(f"{element}.getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size in pixels, that of a phone below 600, and the color scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Write a JPEG of what is visible."""
        picture = self.call("Page.captureScreenshot", format="jpeg", quality=85)["data"]
        path.write_bytes(base64.b64decode(picture))


@contextlib.contextmanager
def open_browser(browser: str) -> Iterator[Page]:
    """Start a browser, with a profile that is removed, and yield its page."""
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()
    # the browser reads commands from descriptor 3 and writes answers to 4
    script = f'exec 3<&{read_commands} 4>&{write_answers}; exec "$@"'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-sandbox"]
        flags += ["--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", browser, *flags],
            pass_fds=(read_commands, write_answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        try:
            page = Page(commands, answers)
            yield page
            with contextlib.suppress(RuntimeError):
                page.session = ""
                page.call("Browser.close")
        finally:
            process.kill()
            process.wait()
            os.close(commands)
