"""The template as geometry: meshes and their files, axes, what is measured on a surface."""
