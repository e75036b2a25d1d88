"""Downloading with real yt-dlp and ffmpeg from a local server that misbehaves."""

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from data import download as download_module
from data.download.fetch import Fetched, FetchError, GoneError, Pace, judged
from data.ffmpeg import ffmpeg_binary
from data.frame_store import FrameStore
from tests.commands import main_of
from tests.data.helpers import remake
from tests.data.http_server import CUT, OK, SILENCE, STALL, Script, serving, streamable_video
from tests.synthetic_frames import indices_of

convert = main_of("data.convert")
main = main_of("data.download")

QUICKLY = ["--pause", "0", "--back-off", "0.01", "--retries", "1", "--timeout", "1", "--workers", "3"]


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """8 s."""
    return streamable_video(tmp_path_factory.mktemp("remote"), 200, 96)


def write_labels(path: Path, ids: Sequence[str], times: str = "3,5") -> Path:
    rows = [f"a b,{name},{times},train" for name in ids]
    path.write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]) + "\n")
    return path


def ledger(videos: Path) -> list[dict[str, str]]:
    with (videos / "downloaded.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_seconds_asked_for_arrive_where_convert_finds_them(
    tmp_path: Path, video: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x-1", "_y2"])
    with serving(video) as remote:
        assert main([str(labels), str(tmp_path / "videos"), "--url", remote.url, *QUICKLY]) == 0
        assert capsys.readouterr().out == "done 2\n"
        names = [f"{name}_000003_000005" for name in ("_y2", "x-1")]
        assert sorted(path.name for path in (tmp_path / "videos/a b").iterdir()) == [
            f"{name}.mp4" for name in names
        ]
        assert {(row["video"], row["status"]) for row in ledger(tmp_path / "videos")} == {
            (f"a b/{name}", "done") for name in names
        }
        asked = len(remote.asked)
        assert main([str(labels), str(tmp_path / "videos"), "--url", remote.url, *QUICKLY]) == 0
        assert capsys.readouterr().out == "done before 2\n"
        assert len(remote.asked) == asked
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set")]) == 0
    store = FrameStore(tmp_path / "set/jpg/a b" / names[0])
    assert indices_of(store.read(range(store.n_frames))) == list(range(75, 125))


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_seconds_of_webm_arrive_to_the_frame(tmp_path: Path, video: bytes, codec: str) -> None:
    """All frames since the last key frame came with them: WebM cannot say which are not to be shown.

    An mp4 file can, but cannot hold VP8: that is encoded once more.
    """
    (tmp_path / "video.mp4").write_bytes(video)
    options = f"-c:v {codec} -deadline realtime -cpu-used 8 -g 100"
    body = remake(tmp_path / "video.mp4", tmp_path / "video.webm", *options.split()).read_bytes()
    labels = write_labels(tmp_path / "labels.csv", ["x"], "3.2,5.2")
    with serving(body) as remote:
        url = remote.url.replace(".mp4", ".webm")
        assert main([str(labels), str(tmp_path / "videos"), "--url", url, *QUICKLY]) == 0
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set")]) == 0
    store = FrameStore(tmp_path / "set/jpg/a b/x_000003_000005")
    assert indices_of(store.read(range(store.n_frames))) == list(range(80, 130))


def test_retries_may_be_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The doubled wait was no float any more after 1,024 of them, whatever it began with: a traceback."""

    def fail(*_: object) -> None:
        raise FetchError("not today")

    monkeypatch.setattr("data.download.fetch._try", fail)
    words = [str(write_labels(tmp_path / "labels.csv", ["x"])), str(tmp_path / "videos")]
    assert main([*words, "--retries", "1100", "--back-off", "0"]) == 1
    assert capsys.readouterr().out == "failed 1\n"


@pytest.mark.parametrize("flag", ["--pause", "--back-off", "--timeout", "--time-limit"])
def test_waits_without_an_end_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    """The system's calls refused them, in a traceback."""
    for value, said in (("inf", "inf"), ("1e20", "1e+20")):
        with pytest.raises(SystemExit):
            main([str(write_labels(tmp_path / "labels.csv", ["x"])), str(tmp_path / "videos"), flag, value])
        assert f"{flag} {said}: must be at most 1e+06 seconds" in capsys.readouterr().err


def test_each_kind_of_trouble_ends_as_it_should(
    tmp_path: Path, video: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """First the page is asked for, then the seconds. A cut or stalled connection once passed for the video's end."""
    scripts = {
        "no": Script([404]),
        "never": Script([410]),
        "vanishes": Script(parts=[404]),
        "busy": Script([503, OK]),
        "down": Script([500]),
        "cut once": Script(parts=[CUT, OK]),
        "cut": Script(parts=[CUT, 500]),
        "stalls once": Script(parts=[STALL, OK]),
        "stalls": Script(parts=[STALL, SILENCE]),
    }
    labels = write_labels(tmp_path / "labels.csv", list(scripts))
    with serving(video, scripts) as remote:
        assert main([str(labels), str(tmp_path / "videos"), "--url", remote.url, *QUICKLY]) == 1
        assert len(remote.asked["no"]) == 1
        assert len(remote.asked["down"]) == 2
    assert capsys.readouterr().out == "done 3, gone 3, failed 3\n"
    found = {row["video"][4:-14]: (row["status"], row["reason"]) for row in ledger(tmp_path / "videos")}
    assert {name: status for name, (status, _) in found.items()} == {
        "no": "gone",
        "never": "gone",
        "vanishes": "gone",
        "busy": "done",
        "down": "failed",
        "cut once": "done",
        "cut": "failed",
        "stalls once": "done",
        "stalls": "failed",
    }
    assert "HTTP Error 404" in found["no"][1]
    assert "HTTP Error 500" in found["down"][1]
    assert found["cut"][1].endswith("Server returned 5XX Server Error reply")


def test_what_failed_is_left_alone_until_asked_for(
    tmp_path: Path, video: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x", "y"])
    command = [str(labels), str(tmp_path / "videos"), *QUICKLY, "--retries", "0"]
    with serving(video, {"x": Script([503, OK]), "y": Script([404])}) as remote:
        assert main([*command, "--url", remote.url]) == 1
        assert main([*command, "--url", remote.url]) == 1
        assert len(remote.asked["x"]) == 1
        assert main([*command, "--url", remote.url, "--retry", "failed"]) == 0
        assert len(remote.asked["y"]) == 1
        assert main([*command, "--url", remote.url, "--retry", "all"]) == 0
        assert (len(remote.asked["x"]), len(remote.asked["y"])) == (3, 2)
    assert capsys.readouterr().out.splitlines() == [
        "gone 1, failed 1",
        "failed before 1, gone before 1",
        "done 1, gone before 1",
        "gone 1, done before 1",
    ]
    assert [row["status"] for row in ledger(tmp_path / "videos")][2:] == ["done", "gone"]


def test_other_seconds_of_a_video_that_is_gone_are_not_asked_for(tmp_path: Path, video: bytes) -> None:
    labels = [write_labels(tmp_path / f"{i}.csv", ["x"], f"{i},{i + 2}") for i in (1, 3)]
    with serving(video, {"x": Script([410])}) as remote:
        assert main([*map(str, labels), str(tmp_path / "videos"), "--url", remote.url, "--workers", "1"]) == 0
        assert len(remote.asked["x"]) == 1
    assert [row["status"] for row in ledger(tmp_path / "videos")] == ["gone", "gone"]


def test_rows_without_times_give_whole_videos(tmp_path: Path, video: bytes) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x"], ",")
    with serving(video) as remote:
        assert main([str(labels), str(tmp_path / "videos"), "--url", remote.url, *QUICKLY]) == 0
    assert (tmp_path / "videos/a b/x.mp4").read_bytes() == video


def test_seconds_behind_the_end_fail(tmp_path: Path, video: bytes) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x"], "100,110")
    with serving(video) as remote:
        assert main([str(labels), str(tmp_path / "videos"), "--url", remote.url, *QUICKLY]) == 1
    assert ledger(tmp_path / "videos")[0]["reason"] == "has no pictures in the seconds wanted"


def test_cookies_are_sent_and_stay_as_they_are(tmp_path: Path, video: bytes) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x"])
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tkey\tvalue\n"
    cookies.write_text(text)
    command = [str(labels), str(tmp_path / "videos"), *QUICKLY, "--cookies", str(cookies)]
    with serving(video) as remote:
        assert main([*command, "--url", remote.url]) == 0
        assert remote.asked["x"][0]["Cookie"] == "key=value"
    assert cookies.read_text() == text


def test_silence_ends_with_the_time_limit(tmp_path: Path, video: bytes) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x"])
    command = [str(labels), str(tmp_path / "videos"), "--timeout", "60", "--time-limit", "1"]
    with serving(video, {"x": Script(parts=[SILENCE])}) as remote:
        assert main([*command, "--url", remote.url]) == 1
    assert ledger(tmp_path / "videos")[0]["reason"] == "not done after 1 s"
    assert list((tmp_path / "videos/a b").iterdir()) == []


def start(labels: Path, videos: Path, url: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "data.download", str(labels), str(videos), "--url", url, *QUICKLY]
    return subprocess.Popen(
        [*command, "--timeout", "60"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_removes_what_is_in_flight(tmp_path: Path, video: bytes, number: int) -> None:
    """A process that is killed cannot; then its processes end by themselves, and the next one tidies up."""
    labels, videos = write_labels(tmp_path / "labels.csv", ["x", "y"]), tmp_path / "videos"
    with serving(video, {"y": Script(parts=[SILENCE, OK])}) as remote:
        process = start(labels, videos, remote.url)
        while len(remote.asked["y"]) < 2 or not list(videos.glob("*/x_*")):
            time.sleep(0.02)
        process.send_signal(number)
        errors = process.communicate(timeout=30)[1]  # when nobody writes to it any more
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 130
            assert "stopped; the same command goes on from here" in errors
            assert [path.name for path in (videos / "a b").iterdir()] == ["x_000003_000005.mp4"]
        assert main([str(labels), str(videos), "--url", remote.url, *QUICKLY]) == 0
        assert len(remote.asked["x"]) == 2
    assert sorted(path.name[:1] for path in (videos / "a b").iterdir()) == ["x", "y"]


def test_two_at_once_fetch_each_video_once(tmp_path: Path, video: bytes) -> None:
    labels, videos = write_labels(tmp_path / "labels.csv", [f"v{i}" for i in range(4)]), tmp_path / "videos"
    with serving(video) as remote:
        for process in [start(labels, videos, remote.url) for _ in range(2)]:
            errors = process.communicate()[1]
            assert process.returncode == 0, errors
        assert {len(asked) for asked in remote.asked.values()} == {2}
    assert len(ledger(videos)) == 4


def test_many_failures_in_a_row_stop_it(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download_module, "FAILURES_IN_A_ROW", 2)
    labels = write_labels(tmp_path / "labels.csv", ["x", "y", "z"])
    command = [str(labels), str(tmp_path / "videos"), "--workers", "1", "--pause", "0", "--retries", "0"]
    with serving(video, dict.fromkeys("xyz", Script([500]))) as remote:
        assert main([*command, "--url", remote.url]) == 1
        assert len(remote.asked["z"]) == 0
    assert "2 failed in a row, the last with: [generic] y" in caplog.text


def test_full_disk_stops_it(
    tmp_path: Path, video: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else every video to come would count as failed."""
    full = tmp_path / "ffmpeg"
    full.write_text(
        f'#!/bin/sh\ncase "$*" in *http*) echo "No space left on device" >&2; exit 228;; esac\n'
        f'exec "{ffmpeg_binary()}" "$@"\n'
    )
    full.chmod(0o755)
    monkeypatch.setattr("data.download.fetch.ffmpeg_binary", lambda: str(full))
    labels = write_labels(tmp_path / "labels.csv", ["x"])
    with serving(video) as remote, pytest.raises(SystemExit):
        main([str(labels), str(tmp_path / "videos"), "--url", remote.url, *QUICKLY])
    assert "No space left on device" in capsys.readouterr().err


def test_pauses_double_when_it_is_too_much_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("data.download.fetch.time.monotonic", lambda: now[0])
    pace = Pace(2)
    assert pace.delay() == 0
    assert 1 <= pace.delay() <= 3
    now[0] += 3
    assert pace.delay() == 0
    for expected in (4, 8):
        pace.learn(Fetched("failed", "429", too_much=True))
        assert pace.pause == expected
    assert pace.delay() == 8
    for expected in (4, 2, 2):
        pace.learn(Fetched("done"))
        assert pace.pause == expected


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Private video. Sign in if you've been granted access to this video", GoneError),
        (
            "Video unavailable. This video is no longer available because the account has been terminated.",
            GoneError,
        ),
        ("This video has been removed by the uploader", GoneError),
        ("Video unavailable. This content isn't available, try again later.", FetchError),
        ("The uploader has not made this video available in your country", FetchError),
        ("Sign in to confirm you're not a bot", FetchError),
        ("HTTP Error 429: Too Many Requests", FetchError),
    ],
)
def test_gone_is_told_from_failed(said: str, kind: type[Exception]) -> None:
    error = judged("", f"ERROR: [youtube] x: {said}; please report this issue on some page")
    assert type(error) is kind
    assert str(error) == f"[youtube] x: {said}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0: must be at least 1"),
        (["--pause", "-1"], "--pause -1: must be at least 0"),
        (["--timeout", "0"], "--timeout 0: must be above 0"),
        (["--url", "http://host/"], "--url http://host/: must have {id} in it"),
        (["--cookies", "nowhere"], "--cookies nowhere: there is no such file"),
        ([], "labels.csv: x_000005_000005 has nothing between its start and its end"),
    ],
)
def test_bad_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["x"], "5,5")
    with pytest.raises(SystemExit) as stopped:
        main([str(labels), str(tmp_path / "videos"), *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_without_yt_dlp_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(SystemExit):
        main([str(write_labels(tmp_path / "labels.csv", ["x"])), str(tmp_path / "videos")])
    assert "needs yt-dlp: pip install yt-dlp" in capsys.readouterr().err
