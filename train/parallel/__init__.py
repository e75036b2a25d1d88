"""Devices, processes and memory: where and how a training step is computed."""
