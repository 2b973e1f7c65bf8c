"""Errors and scores of maps."""
