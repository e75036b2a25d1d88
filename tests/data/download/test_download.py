"""Downloading with real yt-dlp and ffmpeg from a local server that fails in different ways."""

import csv
import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.frame_store import FrameStore
from tests.commands import error_of, main_of
from tests.data.helpers import transcode
from tests.data.http_server import CUT, OK, SILENCE, STALL, Script, VideoServer, serve, streamable_video
from tests.synthetic_frames import indices_of

convert = main_of("data.convert")
main = main_of("data.download")

QUICKLY = ["--sleep-interval", "0", "--retries", "1", "--timeout", "1", "--workers", "3"]


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Eight seconds."""
    return streamable_video(tmp_path_factory.mktemp("server"), 200, 96)


def write_labels(path: Path, ids: Sequence[str], times: str = "3,5") -> Path:
    rows = [f"a b,{name},{times},train" for name in ids]
    path.write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]) + "\n")
    return path


def download(tmp_path: Path, server: VideoServer, *options: str) -> int:
    return main(
        [str(tmp_path / "labels.csv"), str(tmp_path / "videos"), "--url", server.url, *QUICKLY, *options]
    )


def manifest(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "videos/downloaded.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stored_indices(tmp_path: Path, name: str) -> list[int]:
    """Return the frame numbers of a downloaded video after conversion."""
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set")]) == 0
    store = FrameStore(tmp_path / "set/jpg/a b" / name)
    return indices_of(store.read(range(store.n_frames)))


def test_requested_seconds_are_downloaded_once(
    tmp_path: Path, video: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path / "labels.csv", ["x-1", "_y2"])
    more = write_labels(tmp_path / "more.csv", ["_y2", "z"])
    with serve(video) as server:
        assert download(tmp_path, server) == 0
        requests = server.requests.copy()
        assert (
            main([str(tmp_path / "labels.csv"), str(more), str(tmp_path / "videos"), "--url", server.url])
            == 0
        )
        assert {name: server.requests[name] for name in requests} == requests
    assert capsys.readouterr().out.splitlines() == ["done 2", "done 1, done before 2"]
    names = [f"{name}_000003_000005" for name in ("_y2", "x-1", "z")]
    assert sorted(path.name for path in (tmp_path / "videos/a b").iterdir()) == [
        f"{name}.mp4" for name in names
    ]
    assert {(row["video"], row["status"]) for row in manifest(tmp_path)} == {
        (f"a b/{n}", "done") for n in names
    }
    assert stored_indices(tmp_path, names[0]) == list(range(75, 125))


def test_seconds_of_webm_are_exact(tmp_path: Path, video: bytes) -> None:
    """WebM cannot hide the frames between the last key frame and the start; MP4 can."""
    (tmp_path / "video.mp4").write_bytes(video)
    options = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 100"
    body = transcode(tmp_path / "video.mp4", tmp_path / "video.webm", *options.split()).read_bytes()
    write_labels(tmp_path / "labels.csv", ["x"], "3.2,5.2")
    with serve(body) as server:
        server.url = server.url.replace(".mp4", ".webm")
        assert download(tmp_path, server) == 0
    assert stored_indices(tmp_path, "x_000003_000005") == list(range(80, 130))


def test_other_seconds_of_a_video_that_is_gone_are_not_requested(tmp_path: Path, video: bytes) -> None:
    labels = "label,youtube_id,time_start,time_end\na b,no,0,2\na b,no,2,4\na b,no,4,6\n"
    (tmp_path / "labels.csv").write_text(labels)
    with serve(video, {"no": Script([404])}) as server:
        assert download(tmp_path, server, "--workers", "1") == 0
        num_requests = len(server.requests["no"])
    assert num_requests == 1
    assert [row["status"] for row in manifest(tmp_path)] == ["gone"] * 3


def test_failures_are_told_from_videos_that_are_gone(
    tmp_path: Path, video: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken or stalled connection was taken for the end of the video."""
    scripts = {
        "no": Script([404]),
        "never": Script([410]),
        "vanishes": Script(ranges=[404]),
        "down": Script([500]),
        "busy": Script([429]),
        "cut once": Script(ranges=[CUT, OK]),
        "cut": Script(ranges=[CUT, 500]),
        "stalls once": Script(ranges=[STALL, OK]),
        "stalls": Script(ranges=[STALL, SILENCE]),
    }
    write_labels(tmp_path / "labels.csv", list(scripts))
    with serve(video, scripts) as server:
        assert download(tmp_path, server) == 1
    assert capsys.readouterr().out == "done 2, gone 3, failed 4\n"
    found = {row["video"][4:-14]: row for row in manifest(tmp_path)}
    assert {name for name, row in found.items() if row["status"] == "gone"} == {"no", "never", "vanishes"}
    assert {name for name, row in found.items() if row["status"] == "done"} == {"cut once", "stalls once"}
    assert "HTTP Error 404" in found["no"]["reason"]
    assert "HTTP Error 500" in found["down"]["reason"]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Private video. Sign in if you've been granted access to this video", "gone"),
        ("Video unavailable. This video is no longer available because the account is terminated.", "gone"),
        ("This video has been removed by the uploader", "gone"),
        ("Video unavailable. This content isn't available, try again later.", "failed"),
        ("The uploader has not made this video available in your country", "failed"),
        ("Sign in to confirm you're not a bot", "failed"),
    ],
)
def test_messages_of_youtube(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch, message: str, status: str
) -> None:
    script = tmp_path / "yt-dlp"
    line = f"ERROR: [youtube] x: {message}; please report this issue on some page"
    script.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{line}\nEND\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    write_labels(tmp_path / "labels.csv", ["x"])
    with serve(video) as server:
        assert download(tmp_path, server) == (status == "failed")
    assert [(row["status"], row["reason"]) for row in manifest(tmp_path)] == [
        (status, f"[youtube] x: {message}")
    ]


