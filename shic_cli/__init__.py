"""shic: dense image-to-template correspondences for any class, without keypoint labels."""

__version__ = "0.1.0"
