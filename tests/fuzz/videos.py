"""Videos from strangers, converted."""

import logging
import random
import socket
import subprocess
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

from data.ffmpeg import ffmpeg_binary
from data.frame_store import FrameStore
from tests.commands import main_of
from tests.fuzz.mutation import mutated
from tests.fuzz.verdict import Input, RefusalError

convert = main_of("data.convert")

KINDS = {
    "mp4": [],
    "avi": [],
    "mkv": [],
    "webm": [],
    "gif": [],
    "ts": ["-c:v", "mpeg2video"],
    "mov": ["-c:v", "mjpeg"],
}


@cache
def _whole(kind: str) -> bytes:
    command = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=0.6"]
    target = Path(f"whole.{kind}").absolute()
    subprocess.run([*command, "-threads", "1", *KINDS[kind], "-y", str(target)], check=True)
    content = target.read_bytes()
    target.unlink()
    return content


def _convert(place: Path) -> Callable[[], None]:
    def use() -> None:
        out = StringIO()
        words = [str(place / "videos"), str(place / "set"), "--short-side", "32", "--workers", "1"]
        logging.disable(logging.NOTSET)
        with redirect_stdout(out), redirect_stderr(out):
            try:
                status = convert(words)
            except SystemExit as end:
                status = end.code
        logging.disable(logging.CRITICAL)
        if status:
            raise RefusalError(out.getvalue())
        (database,) = (place / "set").glob("jpg/*/*/frames.db")
        store = FrameStore(database.parent)
        assert len(store.read(range(store.n_frames))) == store.n_frames > 0

    return use


def _input(place: Path, kind: str, name: str, data: bytes, must_refuse: bool = False) -> Input:
    folder = place / "videos" / "class"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    return Input(kind, (str(place / "videos"), name), _convert(place), must_refuse)


def changed_bytes(place: Path, generator: random.Random) -> Input:
    kind = generator.choice(list(KINDS))
    return _input(place, "video, bytes changed", f"v.{kind}", mutated(_whole(kind), generator))


def odd_names(place: Path, generator: random.Random) -> Input:
    stems = [
        "%03d",
        "a b",
        "'; rm -rf *",
        '"',
        "日本",
        "\u202e",
        "x" * 200,
        "-i",
        "#?&",
        "a\nb",
        "$(id)",
        "a:b",
        "\\",
        "[0-9]",
    ]
    return _input(place, "video, odd name", f"{generator.choice(stems)}.mp4", _whole("mp4"))


def playlist(place: Path, generator: random.Random) -> Input:
    """Texts that make ffmpeg open other files, and addresses."""
    (place / "secret.mp4").write_bytes(_whole("mp4"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = generator.choice(
        [
            f"http://127.0.0.1:{port}/x.ts",
            f"file://{place}/secret.mp4",
            f"{place}/secret.mp4",
            "../../secret.mp4",
        ]
    )
    texts = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{target}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ]
    name = generator.choice(["v.m3u8", "v.mp4", "v.ffconcat", "v.sdp", "v.mpd"])
    return _input(place, "video, playlist", name, generator.choice(texts).encode(), must_refuse=True)


def no_video(place: Path, generator: random.Random) -> Input:
    contents = [
        b"",
        b"\0" * 1000,
        generator.randbytes(1000),
        b"GIF89a\xff\xff\xff\xff\0\0\0",
        _png(65_535),
        _png(2**31 - 1),
    ]
    return _input(place, "video, none", "v.mp4", generator.choice(contents), must_refuse=True)


def _png(side: int) -> bytes:
    size = side.to_bytes(4, "big") * 2
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\x02\0\0\0\0\0\0\0\0\0\0\x10IDAT" + bytes(16)
