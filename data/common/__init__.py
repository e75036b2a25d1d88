"""Helpers of the data and training commands; imports nothing else of this repository."""
