"""Figure 3: a pixel of a photo, its similarities in views of the template, and on the template, without
training.

python figure3.py --dataset rigged --data RIGGED
"""

from __future__ import annotations

from common import heatmap, parse
from tables import gallery


def main() -> None:
    options, pictures = parse(__doc__), []
    for animal in options.animals:
        words = ("--template", animal.template(), *animal.recipe.pseudo_gt)
        pictures += [
            (animal.name, heatmap(animal, "figure3", path, "pseudo-gt", *words)) for path in animal.some(2)
        ]
    gallery(
        options,
        "figure3",
        "Figure 3: zero-shot correspondences",
        ("class", "pixel, views, similarities"),
        pictures,
    )


if __name__ == "__main__":
    main()
