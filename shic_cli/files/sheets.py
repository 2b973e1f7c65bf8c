"""Contact sheets of maps files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shic_cli.files import pictures
from shic_cli.files.items import ItemReader
from shic_cli.files.photos import decode


def maps_sheet(path: Path, colors: np.ndarray, number: int = 12) -> np.ndarray:
    """Some pictures of a maps file, each beside its map, as one picture `(H, W, 3)` uint8.

    At most `number` of them are taken, evenly from all. `colors` `(K, 3)` are the template's.
    """
    reader = ItemReader(path, "shic/maps")
    chosen = sorted({int(i) for i in np.linspace(0, len(reader) - 1, min(number, len(reader)))})
    tiles = []
    for item in (reader[reader.names[i]] for i in chosen):
        photo = decode(item.encoded.tobytes(), item.name)[0]
        tiles += [photo, pictures.color_map(photo, item.vertex, colors)]
    return pictures.contact_sheet(tiles, 6, side=192)
