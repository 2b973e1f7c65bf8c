"""Extractors: one file a part, imported only when its name is asked for."""
