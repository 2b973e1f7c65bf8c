"""Figure 1: photos in the colours of the template's points.

python figure1.py --dataset rigged --data RIGGED
"""

from __future__ import annotations

from common import parse
from tables import gallery


def main() -> None:
    options, pictures = parse(__doc__), []
    for animal in options.animals:
        model, chosen = animal.trained(options.seeds[0], *options.train), animal.some(4)
        target = animal.work / "figure1.h5"
        animal.predict(model, chosen, target)
        shown = [target.with_suffix("") / f"{path.stem}.colors.png" for path in chosen]
        pictures += [(animal.name, path, colors) for path, colors in zip(chosen, shown, strict=True)]
    gallery(options, "figure1", "Figure 1: unsupervised canonical maps", ("class", "photo", "map"), pictures)


if __name__ == "__main__":
    main()
