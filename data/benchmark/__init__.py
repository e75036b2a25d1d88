"""Benchmark of reading clips and converting videos; `reader` does what a training worker does for one clip."""

from data.benchmark.reading import reader

__all__ = ["reader"]
