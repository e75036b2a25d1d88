"""The command `python -m train.predict`: predictions of a checkpoint for videos of any length."""
