"""The command `python -m train.cross_validate`: train and evaluate every fold of a dataset, and keep one table."""
