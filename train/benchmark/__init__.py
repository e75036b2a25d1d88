"""Benchmarks of training: time per step, time to accuracy."""
