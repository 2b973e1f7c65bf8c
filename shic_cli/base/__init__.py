"""Errors, settings, devices, progress and ranks: what every room uses."""
