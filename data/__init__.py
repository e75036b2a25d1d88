"""frames.db in, clips out."""
