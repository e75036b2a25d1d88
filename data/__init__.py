"""frames.db in, clips out."""

import sys

if sys.platform not in ("linux", "darwin"):
    sys.exit(f"runs on Linux and macOS, not on {sys.platform}; on Windows use WSL: wsl --install")
