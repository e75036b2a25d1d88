"""Untrusted videos, converted: damaged files, odd names, playlists that open other files, and what is not a video."""

import random
import socket
import subprocess
import tempfile
from functools import cache, partial
from pathlib import Path

from data.ffmpeg.binary import ffmpeg_binary
from data.frame_store import FrameStore
from tests.fuzz.mutation import mutate
from tests.fuzz.verdict import FuzzInput

CODECS = {"ts": ["-c:v", "mpeg2video"], "mov": ["-c:v", "mjpeg"]} | {
    key: [] for key in ("mp4", "avi", "mkv", "gif")
}
NAMES = ["%03d", "a b", "'; rm -rf *", '"', "日本", "\u202e", "x" * 200, "-i", "#?&", "$(id)", "a:b", "[0-9]"]


@cache
def video(extension: str) -> bytes:
    """Return a video of six frames."""
    source = "testsrc=size=64x48:rate=10:duration=0.6"
    command = [
        ffmpeg_binary(),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        source,
        *CODECS[extension],
        "-threads",
        "1",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"v.{extension}"
        subprocess.run([*command, str(path)], check=True)
        return path.read_bytes()


def _convert(folder: Path, name: str, data: bytes, must_fail: bool = False) -> FuzzInput:
    path = folder / "videos" / "class" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    command = ["data.convert", "videos", "set", "--short-side", "32", "--workers", "1"]
    return FuzzInput(command, ["videos", name], must_fail, partial(_check_store, folder))


def _check_store(folder: Path) -> None:
    (database,) = (folder / "set").glob("jpg/*/*/frames.db")
    store = FrameStore(database.parent)
    assert len(store.read(range(store.n_frames))) == store.n_frames > 0


def mutated_bytes(folder: Path, rng: random.Random) -> FuzzInput:
    extension = rng.choice(list(CODECS))
    return _convert(folder, f"v.{extension}", mutate(video(extension), rng))


def odd_name(folder: Path, rng: random.Random) -> FuzzInput:
    return _convert(folder, f"{rng.choice(NAMES)}.mp4", video("mp4"))


def playlist(folder: Path, rng: random.Random) -> FuzzInput:
    """A text that makes ffmpeg open other files and addresses."""
    (folder / "secret.mp4").write_bytes(video("mp4"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = folder / "secret.mp4"
    target = rng.choice(
        [f"http://127.0.0.1:{port}/x.ts", f"file://{secret}", str(secret), "../../secret.mp4"]
    )
    texts = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{target}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ]
    name = rng.choice(["v.m3u8", "v.mp4", "v.ffconcat", "v.sdp", "v.mpd"])
    return _convert(folder, name, rng.choice(texts).encode(), must_fail=True)


def not_a_video(folder: Path, rng: random.Random) -> FuzzInput:
    data = rng.choice([b"", b"\0" * 1000, rng.randbytes(1000), b"GIF89a\xff\xff\xff\xff\0\0\0"])
    return _convert(folder, "v.mp4", data, must_fail=True)
