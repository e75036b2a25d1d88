"""Frames to a video file."""

import subprocess
from pathlib import Path

import numpy as np

from data.video_files import ffmpeg_binary

FPS = 25


def write_video(path: Path, frames: np.ndarray, fps: float = FPS) -> None:
    """Encode uint8 `(T, H, W, 3)`, BGR, sides even, as H.264; the file is there as a whole or not at all."""
    _, height, width, _ = frames.shape
    staging = path.with_name(f".{path.name}.part")
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
    command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:", "-pix_fmt", "yuv420p", "-crf", "18"]
    command += ["-threads", "1", "-f", "mp4", f"file:{staging}"]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{path}: ffmpeg could not write it, {done.stderr.decode(errors='replace').strip()}")
    staging.replace(path)
