"""ffmpeg: its binary, and video files as frames, decoded and encoded."""
