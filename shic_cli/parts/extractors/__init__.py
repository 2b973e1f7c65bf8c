"""Extractors: one file a part, imported when its name is asked for. The contract is in contract.py."""
