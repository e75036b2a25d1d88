"""Check the frame stores of a dataset, and repair frame counts and indexes."""
