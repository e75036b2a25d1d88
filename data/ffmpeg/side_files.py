"""Tell videos from the files beside them: by name where it says enough, else by asking ffmpeg."""

import filecmp
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

from data.common.job_pool import JobTimeoutError, child_process
from data.ffmpeg.binary import ffmpeg_binary

# ffmpeg would read some of them: images as videos of one frame, .nfo as animated text
NON_VIDEO_SUFFIXES = frozenset(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .rtf .html .htm .pdf .doc .docx .xls .xlsx .ppt .pptx .nfo .asc"  # noqa: SIM905
    " .srt .vtt .ass .ssa .lrc .sub .idx .ttml .description .torrent .url .lnk .identifier .db .mdb .lmdb .log .cfg"
    " .py .pyc .ipynb .sh .bat .md5 .sha1 .sha256 .zip .tar .gz .bz2 .xz .tgz .7z .rar .npy .npz .pkl .pickle .mat .h5"
    " .hdf5 .pt .pth .ckpt .safetensors .avro .parquet .wav .mp3 .flac .m4a .m4b .aac .ac3 .opus .oga .mka .wma .weba"
    " .jpg .jpeg .png .bmp .tif .tiff .heic .avif .jxl .svg .psd .ico .ppm .pgm .thm .ytdl .aria2 .crdownload .download"
    " .tmp .temp .bak .m3u .m3u8 .mpd .sdp .ffconcat .ini".split()
)
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .qt .3gp .3g2 .f4v .avi .divx .mkv .webm .webp .ogv .flv .wmv .asf .rm .rmvb .mpg .mpeg .m2v .vob"  # noqa: SIM905
    " .ts .mts .m2ts .mxf .gif .apng .dv .y4m .h264 .h265 .hevc .ivf .nut .mjpeg".split()
)
# MP4, Matroska, AVI, FLV, ASF, MPEG, and WebP with the flag of an animation
VIDEO_HEADER = re.compile(
    rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI |FLV\x01|0&\xb2u\x8ef|\0\0\x01\xba|RIFF.{4}WEBPVP8X.{4}[%b]"
    % bytes(flags for flags in range(64) if flags & 2),
    re.DOTALL,
)
YT_DLP_FORMAT = re.compile(r"\.f\d{3}(-\w+)?$")  # in the names of streams that were not merged: x.f137.mp4
ASK_TIMEOUT_S = 60


def may_be_video(path: Path) -> bool:
    """Return whether a file may be a video by its name, and WebP by its header, as most are images."""
    suffix = path.suffix.lower()
    if suffix in NON_VIDEO_SUFFIXES or suffix.startswith(".part") or path.stem.endswith(".temp"):  # of yt-dlp
        return False
    return suffix != ".webp" or _has_video_header(path)


def must_be_video(path: Path) -> bool:
    """Return whether a file has the suffix or header of a video: if it does not decode, it is broken."""
    return path.suffix.lower() in VIDEO_SUFFIXES or _has_video_header(path)


def _has_video_header(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return VIDEO_HEADER.match(file.read(21)) is not None
    return False


def video_id(path: Path) -> str:
    """Return the name of a video file without its suffix, or of a folder of frames."""
    has_suffix = path.suffix.lower() in VIDEO_SUFFIXES or not path.is_dir()
    return YT_DLP_FORMAT.sub("", path.stem) if has_suffix else path.name


def has_frames(path: Path) -> bool:
    """Return whether ffmpeg decodes a frame of a file that is not cover art. A folder counts as having frames."""
    if path.is_dir():
        return True
    command = [ffmpeg_binary(), "-loglevel", "quiet", "-protocol_whitelist", "file", "-i", f"file:{path}"]
    command += ["-map", "0:V:0", "-frames:v", "1", "-f", "rawvideo", "pipe:"]
    with (
        suppress(JobTimeoutError),
        child_process(command, timeout=ASK_TIMEOUT_S, stdout=PIPE, stderr=DEVNULL) as process,
    ):
        assert process.stdout is not None
        return bool(process.stdout.read(1))
    return False


def choose_videos(paths: Sequence[Path]) -> list[Path]:
    """Return which of the files of one id is its video; none if none is one, and several if ffmpeg decodes several.

    Of equal files the first is chosen, and a merged file before its streams (`x.f137.mp4`). Where none decodes, one
    that should is. ffmpeg is not asked about a single file with the suffix or header of a video.
    """
    if len(paths) == 1 and must_be_video(paths[0]):
        return list(paths)
    videos: list[Path] = []
    for path in filter(has_frames, paths):
        if not any(filecmp.cmp(path, video, shallow=False) for video in videos):
            videos.append(path)
    merged = [path for path in videos if not YT_DLP_FORMAT.search(path.stem)]
    return merged or videos or list(filter(must_be_video, paths))[:1]
