"""Convert video files to frame stores."""
