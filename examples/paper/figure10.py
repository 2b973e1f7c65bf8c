"""Figure 10: how like a pixel of a photo is to every vertex of the template, by the trained embeddings.

python figure10.py --dataset rigged --data RIGGED
"""

from __future__ import annotations

from common import heatmap, parse
from tables import gallery


def main() -> None:
    options, pictures = parse(__doc__), []
    for animal in options.animals:
        model = animal.trained(options.seeds[0], *options.train)
        pictures += [
            (animal.name, heatmap(animal, "figure10", path, "predict", "--model", model))
            for path in animal.some(4)
        ]
    gallery(
        options,
        "figure10",
        "Figure 10: similarities on the template",
        ("class", "pixel and template"),
        pictures,
    )


if __name__ == "__main__":
    main()
