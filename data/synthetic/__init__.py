"""A synthetic dataset of moving shapes."""
