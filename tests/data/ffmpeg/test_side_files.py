"""Which files may be videos by their names."""

from pathlib import Path

import pytest

from data.ffmpeg.side_files import may_be_video, must_be_video, video_id

SIDE_FILES = """
x.description x.info.json x.live_chat.json x.m4a x.opus x.ass x.en.vtt x.temp x.temp.mp4 x.mp4.part
x.mp4.ytdl x.f137.mp4.part-Frag12 x.mp4.part-Frag3.part x.mp4.aria2 x.mp4:Zone.Identifier x.mp4.crdownload x.mat
Thumbs.db
desktop.ini x.nfo x.torrent x.md5 x.mp4.bak x.mp4.lnk x.docx x.pth x.safetensors X.JPG"""


@pytest.mark.parametrize("name", SIDE_FILES.split())
def test_side_files_are_no_videos(name: str) -> None:
    assert not may_be_video(Path(name))


@pytest.mark.parametrize(
    ("name", "video", "must_be"),
    [
        ("x.MP4", "x", True),
        ("a.b.webm", "a.b", True),
        ("x.f137.mp4", "x", True),
        ("x.f251-drc.webm", "x", True),
        ("take.f1.mp4", "take.f1", True),
        ("README", "README", False),
        ("x.unheard", "x", False),
    ],
)
def test_names_of_videos(name: str, video: str, must_be: bool) -> None:
    path = Path(name)
    assert (may_be_video(path), video_id(path), must_be_video(path)) == (True, video, must_be)


@pytest.mark.parametrize(
    "header", [b"\0\0\0\x1cftypisom", b"\x1aE\xdf\xa3", b"RIFF\n\0\0\0AVI LIST", b"FLV\x01"]
)
def test_headers_of_videos(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(header)
    assert must_be_video(path)
    path.write_bytes(b"text " + header)
    assert not must_be_video(path)