def test_failed_and_gone_videos_are_retried_on_request(
    tmp_path: Path, video: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path / "labels.csv", ["x", "y"])
    with serve(video, {"x": Script([503, OK]), "y": Script([404])}) as server:
        assert download(tmp_path, server) == 1
        assert download(tmp_path, server) == 1
        assert download(tmp_path, server, "--retry", "failed") == 0
        assert download(tmp_path, server, "--retry", "all") == 0
    assert capsys.readouterr().out.splitlines() == [
        "gone 1, failed 1",
        "failed before 1, gone before 1",
        "done 1, gone before 1",
        "gone 1, done before 1",
    ]


def test_time_limit_of_a_video(tmp_path: Path, video: bytes) -> None:
    write_labels(tmp_path / "labels.csv", ["x"])
    with serve(video, {"x": Script(ranges=[SILENCE])}) as server:
        assert download(tmp_path, server, "--timeout", "60", "--time-limit", "1") == 1
    assert [row["reason"] for row in manifest(tmp_path)] == ["timed out after 1 s"]
    assert list((tmp_path / "videos/a b").iterdir()) == []


def test_whole_videos_and_cookies(tmp_path: Path, video: bytes) -> None:
    """Rows without times are whole videos; the file of cookies is left unchanged."""
    write_labels(tmp_path / "labels.csv", ["x"], ",")
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tkey\tvalue\n"
    cookies.write_text(text)
    with serve(video) as server:
        assert download(tmp_path, server, "--cookies", str(cookies)) == 0
        assert {headers["Cookie"] for headers in server.requests["x"]} == {"key=value"}
    assert (tmp_path / "videos/a b/x.mp4").read_bytes() == video
    assert cookies.read_text() == text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_download_leaves_no_half_video_and_resumes(
    tmp_path: Path, video: bytes, number: int
) -> None:
    labels, videos = write_labels(tmp_path / "labels.csv", ["x", "y"]), tmp_path / "videos"
    with serve(video, {"y": Script(ranges=[SILENCE, OK])}) as server:
        command = [sys.executable, "-m", "data.download", labels, videos, "--url", server.url, *QUICKLY]
        process = subprocess.Popen([*command, "--timeout", "5"], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(server.requests["y"]) < 2 or not list(videos.glob("*/x_*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(timeout=30) == (-number if number == signal.SIGKILL else 130)
        if number != signal.SIGKILL:
            assert "data.download: interrupted" in process.stderr.read()
            assert [path.name for path in (videos / "a b").iterdir()] == ["x_000003_000005.mp4"]
        process.stderr.close()
        assert download(tmp_path, server) == 0
        assert len(server.requests["x"]) == 2
    assert sorted(path.name[:1] for path in (videos / "a b").iterdir()) == ["x", "y"]


def test_many_failures_in_a_row_stop_the_download(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(main.__globals__, "MAX_FAILURES_IN_A_ROW", 2)
    write_labels(tmp_path / "labels.csv", ["x", "y", "z"])
    with serve(video, dict.fromkeys("xyz", Script([500]))) as server:
        assert download(tmp_path, server, "--workers", "1") == 1
        assert "z" not in server.requests
    assert "stopped: 2 failures in a row" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers: '0' is not a whole number of at least 1"),
        (["--sleep-interval", "-1"], "--sleep-interval: '-1' is not a number of seconds from 0"),
        (["--timeout", "0"], "--timeout: '0' is not a number of seconds above 0"),
        (
            ["--time-limit", "1e20"],
            "--time-limit: '1e20' is not a number of seconds above 0, at most 1000000",
        ),
        (["--url", "http://host/"], "--url http://host/: must contain {id}"),
        ([], "labels.csv"),
    ],
)
def test_wrong_arguments(tmp_path: Path, options: list[str], message: str) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x"], "5,5")  # an empty interval
    assert message in error_of(main, labels, tmp_path / "videos", *options)


def test_missing_yt_dlp_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    labels = write_labels(tmp_path / "labels.csv", ["x"])
    assert "needs yt-dlp: pip install yt-dlp" in error_of(main, labels, tmp_path / "videos")
