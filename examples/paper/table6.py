"""Table 6: how the geodesic error falls with the number of training photos.

python table6.py --dataset rigged --data RIGGED

Each seed draws its own photos. The paper leaves bear and sheep out, which have fewer than 2,000.
"""

from __future__ import annotations

from dataclasses import replace

from common import parse, photos
from tables import ALL, Ablation, ablate

PAPER = {50: "34.7", 200: "29.8", 500: "24.9"}
NUMBERS = {"densepose-lvis": (50, 200, 500), "rigged": (50, 100)}


def main() -> None:
    options = parse(__doc__, small=True, classes="horse,zebra,cow,elephant,giraffe")
    counts = [len(photos(animal.training)) for animal in options.animals]
    numbers = [
        number for number in ((1, 2) if options.quick else NUMBERS[options.dataset]) if number < min(counts)
    ]
    rows = [
        Ablation(f"{number} photos", PAPER.get(number, ""), f"photos-{number}", number=number)
        for number in numbers
    ]
    every = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    full = replace(ALL, label=f"all {every} photos", paper="22.3 (2k+)")
    ablate(options, "table6", "Table 6: number of photos", [*rows, full], against=full)


if __name__ == "__main__":
    main()
