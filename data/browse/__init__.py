"""Look at training clips as the network gets them."""
