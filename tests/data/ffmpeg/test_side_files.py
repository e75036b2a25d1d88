"""Which files may be videos by their names."""

from pathlib import Path

import pytest

from data.ffmpeg.side_files import may_be_video, video_id

SIDE_FILES = """
x.description x.info.json x.live_chat.json x.m4a x.opus x.ass x.en.vtt x.temp.mp4 x.mp4.part
x.mp4.ytdl x.f137.mp4.part-Frag12 x.mp4.part-Frag3.part x.mp4.aria2 x.mp4:Zone.Identifier x.mp4.crdownload x.mat
Thumbs.db
x.mkv.!qB x.webm.opdownload x.f137.mp4.orig x.mhtml
desktop.ini x.nfo x.mp4.bak X.JPG"""


@pytest.mark.parametrize("name", SIDE_FILES.split())
def test_side_files_are_no_videos(name: str) -> None:
    assert not may_be_video(Path(name))


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("x.MP4", "x"),
        ("a.b.webm", "a.b"),
        ("x.f137.mp4", "x"),
        ("x.f251-drc.webm", "x"),
        ("take.f1.mp4", "take.f1"),
        ("README", "README"),
        ("x.unheard", "x"),
        ("x.avi.mp4", "x.avi"),
    ],
)
def test_names_of_videos(name: str, video: str) -> None:
    path = Path(name)
    assert (may_be_video(path), video_id(path)) == (True, video)
