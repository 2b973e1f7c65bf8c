"""Figure 7: correspondences between photos through the template, and where on it a pixel of the first
belongs.

python figure7.py --dataset rigged --data RIGGED
"""

from __future__ import annotations

from itertools import pairwise

from common import heatmap, make, parse
from tables import gallery


def main() -> None:
    options, pictures = parse(__doc__), []
    for animal in options.animals:
        model = animal.trained(options.seeds[0], *options.train)
        for a, b in pairwise(animal.some(3)):
            matches = make(
                animal.work / "figure7" / f"{a.stem}-{b.stem}.png", "match", a, b, "--model", model
            )
            pictures.append(
                (animal.name, matches, heatmap(animal, "figure7", a, "predict", "--model", model))
            )
    gallery(
        options, "figure7", "Figure 7: image to image", ("class", "matches", "pixel and template"), pictures
    )


if __name__ == "__main__":
    main()
