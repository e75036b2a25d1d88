"""Tell videos from the files beside them: by name where it says enough, else by asking ffmpeg."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from data.ffmpeg.binary import run_ffmpeg

# not asked about, as most are of these; ffmpeg would read some, such as .nfo
NON_VIDEO_SUFFIXES = frozenset(
    ".txt .csv .tsv .json .xml .yaml .yml .md .html .pdf .nfo .asc .srt .vtt .ass .description .identifier .db .log"  # noqa: SIM905
    " .cfg .ini .py .sh .zip .tar .gz .7z .rar .npy .npz .pkl .mat .wav .mp3 .flac .m4a .opus .jpg .jpeg .png .bmp"
    " .tif .tiff .heic .avif .jxl .ppm .mhtml .tmp .m3u .m3u8 .mpd .sdp .ffconcat".split()
)
# a file of another name that ffmpeg cannot read is no video, one of these is a broken one
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .3gp .avi .mkv .webm .webp .ogv .flv .wmv .asf .mpg .mpeg .vob .ts .mts .m2ts .mxf .gif".split()  # noqa: SIM905
)
YT_DLP_FORMAT = re.compile(r"\.f\d{3}(-\w+)?$")  # in the names of streams that were not merged: x.f137.mp4


def may_be_video(path: Path) -> bool:
    """Return whether a file may be a video by its name, and WebP by being animated, as most are images."""
    suffix = path.suffix.lower()
    if suffix == ".webp":
        with suppress(OSError), path.open("rb") as file:
            header = file.read(21)
            return header[12:16] == b"VP8X" and header[-1] & 2 != 0  # the flag of an animation
        return False
    if suffix in VIDEO_SUFFIXES:
        return not path.stem.endswith(".temp")  # of yt-dlp
    unfinished = suffix.startswith(".part") or Path(path.stem).suffix.lower() in VIDEO_SUFFIXES  # x.mp4.aria2
    return suffix not in NON_VIDEO_SUFFIXES and not unfinished


def video_id(path: Path) -> str:
    """Return the name of a video file without its suffix, or of a folder of frames."""
    has_suffix = path.suffix.lower() in VIDEO_SUFFIXES or not path.is_dir()
    return YT_DLP_FORMAT.sub("", path.stem) if has_suffix else path.name


def has_frames(path: Path) -> bool:
    """Return whether ffmpeg decodes a second frame, unlike of images and cover art. A folder counts as having one."""
    options = "-map 0:V:0 -vf select=n -frames:v 1 -f rawvideo pipe:".split()  # noqa: SIM905
    return path.is_dir() or bool(run_ffmpeg(path, *options).stdout)


def choose_video(paths: Sequence[Path]) -> Path | None:
    """Return which of the files of one id is its video, None if none is. Raises ValueError if ffmpeg decodes several.

    A merged file comes before its streams (`x.f137.mp4`). ffmpeg is not asked about a single file with the suffix of a
    video; where none of several decodes, one with such a suffix is the video, and broken.
    """
    named = [path for path in paths if path.suffix.lower() in VIDEO_SUFFIXES]
    if len(paths) == len(named) == 1:
        return named[0]
    decoded = [path for path in paths if has_frames(path)]
    videos = [path for path in decoded if not YT_DLP_FORMAT.search(path.stem)] or decoded
    if len(videos) > 1:
        raise ValueError(f"{videos[0]} and {videos[1]} are the same video: delete or rename one of the two")
    return next(iter(videos or named), None)
