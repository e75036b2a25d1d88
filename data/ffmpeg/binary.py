"""The ffmpeg binary, and what it can do."""

import functools
import re
import shutil
import subprocess


@functools.cache
def ffmpeg_binary() -> str:
    """Return the path of ffmpeg: the one on the PATH, else that of the package imageio-ffmpeg."""
    installed = shutil.which("ffmpeg")
    if installed:
        return installed
    from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415  only needed where there is no other

    return get_ffmpeg_exe()


@functools.cache
def passthrough_fps_options() -> dict[str, str]:
    """Return the output options that keep every frame and its timestamp.

    By default ffmpeg repeats and drops frames for a constant rate. The option was renamed in ffmpeg 5.1.
    """
    text = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)\.(\d+)", text)
    is_old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return {"vsync" if is_old else "fps_mode": "passthrough", "enc_time_base": "1:1000000"}
