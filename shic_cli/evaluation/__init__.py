"""Scores of maps: geodesic error, keypoint transfer, GPS, baselines and the report."""
