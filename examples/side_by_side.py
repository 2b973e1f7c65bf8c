"""Maps of the same photos side by side in one picture: the photo, then what each maps file says of it.

    shic pseudo-gt photos/ --masks masks/ -o zero_shot.h5
    shic predict photos/ --masks masks/ -o trained.maps.h5 --no-pictures
    python side_by_side.py TEMPLATE_OR_MODEL zero_shot.h5 trained.maps.h5 -o side_by_side.jpg --number 12

Photos are spread evenly over those that every file has, and cut to the object.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from shic_cli.files.items import ItemReader
from shic_cli.files.photos import Crop, decode, encode
from shic_cli.files.pictures import color_map, contact_sheet
from shic_cli.learning.model_file import read_surface


def side_by_side(surface: Path, maps: list[Path], number: int, across: int, side: int) -> np.ndarray:
    """The picture `(H, W, 3)` uint8: `number` photos, `across` of them in a row, each tile `side` pixels."""
    colors = read_surface(surface).colors
    readers = [ItemReader(path, "shic/maps") for path in maps]
    shared = [name for name in readers[0].names if all(name in reader.names for reader in readers)]
    chosen = [
        shared[i] for i in np.linspace(0, len(shared) - 1, min(number, len(shared))).round().astype(int)
    ]
    tiles, captions = [], []
    for name in chosen:
        items = [reader[name] for reader in readers]
        photo, crop = decode(items[0].encoded.tobytes(), name)[0], Crop.around(items[0].mask, 0.05)
        pictures = [photo, *(color_map(photo, item.vertex, colors) for item in items)]
        tiles += [crop.cut(picture, side) for picture in pictures]
        captions += [
            Path(name).stem,
            *(path.name.removesuffix(".h5").removesuffix(".maps").replace("_", " ") for path in maps),
        ]
    return contact_sheet(tiles, across * (1 + len(maps)), captions, side)


def main() -> None:
    """Read the command line, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("surface", type=Path, help="the template or the model")
    parser.add_argument("maps", type=Path, nargs="+", help="maps files of the same photos")
    parser.add_argument("-o", "--output", type=Path, default=Path("side_by_side.jpg"))
    parser.add_argument("--number", type=int, default=12)
    parser.add_argument("--across", type=int, default=3)
    parser.add_argument("--side", type=int, default=128)
    given = parser.parse_args()
    picture = side_by_side(given.surface, given.maps, given.number, given.across, given.side)
    given.output.write_bytes(encode(picture, given.output.suffix))


if __name__ == "__main__":
    main()
