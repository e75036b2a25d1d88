"""The command `python -m train.report`: one HTML file about runs, with the videos that they get wrong."""
