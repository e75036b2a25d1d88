"""The command `python -m train.evaluate`: accuracy of checkpoints by multi-clip, multi-crop testing."""
