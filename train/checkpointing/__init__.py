"""Checkpoints: files, and when a run writes them."""
