"""A video server for tests of downloading: it answers Range requests, or fails as scripted."""

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from tests.data.helpers import make_video, transcode

OK, CUT, STALL, SILENCE = "ok", "cut", "stall", "silence"
SENT_BEFORE_FAILING = 0.3  # fraction of the requested bytes that CUT and STALL send
Answer = int | str  # an HTTP status, or one of the above


class Script(NamedTuple):
    """Answers to requests for all of a video (by yt-dlp) and for ranges (by ffmpeg), in order; the last one repeats."""

    whole: Sequence[Answer] = (OK,)
    ranges: Sequence[Answer] = (OK,)


class VideoServer:
    """Answers `/<id>.<any>` with `body`, or as the script of the id says. `requests`: request headers by id."""

    def __init__(self, body: bytes, scripts: Mapping[str, Script]) -> None:
        self.body = body
        self.scripts = scripts
        self.requests: dict[str, list[Mapping[str, str]]] = defaultdict(list)
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.url = ""

    def answer(self, name: str, headers: Mapping[str, str]) -> Answer:
        script = self.scripts.get(name, Script())
        with self.lock:
            before = sum(("Range" in other) == ("Range" in headers) for other in self.requests[name])
            self.requests[name].append(headers)
        answers = script.ranges if "Range" in headers else script.whole
        return answers[min(before, len(answers) - 1)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    video_server: VideoServer

    def do_GET(self) -> None:
        name, _, suffix = self.path.strip("/").rpartition(".")
        answer = self.video_server.answer(name, dict(self.headers))
        if isinstance(answer, int):
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.video_server.body
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), int(wanted[2] or len(body) - 1)) if wanted else (0, len(body) - 1)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", f"video/{suffix}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        self.end_headers()
        sent = body[first : last + 1]
        fraction = {OK: 1, SILENCE: 0}.get(answer, SENT_BEFORE_FAILING)
        try:
            self.wfile.write(sent[: round(len(sent) * fraction)])
        except ConnectionError:  # the client has what it needs
            self.close_connection = True
        if answer in (STALL, SILENCE):
            self.video_server.stopped.wait()
        self.close_connection = self.close_connection or answer != OK

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serve(body: bytes, scripts: Mapping[str, Script] | None = None) -> Iterator[VideoServer]:
    """Yield a running server; its `url` has `{id}` in it."""
    video_server = VideoServer(body, scripts or {})
    handler = type("Handler", (_Handler,), {"video_server": video_server})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    video_server.url = f"http://127.0.0.1:{server.server_port}/{{id}}.mp4"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield video_server
    finally:
        video_server.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def streamable_video(folder: Path, n_frames: int, size: int) -> bytes:
    """Return an MP4 file of painted frames, 25 per second, with a key frame every second and its index first."""
    plain = make_video(folder / "plain.mp4", n_frames, size)
    options = ("-g", "25", "-bf", "0", "-movflags", "+faststart")
    return transcode(plain, folder / "video.mp4", *options).read_bytes()
