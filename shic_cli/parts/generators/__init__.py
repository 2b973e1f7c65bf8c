"""Generators: one file a part, imported only when its name is asked for. The contract is in contract.py."""
