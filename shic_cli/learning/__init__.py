"""The core of the paper: matching, losses, the map and its training."""
