"""Download the videos of label files."""
