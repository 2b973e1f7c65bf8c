"""Coats from photos: the colours that a class's photos have, carried onto the template by their labels.

K vertices, N photos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shic_cli.files.checks import check_indices
from shic_cli.files.items import Item, ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.names import check_template
from shic_cli.files.photos import decode

MOST = 300  # photos, evenly spaced in the file: enough coats for any class
NEAR = 2.0  # units of geodesic distance, of a longest one of 228: within it a colour counts in full
MIRRORED = 0.1  # what a colour counts on the other side of the animal


def read_coats(path: Path, template: Template) -> np.ndarray:
    """The coats `(N, K, 3)` uint8 of the photos of a maps file, one a photo that shows the template.

    A vertex has the mean colour of the pixels that are labelled with vertices near it or near its mirror
    image, weighted by `1 / (d + NEAR)^4` at the geodesic distance d (Shepard's interpolation). So the side
    that a photo does not show is like the one that it shows. InputError if the file is of another template.
    """
    reader, size = ItemReader(path, "shic/maps"), len(template.verts)
    check_template(reader, template.fingerprint)
    every = -(-len(reader.names) // MOST)
    sums, counts = [], []
    for name in reader.names[::every]:
        item = reader[name]
        check_indices(item.vertex, size, f"{path}: {name}: vertex", lowest=-1)
        if (item.vertex >= 0).any():
            total, count = _seen(item, size)
            sums.append(total + MIRRORED * total[template.mirror])
            counts.append(count + MIRRORED * count[template.mirror])
    if not sums:
        return np.zeros((0, size, 3), np.uint8)
    weights = (template.geodesic.astype(np.float32) + NEAR) ** -4
    share = np.stack(counts, 1).astype(np.float32)  # (K, N)
    colors = weights @ np.concatenate(sums, 1).astype(np.float32)  # (K, 3N)
    mean = colors.reshape(size, -1, 3) / (weights @ share)[..., None]
    return np.rint(mean.swapaxes(0, 1)).clip(0, 255).astype(np.uint8)


def _seen(item: Item, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean colour `(K, 3)` of the pixels of each vertex, 0 without any, and whether it has any `(K,)`."""
    rgb, _ = decode(item.encoded.tobytes(), item.name)
    inside = item.vertex >= 0
    vertex, colors = item.vertex[inside], rgb[inside].astype(np.float64)
    count = np.bincount(vertex, minlength=size)
    total = np.stack([np.bincount(vertex, colors[:, i], size) for i in range(3)], 1)
    return total / count.clip(1)[:, None], count > 0
