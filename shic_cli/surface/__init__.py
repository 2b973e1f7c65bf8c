"""The template as geometry."""
