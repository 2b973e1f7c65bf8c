"""What a user can swap: extractors, renderers, generators and maskers, and their weights."""
