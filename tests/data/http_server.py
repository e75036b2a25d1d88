"""The remote side of downloads: a server that answers Range requests with a real video, or misbehaves as told."""

import re
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.ffmpeg import ffmpeg_binary
from data.synthetic.__main__ import write_video
from tests.synthetic_frames import paint

OK, CUT, STALL, SILENCE = "ok", "cut", "stall", "silence"
ClassScore = int | str  # an HTTP status, or one of these


class Script(NamedTuple):
    """Answers to requests for all of a video (yt-dlp looks at it) and for parts, in order; the last is repeated."""

    whole: Sequence[ClassScore] = (OK,)
    parts: Sequence[ClassScore] = (OK,)


class Remote:
    """Answers `/<id>.mp4`, or with another ending, with `body`, or as the id's script says.

    CUT and STALL send the first `share` of what was asked for, SILENCE nothing. `asked`: headers of
    the requests for each id.
    """

    def __init__(self, body: bytes, scripts: Mapping[str, Script], share: float) -> None:
        self.body = body
        self.scripts = scripts
        self.share = share
        self.asked: dict[str, list[Mapping[str, str]]] = defaultdict(list)
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.url = ""

    def answer(self, name: str, headers: Mapping[str, str]) -> ClassScore:
        script = self.scripts.get(name, Script())
        with self.lock:
            before = sum(("Range" in other) == ("Range" in headers) for other in self.asked[name])
            self.asked[name].append(headers)
        answers = script.parts if "Range" in headers else script.whole
        return answers[min(before, len(answers) - 1)]


def streamable_video(folder: Path, n_frames: int, size: int) -> bytes:
    """Painted frames, 25 a second, a key frame every second, and the index before them."""
    write_video(folder / "plain.mp4", np.stack([paint(i, size=size) for i in range(n_frames)]))
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", folder / "plain.mp4", "-g", "25", "-bf", "0"]
    subprocess.run([*command, "-movflags", "+faststart", folder / "video.mp4"], check=True)
    return (folder / "video.mp4").read_bytes()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    remote: Remote

    def do_GET(self) -> None:
        name, _, ending = self.path.strip("/").rpartition(".")
        answer = self.remote.answer(name, dict(self.headers))
        if isinstance(answer, int):
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.remote.body
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(body) - 1)) if asked else (0, len(body) - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", f"video/{ending}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.end_headers()
        part = body[first : last + 1]
        share = {OK: 1, SILENCE: 0}.get(answer, self.remote.share)
        try:
            self.wfile.write(part[: round(len(part) * share)])
        except ConnectionError:  # it has what it wants
            self.close_connection = True
        if answer in (STALL, SILENCE):
            self.remote.over.wait()
        self.close_connection = self.close_connection or answer != OK

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(body: bytes, scripts: Mapping[str, Script] | None = None, share: float = 0.3) -> Iterator[Remote]:
    remote = Remote(body, scripts or {}, share)
    handler = type("Handler", (_Handler,), {"remote": remote})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    remote.url = f"http://127.0.0.1:{server.server_port}/{{id}}.mp4"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield remote
    finally:
        remote.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
